"""What a training ended with."""

from __future__ import annotations

from dataclasses import dataclass

from attnscope.training.evaluation import Evaluation


@dataclass(frozen=True)
class TrainResult:
    """What a training ended with; written to the run folder as ``result.json``."""

    epochs: int
    steps: int
    seconds: float
    """Of the training steps alone: neither evaluation nor loading."""
    seconds_per_step: float
    train_images: int
    validation: Evaluation
    test: Evaluation
    """Of the weights that were kept. The test split chose nothing."""
    weights: str
    """Which weights these are: of the ``last`` step, or the ``best`` on validation."""
    best_epoch: int
    """After which validation accuracy was highest; the first of several."""
    device: str
    devices: int
    precision: str
    parameters: int
