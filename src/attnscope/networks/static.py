"""What stands in the place of gates that are the same for every image."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from attnscope.errors import InputError


class StoredConstant(nn.Module):
    """A gate that is the same for every image and every position.

    Args:
        values: ``(1, C, 1, 1)`` of a channel gate, ``(1, 1, 1, 1)`` of a spatial one.
    """

    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)

    def forward(self, x: Tensor) -> Tensor:
        """The stored values, in the precision of ``x``."""
        return self.values.to(x.dtype)


class StoredMap(nn.Module):
    """A spatial gate that is the same for every image of one size.

    Args:
        values: ``(1, 1, H, W)``
        name: what a refusal calls the gate.
    """

    values: Tensor

    def __init__(self, values: Tensor, name: str) -> None:
        super().__init__()
        self.register_buffer("values", values)
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """The stored map, in the precision of ``x``.

        Raises:
            InputError: ``x`` has another height or width. A map of 1×1 would broadcast in silence.
        """
        if x.shape[2:] != self.values.shape[2:]:
            own, given = ("×".join(map(str, t.shape[2:])) for t in (self.values, x))
            raise InputError(
                f"the gate {self.name} is a stored map of {own} and meets features of {given}; "
                "give images of the size that it was folded for"
            )
        return self.values.to(x.dtype)


class GatesInTurn(nn.Module):
    """What is left of an attention module: ``x`` times each gate, each computed of what it meets.

    Args:
        gates: ``channel`` and ``spatial``, or one of them, in the order in which they act. The
            names stay, so that a gate is called what it was called before.
    """

    def __init__(self, gates: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for kind, gate in gates.items():
            self.add_module(kind, gate)

    def forward(self, x: Tensor) -> Tensor:
        """``x``, gated by each in turn."""
        for gate in self.children():
            x = x * gate(x)
        return x
