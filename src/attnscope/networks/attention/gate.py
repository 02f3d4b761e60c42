"""A gate that is a sigmoid, and how it starts."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from attnscope.errors import InputError


class SigmoidGate(nn.Module):
    """A gate between 0 and 1: a sigmoid of what `last` returns.

    A gate whose ``scale`` is 2 is twice a sigmoid, between 0 and 2, and 1 where its last layer is
    zero: put into a trained network so, it changes nothing at first (see `start_as_identity`).
    """

    scale = 1

    @property
    @abstractmethod
    def last(self) -> nn.Module:
        """The layer before the sigmoid."""

    def scaled(self, gate: Tensor) -> Tensor:
        """The sigmoid's values times ``scale``."""
        return gate if self.scale == 1 else self.scale * gate


def start_as_identity(attention: nn.Module) -> None:
    """Makes every gate of an attention module twice a sigmoid whose last layer is zero: exactly 1.

    The last layers get gradient at the first step, and all other parameters from the second.

    Raises:
        InputError: one of its gates is no `SigmoidGate`.
    """
    for name, gate in attention.named_children():
        if not isinstance(gate, SigmoidGate):
            raise InputError(
                f"the gate '{name}' of {type(attention).__name__} is no SigmoidGate and cannot "
                "start at 1; leave out --gate-start identity"
            )
        gate.scale = 2
        for parameter in gate.last.parameters():
            nn.init.zeros_(parameter)


def hidden_channels(channels: int, reduction: int) -> int:
    """Hidden channels of the MLP of a channel gate.

    Raises:
        InputError: there is none.
    """
    if reduction < 1 or channels < reduction:
        raise InputError(
            f"reduction {reduction} leaves no hidden channel of {channels}; take 1 to {channels}"
        )
    return channels // reduction
