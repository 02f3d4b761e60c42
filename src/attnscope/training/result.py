"""`TrainResult`: the outcome of training."""

from __future__ import annotations

from dataclasses import dataclass

from attnscope.training.evaluation import Evaluation


@dataclass(frozen=True, repr=False)
class TrainResult:
    """The outcome of training, which is also stored in the run folder as ``result.json``."""

    epochs: int
    steps: int
    seconds: float
    """Duration of the training steps, without compilation, evaluation and loading. A network that
    is compiled on a CPU is compiled by its first steps."""
    seconds_per_step: float
    train_images: int
    validation: Evaluation
    """Loss and accuracy of the kept weights on the validation split."""
    test: Evaluation
    """Loss and accuracy of the kept weights on the test split, which is evaluated once."""
    weights: str
    """Which weights were kept: those of the ``last`` step or the ``best`` on validation."""
    best_epoch: int
    """The first epoch with the highest validation accuracy, counted from 1."""
    device: str
    devices: int
    precision: str
    parameters: int
    """Number of trained parameters."""
    compile_seconds: float = 0.0
    """Duration of compiling the network on a GPU."""

    def __repr__(self) -> str:
        devices = self.device if self.devices == 1 else f"{self.devices} devices ({self.device})"
        return (
            f"<TrainResult: {self.epochs} epochs, {self.steps} steps, {self.seconds:.1f} s on "
            f"{devices} in {self.precision}, validation accuracy {self.validation.accuracy:.1%}, "
            f"test accuracy {self.test.accuracy:.1%} ({self.weights} weights)>"
        )
