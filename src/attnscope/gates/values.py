"""The values of gates: from the shape that multiplies to a gate's own axes, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attnscope.errors import InputError
from attnscope.gates.axes import (
    Layout,
    grid_of,
    join_axes,
    letters_of,
    parse_layout,
    split_axes,
)
from attnscope.kinds import MAP, Gate


@dataclass(frozen=True)
class Constancy:
    """Whether a gate is constant along an axis, as its device knows and the host does not yet."""

    gate: str
    """Name of the gate."""
    axis: str
    """The axis, as a token of the layout."""
    holds: Tensor
    """bool, ``(1,)`` on the device of the gate."""

    def refusal(self) -> InputError:
        """Return the refusal of a gate for which it does not hold."""
        return InputError(
            "AS404",
            f"the gate {self.gate} varies along the axis {self.axis} in this forward pass, but was "
            "constant along it on the sample; find the gates on a larger sample",
        )


def read_values(
    values: Tensor, gate: Gate, batch: int | None, checks: list[Constancy] | None = None
) -> Tensor:
    """Return the values of a gate with its own axes only, in the order of `AXES`.

    Args:
        values: the tensor that multiplies the features.
        gate: the gate.
        batch: number of images of the forward, None if it is unknown.
        checks: if it is given, what must hold of values on a device other than the CPU is added to
            it, and the caller checks it later. The host then does not wait for the device.

    Raises:
        InputError: AS404, the gate varies along an axis along which it was constant on the sample;
            AS407, the number of images must be known and is not.
    """
    layout = parse_layout(gate.layout)
    values = values.reshape((1,) * (len(layout) - values.ndim) + tuple(values.shape))
    for axis, token in enumerate(layout):
        if set(token) & set(gate.axes):
            continue
        one = values.narrow(axis, 0, 1)
        # `repeat` and the like write copies. (`expand` gives a stride of 0.)
        if values.shape[axis] > 1 and values.stride(axis):
            if checks is not None and values.device.type != "cpu":
                checks.append(Constancy(gate.name, token, (values == one).all().reshape(1)))
            elif not torch.equal(values, one.expand_as(values)):
                raise Constancy(gate.name, token, torch.zeros(1, dtype=torch.bool)).refusal()
        values = one
    values = split_axes(values, layout, _rows_per_image(values, gate, layout, batch), _grid(gate))
    letters = letters_of(layout)
    for axis in reversed(range(len(letters))):
        if letters[axis] not in gate.axes:
            values = values.squeeze(axis)
    if "N" not in gate.layout and gate.per_image:
        values = values[None]
    if "L" in gate.axes and gate.has(MAP):  # as version 0.1 recorded tokens
        values = values.reshape(len(values), *grid_of(values.shape[1]))
    return values


def _rows_per_image(values: Tensor, gate: Gate, layout: Layout, batch: int | None) -> int:
    """Return the number of rows per image in this forward."""
    for token, size in zip(layout, values.shape, strict=True):
        if len(token) > 1 and "N" in token and size > 1:
            if batch is not None and size % batch == 0:
                return size // batch
            if "G" in token and size % gate.rows_per_image == 0:
                return gate.rows_per_image  # the number of groups is a constant of the network
            raise InputError(
                "AS407",
                f"the gate {gate.name} has {size} rows, but the number of images is unknown; call "
                "the network itself, and not one of its parts",
            )
    return 1


def _grid(gate: Gate) -> tuple[int, int]:
    return gate.grid or (0, 0)


def as_factor(values: Tensor, gate: Gate) -> Tensor:
    """Reshape values in the form of `watch_gates` to the shape that multiplies the features.

    For example ``edit_gates(model, {gate.name: lambda g, x: as_factor(other, gate)})`` replaces a
    gate by the gates of other images.

    Args:
        values: values with the axes `Gate.axes`: ``(N, C)`` for a channel gate, ``(N, H, W)`` for a
            spatial gate. N may be 1, which means the same values for all images.
        gate: the gate that they replace.

    Returns:
        A tensor with the axes `Gate.layout`, of length 1 where the gate does not vary:
        ``(N, C, 1, 1)`` or ``(N, 1, H, W)``.
    """
    layout = parse_layout(gate.layout)
    if "L" in gate.axes and gate.has(MAP):  # as version 0.1 recorded tokens
        values = values.flatten(1)
    if "N" not in gate.layout and gate.per_image:
        values = values[0]
    for axis, letter in enumerate(letters_of(layout)):
        if letter not in gate.axes:
            values = values.unsqueeze(axis)
    return join_axes(values, layout)


def as_shape_of(edited: Tensor, gate: Tensor, site: Gate) -> Tensor:
    """Return what an edit returned in the shape of the gate.

    Raises:
        InputError: AS403, it does not broadcast to that shape.
    """
    try:
        if edited.shape == gate.shape:
            return edited
        edited = _for_all_images(edited, gate, site)
        while edited.ndim > gate.ndim and edited.shape[0] == 1:
            edited = edited[0]
        return edited.expand(gate.shape)
    except (AttributeError, RuntimeError):
        got = tuple(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
        raise InputError(
            "AS403",
            f"the edit of the gate {site.name} returned {got}; it must return a tensor of shape "
            f"{tuple(gate.shape)}, or one that broadcasts to it",
        ) from None


def _for_all_images(edited: Tensor, gate: Tensor, site: Gate) -> Tensor:
    """Repeat the values of one image, where an axis holds images and something else.

    Such values do not broadcast: the rows of one image are not one row.
    """
    layout = parse_layout(site.layout)
    axis = next((i for i, token in enumerate(layout) if "N" in token and len(token) > 1), None)
    if axis is None or edited.ndim != len(layout) or edited.shape[axis] != site.rows_per_image:
        return edited
    images = gate.shape[axis] // site.rows_per_image
    if layout[axis][0] != "N":  # all images after another, then all of them again
        return edited.repeat_interleave(images, axis)
    return edited.repeat([images if i == axis else 1 for i in range(edited.ndim)])
