"""Deletion and insertion: erase or restore pixels in the order of a map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from attnscope.errors import InputError
from attnscope.interventions.setup import InterventionSetup, expect_images
from attnscope.interventions.work import Work, alone, batches_of
from attnscope.kinds import MAP, Gate
from attnscope.recording.pieces import Piece
from attnscope.statistics.resampling import bootstrap_interval

MODES = ("deletion", "insertion")
FILLS = ("mean", "blur")
CONTROLS = ("random", "center")
_GRAD_CAM = "Grad-CAM"
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
    work: Work | None = None,
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
        progress: Whether to show a progress bar, if there is no ``work``.
        work: Pieces that are finished already, and where new ones are kept.

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
    mean = _mean_color(setup)
    size = tuple(next(setup.batches(rows[:1])).x.shape[2:])
    pixels = int(np.prod(size))
    batch_size = setup.batch_size
    starts = range(0, len(rows), batch_size)
    drawn = 0  # numbers that were drawn for the pieces so far
    with alone(work, progress, "erase") as todo, setup.eval_without_gradients():
        todo.start(len(rows) * (1 + len(FILLS) + len(orders) * reruns_of_order(steps)))
        needed = [
            not all(f"{number}/{each}" in todo.pieces for each in ("", *orders))
            for number in range(len(starts))
        ]
        batches = batches_of(setup, rows, needed)
        for number, start in enumerate(starts):
            places = slice(start, min(start + batch_size, len(rows)))
            count = places.stop - start
            run = _BatchRun(setup, next(batches)[1].x, mean) if needed[number] else None
            ends = todo.piece(f"{number}/", count * (1 + len(FILLS)), partial(_ends, run))
            for (mode, fill, _), values in found.items():
                both = (ends["whole"], ends[fill])
                values[places, 0], values[places, -1] = both if mode == "deletion" else both[::-1]
            for order in orders:
                # Each piece has its own place in the stream, whatever was computed before.
                rng = setup.rng("erasing")
                advance(rng, drawn)
                drawn += count * pixels * (2 if order == "random" else 1)
                piece = todo.piece(
                    f"{number}/{order}",
                    count * reruns_of_order(steps),
                    partial(_steps, run, order, maps, places, shares, rng),
                )
                for mode in MODES:
                    for fill in FILLS:
                        found[mode, fill, order][places, 1:-1] = piece[f"{mode} {fill}"].T
        todo.end()
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


def reruns_of_order(steps: int) -> int:
    """Return how often the network runs for each image and order."""
    return (steps - 1) * len(FILLS) * len(MODES)


def advance(rng: np.random.Generator, numbers: int) -> None:
    """Leave out the next numbers of ``rng.random``."""
    assert isinstance(rng.bit_generator, np.random.PCG64)  # each number takes one step of it
    rng.bit_generator.advance(numbers)


class _BatchRun:
    """Runs the network on one batch of partly erased images."""

    def __init__(self, setup: InterventionSetup, x: Tensor, mean: Tensor) -> None:
        self.setup, self.x = setup, x
        self.fills = {"mean": mean.expand_as(x), "blur": _blurred(x)}
        self.own = setup.model(x).float()
        self.target = self.own.argmax(1, keepdim=True)

    def probability(self, x: Tensor) -> NDArray[np.float32]:
        """Return the probability of the class predicted for the complete image, ``(n,)``."""
        return _probability(self.setup.model(x), self.target)


def _ends(run: _BatchRun | None) -> Piece:
    """Return the probabilities of the complete images and of each fill alone, ``(n,)`` each.

    They are the same for every order.
    """
    assert run is not None  # else the piece is finished
    empty = {fill: run.probability(other) for fill, other in run.fills.items()}
    return {"whole": _probability(run.own, run.target), **empty}


def _steps(
    run: _BatchRun | None,
    order: str,
    maps: Mapping[str, NDArray[np.float32]],
    places: slice,
    shares: NDArray[np.float64],
    rng: np.random.Generator,
) -> Piece:
    """Return the probabilities between the ends: mode and fill -> ``(steps - 1, n)``."""
    assert run is not None
    x = run.x
    score = _score(order, maps, places, tuple(x.shape[2:]), rng)
    rank = _ranks(score, rng).to(run.setup.device)
    found = {
        f"{mode} {fill}": np.zeros((len(shares) - 2, len(x)), np.float32)
        for mode in MODES
        for fill in FILLS
    }
    for step, share in list(enumerate(shares))[1:-1]:
        first = (rank < round(share * rank[0].numel()))[:, None]
        for fill, other in run.fills.items():
            for mode in MODES:
                pixels = first if mode == "deletion" else ~first
                values = run.probability(torch.where(pixels, other, x))
                found[f"{mode} {fill}"][step - 1] = values
    return found


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
    maps = {gate.name: setup.gates_of(gate.name, rows) for gate in _map_gates(setup)}
    layer = _grad_cam_layer(setup)
    if layer is not None:
        cams = [setup.recording.grad_cam(layer, rows=slice(row, row + 1)) for row in rows]
        maps[_GRAD_CAM] = np.concatenate(cams)
    return maps


def orders_of(setup: InterventionSetup) -> list[str]:
    """Return the names of the orders: gates, Grad-CAM, and the controls."""
    maps = [gate.name for gate in _map_gates(setup)]
    return [*maps, *([] if _grad_cam_layer(setup) is None else [_GRAD_CAM]), *CONTROLS]


def _map_gates(setup: InterventionSetup) -> list[Gate]:
    """Return the gates whose maps can be resized to the image."""
    found = [gate for gate in setup.gates if gate.has(MAP) and not _is_row_of_tokens(gate)]
    return found if _are_pictures(setup) else []


def _grad_cam_layer(setup: InterventionSetup) -> str | None:
    layers = setup.recording.grad_cam_layers
    return layers[-1] if layers and _are_pictures(setup) else None


def _are_pictures(setup: InterventionSetup) -> bool:
    """Return whether the images are neither sequences nor volumes."""
    return next(setup.batches(setup.scored[:1])).x.ndim == 4


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
