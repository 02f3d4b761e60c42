"""Find the gates of a network from one forward on a sample, and a second one if needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from attnscope.errors import InputError
from attnscope.gates.axes import Layout, format_layout, grid_of
from attnscope.gates.finder import Finder, Place, Use
from attnscope.gates.graph_network import GraphNetwork
from attnscope.gates.inputs import Inputs
from attnscope.gates.probes import Probes, probe
from attnscope.kinds import (
    AXES,
    KINDS,
    MAP,
    PER_CHANNEL,
    Gate,
    Kind,
    Ungated,
    Variation,
    gate_table,
    kind_of,
    searched_kinds,
)
from attnscope.notebook import html_table

Reason = tuple[str, str]
"""``code`` and ``detail`` of `attnscope.kinds.Ungated`."""
_LARGE = 128  # pixels; a map that is 1×1 even on a sample of this size is not a feature map


@dataclass(frozen=True)
class Inspection:
    """The gates of a network, and its other bounded activations."""

    gates: list[Gate]
    """The gates in the order in which they multiply."""
    ungated: list[Ungated]
    """The other bounded activations in the order in which they run, each with a reason."""

    def __repr__(self) -> str:
        counts = Counter(gate.kind for gate in self.gates)
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"
        return (
            f"<Inspection: {len(self.gates)} gates ({kinds}), "
            f"{len(self.ungated)} other bounded activations>"
        )

    def _repr_html_(self) -> str:
        others = [(u.activation, u.made_in or "(the network)", u.reason) for u in self.ungated]
        head = ("activation", "computed in", "not a gate because")
        return gate_table(self.gates) + (html_table(head, others) if others else "")


def find_gates(model: nn.Module, images: Any, kinds: Sequence[str] | None = None) -> list[Gate]:
    """Return the gates of a network in the order in which they multiply.

    A gate is a bounded activation (sigmoid, softmax ...) whose output multiplies a feature map by
    broadcasting. See `inspect_gates` for the arguments, the errors, and the activations that are
    not gates.
    """
    return inspect_gates(model, images, kinds).gates


def inspect_gates(model: nn.Module, images: Any, kinds: Sequence[str] | None = None) -> Inspection:
    """Return the gates of a network, and why its other bounded activations are not gates.

    The network runs in eval mode without gradients and is unchanged afterwards. It runs on the
    sample, on a sample with one image more, and once for each spatial dimension, which is doubled
    then. This shows which axes hold images, channels and positions (`attnscope.gates.axes`).

    Args:
        model: any network.
        images: a small sample, normalized as the network expects it and on its device. Usually
            ``(N, 3, H, W)``, or one image ``(3, H, W)`` for a network without a batch axis. Also
            sequences ``(N, C, L)``, volumes ``(N, C, D, H, W)``, a list with one entry per image,
            or a dict or dataclass of tensors that share their first axis. A tuple holds several
            arguments.
        kinds: names of the kinds to find. By default all but ``activation`` (computed from the
            features position by position, as in SiLU written by hand), ``static`` (does not depend
            on the input) and ``unbounded`` (multipliers without bounds).

    Raises:
        InputError: AS405 or AS406; or a kind is not registered.
    """
    inputs = Inputs.of(images)
    return inspect_call(model, inputs.args, {}, kinds)


def inspect_call(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    kinds: Sequence[str] | None = None,
) -> Inspection:
    """Do what `inspect_gates` does for a forward with any arguments."""
    kinds = searched_kinds() if kinds is None else kinds
    for kind in kinds:
        KINDS.find(kind)
    if isinstance(model, GraphNetwork):  # its gates are nodes
        return Inspection([gate for gate in model.gates if gate.kind in kinds], [])
    inputs = Inputs(args, kwargs)
    with_unbounded = any(not KINDS.find(kind).bounded for kind in kinds)
    first = probe(model, inputs)
    if with_unbounded:
        first.with_unbounded()
    last = first
    while last.is_unclear():
        larger = last.inputs
        for axis in last.spatial.values():
            larger = larger.doubled(axis)
        if larger.main is None or max(larger.main.shape) > 2 * _LARGE:
            break
        try:
            enlarged = probe(model, larger)
        except InputError:
            raise
        except Exception:  # a network that takes one size only may raise anything
            break
        last = enlarged.with_unbounded() if with_unbounded else enlarged
    return _conclude(first.sample, last, kinds)


@dataclass(frozen=True)
class _Found:
    """A multiplication that is a gate."""

    use: Use
    """The multiplication on the sample."""
    layout: Layout
    kind: Kind
    axes: str
    aspect: float
    """Height of the images over their width."""


def _read(first: Use, probes: Probes) -> _Found | Reason:
    """Return kind and axes of a gate, or the reason why it is not a gate."""
    place = first.mark.place
    use = probes.sample.uses.get(place, first)
    softmax = probes.softmax_axes(place) if place in probes.sample.uses else use.softmax_axes
    if softmax and softmax <= use.summed and probes.are_spatial(place):
        return "pooling", ""
    layout = probes.layout(place)
    if layout is None:
        return "size", ""
    batch = probes.batch
    positions = {letter for token in layout for letter in token} - set("NCBG1")
    if not positions and len(layout) > 2:
        return "no-features", ""
    varies = probes.varies(place)
    along = {
        letter for token, moves in zip(layout, varies, strict=True) if moves for letter in token
    }
    along -= {"N", "1"}
    if use.static:
        return _found(first, layout, along, set(), probes)
    if batch is not None and not any("N" in token for token in layout):
        return "no-batch-axis", ""
    rows = (1,) * (len(use.features) - len(use.gate)) + use.gate
    axis = next((i for i, token in enumerate(layout) if "N" in token), None)
    if axis is not None and use.features[axis] > 1 and rows[axis] == 1:
        return "whole-batch", ""
    sizes = zip(layout, probes.largest(place), strict=True)
    longer = {letter for token, size in sizes if size > 1 for letter in token} - {"N"}
    if not along and "C" in layout and not probes.has_own_shape(place):
        # One value per channel, if the features have a single channel. It is also one value per
        # image: with more channels, a gate that does not vary along them is of kind scalar.
        along = {"C"} - longer
    found = _found(first, layout, along, longer, probes)
    is_summed = {i for i, token in enumerate(layout) if along & set(token)} <= use.summed
    if MAP in found.kind.traits and use.is_distribution and is_summed:
        return "pooling", ""
    return found


def _found(
    first: Use, layout: Layout, along: set[str], features: set[str], probes: Probes
) -> _Found:
    use = probes.sample.uses.get(first.mark.place, first)
    seen = Variation(
        along=frozenset(along),
        features=frozenset(features),
        own_shape=probes.has_own_shape(first.mark.place),
        static=use.static,
        shares_paths=use.mark.activation == "softmax" and not use.is_distribution,
        bounded=use.mark.bounded,
        pointwise=use.pointwise or not features & set("DHWL"),
    )
    kind = kind_of(seen)
    own = {letter for token in layout for letter in token} & {"N"} if not use.static else set()
    if PER_CHANNEL in kind.traits:
        own |= {"C"} & set(layout)  # one value for all channels is read as (N, 1)
    return _Found(first, layout, kind, _in_order(along | own), probes.aspect)


def _in_order(letters: set[str]) -> str:
    return "".join(letter for letter in AXES if letter in letters)


def _conclude(first: Finder, last: Probes, kinds: Sequence[str]) -> Inspection:
    """Name the gates, and give the reason why each other bounded activation is not a gate."""
    found: list[_Found] = []
    reasons = dict(first.reasons)
    for use in first.uses.values():
        read = _read(use, last)
        if isinstance(read, _Found):
            if read.axes and read.kind.name in kinds:
                found.append(read)
                continue
            read = "other-kind", read.kind.name
        if not use.mark.bounded:
            continue  # it is among the multipliers
        for origin in use.mark.origins:
            # Another operation may have consumed the activation, too, which says less.
            if reasons.get(origin, ("consumed", ""))[0] == "consumed":
                reasons[origin] = read
    calls: dict[tuple[str, str], int] = {}
    for use in first.uses.values():
        series = use.mark.series
        calls[series] = max(calls.get(series, 0), use.mark.number + 1)
    gates = _named(found, first.bare, calls)
    served = {origin for each in found for origin in each.use.mark.origins}
    return Inspection(
        [gates[each.use.mark.place] for each in found],
        [
            Ungated(*origin, activation, *reasons.get(origin, ("unused", "")))
            for origin, activation in first.activations.items()
            if origin not in served
        ]
        + [
            Ungated(path, number, "none", code)
            for place, (path, number, code) in first.multipliers.items()
            if place not in gates
        ],
    )


def _named(
    found: Sequence[_Found], bare: set[str], calls: Mapping[tuple[str, str], int]
) -> dict[Place, Gate]:
    """Return the gates by place, each with the name of the module that computes it.

    Args:
        found: the gates.
        bare: paths of the modules without submodules and parameters.
        calls: `Mark.series` -> the number of its activations on the sample.
    """
    gates: dict[Place, Gate] = {}
    # Names must not depend on which other kinds were requested.
    for each in sorted(found, key=lambda each: not each.kind.searched):
        use, mark = each.use, each.use.mark
        name = _path(use, bare)
        number = 1 + sum(gate.name.partition("#")[0] == name for gate in gates.values())
        gates[mark.place] = Gate(
            name=name if number == 1 else f"{name}#{number}",
            kind=each.kind.name,
            channels=_size_of("C", use.features, each.layout),
            grid=_grid(use.features, each) if _has_grid(each) else None,
            activation=mark.activation,
            lo=mark.bounds[0],
            hi=mark.bounds[1],
            neutral=use.neutral,
            made_in=mark.made_in,
            call=mark.number,
            source=mark.source,
            entry=mark.entry,
            calls=calls.get(mark.series, 0),
            form=mark.form,
            applied_in=use.applied_in,
            layout=format_layout(each.layout),
            rows_per_image=_rows_per_image(use, each.layout),
            axes=each.axes,
        )
    return gates


def _path(use: Use, bare: set[str]) -> str:
    """Return the path of the module that computes the gate, or of the parent of ``nn.Sigmoid``.

    A gate that the network computes in its own forward is called after the activation, or
    ``multiplier`` if there is none.
    """
    path = use.mark.made_in
    if path in bare and path != use.applied_in:
        path = path.rpartition(".")[0]
    return path or (use.mark.activation if use.mark.bounded else "multiplier")


def _size_of(letter: str, features: Sequence[int], layout: Layout) -> int:
    """Return the length of the axis of this letter alone, and 1 if there is none."""
    return features[layout.index(letter)] if letter in layout else 1


def _rows_per_image(use: Use, layout: Layout) -> int:
    """Return the number of rows per image, if an axis holds images and something else, else 1."""
    axis = next((i for i, token in enumerate(layout) if len(token) > 1 and "N" in token), None)
    return 1 if axis is None or use.batch is None else use.features[axis] // use.batch


def _has_grid(found: _Found) -> bool:
    """Return whether rows and columns must be known: for a map, and for flattened positions."""
    return MAP in found.kind.traits or ("HW" in found.layout and {"H", "W"} <= set(found.axes))


def _grid(features: Sequence[int], found: _Found) -> tuple[int, int]:
    layout = found.layout
    for token in ("HW", "L"):
        if token in layout:
            return grid_of(features[layout.index(token)], found.aspect)
    return _size_of("H", features, layout), _size_of("W", features, layout)
