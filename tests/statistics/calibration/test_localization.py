"""The nulls of the localization of maps, and the intervals of the differences."""

from __future__ import annotations

import numpy as np
import pytest

from attnscope.statistics.inference import holm
from attnscope.statistics.localizing import CENTER, NULLS, localize, mean_test
from tests.statistics.calibration.rates import TIMES, expect_at_most, expect_coverage

SIDE = 7
RUNS = 200 * TIMES


def make_masks(rng, images, around=False):
    """Return boxes of 1 to 4 cells, the more often at the center; ``around`` the edges anywhere."""
    sides = rng.integers(1, 5, (images, 2))
    reach = SIDE * np.ones_like(sides) if around else SIDE - sides + 1
    first = np.rint(rng.beta(2 - around, 2 - around, (images, 2)) * reach - 0.5).astype(int)
    first = np.clip(first, 0, reach - 1)
    cells = np.arange(SIDE)
    inside = [(cells - first[:, k, None]) % SIDE < sides[:, k, None] for k in (0, 1)]
    return (inside[0][:, :, None] & inside[1][:, None]).astype(float)


def make_maps(rng, inside, pull):
    """Return skewed maps that prefer the center, and the mask by ``pull``; Grad-CAM has zeros."""
    place = np.linspace(-1, 1, SIDE) ** 2
    noise = rng.gamma(0.7, size=inside.shape)
    return np.maximum(noise + 1 - place[:, None] - place + pull * inside - 0.5, 0)


@pytest.mark.parametrize("measure", ["energy", "pointing"])
@pytest.mark.parametrize("images", [15, 100])
def test_maps_that_know_nothing_of_their_own_image(measure, images):
    """Masks and maps both prefer the center, and are independent given that."""
    p = []
    for seed in range(RUNS):
        rng = np.random.default_rng([21, images, seed])
        found = localize(inside := make_masks(rng, images), make_maps(rng, inside, 0), measure)
        p.append(mean_test(found.over_other)["p"])
    # The highest cell of few images is a count of few hits: 6% with 15 images.
    most = 0.05 if measure == "energy" else 0.07
    expect_at_most(p, most, f"p_other of {measure}, {images} images")


@pytest.mark.parametrize("measure", ["energy", "pointing"])
@pytest.mark.parametrize("images", [15, 100])
def test_masks_that_are_everywhere_equally_often(measure, images):
    """Masks that go around the edges give every map the same mean score, the Gaussian, too."""
    p = []
    for seed in range(RUNS):
        rng = np.random.default_rng([22, images, seed])
        inside = make_masks(rng, images, around=True)
        found = localize(inside, make_maps(rng, inside, 0), measure)
        p.append(mean_test(found.over_center)["p"])
    expect_at_most(p, 0.05, f"p_center of {measure}, {images} images")


def test_corrected_over_four_maps():
    p = []
    for seed in range(RUNS):
        rng = np.random.default_rng([23, seed])
        inside = make_masks(rng, 60)
        maps = [make_maps(rng, inside, 0) for _ in range(4)]
        tests = [mean_test(localize(inside, each, "energy").over_other)["p"] for each in maps]
        p.append(holm(np.array(tests)).min())
    expect_at_most(p, 0.05, "p_other_holm of energy, 4 maps of 60 images")


@pytest.mark.parametrize("measure", ["energy", "pointing"])
def test_intervals_of_maps_on_the_object(measure):
    def scores(images, seed):
        rng = np.random.default_rng([24, seed])
        inside = make_masks(rng, images)
        return localize(inside, make_maps(rng, inside, 0.6), measure)

    many = scores(30_000, 10**6)
    for images in (20, 60):
        found = [scores(images, seed) for seed in range(RUNS)]
        for null in NULLS:
            tests = [mean_test(getattr(each, f"over_{null}")) for each in found]
            truth = getattr(many, f"over_{null}").mean()
            assert truth > 0.03 or null == CENTER
            low, high = ([test[end] for test in tests] for end in ("low", "high"))
            expect_coverage(low, high, truth, f"over_{null} of {measure}, {images} images")
