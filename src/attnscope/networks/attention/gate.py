"""The base class of sigmoid gates, and their initialization."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from attnscope.errors import InputError


class SigmoidGate(nn.Module):
    """A gate between 0 and 1: the sigmoid of the output of `last`, its last layer.

    `start_as_identity` sets ``scale`` to 2. The gate is then twice a sigmoid, between 0 and 2, and
    exactly 1 while its last layer is zero. Such a gate can be added to a trained network without
    changing its output.
    """

    scale = 1
    """The factor by which the sigmoid is multiplied: 1, or 2 after `start_as_identity`."""

    @property
    @abstractmethod
    def last(self) -> nn.Module:
        """The last layer before the sigmoid."""

    def scaled(self, gate: Tensor) -> Tensor:
        """Return the values of the sigmoid, multiplied by ``scale``."""
        return gate if self.scale == 1 else self.scale * gate


def start_as_identity(attention: nn.Module) -> None:
    """Make every gate of an attention module exactly 1: twice a sigmoid whose last layer is zero.

    In training, the last layers get a gradient in the first step; the other parameters of the gates
    get one from the second step on.

    Args:
        attention: The attention module; changed in place.

    Raises:
        InputError: One of its gates is not a `SigmoidGate`.
    """
    for name, gate in attention.named_children():
        if not isinstance(gate, SigmoidGate):
            raise InputError(
                "AS312",
                f"the gate '{name}' of {type(attention).__name__} cannot start at 1, because it is "
                "not a SigmoidGate; use --gate-start half",
            )
        gate.scale = 2
        for parameter in gate.last.parameters():
            nn.init.zeros_(parameter)


def hidden_channels(channels: int, reduction: int) -> int:
    """Return the number of hidden channels in the MLP of a channel gate.

    Raises:
        InputError: The number is 0, or ``reduction`` is less than 1.
    """
    if reduction < 1 or channels < reduction:
        raise InputError(
            "AS309",
            f"the reduction is {reduction}, but the features have {channels} channels; "
            f"choose a reduction between 1 and {channels}",
        )
    return channels // reduction
