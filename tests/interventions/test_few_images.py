"""What a number of images can show."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attnscope.interventions.few_images import advise_images, fewest_changes
from attnscope.statistics.inference import holm, mcnemar
from attnscope.statistics.questions import ask


@pytest.mark.parametrize("tests", [1, 5, 21, 100])
def test_the_fewest_changes_are_those_of_the_exact_test(tests: int) -> None:
    needed = fewest_changes(tests)
    for changes, is_significant in ((needed - 1, False), (needed, True)):
        p = stats.binomtest(changes, changes, 0.5).pvalue
        assert (holm(np.array([p] + [1.0] * (tests - 1)))[0] <= 0.05) == is_significant
    before, after = np.ones(needed + 3, bool), np.arange(needed + 3) >= needed
    assert mcnemar(before, after) == pytest.approx(0.5 ** (needed - 1))


@pytest.mark.parametrize("targets", [1, 9, 25])
def test_the_fewest_changes_are_significant_beside_the_log_losses(targets: int) -> None:
    images = pd.DataFrame({"row": range(40), "label": 0, "prediction": 0, "log_loss": 1.0})
    needed = fewest_changes(2 * targets)
    for changes, is_significant in ((needed - 1, False), (needed, True)):
        frames = [images.assign(target="", edit="own")]
        for target in range(targets):
            wrong = (images["row"] < changes).astype(int) if target == 0 else 0
            frames.append(images.assign(target=f"g{target}", edit="constant", prediction=wrong))
        asked = ask(pd.concat(frames, ignore_index=True), resamples=10)
        assert (asked.loc["g0", "p_removal"] <= 0.05) == is_significant


@pytest.mark.parametrize(
    ("images", "most", "named"),
    [
        (5, 500, ("5 images", "no change", "10 changed", "--images 200")),
        (40, 200, ("at least 25 points", "--images 200 could show 5 points")),
        (1, 199, ("1 image,", "a recording of 400 images")),
    ],
)
def test_few_images_are_said(images: int, most: int, named: tuple[str, ...]) -> None:
    line = advise_images(images, 16, most)
    assert line is not None
    for words in named:
        assert words in line


def test_many_images_are_not_mentioned() -> None:
    assert advise_images(101, 16, 500) is None
    assert advise_images(100, 16, 500) is not None
