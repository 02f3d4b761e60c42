"""Gates and their kinds: what is known of them without their values. No torch.

A kind says how a gate is recognized, what its values are, how it is summed up per image, and which
statistics and plots apply to it. No other module compares `Gate.kind` with a name: it asks for
traits, so that a new kind is one more call of `register_kind`, here or in a package of one's own::

    from attnscope.kinds import HAS_NEUTRAL, PER_CHANNEL, Kind, register_kind

    register_kind(
        Kind(
            "number",
            "one value for all channels and positions",
            lambda seen: not seen.along and not seen.static and not seen.shares_paths,
            traits=frozenset({PER_CHANNEL, HAS_NEUTRAL}),
        )
    )

From then on `find_gates` finds gates of that kind, and they are recorded and read like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnscope.registry import Registry

AXES = "NBGCDHWL"
"""Letters of axes, in the order in which a gate's values are read: images, paths, groups, channels,
depth (slices or frames), rows, columns, and positions that stand in one row."""

PER_CHANNEL = "per-channel"
"""Trait: values are ``(N, C)``, one for each channel. Statistics of channels apply."""
MAP = "map"
"""Trait: values are ``(N, H, W)``, one for each position; positions that stand in one row are read
as a grid (`Gate.grid`). Maps are drawn and compared with Grad-CAM."""
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
    """Rows and columns of a gate that is a `MAP`, on the sample; None for other kinds."""
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
    """Axes of the features in their order, letters of `AXES`."""
    axes: str = ""
    """Axes of the values that are read, in the order of `AXES`: ``NC`` for channels, ``NHW`` for
    pixels ..."""

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
        """Whether the gate's kind has a trait.

        Raises:
            InputError: its kind is not registered.
            ValueError: there is no such trait.
        """
        if trait not in TRAITS:
            raise ValueError(f"there is no trait '{trait}'; there are {', '.join(sorted(TRAITS))}")
        return trait in KINDS.find(self.kind).traits

    @property
    def per_image(self) -> bool:
        """Whether there is a value for each image: `Kind.per_image`."""
        return KINDS.find(self.kind).per_image


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
    """Kinds are asked from the last registered to the first, so that a package's own kinds come
    before these, and those of `fallback` after all others."""
    traits: frozenset[str] = frozenset()
    """Of `TRAITS`: which statistics and plots apply. What no trait allows is left out and named."""
    image_means: Callable[[NDArray[Any], Gate], NDArray[np.float64]] = lambda values, gate: (
        mean_of_all(values, gate)
    )
    """Sums a gate up per image: ``(N, ...)`` as it is read, and the gate -> ``(N,)``."""
    image_mean_about: str = ""
    """What that mean is where it is not the mean of all values, as ``the first path's``."""
    per_image: bool = True
    """Whether there is a value for each image; not where no image has a part in it."""
    searched: bool = True
    """Whether it is looked for unless other kinds are asked for."""
    unasked: str = ""
    """Where it is not looked for, what is said of an activation whose gate is of this kind."""
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
    unknown = sorted(set(kind.traits) - TRAITS)
    if unknown:
        raise ValueError(
            f"its trait '{unknown[0]}' is not known; take of {', '.join(sorted(TRAITS))}"
        )
    if {PER_CHANNEL, MAP} <= kind.traits:
        raise ValueError("it has values per channel and per position; take one of the two traits")
    if not kind.searched and not kind.unasked:
        raise ValueError("it is not looked for unless asked; say in `unasked` what it is then")


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
    kinds = sorted(reversed(list(KINDS.values())), key=lambda kind: kind.fallback)  # stable
    return next(kind for kind in kinds if kind.recognizes(variation))


def searched_kinds() -> tuple[str, ...]:
    """Names of the kinds that are looked for unless others are asked for."""
    return tuple(name for name, kind in KINDS.items() if kind.searched)


_POSITIONS = ({"H", "W"}, {"L"})


def _is_static(seen: Variation) -> bool:
    return seen.static


def _is_channel(seen: Variation) -> bool:
    return _is_own(seen) and seen.along <= {"C"} and not seen.shares_paths


def _is_spatial(seen: Variation) -> bool:
    return _is_own(seen) and seen.along in _POSITIONS and not seen.shares_paths


def _is_strip(seen: Variation) -> bool:
    others = seen.along - {"C"}
    return _is_own(seen) and len(others) == 1 and others != {"B"} and seen.along != {"L"}


def _is_branch(seen: Variation) -> bool:
    is_part = seen.shares_paths and (seen.along <= {"C"} or seen.along in _POSITIONS)
    return _is_own(seen) and ("B" in seen.along or is_part)


def _is_own(seen: Variation) -> bool:
    """Whether it depends on the image and is not of the features' own shape."""
    return not seen.static and not seen.everywhere


register_kind(
    Kind(
        "static",
        "a gate from parameters alone, the same for every image",
        _is_static,
        traits=frozenset({HAS_NEUTRAL}),
        per_image=False,
        searched=False,
        unasked="from parameters alone",
    )
)
register_kind(
    Kind(
        "channel",
        "one value for each channel",
        _is_channel,
        traits=frozenset({PER_CHANNEL, HAS_NEUTRAL}),
    )
)
register_kind(
    Kind(
        "spatial",
        "one value for each position",
        _is_spatial,
        traits=frozenset({MAP, HAS_NEUTRAL}),
    )
)
register_kind(
    Kind(
        "strip",
        "one value for each row or column, of each channel",
        _is_strip,
        traits=frozenset({HAS_NEUTRAL}),
    )
)
register_kind(
    Kind(
        "branch",
        "how much each of several paths counts",
        _is_branch,
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
        image_means=mean_of_first_path,
        searched=False,
        unasked="multiplies features of its own shape",
        fallback=True,
    )
)
