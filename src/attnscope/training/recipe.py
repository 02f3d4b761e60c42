"""`Recipe`: everything that defines how a network is trained, as data. Does not import torch.

Every class validates its values when it is created: in Python, from a TOML file, or when an option
replaces a value.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from attnscope.data.augmentation import Augmentation
from attnscope.errors import InputError
from attnscope.settings import check_types, require

_ROUNDING = 1e-6  # tolerance of the sum of shares such as 1/3


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent. A one-cycle schedule overrides the momentum."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decays_all: bool = True
    """Whether weight decay applies to norms and biases, too."""

    def __post_init__(self) -> None:
        check_types(self)
        require(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0 and less than 1")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        if self.nesterov:
            require(self.momentum > 0, "momentum", self.momentum, "greater than 0 with nesterov")


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015) with the defaults of torch."""


@dataclass(frozen=True)
class OneCycle:
    """The one-cycle schedule (Smith and Topin 2018): cosine rise and cosine decay, step by step."""

    momentum: tuple[float, float] = (0.85, 0.95)
    """Momentum at the peak and at the ends of the cycle. It falls while the learning rate rises."""
    rise: float = 0.25
    """Share of the steps during which the learning rate rises."""

    def __post_init__(self) -> None:
        check_types(self)
        holds = all(0 <= one < 1 for one in self.momentum)
        require(holds, "momentum", self.momentum, "two numbers from 0 to less than 1")
        require(0 < self.rise < 1, "rise", self.rise, "between 0 and 1")


@dataclass(frozen=True)
class Milestones:
    """A step schedule: the learning rate is multiplied by ``factor`` at each milestone."""

    at: tuple[float, ...]
    """The milestones, as increasing shares of the steps."""
    factor: float = 0.1

    def __post_init__(self) -> None:
        check_types(self)
        rising = all(a < b for a, b in pairwise((0, *self.at, 1)))
        require(rising, "at", self.at, "increasing shares between 0 and 1")
        require(self.factor > 0, "factor", self.factor, "greater than 0")


@dataclass(frozen=True)
class Plateau:
    """The learning rate is multiplied by ``factor`` when the validation loss stops falling.

    That is when it has not fallen for more than ``patience`` epochs; see torch's
    `ReduceLROnPlateau`.
    """

    patience: int = 3
    factor: float = 0.5

    def __post_init__(self) -> None:
        check_types(self)
        require(self.patience >= 0, "patience", self.patience, "at least 0")
        require(0 < self.factor < 1, "factor", self.factor, "between 0 and 1")


@dataclass(frozen=True)
class Phase:
    """A phase of training, with its own image scale, trained modules and learning rate."""

    share: float = 1.0
    """Share of the epochs."""
    scale: float = 1.0
    """Scale of the side of the training images. Smaller images train faster."""
    trains: tuple[str, ...] = ("all",)
    """``all``, or any of ``classifier``, ``attention`` and the names of modules. Other modules are
    frozen, with their BatchNorm statistics."""
    learning_rate: float | None = None
    """Learning rate of a new optimizer. None: continue with the optimizer of the phase before."""

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.share <= 1, "share", self.share, "greater than 0 and at most 1")
        require(0 < self.scale <= 1, "scale", self.scale, "greater than 0 and at most 1")
        require(bool(self.trains), "trains", self.trains, "all or the names of modules")
        if self.learning_rate is not None:
            require(self.learning_rate > 0, "learning_rate", self.learning_rate, "greater than 0")

    def starts_optimizer(self, before: Phase) -> bool:
        """Whether the phase starts a new optimizer instead of continuing the one before."""
        return self.learning_rate is not None or self.trains != before.trains


@dataclass(frozen=True)
class Network:
    """The default network of a recipe. None means the default of the network or the data."""

    model: str = "resnet18"
    attention: str = "cbam"
    placement: str | None = None
    stem: str | None = None
    weights: str | None = None
    """``imagenet``, or None for random weights."""
    image_size: int | None = None
    """Height and width of the network's input, in pixels."""
    resize: int | None = None
    """Size in pixels to which images are resized before they are cropped at the center."""

    def __post_init__(self) -> None:
        check_types(self)
        size, resize = self.image_size, self.resize
        if size is not None:
            require(8 <= size <= 1024, "image_size", size, "8 to 1024 pixels")
        if resize is not None:
            holds = size is not None and size <= resize <= 1024
            require(holds, "resize", resize, "at least image_size and at most 1024 pixels")


@dataclass(frozen=True)
class Recipe:
    """A recipe: optimizer, schedule, augmentation, phases and default network."""

    name: str
    about: str
    """A one-line description."""
    epochs: int
    batch_size: int
    """Batch size on each device."""
    learning_rate: float
    """Maximum learning rate."""
    optimizer: SGD | Adam
    augmentation: Augmentation
    schedule: OneCycle | Milestones | Plateau | None = None
    """None: constant learning rate."""
    accumulate: int = 1
    """Number of batches whose gradients are averaged in one optimizer step."""
    label_smoothing: float = 0.0
    phases: tuple[Phase, ...] = (Phase(),)
    """The phases in order. Their shares sum to 1."""
    network: Network = field(default_factory=Network)
    keeps: Literal["last", "best"] = "last"
    """Which weights to keep and to test: of the ``last`` step, or the ``best`` on validation."""
    log_steps: int = 20
    """Number of steps between two logs of loss, accuracy and learning rate."""
    histogram_steps: int | None = None
    """Number of steps between two histograms of weights and gradients. None: no histograms."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("epochs", "batch_size", "accumulate", "log_steps"):
            value = getattr(self, name)
            require(value >= 1, name, value, "at least 1")
        if self.histogram_steps is not None:
            require(
                self.histogram_steps >= 1, "histogram_steps", self.histogram_steps, "at least 1"
            )
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "greater than 0")
        smoothing = self.label_smoothing
        require(0 <= smoothing < 1, "label_smoothing", smoothing, "at least 0 and less than 1")
        total = sum(phase.share for phase in self.phases)
        if abs(total - 1) > _ROUNDING:
            raise InputError(
                "AS501", f"the shares of the phases sum to {total:.4g}; make them sum to 1"
            )
        restarts = [now for before, now in pairwise(self.phases) if now.starts_optimizer(before)]
        if restarts and self.schedule is not None:
            raise InputError(
                "AS502",
                "a phase starts a new optimizer, which the schedule cannot continue; remove the "
                "schedule, or remove trains and learning_rate from the phases",
            )

    def with_learning_rate(self, learning_rate: float) -> Recipe:
        """Return the recipe with another maximum learning rate.

        The learning rates of its phases scale with it.

        Raises:
            InputError: AS102, the learning rate is not greater than 0.
        """
        require(learning_rate > 0, "learning_rate", learning_rate, "greater than 0")
        ratio = learning_rate / self.learning_rate
        phases = tuple(
            phase
            if phase.learning_rate is None
            else replace(phase, learning_rate=phase.learning_rate * ratio)
            for phase in self.phases
        )
        return replace(self, learning_rate=learning_rate, phases=phases)
