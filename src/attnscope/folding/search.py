"""Search for gates that can be constant together."""

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
    """One gate of a search.

    Losses are point estimates in percentage points of accuracy.
    """

    gate: str
    alone: float
    """Loss if this gate alone is constant."""
    joint: float
    """Loss if the gates that were chosen before are constant too."""
    kept: bool
    """Whether the gate was chosen."""


def choose_gates(
    model: nn.Module,
    means: Mapping[str, Tensor],
    right: Callable[[nn.Module], NDArray[np.bool_]],
    tolerance: float,
    progress: bool = True,
) -> list[Trial]:
    """Choose gates that can be constant together, by a greedy search.

    First each gate is folded alone. Then the gates are tried from the smallest loss to the largest
    (equal losses in the order of ``means``): each is added to the chosen gates and stays if the
    loss of all of them is within the tolerance. With G gates, ``right`` is called at most ``2 G``
    times.

    Args:
        model: The network, as for `fold_gates`.
        means: Name of a gate -> its mean, as for `fold_gates`.
        right: Function from a network to a mask ``(N,)`` of the images that it classifies
            correctly, always for the same images.
        tolerance: Largest accepted loss of accuracy in percentage points.
        progress: Whether to show a progress bar.

    Returns:
        One trial for each gate, in the order in which the gates were tried.
    """
    with tqdm(total=2 * len(means), unit="pass", disable=not progress, dynamic_ncols=True) as bar:

        def count_correct(network: nn.Module) -> int:
            bar.update()
            return int(right(network).sum())

        own = right(model)
        images, before = len(own), int(own.sum())
        bar.update()

        def lost_images(names: Sequence[str]) -> int:
            return before - count_correct(fold_gates(model, {name: means[name] for name in names}))

        alone = {name: lost_images([name]) for name in means}
        trials: list[Trial] = []
        kept: list[str] = []
        for name in sorted(alone, key=alone.__getitem__):
            joint = lost_images([*kept, name]) if kept else alone[name]
            # Compare counts, so that a tolerance of 0.2 points is exactly 10 of 5,000 images.
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
    """Return which images a network classifies correctly in eval mode: bool, ``(N,)``."""
    found = []
    rows = range(len(images))
    with eval_mode(model), torch.no_grad():
        for batch in batches(images, rows, batch_size, normalization, device_of(model)):
            found.append(model(batch.x).argmax(1).cpu() == batch.labels)
    right: NDArray[np.bool_] = torch.cat(found).numpy()
    return right
