"""Find the gates of a network from one forward on a sample, and a second one if needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from attnscope.errors import InputError, first_line
from attnscope.gates.axes import grid_of_row, layout_of
from attnscope.gates.finder import Finder, Place, Use, look
from attnscope.kinds import (
    AXES,
    KINDS,
    MAP,
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


def find_gates(model: nn.Module, images: Tensor, kinds: Sequence[str] | None = None) -> list[Gate]:
    """Return the gates of a network in the order in which they multiply.

    A gate is a bounded activation (sigmoid, softmax ...) whose output multiplies a feature map by
    broadcasting. See `inspect_gates` for the arguments, the errors, and the activations that are
    not gates.
    """
    return inspect_gates(model, images, kinds).gates


def inspect_gates(
    model: nn.Module, images: Tensor, kinds: Sequence[str] | None = None
) -> Inspection:
    """Return the gates of a network, and why its other bounded activations are not gates.

    The network runs in eval mode without gradients and is unchanged afterwards. The axes that grow
    with the image are the spatial axes. If the sample does not show them (a map of 1×1, channels
    last), the network also runs on a larger sample.

    Args:
        model: any network whose forward takes ``images``.
        images: a small sample, normalized as the network expects it and on its device:
            ``(N, 3, H, W)``, or one image ``(3, H, W)`` for a network without a batch axis.
        kinds: names of the kinds to find. By default all but ``full`` (gates with the same shape as
            the features) and ``static`` (gates that do not depend on the input).

    Raises:
        InputError: AS401 to AS407; or a kind is not registered.
    """
    return inspect_call(model, (images,), {}, kinds)


def inspect_call(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    kinds: Sequence[str] | None = None,
) -> Inspection:
    """Do what `inspect_gates` does for a forward with any arguments. The images come first."""
    kinds = searched_kinds() if kinds is None else kinds
    for kind in kinds:
        KINDS.find(kind)
    first = last = look(model, args, kwargs)
    refused = ""
    while args and first.unclear(last):
        images = args[0]
        if not isinstance(images, Tensor) or images.ndim not in (3, 4):
            break
        if last is not first and max(images.shape[-2:]) >= _LARGE:
            break
        batch = images if images.ndim == 4 else images[None]
        batch = nn.functional.interpolate(batch, scale_factor=2.0)
        args = (batch if images.ndim == 4 else batch[0], *args[1:])
        try:
            last = look(model, args, kwargs)
        except InputError:
            raise
        except Exception as error:  # a network that takes one size only may raise anything
            refused = first_line(error)
            break
    return _conclude(first, last, refused, kinds)


@dataclass(frozen=True)
class _Found:
    """A multiplication that is a gate."""

    use: Use
    """The multiplication on the sample."""
    larger: Use
    """The multiplication on the larger sample."""
    layout: str
    kind: Kind
    axes: str


def _read(first: Use, use: Use, layout: str | None, images: int | None) -> _Found | Reason:
    """Return kind and axes of a gate on the larger sample, or the reason why it is not a gate."""
    if layout is None:
        return "no-features", ""
    along = {letter for letter, moves in zip(layout, use.aligned, strict=True) if moves} - {"N"}
    rows = (1,) * (len(use.features) - len(use.gate)) + use.gate
    if use.static:
        kind = kind_of(_variation(use, along, set()))
        return _Found(first, use, layout, kind, _in_order(along))
    if images is not None and use.features[0] != images:
        return "no-batch-axis", ""
    if images is not None and images > 1 and rows[0] == 1:
        return "whole-batch", ""
    sizes = {letter for letter, n in zip(layout, use.features, strict=True) if n > 1}
    seen = _variation(use, along, sizes - {"N"})
    kind = kind_of(seen)
    is_summed = {layout.index(letter) for letter in along} <= use.summed
    if MAP in kind.traits and use.is_distribution and is_summed:
        return "pooling", ""
    # One value for all channels is returned as a channel gate (N, 1).
    read = along if along or seen.everywhere else {"C"}
    return _Found(first, use, layout, kind, _in_order(read | ({"N"} & set(layout))))


def _in_order(letters: set[str]) -> str:
    return "".join(letter for letter in AXES if letter in letters)


def _variation(use: Use, along: set[str], features: set[str]) -> Variation:
    return Variation(
        along=frozenset(along),
        features=frozenset(features),
        own_shape=use.gate == use.features,
        static=use.static,
        shares_paths=use.mark.activation == "softmax" and not use.is_distribution,
    )


def _conclude(first: Finder, last: Finder, refused: str, kinds: Sequence[str]) -> Inspection:
    """Name the gates, and give the reason why each other bounded activation is not a gate."""
    found: list[_Found] = []
    reasons = dict(first.reasons)
    for place, use in first.uses.items():
        larger = last.uses.get(place, use)
        layout = layout_of(use.features, larger.features, larger.aligned, first.images is not None)
        if layout is None and refused:
            name = _path(use, first.bare) or "of the network"
            raise InputError(
                "AS407",
                f"the kind of the gate {name} cannot be determined: a tensor of shape {use.gate} "
                f"multiplies one of shape {use.features}, and the network refuses larger images "
                f"({refused}); use a sample on which the feature maps are larger than 1×1",
            )
        read = _read(use, larger, layout, first.images)
        if isinstance(read, _Found):
            if read.axes and read.kind.name in kinds:
                found.append(read)
                continue
            read = "other-kind", read.kind.name
        for origin in use.mark.origins:
            reasons.setdefault(origin, read)
    gates = _named(found, first.bare)
    served = {origin for each in found for origin in each.use.mark.origins}
    return Inspection(
        [gates[each.use.mark.place] for each in found],
        [
            Ungated(*origin, activation, *reasons.get(origin, ("unused", "")))
            for origin, activation in first.activations.items()
            if origin not in served
        ],
    )


def _named(found: Sequence[_Found], bare: set[str]) -> dict[Place, Gate]:
    """Return the gates by place, each with the name of the module that computes it."""
    gates: dict[Place, Gate] = {}
    # Names must not depend on which other kinds were requested.
    for each in sorted(found, key=lambda each: not each.kind.searched):
        use, mark = each.use, each.use.mark
        name = _path(use, bare)
        number = 1 + sum(gate.name.partition("#")[0] == name for gate in gates.values())
        gates[mark.place] = Gate(
            name=name if number == 1 else f"{name}#{number}",
            kind=each.kind.name,
            channels=use.features[each.layout.index("C")],
            grid=_grid(use.features, each.layout) if MAP in each.kind.traits else None,
            activation=mark.activation,
            lo=mark.bounds[0],
            hi=mark.bounds[1],
            neutral=each.larger.neutral,
            made_in=mark.made_in,
            call=mark.call,
            form=mark.form,
            applied_in=use.applied_in,
            layout=each.layout,
            axes=each.axes,
        )
    return gates


def _path(use: Use, bare: set[str]) -> str:
    """Return the path of the module that computes the gate, or of the parent of ``nn.Sigmoid``."""
    made_in = use.mark.made_in
    if made_in in bare and made_in != use.applied_in:
        return made_in.rpartition(".")[0]
    return made_in


def _grid(features: tuple[int, ...], layout: str) -> tuple[int, int]:
    if "L" in layout:
        return grid_of_row(features[layout.index("L")])
    return features[layout.index("H")], features[layout.index("W")]
