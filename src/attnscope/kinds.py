"""Gates and the kinds of gates. This module needs no torch.

A kind defines how a gate is recognized, what its values mean, how they are averaged per image, and
which statistics and plots apply. Other modules never compare `Gate.kind` with a name. They ask for
traits, so a new kind needs one call of `register_kind`, here or in another package::

    from attnscope.kinds import HAS_NEUTRAL, Kind, register_kind

    register_kind(
        Kind(
            "columns",
            "one value per channel and column",
            lambda seen: seen.along == {"C", "W"} and not seen.static,
            traits=frozenset({HAS_NEUTRAL}),
        )
    )

After that call `find_gates` finds gates of the new kind, and all commands handle them.

This file has more than 400 lines, because all kinds of attnscope are in it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnscope.notebook import html_table
from attnscope.registry import Registry
from attnscope.views import View, channel_view, map_view

AXES = "NBGCDHWL"
"""Letters of axes, in the order in which a gate's values are returned.

N: images, B: branches (paths), G: groups, C: channels, D: depth (slices or frames), H: rows,
W: columns, L: positions in one flattened axis (tokens).
"""

PER_CHANNEL = "per-channel"
"""Trait: the values are ``(N, C)``, one per channel. Channel statistics apply."""
MAP = "map"
"""Trait: the values are ``(N, H, W)``, one per position. Flattened positions (tokens) are returned
as a grid (`Gate.grid`). Maps are drawn and compared with Grad-CAM."""
VIEWED = (PER_CHANNEL, MAP)
"""Traits whose values a gate of another kind can have by a mean: `Gate.view`."""
HAS_NEUTRAL = "has-neutral"
"""Trait: at one value, `Gate.neutral`, the gate leaves the features unchanged."""
TRAITS = frozenset({PER_CHANNEL, MAP, HAS_NEUTRAL})


@dataclass(frozen=True)
class Gate:
    """One place in a network where a bounded activation multiplies a feature map."""

    name: str
    """Path of the module that computes the gate. A module's second gate has the suffix ``#2``."""
    kind: str
    """Name of a kind in `KINDS`."""
    channels: int
    """Number of channels of the features that the gate multiplies."""
    grid: tuple[int, int] | None
    """Rows and columns of a gate with the trait `MAP`, on the sample, and of any gate that varies
    over flattened positions (tokens). None for other gates."""
    activation: str
    """Name of the bounded activation: sigmoid, hardsigmoid, softmax ..."""
    lo: float
    hi: float
    """Lower and upper bound of the gate: those of the activation after ``1 + g``, ``2 * g`` ..."""
    neutral: float
    """The value that leaves the features unchanged: 1, or 0 for ``x + x * g``, or 2 for
    ``x * g - x``."""
    made_in: str = ""
    """Path of the module whose forward runs the activation."""
    call: int = 0
    """Index of the activation among those of that module with the same source, in one forward."""
    source: str | None = None
    """Path of the module with parameters whose output the activation received. Empty if it is
    unknown, and None in recordings of version 0.1."""
    entry: int = 0
    """How often the module had been entered before in the same forward."""
    calls: int = field(default=0, compare=False)
    """Number of activations on the sample of which this is one: those of the module with the same
    source and form. 0 if it is unknown, as in recordings of version 0.1."""
    form: str = ""
    """Operations between the activation and the multiplication, such as ``add 1``."""
    applied_in: str = ""
    """Path of the module whose forward multiplies the features by the gate."""
    layout: str = "NCHW"
    """Axes of the features in their own order, as letters of `AXES`."""
    rows_per_image: int = 1
    """Number of rows per image, if an axis of the features holds images and groups or frames."""
    axes: str = ""
    """Axes of the gate's values in the order of `AXES`: ``NC`` for a channel gate, ``NHW`` for a
    spatial gate."""

    def __repr__(self) -> str:
        return (
            f"<Gate '{self.name}': {self.kind}, {self.size}, {self.activation} {self.bounds_text}>"
        )

    def _repr_html_(self) -> str:
        return gate_table([self])

    @property
    def size(self) -> str:
        """The number of values, as text: ``64 channels``, or ``16×16 positions`` for a map."""
        if self.grid is not None and not {"B", "G", "C"} & set(self.axes):
            return f"{self.grid[0]}×{self.grid[1]} positions"
        return f"{self.channels} channel{'' if self.channels == 1 else 's'}"

    @property
    def bounded(self) -> bool:
        """Whether both bounds are finite. They are not for gates of the kind ``unbounded``."""
        return math.isfinite(self.lo) and math.isfinite(self.hi)

    @property
    def bounds_text(self) -> str:
        """The bounds as text: ``0 to 1``, or ``none``."""
        return f"{self.lo:g} to {self.hi:g}" if self.bounded else "none"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as values of JSON, in which an infinite bound is null."""
        bounds = {
            name: value if math.isfinite(value) else None
            for name, value in (("lo", self.lo), ("hi", self.hi))
        }
        return {**asdict(self), **bounds}

    @property
    def midpoint(self) -> float:
        """The midpoint of the bounds: 0.5 for a sigmoid, the value of many untrained gates."""
        return (self.lo + self.hi) / 2

    def image_means(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the mean of the gate for each image, as the gate's kind defines it.

        Args:
            values: values of this gate, ``(N, ...)`` in the order of `axes`.

        Returns:
            An array ``(N,)``.
        """
        return KINDS.find(self.kind).image_means(values, self)

    def has(self, trait: str) -> bool:
        """Return whether the gate's kind has a trait.

        Raises:
            InputError: the kind is not registered.
            ValueError: the trait is not one of `TRAITS`.
        """
        if trait not in TRAITS:
            known = ", ".join(sorted(TRAITS))
            raise ValueError(f"the trait '{trait}' does not exist; the traits are {known}")
        return trait in KINDS.find(self.kind).traits

    def view(self, trait: str) -> View | None:
        """Return the reduction that gives this gate the values of a trait.

        Args:
            trait: `PER_CHANNEL` or `MAP`.

        Returns:
            None if the gate has the trait already, and needs none, or if there is no such view.
        """
        if trait not in VIEWED or self.has(trait) or not self.axes.startswith("N"):
            return None
        kind = KINDS.find(self.kind)
        return (kind.channel_view if trait == PER_CHANNEL else kind.map_view)(self.axes)

    def offers(self, trait: str) -> bool:
        """Return whether the gate has a trait, by itself or by a view."""
        return self.has(trait) or self.view(trait) is not None

    @property
    def per_image(self) -> bool:
        """Whether the gate has a value for each image: `Kind.per_image`."""
        return KINDS.find(self.kind).per_image


NOT_A_GATE: Mapping[str, str] = MappingProxyType(
    {
        "consumed": "consumed by {}",
        "unused": "no operation that attnscope follows uses it",
        "returned": "returned by the network",
        "no-features": "multiplies a tensor that is not a feature map",
        "size": "its axes cannot be determined",
        "no-batch-axis": "multiplies features without an axis of images",
        "whole-batch": "one gate for the whole batch",
        "pooling": "the weights of a softmax pooling",
        "unbounded": "multiplies a feature map, but is unbounded",
        "statistic": "a statistic of the features, as in a normalization",
        "mask": "a mask",
        "routing": "weights over the kernels of a {}",
        "other-kind": "a gate of the kind {}",
    }
)
"""Codes of `Ungated.code`, and what they mean. The braces stand for `Ungated.detail`."""


@dataclass(frozen=True)
class Ungated:
    """A bounded activation whose output is not a gate."""

    made_in: str
    """Path of the module whose forward runs it."""
    call: int
    """Its index among the bounded activations of that module, from 0."""
    activation: str
    """Name of the activation."""
    code: str
    """Why it is not a gate: one of `NOT_A_GATE`."""
    detail: str = ""
    """The operation that consumed its output, or the kind that was not searched."""

    @property
    def reason(self) -> str:
        """Why it is not a gate, in words."""
        reason = NOT_A_GATE[self.code].format(self.detail)
        if self.code == "other-kind" and (unasked := KINDS.find(self.detail).unasked):
            reason += f", which {unasked}"
        return reason

    @property
    def fate(self) -> str:
        """The old name of `reason`."""
        warnings.warn("Ungated.fate is now Ungated.reason", DeprecationWarning, stacklevel=2)
        return self.reason


@dataclass(frozen=True)
class Variation:
    """The axes along which a gate varies. They determine its kind."""

    along: frozenset[str]
    """Letters of the axes along which the gate varies, without N."""
    features: frozenset[str]
    """Letters of the axes of the features that are longer than 1, without N."""
    own_shape: bool
    """Whether the gate has the same shape as the features."""
    static: bool
    """Whether the gate does not depend on the input."""
    shares_paths: bool = False
    """Whether the gate is one slice of a softmax whose other slices gate other branches."""

    pointwise: bool = False
    """Whether the gate is computed from the features position by position."""
    bounded: bool = True
    """Whether the gate comes from a bounded activation."""

    @property
    def everywhere(self) -> bool:
        """Whether the gate varies along every axis of the features, as in SiLU written by hand."""
        return self.own_shape and self.along == self.features


@dataclass(frozen=True)
class Kind:
    """One kind of gate."""

    name: str
    about: str
    """One phrase that describes the values, such as ``one value per channel``."""
    recognizes: Callable[[Variation], bool]
    """Whether a gate is of this kind. Kinds are asked from the last registered to the first, so the
    kinds of other packages come before those of attnscope. Kinds with `fallback` come last."""
    traits: frozenset[str] = frozenset()
    """Traits of `TRAITS`. They decide which statistics and plots apply."""
    image_means: Callable[[NDArray[Any], Gate], NDArray[np.float64]] = lambda values, gate: (
        mean_of_all(values, gate)
    )
    """Averages a gate per image: values ``(N, ...)`` and the gate -> ``(N,)``."""
    image_mean_about: str = ""
    """What is averaged, if it is not all values: such as ``the first branch``."""
    channel_view: Callable[[str], View | None] = channel_view
    """Axes of the values -> the reduction to ``(N, C)``; None if there is none. Statistics and
    plots of channels then apply to a kind without the trait `PER_CHANNEL`."""
    map_view: Callable[[str], View | None] = map_view
    """Axes of the values -> the reduction to ``(N, H, W)``; None if there is none. Statistics and
    plots of maps then apply to a kind without the trait `MAP`."""
    per_image: bool = True
    """Whether the gate has a value for each image. False for gates of parameters alone."""
    searched: bool = True
    """Whether `find_gates` looks for this kind by default."""
    unasked: str = ""
    """The reason in `Ungated.reason` when the kind is not searched."""
    fallback: bool = False
    """Whether the kind takes the gates that no other kind recognizes."""
    bounded: bool = True
    """Whether the kind takes gates from bounded activations, or else multipliers without bounds."""


def gate_table(gates: Iterable[Gate]) -> str:
    """Return an HTML table with one row per gate. Text is escaped."""
    head = ("gate", "kind", "size", "activation", "bounds", "neutral", "computed in", "applied in")
    rows = [
        (
            gate.name,
            gate.kind,
            gate.size,
            gate.activation,
            gate.bounds_text,
            f"{gate.neutral:g}" if gate.has(HAS_NEUTRAL) else "",
            gate.made_in,
            gate.applied_in,
        )
        for gate in gates
    ]
    return html_table(head, rows)


def mean_of_all(values: NDArray[Any], gate: Gate) -> NDArray[np.float64]:
    """Return the mean over all values of each image: ``(N, ...)`` -> ``(N,)``."""
    means: NDArray[np.float64] = values.reshape(len(values), -1).mean(1, dtype=np.float64)
    return means


def mean_of_first_path(values: NDArray[Any], gate: Gate) -> NDArray[np.float64]:
    """Return the mean over the first branch of each image: ``(N, ...)`` -> ``(N,)``.

    Branches that share a softmax sum to one, so the mean over all of them would be the same for
    every image.
    """
    if "B" in gate.axes:
        values = values.take(0, gate.axes.index("B"))
    return mean_of_all(values, gate)


def _check(kind: Kind) -> None:
    """Refuse an incomplete kind when it is registered, not when it is first used."""
    for name in ("name", "about"):
        if not isinstance(getattr(kind, name), str) or not getattr(kind, name).strip():
            raise ValueError(f"its {name} must be a non-empty string")
    for name in ("recognizes", "image_means", "channel_view", "map_view"):
        if not callable(getattr(kind, name)):
            raise TypeError(f"its {name} must be a function")
    unknown = sorted(set(kind.traits) - TRAITS)
    if unknown:
        raise ValueError(
            f"its trait '{unknown[0]}' does not exist; choose from {', '.join(sorted(TRAITS))}"
        )
    if {PER_CHANNEL, MAP} <= kind.traits:
        raise ValueError("it has the traits per-channel and map; choose one of the two")
    if not kind.searched and not kind.unasked:
        raise ValueError("it is not searched by default; give the reason in `unasked`")


KINDS: Registry[Kind] = Registry("kind of gate", _check)
"""All registered kinds by name."""


def register_kind(kind: Kind) -> Kind:
    """Register a kind of gate.

    Returns:
        The kind.

    Raises:
        InputError: the name is taken, or the kind is incomplete.
    """
    return KINDS.register(kind.name, kind)


def kind_of(variation: Variation) -> Kind:
    """Return the kind that recognizes a gate."""
    kinds = sorted(reversed(list(KINDS.values())), key=lambda kind: kind.fallback)  # stable
    return next(
        kind for kind in kinds if kind.bounded == variation.bounded and kind.recognizes(variation)
    )


def searched_kinds() -> tuple[str, ...]:
    """Return the names of the kinds that `find_gates` looks for by default."""
    return tuple(name for name, kind in KINDS.items() if kind.searched)


def with_included(kinds: Sequence[str], include: Sequence[str]) -> tuple[str, ...] | None:
    """Return the kinds to find: those given, or the default ones, and those to include.

    Returns:
        None if nothing was chosen, so that the default is used.
    """
    if not kinds and not include:
        return None
    return tuple(dict.fromkeys([*(kinds or searched_kinds()), *include]))


_POSITIONS = ({"H", "W"}, {"L"}, {"D", "H", "W"})


def _is_static(seen: Variation) -> bool:
    return seen.static


def _is_scalar(seen: Variation) -> bool:
    return _is_own(seen) and not seen.along and not seen.shares_paths


def _is_channel(seen: Variation) -> bool:
    return _is_own(seen) and seen.along == {"C"} and not seen.shares_paths


def _is_spatial(seen: Variation) -> bool:
    return _is_own(seen) and seen.along == {"H", "W"} and not seen.shares_paths


def _is_sequence(seen: Variation) -> bool:
    return _is_own(seen) and seen.along == {"L"} and not seen.shares_paths


def _is_volume(seen: Variation) -> bool:
    return _is_own(seen) and seen.along == {"D", "H", "W"} and not seen.shares_paths


def _is_grouped(seen: Variation) -> bool:
    return _is_own(seen) and "G" in seen.along and "B" not in seen.along


def _is_strip(seen: Variation) -> bool:
    others = seen.along - {"C"}
    return _is_own(seen) and len(others) == 1 and not others & {"B", "G"} and seen.along != {"L"}


def _is_branch(seen: Variation) -> bool:
    is_part = seen.shares_paths and (seen.along <= {"C"} or seen.along in _POSITIONS)
    return _is_own(seen) and ("B" in seen.along or is_part)


def _is_activation(seen: Variation) -> bool:
    return not seen.static and seen.everywhere and seen.pointwise


def _is_own(seen: Variation) -> bool:
    """Whether the gate depends on the image and does not vary along all axes of the features."""
    return not seen.static and not seen.everywhere


register_kind(
    Kind(
        "static",
        "a gate of parameters alone, the same for every image",
        _is_static,
        traits=frozenset({HAS_NEUTRAL}),
        per_image=False,
        searched=False,
        unasked="does not depend on the input",
    )
)
register_kind(
    Kind(
        "channel",
        "one value per channel",
        _is_channel,
        traits=frozenset({PER_CHANNEL, HAS_NEUTRAL}),
    )
)
register_kind(
    Kind(
        "spatial",
        "one value per position",
        _is_spatial,
        traits=frozenset({MAP, HAS_NEUTRAL}),
    )
)
register_kind(
    Kind(
        "scalar",
        "one value per image",
        _is_scalar,
        traits=frozenset({HAS_NEUTRAL}),
    )
)
register_kind(
    Kind(
        "sequence",
        "one value per position of a sequence",
        _is_sequence,
        traits=frozenset({HAS_NEUTRAL}),
    )
)
register_kind(
    Kind(
        "volume",
        "one value per position of a volume",
        _is_volume,
        traits=frozenset({HAS_NEUTRAL}),
    )
)
register_kind(
    Kind(
        "grouped",
        "values per group of channels, or per view of an image",
        _is_grouped,
        traits=frozenset({HAS_NEUTRAL}),
    )
)
register_kind(
    Kind(
        "strip",
        "one value per channel and row, or per channel and column",
        _is_strip,
        traits=frozenset({HAS_NEUTRAL}),
    )
)
register_kind(
    Kind(
        "branch",
        "one weight per branch",
        _is_branch,
        image_means=mean_of_first_path,
        image_mean_about="the first branch",
    )
)
register_kind(
    Kind(
        "activation",
        "one value per feature, computed from the same values",
        _is_activation,
        traits=frozenset({HAS_NEUTRAL}),
        image_means=mean_of_first_path,
        searched=False,
        unasked="is computed from the same values, position by position, as in SiLU",
    )
)
register_kind(
    Kind(
        "full",
        "one value per feature, computed from other positions or another branch",
        lambda seen: True,
        traits=frozenset({HAS_NEUTRAL}),
        image_means=mean_of_first_path,
        fallback=True,
    )
)
register_kind(
    Kind(
        "unbounded",
        "the values of a multiplier without bounds, as in x * conv(x)",
        lambda seen: True,
        traits=frozenset({HAS_NEUTRAL}),
        searched=False,
        unasked="has no bounds",
        fallback=True,
        bounded=False,
    )
)
