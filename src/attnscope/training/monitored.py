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

_IMAGES = 64
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
        seed: seed of the run.
        out: the run folder.
        board: TensorBoard.
        resume: the step after which training continues, 0 if it starts.
    """
    shown = choose_images(data.validation, seed)
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


def choose_images(split: LabeledImages, seed: int) -> LabeledImages:
    """Choose at most 64 images: equally many of each class, and at least four if there are so many.

    With more than 16 classes, 16 of them are chosen.

    Args:
        split: the images to choose from.
        seed: seed of the choice.
    """
    generator = derived_generator("monitored", seed)
    labels = split.labels.numpy()
    classes = generator.permutation(np.unique(labels))[: _IMAGES // _IMAGES_PER_CLASS]
    each = _IMAGES // len(classes)
    rows = [generator.permutation(np.flatnonzero(labels == k))[:each] for k in classes]
    return split[np.sort(np.concatenate(rows))]
