"""Operations that move values without changing them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from attnscope.gates.marks import Mark
from attnscope.gates.ops.operation import Call, Operation, register_operation


def moves(
    *, keeps_places: bool = False, keeps_factors: bool = False, rearranges: bool = False
) -> Operation:
    """Return the handler of an operation that moves the values of its first argument.

    The result is the same gate.

    Args:
        keeps_places: whether no value moves, or values are only repeated. See `Operation`.
        keeps_factors: whether the result is the first argument or a copy of it, so that a product
            of two gates remains a product of two gates.
        rearranges: whether values move to other places of the same shape. See `Operation`.
    """

    def carry(call: Call) -> Mark | None:
        return call.first and replace(
            call.first, factors=call.first.factors if keeps_factors else ()
        )

    return Operation(carries=carry, keeps_places=keeps_places, rearranges=rearranges)


def selects() -> Operation:
    """Return the handler of an operation that selects values. Each selection is another gate."""
    return Operation(carries=_select)


def joins() -> Operation:
    """Return the handler of an operation that concatenates a list: a gate if all tensors are."""
    return Operation(carries=_join, takes_list=True)


def interpolates() -> Operation:
    """Return the handler of an operation that resizes maps by selecting or averaging values.

    Bicubic interpolation has negative weights, so its result can leave the bounds and is no gate.
    """
    return Operation(carries=_interpolate, keeps_places=True)


def _select(call: Call) -> Mark | None:
    if call.first is None or _picks_rows(call):
        return None
    if not call.selects:
        return replace(call.first, factors=())
    rest = [_label(a) for a in call.arguments[1:]]
    rest += [f"{key}={_label(a)}" for key, a in call.keywords.items()]
    how = f"{call.name}({', '.join(rest)})[{call.output}]"
    return call.first.altered(how, call.first.bounds)


def _picks_rows(call: Call) -> bool:
    """Return whether the rows are chosen by the input, as boxes of a detection network are.

    Which image such a row belongs to is then known to the network only.
    """
    if call.name == "getitem" and len(call.arguments) > 1:
        index = call.arguments[1]
        index = index[0] if isinstance(index, tuple) and index else index
    elif call.name == "index_select" and len(call.arguments) > 2:
        index = call.arguments[2] if call.arguments[1] == 0 else None
    else:
        return False
    return isinstance(index, Tensor) and call.bounds_of(index) is None


def _join(call: Call) -> Mark | None:
    known = [mark for mark in call.marks if mark]
    tensors = sum(isinstance(a, Tensor) for a in call.arguments)
    if not known or len(known) < tensors:
        return None
    low, high = min(m.bounds[0] for m in known), max(m.bounds[1] for m in known)
    return known[0].altered(call.name, (low, high), *known[1:])


def _interpolate(call: Call) -> Mark | None:
    given = call.arguments[3] if len(call.arguments) > 3 else "nearest"
    mode = call.keywords.get("mode", given)
    return replace(call.first, factors=()) if call.first and mode != "bicubic" else None


def _label(value: Any) -> str:
    if isinstance(value, Tensor):
        return "tensor"
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(_label, value))})"
    if isinstance(value, slice):
        return f"{value.start}:{value.stop}:{value.step}".replace("None", "")
    return repr(value)


_MOVES = """
    view reshape view_as reshape_as flatten unflatten ravel squeeze unsqueeze permute transpose
    swapaxes swapdims movedim moveaxis t adjoint atleast_3d pixel_shuffle pixel_unshuffle
""".split()  # noqa: SIM905
_REARRANGEMENTS = ("roll", "flip", "rot90", "channel_shuffle")
_GROWTHS = """
    expand expand_as broadcast_to repeat repeat_interleave tile
""".split()  # noqa: SIM905
_COPIES = ("clone", "contiguous", "detach", "to")
_CASTS = """
    alias type type_as float half bfloat16 double cpu cuda dropout dropout1d dropout2d dropout3d
    alpha_dropout feature_dropout
""".split()  # noqa: SIM905
_SELECTIONS = """
    getitem narrow select chunk split split_with_sizes tensor_split unbind index_select gather
    take_along_dim unfold
""".split()  # noqa: SIM905

for _name in _MOVES:
    register_operation(_name, moves())
for _name in _REARRANGEMENTS:
    register_operation(_name, moves(rearranges=True))
for _name in (*_GROWTHS, *_CASTS):
    register_operation(_name, moves(keeps_places=True))
for _name in _COPIES:
    register_operation(_name, moves(keeps_places=True, keeps_factors=True))
for _name in _SELECTIONS:
    register_operation(_name, selects())
register_operation("cat", joins(), "concat", "concatenate")
for _name in ("stack", "hstack", "vstack", "dstack"):
    register_operation(_name, joins())
register_operation("interpolate", interpolates(), "upsample")
