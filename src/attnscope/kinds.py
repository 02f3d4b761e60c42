"""Gates and their kinds: what is known of them without their values. No torch.

A kind says how a gate is recognized, how it is summed up per image, and which statistics and plots
apply to it. Another kind is one more call of `register_kind`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnscope.registry import Registry

PER_CHANNEL = "per-channel"
"""Trait: values are ``(N, C)``, one for each channel. Statistics of channels apply."""
MAP = "map"
"""Trait: values are ``(N, H, W)``, one for each position. Maps are drawn and compared with
Grad-CAM."""
HAS_NEUTRAL = "has-neutral"
"""Trait: there is a value, `Gate.neutral`, under which the gate changes nothing."""
TRAITS = frozenset({PER_CHANNEL, MAP, HAS_NEUTRAL})


@dataclass(frozen=True)
class Gate:
    """One place where a bounded activation multiplies a feature map."""

    name: str
    """Path of the module that makes it, ``#2`` for a module's second gate."""
    kind: str
    """Name of a kind in `KINDS`."""
    channels: int
    """Channels of the features that it multiplies."""
    grid: tuple[int, int] | None
    """Rows and columns of a spatial gate on the sample; None for other kinds."""
    activation: str
    """The bounded activation: sigmoid, hardsigmoid, softmax ..."""
    lo: float
    hi: float
    """The bounds of the gate: the activation's, after ``1 + g``, ``2 * g`` and the like."""
    neutral: float
    """The value that changes nothing: 1, or 0 for ``x + x * g``."""
    made_in: str = ""
    """Path of the module in whose forward the activation runs."""
    call: int = 0
    """Which of that module's bounded activations it is in one forward of the network, from 0."""
    form: str = ""
    """What was done to the activation's values before they multiply, as ``1 +`` or ``[0]``."""
    applied_in: str = ""
    """Path of the module in whose forward the gate multiplies the features."""
    layout: str = "NCHW"
    """Axes of the features: images, channels, rows, columns; B paths, L pixels in one row."""
    axes: str = ""
    """Axes of the values that are read: ``NC`` for channels, ``NHW`` for pixels ..."""

    @property
    def midpoint(self) -> float:
        """The middle of the bounds; 0.5 for a sigmoid, which is where an untrained gate starts."""
        return (self.lo + self.hi) / 2

    def image_means(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Each image's mean gate, as the gate's kind sums it up.

        Args:
            values: of this gate, ``(N, ...)`` as they are read.

        Returns:
            ``(N,)``
        """
        return KINDS.find(self.kind).image_means(values, self)

    def has(self, trait: str) -> bool:
        """Whether the gate's kind has a trait: `PER_CHANNEL`, `MAP` ..."""
        return trait in KINDS.find(self.kind).traits


@dataclass(frozen=True)
class Ungated:
    """A bounded activation whose output gated no feature map."""

    made_in: str
    """Path of the module in whose forward it runs."""
    call: int
    """Which of that module's bounded activations it is, from 0."""
    activation: str
    fate: str
    """What became of its output: the operation that consumed it, or why it is no gate."""


@dataclass(frozen=True)
class Variation:
    """Along which axes a gate was seen to vary: all that tells its kind."""

    along: frozenset[str]
    """Letters of the axes along which it varies, without N: C channels, H rows, W columns, L pixels
    in one row, B paths."""
    features: frozenset[str]
    """Letters of the axes of the features that are longer than 1, without N."""
    own_shape: bool
    """Whether the gate has the shape of the features."""
    static: bool
    """Whether no input has a part in it."""
    shares_paths: bool
    """Whether it is one part of a softmax whose other parts gate other paths."""

    @property
    def everywhere(self) -> bool:
        """Whether it varies along every axis of the features, as a written-out SiLU does."""
        return self.own_shape and self.along == self.features


@dataclass(frozen=True)
class Kind:
    """One kind of gate."""

    name: str
    about: str
    """What one value of the gate is for, as ``one value for each channel``."""
    recognizes: Callable[[Variation], bool]
    """Kinds are asked in the order of their registration, those of `fallback` last."""
    traits: frozenset[str] = frozenset()
    """Of `TRAITS`: which statistics and plots apply. What no trait allows is left out and named."""
    image_means: Callable[[NDArray[Any], Gate], NDArray[np.float64]] = lambda values, gate: (
        mean_of_all(values, gate)
    )
    """Sums a gate up per image: ``(N, ...)`` as it is read, and the gate -> ``(N,)``."""
    image_mean_about: str = ""
    """What that mean is where it is not the mean of all values, as ``the first path's``."""
    searched: bool = True
    """Whether it is looked for unless other kinds are asked for."""
    fallback: bool = False
    """Whether it takes what no other kind recognizes."""


def mean_of_all(values: NDArray[Any], gate: Gate) -> NDArray[np.float64]:
    """Each image's mean over all of a gate's values: ``(N, ...)`` -> ``(N,)``."""
    means: NDArray[np.float64] = values.reshape(len(values), -1).mean(1, dtype=np.float64)
    return means


def mean_of_first_path(values: NDArray[Any], gate: Gate) -> NDArray[np.float64]:
    """Each image's mean over the first path.

    Paths that share a softmax sum to one, so that the mean over all of them is the same for every
    image.
    """
    if "B" in gate.axes:
        values = values.take(0, gate.axes.index("B"))
    return mean_of_all(values, gate)


def _check(kind: Kind) -> None:
    """Refuse a kind that is not complete, where it is registered and not where it is first met."""
    for field in ("name", "about"):
        if not isinstance(getattr(kind, field), str) or not getattr(kind, field).strip():
            raise ValueError(f"its {field} must be a text")
    for field in ("recognizes", "image_means"):
        if not callable(getattr(kind, field)):
            raise TypeError(f"its {field} must be a function")
    unknown = sorted(kind.traits - TRAITS)
    if unknown:
        raise ValueError(
            f"its trait '{unknown[0]}' is not known; take of {', '.join(sorted(TRAITS))}"
        )
    if {PER_CHANNEL, MAP} <= kind.traits:
        raise ValueError("it has values per channel and per position; take one of the two traits")


KINDS: Registry[Kind] = Registry("kind of gate", _check)
"""All kinds by name."""


def register_kind(kind: Kind) -> Kind:
    """Add a kind of gate.

    Raises:
        InputError: its name is taken, or it is not complete.
    """
    return KINDS.register(kind.name, kind)


def kind_of(variation: Variation) -> Kind:
    """The kind that recognizes a gate."""
    kinds = sorted(KINDS.values(), key=lambda kind: kind.fallback)  # stable
    return next(kind for kind in kinds if kind.recognizes(variation))


def searched_kinds() -> tuple[str, ...]:
    """Names of the kinds that are looked for unless others are asked for."""
    return tuple(name for name, kind in KINDS.items() if kind.searched)


def _is_channel_or_map(seen: Variation) -> bool:
    return seen.along <= {"C"} or seen.along in ({"H", "W"}, {"L"})


register_kind(
    Kind(
        "static",
        "a gate from parameters alone, the same for every image",
        lambda seen: seen.static,
        traits=frozenset({HAS_NEUTRAL}),
        searched=False,
    )
)
register_kind(
    Kind(
        "channel",
        "one value for each channel",
        lambda seen: seen.along <= {"C"} and not seen.shares_paths and not seen.everywhere,
        traits=frozenset({PER_CHANNEL, HAS_NEUTRAL}),
    )
)
register_kind(
    Kind(
        "spatial",
        "one value for each position",
        lambda seen: (
            seen.along in ({"H", "W"}, {"L"}) and not seen.shares_paths and not seen.everywhere
        ),
        traits=frozenset({MAP, HAS_NEUTRAL}),
    )
)
register_kind(
    Kind(
        "strip",
        "one value for each row or column, of each channel",
        lambda seen: (
            len(seen.along - {"C"}) == 1
            and not seen.along & {"B"}
            and seen.along != {"L"}
            and not seen.everywhere
        ),
        traits=frozenset({HAS_NEUTRAL}),
    )
)
register_kind(
    Kind(
        "branch",
        "how much each of several paths counts",
        lambda seen: (
            not seen.everywhere
            and ("B" in seen.along or (seen.shares_paths and _is_channel_or_map(seen)))
        ),
        image_means=mean_of_first_path,
        image_mean_about="the first path's",
    )
)
register_kind(
    Kind(
        "full",
        "one value for each value of the features",
        lambda seen: True,
        traits=frozenset({HAS_NEUTRAL}),
        searched=False,
        fallback=True,
    )
)
