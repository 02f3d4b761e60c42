"""What a recipe can say: data that the training loop follows. Needs no torch.

Every part refuses values that cannot be used when it is made, wherever it is made: by a module, by
a file of the user, or by options that replace a value.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from attnscope.data.augmentation import Augmentation
from attnscope.errors import InputError
from attnscope.settings import check_types, require

_ROUNDING = 1e-6  # by which shares such as 1/3 may miss one


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent; under a one-cycle schedule the momentum is the cycle's."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decays_all: bool = True
    """Whether norms and biases are decayed too."""

    def __post_init__(self) -> None:
        check_types(self)
        require(0 <= self.momentum < 1, "momentum", self.momentum, "0 or more and below 1")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        if self.nesterov:
            require(self.momentum > 0, "momentum", self.momentum, "above 0 with nesterov")


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba 2015, with torch's defaults."""


@dataclass(frozen=True)
class OneCycle:
    """Cosines up to the learning rate and down to nothing, step by step; Smith and Topin 2018."""

    momentum: tuple[float, float] = (0.85, 0.95)
    """At the peak of the cycle, and at its ends: it falls while the learning rate rises."""
    rise: float = 0.25
    """Share of the steps in which the learning rate rises."""

    def __post_init__(self) -> None:
        check_types(self)
        holds = all(0 <= one < 1 for one in self.momentum)
        require(holds, "momentum", self.momentum, "two numbers of 0 or more and below 1")
        require(0 < self.rise < 1, "rise", self.rise, "between 0 and 1")


@dataclass(frozen=True)
class Milestones:
    """The learning rate is multiplied by ``factor`` at each of these shares of the training."""

    at: tuple[float, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        check_types(self)
        rising = all(a < b for a, b in pairwise((0, *self.at, 1)))
        require(rising, "at", self.at, "shares between 0 and 1 that rise")
        require(self.factor > 0, "factor", self.factor, "above 0")


@dataclass(frozen=True)
class Plateau:
    """Multiplied by ``factor`` when the validation loss has not fallen for ``patience`` epochs."""

    patience: int = 3
    factor: float = 0.5

    def __post_init__(self) -> None:
        check_types(self)
        require(self.patience >= 0, "patience", self.patience, "0 or more")
        require(0 < self.factor < 1, "factor", self.factor, "between 0 and 1")


@dataclass(frozen=True)
class Phase:
    """A stretch of the training in which one set of things holds."""

    share: float = 1.0
    """Share of the epochs."""
    scale: float = 1.0
    """Side of the training images over that of the data's own; smaller images train faster."""
    trains: tuple[str, ...] = ("all",)
    """``all``, or some of ``classifier``, ``attention`` and the names of modules; what is not
    trained keeps its BatchNorm statistics too."""
    learning_rate: float | None = None
    """Of a new optimizer that begins with the phase; None goes on with the one before."""

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.share <= 1, "share", self.share, "above 0 and at most 1")
        require(0 < self.scale <= 1, "scale", self.scale, "above 0 and at most 1")
        require(bool(self.trains), "trains", self.trains, "all, or the names of some modules")
        if self.learning_rate is not None:
            require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")

    def begins_anew(self, before: Phase) -> bool:
        """Whether the phase has an optimizer of its own, and not that of the phase before."""
        return self.learning_rate is not None or self.trains != before.trains


@dataclass(frozen=True)
class Network:
    """What a recipe is made for; each can be chosen otherwise. None leaves it to the network."""

    model: str = "resnet18"
    attention: str = "cbam"
    placement: str | None = None
    stem: str | None = None
    weights: str | None = None
    """``imagenet``, or None: from a random start."""
    image_size: int | None = None
    """Pixels of the images that the network gets."""
    resize: int | None = None
    """Pixels to which images are resized before; test images are then cropped in the center."""

    def __post_init__(self) -> None:
        check_types(self)
        size, resize = self.image_size, self.resize
        if size is not None:
            require(8 <= size <= 1024, "image_size", size, "8 to 1024 pixels")
        if resize is not None:
            holds = size is not None and size <= resize <= 1024
            require(holds, "resize", resize, "the image size or more, and at most 1024 pixels")


@dataclass(frozen=True)
class Recipe:
    """All that a training does."""

    name: str
    about: str
    """One line, for the help."""
    epochs: int
    batch_size: int
    """Images a forward, on each device."""
    learning_rate: float
    """At its highest."""
    optimizer: SGD | Adam
    augmentation: Augmentation
    schedule: OneCycle | Milestones | Plateau | None = None
    """None: the learning rate stays."""
    accumulate: int = 1
    """Forwards and backwards a step of the optimizer; their gradients are averaged."""
    label_smoothing: float = 0.0
    phases: tuple[Phase, ...] = (Phase(),)
    """Shares of one, in order."""
    network: Network = field(default_factory=Network)
    keeps: Literal["last", "best"] = "last"
    """Which weights the run is about: those of the ``last`` step, or the ``best`` on validation."""
    log_steps: int = 20
    """Steps between two values of loss, accuracy and learning rate."""
    histogram_steps: int | None = None
    """Steps between two histograms of weights and gradients in TensorBoard; None is none."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("epochs", "batch_size", "accumulate", "log_steps"):
            value = getattr(self, name)
            require(value >= 1, name, value, "1 or more")
        if self.histogram_steps is not None:
            require(self.histogram_steps >= 1, "histogram_steps", self.histogram_steps, "1 or more")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        smoothing = self.label_smoothing
        require(0 <= smoothing < 1, "label_smoothing", smoothing, "0 or more and below 1")
        total = sum(phase.share for phase in self.phases)
        if abs(total - 1) > _ROUNDING:
            raise InputError(f"the shares of the phases sum to {total:.4g}; they must sum to 1")
        anew = [now for before, now in pairwise(self.phases) if now.begins_anew(before)]
        if anew and self.schedule is not None:
            raise InputError(
                "a schedule belongs to one optimizer, and a phase begins another; leave out the "
                "schedule, or the phases' trains and learning rates"
            )

    def at_rate(self, learning_rate: float) -> Recipe:
        """The recipe with another learning rate; those of its phases change in proportion."""
        require(learning_rate > 0, "learning_rate", learning_rate, "above 0")
        ratio = learning_rate / self.learning_rate
        phases = tuple(
            phase
            if phase.learning_rate is None
            else replace(phase, learning_rate=phase.learning_rate * ratio)
            for phase in self.phases
        )
        return replace(self, learning_rate=learning_rate, phases=phases)
