"""Deletion and insertion: erase or restore pixels in the order of a map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from attnscope.errors import InputError
from attnscope.interventions.setup import InterventionSetup, expect_images
from attnscope.kinds import MAP, Gate
from attnscope.progress import progress_bar
from attnscope.statistics.resampling import bootstrap_interval

MODES = ("deletion", "insertion")
FILLS = ("mean", "blur")
CONTROLS = ("random", "center")
_COLOR_IMAGES = 256  # donors over which the mean color is taken
_SIDE_OVER_SIGMA = 8  # shortest side of the image over the standard deviation of the blur


@dataclass(frozen=True)
class Erasing:
    """Results of deletion and insertion."""

    curves: pd.DataFrame
    """One row for each mode, fill, order and share of pixels: mode, fill, order, share, probability
    (mean over the images)."""
    areas: pd.DataFrame
    """One row for each mode, fill and order: mode, fill, order, images, area, low, high,
    over_random, over_random_low, over_random_high, over_center, over_center_low,
    over_center_high."""


def erase(
    setup: InterventionSetup,
    *,
    steps: int = 10,
    images: int = 200,
    resamples: int = 1000,
    progress: bool = True,
) -> Erasing:
    """Measure deletion and insertion for spatial gates and Grad-CAM.

    Deletion replaces the pixels that a map ranks first by a fill. Insertion starts from an image
    that consists of the fill alone and restores these pixels. The curve is the probability of the
    class predicted for the complete image as a function of the share of pixels. The area under it
    (trapezoidal rule) is the mean probability, 0 to 1. A map that shows what the network uses has
    a small area of deletion and a large area of insertion (Petsiuk, Das and Saenko 2018, RISE,
    BMVC).

    Orders are each spatial gate and the recorded signed Grad-CAM of the predicted class, both
    resized to the image bilinearly, and two controls: random order, and from the center outward.
    Ties are broken at random. Gates over tokens that do not form a square are left out. For
    sequences and volumes, there are the controls only. Fills are the mean color of donors, and the
    image itself after a Gaussian blur whose standard deviation is an eighth of the shortest side.

    Args:
        setup: The network and its images.
        steps: Number of steps in which the pixels are erased or restored.
        images: Number of scored images to use.
        resamples: Number of bootstrap resamples over images.
        progress: Whether to show a progress bar.

    Returns:
        Curves, and areas with their 95% bootstrap CI: of the mean over images, and of the paired
        differences to the same images in random order (``over_random``) and from the center
        outward (``over_center``). All intervals use the same resamples.

    Raises:
        InputError: ``images`` (AS801) or ``steps`` (AS818) is below 1.
    """
    if steps < 1:
        raise InputError("AS818", f"the number of steps is {steps}; it must be at least 1")
    expect_images(images)
    rows = setup.sample(images)
    maps = _recorded_maps(setup, rows)
    orders = [*maps, *CONTROLS]
    shares = np.arange(steps + 1) / steps
    found = {
        (mode, fill, order): np.zeros((len(rows), steps + 1))
        for mode in MODES
        for fill in FILLS
        for order in orders
    }
    rng, start = setup.rng("erasing"), 0
    mean = _mean_color(setup)
    with (
        setup.eval_without_gradients(),
        progress_bar(len(rows), "image", description="erase", enabled=progress) as bar,
    ):
        for batch in setup.batches(rows):
            places = slice(start, start + len(batch.labels))
            start = places.stop
            own = setup.model(batch.x).float()
            target = own.argmax(1, keepdim=True)
            fills = {"mean": mean.expand_as(batch.x), "blur": _blurred(batch.x)}
            # The complete image and the fill alone are the same for every order.
            whole = _probability(own, target)
            empty = {
                fill: _probability(setup.model(other), target) for fill, other in fills.items()
            }
            for (mode, fill, _), values in found.items():
                ends = (whole, empty[fill]) if mode == "deletion" else (empty[fill], whole)
                values[places, 0], values[places, -1] = ends
            for order in orders:
                size = tuple(batch.x.shape[2:])
                score = _score(order, maps, places, size, rng)
                rank = _ranks(score, rng).to(setup.device)
                for step, share in list(enumerate(shares))[1:-1]:
                    first = (rank < round(share * rank[0].numel()))[:, None]
                    for fill, other in fills.items():
                        for mode in MODES:
                            pixels = first if mode == "deletion" else ~first
                            logits = setup.model(torch.where(pixels, other, batch.x))
                            found[mode, fill, order][places, step] = _probability(logits, target)
            bar.update(len(batch.labels))
    curves, areas = [], []
    for (mode, fill, order), values in found.items():
        about = {"mode": mode, "fill": fill, "order": order}
        curves.append(pd.DataFrame({**about, "share": shares, "probability": values.mean(0)}))
        own = area(values)
        over_random, over_center = (own - area(found[mode, fill, control]) for control in CONTROLS)
        every = np.stack([own, over_random, over_center], 1)
        low, high = bootstrap_interval(every, resamples, setup.seed)
        areas.append(
            {
                **about,
                "images": len(rows),
                "area": own.mean(),
                "low": low[0],
                "high": high[0],
                "over_random": over_random.mean(),
                "over_random_low": low[1],
                "over_random_high": high[1],
                "over_center": over_center.mean(),
                "over_center_low": low[2],
                "over_center_high": high[2],
            }
        )
    return Erasing(pd.concat(curves, ignore_index=True), pd.DataFrame(areas))


def area(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under curves over shares from 0 to 1, by the trapezoidal rule.

    Args:
        curve: ``(n, steps + 1)``, values at equal steps.

    Returns:
        ``(n,)``.
    """
    areas: NDArray[np.float64] = ((curve[:, 1:] + curve[:, :-1]) / 2).mean(1)
    return areas


def _recorded_maps(
    setup: InterventionSetup, rows: NDArray[np.int64]
) -> dict[str, NDArray[np.float32]]:
    """Return spatial gates and Grad-CAM of some images: name -> ``(n, H, W)`` at its own grid.

    There are none for sequences and volumes: where such a map lies in them is unknown.
    """
    if next(setup.batches(rows[:1])).x.ndim != 4:
        return {}
    maps = {
        gate.name: setup.gates_of(gate.name, rows)
        for gate in setup.gates
        if gate.has(MAP) and not _is_row_of_tokens(gate)
    }
    if setup.recording.grad_cam_layers:
        layer = setup.recording.grad_cam_layers[-1]
        cams = [setup.recording.grad_cam(layer, rows=slice(row, row + 1)) for row in rows]
        maps["Grad-CAM"] = np.concatenate(cams)
    return maps


def _is_row_of_tokens(gate: Gate) -> bool:
    """Return whether the tokens form one row, so that their places in the image are unknown."""
    return "L" in gate.axes and gate.grid is not None and min(gate.grid) == 1


def _probability(logits: Tensor, target: Tensor) -> NDArray[np.float32]:
    """Return the probability of each image's target, ``(n,)``.

    Args:
        logits: ``(n, K)``.
        target: ``(n, 1)``, a class for each image.
    """
    probability: NDArray[np.float32] = (
        logits.float().softmax(1).gather(1, target)[:, 0].cpu().numpy()
    )
    return probability


def _mean_color(setup: InterventionSetup) -> Tensor:
    """Return the mean color of donors as the network sees them, such as ``(1, 3, 1, 1)``."""
    donors = np.flatnonzero(setup.donors)
    some = setup.rng("color").permutation(donors)[:_COLOR_IMAGES]
    found = [batch.x for batch in setup.batches(np.sort(some))]
    positions = tuple(range(2, found[0].ndim))
    mean = torch.cat([x.mean(positions) for x in found]).mean(0)
    return mean.reshape(1, -1, *[1] * len(positions))


def _blurred(x: Tensor) -> Tensor:
    side = min(x.shape[2:])
    sigma = side / _SIDE_OVER_SIGMA
    reach = min(int(3 * sigma), (side - 1) // 2)
    if x.ndim == 4:
        blurred: Tensor = gaussian_blur(x, [2 * reach + 1] * 2, [sigma] * 2)
        return blurred
    # Sequences and volumes: the same kernel and border along each axis, one after the other.
    offsets = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    for axis in range(2, x.ndim):
        rows = x.movedim(axis, -1)
        lines = F.pad(rows.reshape(-1, 1, rows.shape[-1]), (reach, reach), mode="reflect")
        x = F.conv1d(lines, kernel).reshape(rows.shape).movedim(-1, axis)
    return x


def _score(
    order: str,
    maps: Mapping[str, NDArray[np.float32]],
    places: slice,
    size: tuple[int, ...],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return the score by which pixels are ranked, largest first, such as ``(n, H, W)``."""
    count = places.stop - places.start
    if order == "random":
        return rng.random((count, *size))
    if order == "center":
        sides = ((np.arange(n) - (n - 1) / 2) / n for n in size)
        distance = sum(axis**2 for axis in np.meshgrid(*sides, indexing="ij"))
        return np.broadcast_to(-np.asarray(distance), (count, *size))
    small = torch.from_numpy(maps[order][places].astype(np.float64))[:, None]
    return F.interpolate(small, size, mode="bilinear")[:, 0].numpy()


def _ranks(score: NDArray[np.float64], rng: np.random.Generator) -> Tensor:
    """Return the rank of each pixel, 0 for the highest score, such as ``(n, H, W)``."""
    flat = score.reshape(len(score), -1)
    ranks = np.empty(flat.shape, np.int64)
    for i, values in enumerate(flat):
        ranks[i, np.lexsort((rng.random(len(values)), -values))] = np.arange(len(values))
    return torch.from_numpy(ranks.reshape(score.shape))
