"""A script as a user of the library writes it. mypy checks it in strict mode; it is not run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import attnscope
from attnscope import Gate, InputError, Moments, Outcomes, Recording, Run, TrainConfig


def strongest(recording: Recording) -> Gate:
    """Iterate over gates, index with a name and with rows."""
    means = {gate.name: float(recording[gate.name].mean()) for gate in recording}
    first = recording[next(iter(means)), :10]
    assert first.dtype == np.float32
    frame: pd.DataFrame = recording.to_pandas()
    assert len(frame) == len(recording)
    return max(recording.gates, key=lambda gate: means[gate.name])


def without(model: nn.Module, images: Tensor) -> Tensor:
    """Find, read and edit gates."""
    gates: list[Gate] = attnscope.find_gates(model, images)
    with attnscope.watch_gates(model, gates) as values:
        model(images)
    shapes: dict[str, torch.Size] = {name: value.shape for name, value in values.items()}
    assert shapes
    with attnscope.edit_gates(model, {gates[0].name: lambda gate, features: torch.ones_like(gate)}):
        output: Tensor = model(images)
    return output


def study(folder: Path) -> Figure:
    """Train, record, intervene, fold, compare and draw."""
    run = Run(attnscope.train_run(TrainConfig(attention="se", epochs=1, out=folder / "se")))
    recorded: Recording | Moments = attnscope.capture_run(run.folder)
    assert isinstance(recorded, Recording)
    outcomes: Outcomes = attnscope.intervene(run, experiments=["decode"])
    assert outcomes.experiments
    report = attnscope.fold(run, folder / "folded")
    assert report.validation
    comparison = attnscope.compare(folder / "se", folder / "cbam")
    print(comparison, strongest(recorded).kind)
    try:
        return attnscope.plots.gate_state(recorded)
    except InputError as error:
        raise SystemExit(error.code) from error
