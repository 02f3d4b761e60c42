"""The monitor of a run: which images it shows to the network, and where it writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from attnscope.data.images import LabeledImages
from attnscope.data.load import Data
from attnscope.gates.aside import aside
from attnscope.gates.detect import find_gates
from attnscope.kinds import Gate
from attnscope.layout import GATE_HISTORY
from attnscope.monitoring import Board, GateMonitor, expect_gates
from attnscope.training.randomness import derived_generator

_FEWEST_IMAGES, _MOST_IMAGES = 16, 64
_IMAGES_PER_CLASS = 4  # fewer say little about the variance within a class


def check_gates(model: nn.Module, data: Data) -> list[Gate]:
    """Return the gates of a network, which is unchanged.

    Raises:
        InputError: AS552, it has no gates; or they cannot be found.
    """
    device = next(model.parameters()).device
    few = data.validation[:_IMAGES_PER_CLASS].images.to(device)
    with aside(model):
        gates = find_gates(model, data.normalization.apply(few))
    expect_gates(model, gates)
    return gates


def open_monitor(
    model: nn.Module,
    gates: Sequence[Gate],
    data: Data,
    *,
    every: int,
    batch_size: int,
    seed: int,
    out: Path,
    board: Board | None,
    resume: int,
) -> GateMonitor:
    """Open the monitor of a run, on some validation images.

    Args:
        model: the network, on its device.
        gates: its gates.
        data: the images of the run.
        every: number of steps between two observations.
        batch_size: number of images of a step. An observation takes at most twice as many, so that
            it takes no longer than a step.
        seed: seed of the run.
        out: the run folder.
        board: TensorBoard.
        resume: the step after which training continues, 0 if it starts.
    """
    count = min(max(2 * batch_size, _FEWEST_IMAGES), _MOST_IMAGES)
    shown = choose_images(data.validation, count, seed)
    return GateMonitor(
        model,
        data.normalization.apply(shown.images),
        shown.labels,
        every,
        gates=gates,
        file=out / GATE_HISTORY,
        board=board,
        resume=resume,
    )


def choose_images(split: LabeledImages, count: int, seed: int) -> LabeledImages:
    """Choose images: equally many of each class, and at least four if there are so many.

    If there are too many classes for that, some of them are chosen.

    Args:
        split: the images to choose from.
        count: how many, at most.
        seed: seed of the choice.
    """
    generator = derived_generator("monitored", seed)
    labels = split.labels.numpy()
    classes = generator.permutation(np.unique(labels))[: count // _IMAGES_PER_CLASS]
    each = count // len(classes)
    rows = [generator.permutation(np.flatnonzero(labels == k))[:each] for k in classes]
    return split[np.sort(np.concatenate(rows))]
