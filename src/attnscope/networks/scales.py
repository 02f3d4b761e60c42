"""Which operations a scale of channels can pass.

``f(s * x) = s' * f(x)`` holds for a scale ``s`` along one axis of ``x`` if ``f`` does the same to
all values along that axis and is linear, or if it is homogeneous, as ReLU, and ``s`` is nowhere
negative. `passes` gives the axis of the result along which ``s'`` then varies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

aten = torch.ops.aten


@dataclass(frozen=True)
class Scale:
    """Factors along one axis of a tensor."""

    values: Tensor
    """float64, ``(C,)``, or ``(1,)`` for one factor of all values."""
    axis: int | None
    """The axis, counted from 0; None for one factor of all values."""

    def along(self, axis: int, size: int | str) -> Tensor | None:
        """Return a factor for each entry of an axis, or None if it varies along another axis."""
        if isinstance(size, str):
            return None
        if self.axis is None:
            return self.values.expand(size)
        return self.values if self.axis == axis and len(self.values) == size else None

    @property
    def is_negative(self) -> bool:
        """Whether a factor is below 0."""
        return bool((self.values < 0).any())


Axes = dict[int, int]
"""Axis of the argument -> axis of the result with the same entries."""
_Map = Callable[[Node], Axes | None]


def _same(node: Node) -> Axes:
    return {axis: axis for axis in range(rank_of(node))}


def _all_but(last: int) -> _Map:
    def axes(node: Node) -> Axes:
        return {axis: axis for axis in range(rank_of(node) - last)}

    return axes


def _reduced(node: Node) -> Axes | None:
    """Axes over which ``mean(x, axes, keepdim)`` does not reduce."""
    rank = rank_of(_first(node))
    given = node.args[1] if len(node.args) > 1 else None
    reduced = range(rank) if given in (None, []) else [given] if isinstance(given, int) else given
    gone = {axis % rank for axis in reduced}  # type: ignore[operator, union-attr]
    kept = [axis for axis in range(rank) if axis not in gone]
    if rank_of(node) == rank:
        return {axis: axis for axis in kept}
    return {axis: place for place, axis in enumerate(kept)}


def _permuted(node: Node) -> Axes:
    rank = rank_of(node)
    if node.target is aten.permute.default:
        order: Sequence[int] = node.args[1]  # type: ignore[assignment]
        return {axis % rank: place for place, axis in enumerate(order)}
    given: Sequence[int] = node.args[1:3]  # type: ignore[assignment]
    a, b = (axis % rank for axis in given)
    return {axis: {a: b, b: a}.get(axis, axis) for axis in range(rank)}


def _viewed(node: Node) -> Axes:
    """Axes that a view keeps: as many entries, after as many of the axes before them."""
    before, after = (_offsets(shape_of(each)) for each in (_first(node), node))
    return {a: b for a, key in enumerate(before) for b, other in enumerate(after) if key == other}


def _offsets(shape: Sequence[int | str]) -> list[tuple[int, tuple[str, ...], str]]:
    """Return for each axis the number of entries of the axes before it, and its own.

    The number of images is a symbol, which is compared by its name.
    """
    number = 1
    symbols: list[str] = []
    found: list[tuple[int, tuple[str, ...], str]] = []
    for size in shape:
        found.append((number, tuple(sorted(symbols)), str(size)))
        if isinstance(size, int):
            number *= size
        else:
            symbols.append(size)
    return [key if key[2] != "1" else (-1, (), str(axis)) for axis, key in enumerate(found)]


def _padded(node: Node) -> Axes | None:
    widths: Sequence[int] = node.args[1]  # type: ignore[assignment]
    more = list(node.args[2:])
    mode = more.pop(0) if node.target is aten.pad.default and more else "constant"
    if node.kwargs or (mode == "constant" and more and more[0] not in (0, None)):
        return None
    return _all_but(len(widths) // 2)(node)


def _cast(node: Node) -> Axes | None:
    return _same(node) if dtype_of(node) == dtype_of(_first(node)) else None


def _first(node: Node) -> Node:
    first = node.args[0]
    assert isinstance(first, Node)
    return first


_LINEAR: dict[Any, _Map] = {}
"""Operations that any scale passes."""
_HOMOGENEOUS: dict[Any, _Map] = {}
"""Operations that a scale passes that is nowhere negative."""


def _register(table: dict[Any, _Map], axes: _Map, *names: str) -> None:
    for name in names:
        packet, _, overload = name.partition(".")
        target = getattr(getattr(aten, packet, None), overload or "default", None)
        if target is not None:  # an older torch may lack it
            table[target] = axes


_register(_LINEAR, _same, "clone", "alias", "contiguous", "detach", "dropout", "neg")
_register(_LINEAR, _cast, "_to_copy", "to.dtype", "to.dtype_layout")
_register(_LINEAR, _all_but(1), "avg_pool1d", "adaptive_avg_pool1d", "upsample_nearest1d.vec")
_register(_LINEAR, _all_but(2), "avg_pool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d")
_register(_LINEAR, _all_but(2), "upsample_nearest2d.vec", "upsample_bilinear2d.vec")
_register(_LINEAR, _all_but(3), "avg_pool3d", "adaptive_avg_pool3d", "upsample_nearest3d.vec")
_register(_LINEAR, _reduced, "mean.dim", "sum.dim_IntList")
_register(_LINEAR, _permuted, "permute", "transpose.int")
_register(_LINEAR, _viewed, "view", "_unsafe_view", "reshape", "flatten.using_ints")
_register(_LINEAR, _viewed, "unsqueeze", "squeeze.dim", "squeeze.dims")
_register(_LINEAR, _padded, "constant_pad_nd", "pad")
_register(_HOMOGENEOUS, _same, "relu", "leaky_relu", "abs")
_register(_HOMOGENEOUS, _all_but(1), "max_pool1d")
_register(_HOMOGENEOUS, _all_but(2), "max_pool2d")
_register(_HOMOGENEOUS, _all_but(3), "max_pool3d")
_register(_HOMOGENEOUS, _reduced, "amax", "amin")


def passes(node: Node, scale: Scale, *, backward: bool = False) -> Scale | None:
    """Return the scale on the other side of an operation, or None if it cannot pass.

    Args:
        node: An operation of one tensor, its first argument.
        scale: The scale of the argument, or of the result if ``backward``.
        backward: Whether to go from the result to the argument.
    """
    axes = _LINEAR.get(node.target)
    if axes is None:
        axes = None if scale.is_negative else _HOMOGENEOUS.get(node.target)
    kept = None if axes is None else axes(node)
    if kept is None:
        return None
    if scale.axis is None:
        return scale
    if backward:
        kept = {result: argument for argument, result in kept.items()}
    axis = kept.get(scale.axis)
    return None if axis is None else Scale(scale.values, axis)


def kept_axes(node: Node) -> Axes | None:
    """Return the axes that an operation of one tensor keeps, if it maps 0 to 0 along them.

    Returns:
        Axis of the argument -> axis of the result; None for other operations.
    """
    axes = _LINEAR.get(node.target) or _HOMOGENEOUS.get(node.target)
    return None if axes is None else axes(node)


def shape_of(node: Node) -> tuple[int | str, ...]:
    """Return the sizes of a node's value; the number of images is a symbol, which is a text.

    Values that are no tensor have no sizes.
    """
    shape = getattr(node.meta.get("val"), "shape", ())
    return tuple(size if isinstance(size, int) else str(size) for size in shape)


def rank_of(node: Node) -> int:
    """Return the number of axes of a node's value."""
    return len(shape_of(node))


def dtype_of(node: Node) -> torch.dtype | None:
    """Return the precision of a node's value."""
    return getattr(node.meta.get("val"), "dtype", None)
