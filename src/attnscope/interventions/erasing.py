"""Deletion and insertion: pixels taken away, or given back, in the order of a map."""

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
from tqdm import tqdm

from attnscope.errors import InputError
from attnscope.interventions.setup import InterventionSetup
from attnscope.kinds import MAP, Gate
from attnscope.statistics.resampling import bootstrap_interval

MODES = ("deletion", "insertion")
FILLS = ("mean", "blur")
CONTROLS = ("random", "center")
_MEAN_OF = 256  # images of which the mean color is taken
_BLUR = 8  # the side of the image over the blur's standard deviation


@dataclass(frozen=True)
class Erasing:
    """What deletion and insertion gave."""

    curves: pd.DataFrame
    """One row a mode, fill, order and share of pixels: mode, fill, order, share, probability (mean
    over the images)."""
    areas: pd.DataFrame
    """One row a mode, fill and order: mode, fill, order, images, area, low, high, over_random,
    over_random_low, over_random_high, over_center, over_center_low, over_center_high."""


def erase(
    setup: InterventionSetup,
    *,
    steps: int = 10,
    images: int = 200,
    resamples: int = 1000,
    progress: bool = True,
) -> Erasing:
    """Deletion and insertion (Petsiuk et al. 2018, BMVC, RISE) for spatial gates and Grad-CAM.

    Deletion fills the pixels that a map puts first; insertion begins with an image that is all fill
    and gives them back. The curve is the probability of the class that is predicted for the whole
    image, over the share of pixels; its area is the mean under it (trapezoidal), 0 to 1. A map that
    shows what the network uses has a small area of deletion, and a large one of insertion.

    The orders: each spatial gate and the signed Grad-CAM of the predicted class, as recorded and
    brought to the image's size bilinearly; pixels at random; and from the center outwards. Ties are
    broken at random. Tokens that are no square are left out. What fills is the mean color of
    images that are not scored, or the image itself, blurred with a deviation of an eighth of its
    side.

    Args:
        setup: the network and its images.
        steps: into how many parts the pixels are divided.
        images: how many of the scored images are taken.
        resamples: of the bootstrap over images.
        progress: whether to show a bar.

    Returns:
        Curves, and areas with 95 % intervals: of their mean over images, and of the paired
        differences to the same images in random order (``over_random``) and from the center
        outwards (``over_center``), all of the same bootstrap draws.

    Raises:
        InputError: a number is below 1.
    """
    if steps < 1 or images < 1:
        raise InputError(f"{steps} steps of {images} images; take 1 or more of each")
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
        setup.quiet(),
        tqdm(total=len(rows), unit="image", disable=not progress, dynamic_ncols=True) as bar,
    ):
        for batch in setup.batches(rows):
            places = slice(start, start + len(batch.labels))
            start = places.stop
            own = setup.model(batch.x).float()
            target = own.argmax(1, keepdim=True)
            fills = {"mean": mean.expand_as(batch.x), "blur": _blurred(batch.x)}
            # Nothing and everything filled are the same in every order.
            whole = _chance(own, target)
            empty = {fill: _chance(setup.model(other), target) for fill, other in fills.items()}
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
                            found[mode, fill, order][places, step] = _chance(logits, target)
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
    """The mean under curves over shares 0 to 1 in equal steps, ``(n, steps + 1)`` -> ``(n,)``."""
    found: NDArray[np.float64] = ((curve[:, 1:] + curve[:, :-1]) / 2).mean(1)
    return found


def _recorded_maps(
    setup: InterventionSetup, rows: NDArray[np.int64]
) -> dict[str, NDArray[np.float32]]:
    """Spatial gates and Grad-CAM of some images, ``(n, H, W)`` each at its own grid."""
    maps = {
        gate.name: setup.gates_of(gate.name, rows)
        for gate in setup.gates
        if gate.has(MAP) and not _is_row(gate)
    }
    if setup.recording.grad_cam_layers:
        layer = setup.recording.grad_cam_layers[-1]
        cams = [setup.recording.grad_cam(layer, rows=slice(row, row + 1)) for row in rows]
        maps["Grad-CAM"] = np.concatenate(cams)
    return maps


def _is_row(gate: Gate) -> bool:
    """Whether the pixels stand in one row of which nobody knows where in the image they lie."""
    return "L" in gate.axes and gate.grid is not None and min(gate.grid) == 1


def _chance(logits: Tensor, target: Tensor) -> NDArray[np.float32]:
    """The probability of each image's target ``(n, 1)``, given logits ``(n, K)``: ``(n,)``."""
    chance: NDArray[np.float32] = logits.float().softmax(1).gather(1, target)[:, 0].cpu().numpy()
    return chance


def _mean_color(setup: InterventionSetup) -> Tensor:
    """Of images that are not scored, as the network gets them: ``(1, 3, 1, 1)``."""
    lenders = np.flatnonzero(setup.others)
    some = setup.rng("color").permutation(lenders)[:_MEAN_OF]
    means = [batch.x.mean((2, 3)) for batch in setup.batches(np.sort(some))]
    return torch.cat(means).mean(0)[None, :, None, None]


def _blurred(x: Tensor) -> Tensor:
    side = min(x.shape[2:])
    sigma = side / _BLUR
    kernel = 2 * min(int(3 * sigma), (side - 1) // 2) + 1
    blurred: Tensor = gaussian_blur(x, [kernel, kernel], [sigma, sigma])
    return blurred


def _score(
    order: str,
    maps: Mapping[str, NDArray[np.float32]],
    places: slice,
    size: tuple[int, ...],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """What the pixels are ordered by, the largest first: ``(n, H, W)``."""
    count = places.stop - places.start
    if order == "random":
        return rng.random((count, *size))
    if order == "center":
        rows, columns = (np.arange(n) - (n - 1) / 2 for n in size)
        distance = (rows[:, None] / size[0]) ** 2 + (columns / size[1]) ** 2
        return np.broadcast_to(-distance, (count, *size))
    small = torch.from_numpy(maps[order][places].astype(np.float64))[:, None]
    return F.interpolate(small, size, mode="bilinear")[:, 0].numpy()


def _ranks(score: NDArray[np.float64], rng: np.random.Generator) -> Tensor:
    """Of each pixel its place from the highest score on, 0 first: ``(n, H, W)``."""
    flat = score.reshape(len(score), -1)
    ranks = np.empty(flat.shape, np.int64)
    for i, values in enumerate(flat):
        ranks[i, np.lexsort((rng.random(len(values)), -values))] = np.arange(len(values))
    return torch.from_numpy(ranks.reshape(score.shape))
