"""Which gates can be static together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from attnscope.capturing.batching import batches
from attnscope.data.images import LabeledImages, Normalization
from attnscope.folding.algebra import device_of, fold_gates
from attnscope.gates.modes import eval_mode


@dataclass(frozen=True)
class Trial:
    """One gate of a search; losses are point estimates, in points of accuracy."""

    gate: str
    alone: float
    """What accuracy loses when this gate alone is static."""
    joint: float
    """What it loses when those that were kept before are static too."""
    kept: bool


def choose_gates(
    model: nn.Module,
    means: Mapping[str, Tensor],
    right: Callable[[nn.Module], NDArray[np.bool_]],
    tolerance: float,
    progress: bool = True,
) -> list[Trial]:
    """Which gates can be static together: a greedy search.

    Each gate is folded alone first. Then, from the smallest loss to the largest (of equal ones in
    the order of ``means``), each is added to those that were kept, and kept if the loss of all of
    them stays within the tolerance. With G gates ``right`` is called at most ``2 G`` times.

    Args:
        model, means: of `fold_gates`.
        right: which images a network gets right, ``(N,)``, always of the same images.
        tolerance: what accuracy may lose, in points (100 is all of it).
        progress: whether to show a bar.

    Returns:
        One trial a gate, in the order in which they were tried.
    """
    with tqdm(total=2 * len(means), unit="pass", disable=not progress, dynamic_ncols=True) as bar:

        def count(network: nn.Module) -> int:
            bar.update()
            return int(right(network).sum())

        own = right(model)
        images, before = len(own), int(own.sum())
        bar.update()

        def lost(names: Sequence[str]) -> int:
            return before - count(fold_gates(model, {name: means[name] for name in names}))

        alone = {name: lost([name]) for name in means}
        trials: list[Trial] = []
        kept: list[str] = []
        for name in sorted(alone, key=alone.__getitem__):
            joint = lost([*kept, name]) if kept else alone[name]
            # Of counts, so that a tolerance of 0.2 points is ten of 5,000 images.
            within = 100 * joint <= tolerance * images + 1e-9
            if within:
                kept.append(name)
            trials.append(
                Trial(name, 100 * alone[name] / images, 100 * joint / images, name in kept)
            )
    return trials


def right_images(
    model: nn.Module, images: LabeledImages, normalization: Normalization, batch_size: int = 128
) -> NDArray[np.bool_]:
    """Which images a network classifies rightly, in eval mode: ``(N,)``."""
    found = []
    rows = range(len(images))
    with eval_mode(model), torch.no_grad():
        for batch in batches(images, rows, batch_size, normalization, device_of(model)):
            found.append(model(batch.x).argmax(1).cpu() == batch.labels)
    right: NDArray[np.bool_] = torch.cat(found).numpy()
    return right
