"""Which gates a network has: two looks at it, and what follows from them."""

from __future__ import annotations

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
    kind_of,
    searched_kinds,
)

_LARGE = 128  # pixels; what is 1×1 on an enlarged sample of this size is no feature map


@dataclass(frozen=True)
class Inspection:
    """What `inspect_gates` found."""

    gates: list[Gate]
    """In the order in which they act."""
    ungated: list[Ungated]
    """The other bounded activations, in the order in which they run."""


def find_gates(model: nn.Module, images: Tensor, kinds: Sequence[str] | None = None) -> list[Gate]:
    """The gates of a network, in the order in which they act: `inspect_gates` without the rest."""
    return inspect_gates(model, images, kinds).gates


def inspect_gates(
    model: nn.Module, images: Tensor, kinds: Sequence[str] | None = None
) -> Inspection:
    """The gates of a network, and what became of every other bounded activation.

    The network runs in eval mode without gradients, and is left as it was. What the axes of a
    feature map are is seen from which of them grow with the image: where the sample does not tell
    (a map of 1×1, channels at another place than PyTorch's), the network runs on a larger one too.

    Args:
        model: any network whose forward takes ``images``.
        images: a small sample as the network gets it, ``(N, 3, H, W)``, or one image
            ``(3, H, W)`` for a network without a batch axis; on the network's device.
        kinds: of `attnscope.kinds.Gate`; ``full`` and ``static`` only when asked for.

    Raises:
        InputError: a kind is not known; the kind of a gate cannot be told, since the network takes
            this size only; a module is scripted, compiled or checkpointed.
    """
    return inspect_call(model, (images,), {}, kinds)


def inspect_call(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    kinds: Sequence[str] | None = None,
) -> Inspection:
    """`inspect_gates` for a forward with any arguments, the first of which are the images."""
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
        except Exception as error:  # whatever a network raises that takes one size only
            refused = first_line(error)
            break
    return _conclude(first, last, refused, kinds)


@dataclass(frozen=True)
class _Found:
    """A gate that is handed out."""

    use: Use
    """On the sample."""
    larger: Use
    """On the larger sample."""
    layout: str
    kind: Kind
    axes: str


def _read(first: Use, use: Use, layout: str | None, images: int | None) -> _Found | str:
    """Kind and axes of a gate on the larger sample; where it is none, why."""
    if layout is None:
        return "multiplies what is no feature map"
    along = {letter for letter, moves in zip(layout, use.aligned, strict=True) if moves} - {"N"}
    rows = (1,) * (len(use.features) - len(use.gate)) + use.gate
    if use.static:
        kind = kind_of(_variation(use, along, set()))
        return _Found(first, use, layout, kind, _in_order(along))
    if images is not None and use.features[0] != images:
        return "multiplies features whose rows are not the images"
    if images is not None and images > 1 and rows[0] == 1:
        return "one gate for all images of a batch"
    sizes = {letter for letter, n in zip(layout, use.features, strict=True) if n > 1}
    seen = _variation(use, along, sizes - {"N"})
    kind = kind_of(seen)
    is_summed = {layout.index(letter) for letter in along} <= use.summed
    if MAP in kind.traits and use.is_distribution and is_summed:
        return "softmax pooling"
    # One number for all channels is read as a channel gate (N, 1).
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
    """Names the gates, and says of every other bounded activation what became of it."""
    found: list[_Found] = []
    fates = dict(first.fates)
    for place, use in first.uses.items():
        larger = last.uses.get(place, use)
        layout = layout_of(use.features, larger.features, larger.aligned, first.images is not None)
        if layout is None and refused:
            name = _path(use, first.bare) or "of the network"
            raise InputError(
                f"the kind of the gate {name} cannot be told where {use.gate} multiplies "
                f"{use.features}, and the network takes no larger images ({refused}); give it a "
                "sample on which its maps are larger than 1×1"
            )
        read = _read(use, larger, layout, first.images)
        if isinstance(read, _Found):
            if read.axes and read.kind.name in kinds:
                found.append(read)
                continue
            name, unasked = read.kind.name, read.kind.unasked
            read = f"{name}: {unasked}" if unasked else name
        for origin in use.mark.origins:
            fates.setdefault(origin, read)
    gates = _named(found, first.bare)
    served = {origin for each in found for origin in each.use.mark.origins}
    return Inspection(
        [gates[each.use.mark.place] for each in found],
        [
            Ungated(*origin, activation, fates.get(origin, "used by no operation"))
            for origin, activation in first.activations.items()
            if origin not in served
        ],
    )


def _named(found: Sequence[_Found], bare: set[str]) -> dict[Place, Gate]:
    """The gates by place, each with the name of the module that makes it."""
    gates: dict[Place, Gate] = {}
    # Names must not depend on which other kinds were asked for.
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
    """The path of the module that makes the gate; a bare ``nn.Sigmoid`` takes its parent's."""
    made_in = use.mark.made_in
    if made_in in bare and made_in != use.applied_in:
        return made_in.rpartition(".")[0]
    return made_in


def _grid(features: tuple[int, ...], layout: str) -> tuple[int, int]:
    if "L" in layout:
        return grid_of_row(features[layout.index("L")])
    return features[layout.index("H")], features[layout.index("W")]
