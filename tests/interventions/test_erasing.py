"""Deletion and insertion, against values by hand, pixel by pixel, and against torchcam."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from attnscope import Recording, capture
from attnscope.interventions import InterventionSetup, erase
from attnscope.interventions.erasing import _ranks
from tests.capturing.known import Color
from tests.making import refused


def setup_of(
    model: nn.Module,
    data: TensorDataset,
    folder: Path,
    layers: Sequence[str] = (),
    **options: int,
) -> InterventionSetup:
    """A setup with a new recording. ``layers`` are those of Grad-CAM."""
    recording = capture(
        model.eval(), data, folder / "r", grad_cam_layers=layers, batch_size=7, progress=False
    )
    assert isinstance(recording, Recording)
    return InterventionSetup(model, data, recording, **options)


class Corner(nn.Module):
    """The logit of class 1 is the brightness of the upper left corner; the gate is high in ``rows``."""

    def __init__(self, rows: slice) -> None:
        super().__init__()
        self.rows = rows
        self.squash = nn.Sigmoid()
        self.body = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.full(x.shape[2:], -4.0)
        bias[self.rows, self.rows] = 4.0
        gate = self.squash(bias - 0.01 * x.mean(1, keepdim=True))
        gated = self.body(x.mean(1, keepdim=True).repeat(1, 2, 1, 1) * gate)
        light = (x[:, :, :4, :4].mean((1, 2, 3)) + 0 * gated.mean((1, 2, 3))) * 8 - 4
        return torch.stack([-light, light], 1)


def corner_images() -> TensorDataset:
    rng = torch.Generator().manual_seed(0)
    images = 0.2 * torch.rand(40, 3, 16, 16, generator=rng)
    labels = torch.arange(40) % 2
    images[labels == 1, :, :4, :4] += 0.8
    return TensorDataset(images, labels)


@pytest.mark.parametrize(("rows", "right"), [(slice(0, 4), True), (slice(12, 16), False)])
def test_areas_show_whether_the_gate_covers_the_used_pixels(
    tmp_path: Path, rows: slice, right: bool
) -> None:
    setup = setup_of(Corner(rows), corner_images(), tmp_path, images=20)
    recording = setup.recording
    found = erase(setup, steps=16, images=20, progress=False)
    name = recording.gates[0].name
    assert recording.gates[0].kind == "spatial"
    assert set(found.curves["order"]) == {name, "random", "center"}
    areas = found.areas.set_index(["mode", "fill", "order"])
    curves = found.curves.set_index(["mode", "fill", "order", "share"])["probability"]
    # The image with nothing deleted is the image with all inserted, and vice versa.
    for fill in ("mean", "blur"):
        for order in (name, "random"):
            whole = curves["deletion", fill, order, 0.0]
            assert curves["insertion", fill, order, 1.0] == pytest.approx(whole)
            none = curves["deletion", fill, order, 1.0]
            assert curves["insertion", fill, order, 0.0] == pytest.approx(none)
    deletion, insertion = (areas.loc[mode, "mean", name] for mode in ("deletion", "insertion"))
    if right:
        assert deletion["over_random_high"] < 0 < insertion["over_random_low"]
        # The corner has one sixteenth of the pixels.
        end = curves["deletion", "mean", name, 1.0]
        assert curves["deletion", "mean", name, 1 / 16] == pytest.approx(end, abs=1e-6)
    else:
        assert insertion["over_random_high"] < 0 < deletion["over_random_low"]
    for (mode, fill, _), row in areas.iterrows():
        random = areas.loc[(mode, fill, "random"), "area"]
        assert row["over_random"] == pytest.approx(row["area"] - random, abs=1e-9)
    # The area follows the trapezoidal rule.
    one = found.curves.query("mode == 'deletion' and fill == 'mean' and order == @name")
    wanted = np.trapezoid(one["probability"], one["share"])
    assert deletion["area"] == pytest.approx(wanted, abs=1e-9)


class Bright(nn.Module):
    """Bright images are of class 1 and dark images of class 0; the gate is high at bright pixels.

    The gated features increase with the brightness of a pixel. Grad-CAM weights them by one number
    for all pixels, which is positive for class 1 and negative for class 0. Therefore the gate ranks
    the brightest pixel first; Grad-CAM has the same order for class 1, and the reverse for class 0.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.squash = nn.Sigmoid()
        self.body = nn.Identity()
        place = torch.rand(size, generator=torch.Generator().manual_seed(1))
        self.register_buffer("place", place / place.mean())

    def light(self, x: Tensor) -> Tensor:
        return (x * torch.tensor([0.5, 0.3, 0.2])[:, None, None]).sum(1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.light(self.body(x * self.squash(4 * self.light(x))))
        bright = 6 * ((self.place * seen).mean((1, 2, 3)) - 0.35)
        return torch.stack([-bright, bright], 1)


def blurred_by_hand(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Blur an 8×12 image with a standard deviation of one pixel and a kernel of seven pixels."""
    weights = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    mirrored = np.pad(image.astype(np.float64), ((0, 0), (3, 3), (3, 3)), mode="reflect")
    blurred = np.zeros(image.shape)
    for row, column in itertools.product(range(8), range(12)):
        for down, right in itertools.product(range(7), range(7)):
            weight = weights[down] * weights[right] / weights.sum() ** 2
            blurred[:, row, column] += weight * mirrored[:, row + down, column + right]
    return blurred


def curve_by_hand(
    model: nn.Module,
    image: Tensor,
    fill: Tensor,
    order: list[tuple[int, int]],
    mode: str,
    steps: int,
) -> list[float]:
    """The curve of one image, computed one pixel after the other."""
    start, end = (image, fill) if mode == "deletion" else (fill, image)
    target = int(model(image[None]).argmax())
    curve = []
    for step in range(steps + 1):
        made = start.clone()
        for row, column in order[: step * len(order) // steps]:
            made[:, row, column] = end[:, row, column]
        curve.append(float(model(made[None]).softmax(1)[0, target]))
    return curve


def test_curves_areas_and_intervals_equal_those_by_hand(tmp_path: Path) -> None:
    """With both fills, and the orders of Grad-CAM, a gate and the center.

    There are six steps of 16 pixels. Pixels at the same distance from the center come in fours, so
    that the order within a four does not matter.
    """
    size, steps, resamples = (8, 12), 6, 300
    rng = torch.Generator().manual_seed(0)
    bright = torch.arange(24) % 2
    level = torch.stack([torch.randperm(96, generator=rng).reshape(size) for _ in bright])
    images = ((level + 1) / 98 + bright[:, None, None])[:, None] / 2
    images = images * torch.tensor([1, 0.8, 0.6])[:, None, None]
    labels = torch.where(torch.arange(24) % 3 == 0, 1 - bright, bright)  # a third is wrong
    model, data = Bright(size), TensorDataset(images, labels)
    setup = setup_of(model, data, tmp_path, ["body"], images=10, seed=3, batch_size=4)
    assert (setup.recording.predictions == bright.numpy()).all()
    found = erase(setup, steps=steps, images=9, resamples=resamples, progress=False)

    rows = setup.sample(9)
    assert len(rows) == 9
    assert {0, 1} == set(bright[rows].tolist())
    color = images[setup.donors].mean((0, 2, 3))
    gate = setup.gates[0].name
    pixels = list(itertools.product(range(8), range(12)))
    drawn = np.random.default_rng(3).integers(0, 9, (resamples, 9))
    curves = found.curves.set_index(["mode", "fill", "order"])
    areas = found.areas.set_index(["mode", "fill", "order"])
    for mode, fill in itertools.product(("deletion", "insertion"), ("mean", "blur")):
        each: dict[str, list[list[float]]] = {gate: [], "Grad-CAM": [], "center": []}
        for row in rows:
            image = images[row]
            filled = color[:, None, None].expand(3, *size)
            if fill == "blur":
                filled = torch.from_numpy(blurred_by_hand(image.numpy())).float()
            light = model.light(image[None])[0, 0]
            sign = 1 if bright[row] else -1
            scores = {
                gate: [float(light[p]) for p in pixels],
                "Grad-CAM": [sign * float(light[p]) for p in pixels],
                "center": [-(((r - 3.5) / 8) ** 2) - ((c - 5.5) / 12) ** 2 for r, c in pixels],
            }
            for name, score in scores.items():
                order = [pixels[i] for i in sorted(range(96), key=lambda i, s=score: -s[i])]
                each[name].append(curve_by_hand(model, image, filled, order, mode, steps))
        own = {name: np.trapezoid(curve, dx=1 / steps) for name, curve in each.items()}
        for name in each:
            wanted = np.mean(each[name], 0)
            curve = curves.loc[(mode, fill, name), "probability"]
            np.testing.assert_allclose(curve, wanted, atol=1e-6)
            # The same bootstrap samples are used for an area and for its differences.
            over = own[name] - own["center"]
            for column, values in (("area", own[name]), ("over_center", over)):
                low, high = np.percentile(values[drawn].mean(1), [2.5, 97.5])
                prefix = "" if column == "area" else f"{column}_"
                found_area = areas.loc[
                    (mode, fill, name), [column, f"{prefix}low", f"{prefix}high"]
                ]
                np.testing.assert_allclose(
                    found_area.astype(float), [values.mean(), low, high], atol=1e-6
                )
        # The random order is not known here, but both differences to it must agree.
        center, chance = (areas.loc[(mode, fill, order)] for order in ("center", "random"))
        there = center[["over_random", "over_random_low", "over_random_high"]].astype(float)
        back = chance[["over_center", "over_center_high", "over_center_low"]].astype(float)
        np.testing.assert_allclose(there, -back.to_numpy(), atol=1e-12)
        assert there["over_random_low"] < there["over_random_high"]
        for column in ("over_random", "over_random_low", "over_random_high"):
            assert chance[column] == 0


class Half(nn.Module):
    """A spatial gate on a grid of half the image's side, with distinct values."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=2, padding=1)
        self.look = nn.Sequential(nn.Conv2d(6, 1, 3, padding=1), nn.Sigmoid())
        self.head = nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return 100 * self.head((x * self.look(x)).mean((2, 3)))


class Recorded:
    """An extractor for torchcam that returns given maps, ``(n, h, w)``."""

    def __init__(self, model: nn.Module, maps: Tensor) -> None:
        self.model, self.maps = model, maps

    def __call__(self, class_idx: Any, scores: Any) -> list[Tensor]:
        return [self.maps]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    def _hooks_off(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def test_areas_equal_those_of_torchcam(tmp_path: Path) -> None:
    from torchcam.metrics import DeletionInsertionMetric

    torch.manual_seed(0)
    # Patches instead of noise, so that the order of the pixels matters.
    patches = torch.rand(30, 3, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    images = 0.9 * patches + 0.1 * torch.rand(30, 3, 16, 16)
    data = TensorDataset(images, torch.arange(30) % 3)
    setup = setup_of(Half(), data, tmp_path, images=12, batch_size=5)
    assert setup.gates[0].grid == (8, 8)
    areas = erase(setup, steps=8, images=12, resamples=1, progress=False).areas
    areas = areas[areas["fill"] == "mean"].set_index(["mode", "order"])["area"]
    rows, name = setup.scored, setup.gates[0].name
    maps = torch.from_numpy(setup.recording.gate(name)[rows]).double()
    pixels = F.interpolate(maps[:, None], (16, 16), mode="bilinear").flatten(1)
    assert all(len(image.unique()) == 256 for image in pixels)  # there are no ties
    metric = DeletionInsertionMetric(
        Recorded(setup.model, maps),
        partial(torch.softmax, dim=1),
        steps=8,
        baseline=images[setup.donors].mean((0, 2, 3))[:, None, None],
    )
    metric.update(images[rows])
    theirs = metric.summary()
    for mode in ("deletion", "insertion"):
        assert areas[mode, name] == pytest.approx(theirs[f"{mode}_auc"], abs=1e-6)
        # Another order gives another area.
        assert abs(areas[mode, name] - areas[mode, "random"]) > 0.01


def test_ties_are_broken_at_random() -> None:
    constant = np.full((2, 6, 5), 0.25)
    first, again, other = (_ranks(constant, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    for ranks in (*first, *other):
        assert sorted(ranks.flatten().tolist()) == list(range(30))
    for a, b in itertools.combinations([*first, *other], 2):
        assert not torch.equal(a, b)
    # Each rank is equally likely: the mean over 2,000 draws is within 5 standard errors,
    # √((30² - 1) / 12 / 2,000) = 0.19, of the middle rank.
    many = _ranks(np.zeros((2000, 6, 5)), np.random.default_rng(2)).double()
    assert (many.mean(0) - 14.5).abs().max() < 5 * 0.194
    # Only tied pixels are permuted.
    half = np.where(np.arange(30).reshape(1, 6, 5) % 2, 0.75, 0.25)
    for seed in (0, 1):
        ranks = _ranks(half, np.random.default_rng(seed)).flatten()
        assert set(ranks[1::2].tolist()) == set(range(15))
        assert ranks[1::2].tolist() != sorted(ranks[1::2].tolist())


def test_a_constant_map_gives_a_random_order(tmp_path: Path) -> None:
    """No gradient reaches the layer, so that its Grad-CAM is 0 everywhere."""
    setup = setup_of(Corner(slice(0, 4)), corner_images(), tmp_path, ["body"], images=20)
    assert not setup.recording.grad_cam("body").any()
    areas = erase(setup, steps=16, images=20, progress=False).areas
    areas = areas[areas["fill"] == "mean"].set_index(["mode", "order"])
    for mode in ("deletion", "insertion"):
        found, gate = (areas.loc[(mode, order)] for order in ("Grad-CAM", setup.gates[0].name))
        assert found["over_random_low"] < 0 < found["over_random_high"]
        assert found["over_random"] != 0  # it is another random order than the control
        assert abs(found["over_random"]) < abs(gate["over_random"]) / 5


def test_erasing_refuses_no_steps_and_no_images(tmp_path: Path) -> None:
    setup = setup_of(Corner(slice(0, 4)), corner_images(), tmp_path)
    with refused("AS818", names=(0,)):
        erase(setup, steps=0)
    with refused("AS801", names=(0,)):
        erase(setup, images=0)


@pytest.mark.parametrize(
    ("size", "central"), [((16,), (slice(7, 9),)), ((4, 4, 4), (slice(1, 3),) * 3)]
)
def test_sequences_and_volumes_are_erased_from_the_center(
    tmp_path: Path, size: tuple[int, ...], central: tuple[slice, ...]
) -> None:
    """An eighth of the positions lies in the middle, so that ties do not matter."""
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(18, 3, *size, generator=rng)
    labels = torch.arange(18) % 3
    model = Color(dimensions=len(size))
    setup = setup_of(model, TensorDataset(images, labels), tmp_path, (), images=9)
    found = erase(setup, steps=8, images=9, progress=False)
    assert set(found.curves["order"]) == {"random", "center"}

    rows = setup.sample(9)
    whole = images[rows]
    side = min(size)
    radius = min(int(3 * side / 8), (side - 1) // 2)
    blur = gaussian_filter(
        whole.double().numpy(), side / 8, mode="mirror", radius=radius, axes=range(2, whole.ndim)
    )
    color = images[setup.donors].flatten(2).mean((0, 2)).reshape(1, 3, *[1] * len(size))
    target = model(whole).argmax(1)
    curves = found.curves.set_index(["mode", "fill", "order", "share"])["probability"]
    for fill, made in (("mean", color.expand_as(whole)), ("blur", torch.from_numpy(blur).float())):
        erased, restored = whole.clone(), made.clone()
        erased[(..., *central)] = made[(..., *central)]
        restored[(..., *central)] = whole[(..., *central)]
        for (mode, share), seen in {
            ("deletion", 0.0): whole, ("deletion", 1 / 8): erased, ("deletion", 1.0): made,
            ("insertion", 1 / 8): restored,
        }.items():  # fmt: skip
            wanted = model(seen).softmax(1)[torch.arange(9), target].mean().item()
            assert curves[mode, fill, "center", share] == pytest.approx(wanted, abs=1e-6)
