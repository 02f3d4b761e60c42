"""Modules that replace gates by values that are the same for every image."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from attnscope.errors import InputError


class StoredConstant(nn.Module):
    """A gate that is the same for every image and every position.

    Args:
        values: ``(1, C, 1, 1)`` for a channel gate, ``(1, 1, 1, 1)`` for a spatial gate.
    """

    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)

    def forward(self, x: Tensor) -> Tensor:
        """Return the stored values in the data type of ``x``."""
        return self.values.to(x.dtype)


class StoredMap(nn.Module):
    """A spatial gate that is the same for every image of one size.

    Args:
        values: ``(1, 1, H, W)``.
        name: The name of the gate, for error messages.
    """

    values: Tensor

    def __init__(self, values: Tensor, name: str) -> None:
        super().__init__()
        self.register_buffer("values", values)
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """Return the stored map in the data type of ``x``.

        Raises:
            InputError: ``x`` has another height or width. Without this check, a map of 1×1 would
                be broadcast to any size.
        """
        if x.shape[2:] != self.values.shape[2:]:
            stored, given = ("×".join(map(str, t.shape[2:])) for t in (self.values, x))
            raise InputError(
                "AS314",
                f"the gate {self.name} is a stored map of {stored}, but its features are {given}; "
                "use images of the size for which the network was folded",
            )
        return self.values.to(x.dtype)


class SequentialGates(nn.Module):
    """Multiply features by gates, one after the other: an attention module after folding.

    Each gate is computed from the features that the gates before it have multiplied.

    Args:
        gates: ``channel``, ``spatial`` or both, in the order in which they multiply. The keys
            become the names of the submodules, so that the gates keep their names.
    """

    def __init__(self, gates: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for kind, gate in gates.items():
            self.add_module(kind, gate)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply features ``(N, C, H, W)`` by each gate."""
        for gate in self.children():
            x = x * gate(x)
        return x


class FillingNorm(nn.BatchNorm2d):
    """A BatchNorm of some of the channels of features, with zeros for the others.

    Args:
        norm: The BatchNorm of the channels that are there. Its tensors are used.
        places: Which channels these are, ``(n,)``, int64 and ascending.
        channels: The number of channels of the result.
    """

    sources: Tensor
    """``(channels,)``, int64: the place of each channel among those that are there; n for zeros."""

    def __init__(self, norm: nn.BatchNorm2d, places: Tensor, channels: int) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, device="meta")
        self._parameters, self._buffers = norm._parameters, norm._buffers
        count = torch.arange(len(places), device=places.device)
        none = torch.full((channels,), len(places), device=places.device)
        self.register_buffer("sources", none.index_copy(0, places, count))
        self.channels = channels
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, n, H, W)`` to ``(N, channels, H, W)``."""
        found = super().forward(input)
        padded = nn.functional.pad(found, (0, 0, 0, 0, 0, 1))  # one more channel, of zeros
        return padded.index_select(1, self.sources)
