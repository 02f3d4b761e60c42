"""Small constants of gates that become 0, so that their channels can be removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf

import torch
from torch import Tensor

from attnscope import layout
from attnscope.errors import InputError
from attnscope.networks.pruning import PrunedGate

_SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the channels that can be removed; the threshold of a step is the constant at it."""


@dataclass(frozen=True)
class PrunedChannels:
    """What became of channels whose constants are 0, for ``fold.json``."""

    below: float
    """Constants up to this size became 0."""
    is_tested: bool
    """Whether the loss with these zeros was tested together with the gates."""
    gates: dict[str, PrunedGate]
    """Name of a folded gate with zeros -> what became of its channels."""
    not_removable: dict[str, str]
    """Name of a folded gate whose channels cannot be removed -> the reason. Its constants stay."""
    channels: int
    """Number of channels of all folded gates with one value for each channel."""

    @classmethod
    def of(
        cls,
        below: float,
        is_tested: bool,
        pruned: Mapping[str, PrunedGate],
        found: Mapping[str, PrunedGate],
        constants: Mapping[str, Tensor],
    ) -> PrunedChannels:
        """Describe a fold.

        Args:
            below: Constants up to this size became 0.
            is_tested: Whether the loss was tested.
            pruned: What became of the channels that are 0.
            found: What would become of all channels.
            constants: The constants of the folded gates.
        """
        own = {name: found[name] for name in constants if name in found}
        reasons = {name: gate.reason for name, gate in own.items() if not gate.removed}
        channels = sum(constants[name].numel() for name in own)
        return cls(below, is_tested, dict(pruned), reasons, channels)

    def facts(self) -> list[tuple[str, str]]:
        """Return what was removed, what was not, and why."""
        removed = sum(len(gate.removed) for gate in self.gates.values())
        filters = sum(gate.filters for gate in self.gates.values())
        how = "within the test of the loss" if self.is_tested else "no test of the loss"
        limit = f"constants up to {self.below:.3g}" if self.below else "constants that are 0"
        reasons = dict(self.not_removable)
        reasons |= {name: gate.reason for name, gate in self.gates.items() if gate.kept}
        facts = [
            (
                "channels removed",
                f"{removed} of {self.channels}, {filters} of them with their filters ({limit}, "
                f"{how})",
            )
        ]
        if reasons:
            by_reason: dict[str, list[str]] = {}
            for name, reason in reasons.items():
                by_reason.setdefault(reason, []).append(name)
            reason, names = max(by_reason.items(), key=lambda item: len(item[1]))
            more = len(reasons) - len(names)
            facts.append(
                (
                    "channels that cannot be removed",
                    f"those of {names[0]}"
                    + (f" and {len(names) - 1} other gates" if len(names) > 1 else "")
                    + f", because {reason}"
                    + (f"; {more} more in {layout.FOLD}" if more else ""),
                )
            )
        return facts


def expect_pruning(prune: bool, below: float | None, gates: Sequence[str]) -> None:
    """Refuse pruning without a test or a threshold, and a threshold that none can be.

    Args:
        prune: Whether the threshold is to be chosen.
        below: The threshold that was given.
        gates: Names of the gates that were given.

    Raises:
        InputError: AS866, AS867.
    """
    if prune and gates:
        raise InputError(
            "AS866",
            "--prune chooses channels with the gates, but the gates are named; give the size up to "
            "which constants become 0 with --prune-below, or leave out --gates",
        )
    if below is not None and not gates:
        raise InputError(
            "AS866",
            "--prune-below removes channels of named gates, but no gates are named; use --prune, "
            "or name gates with --gates",
        )
    if below is not None and not 0 <= below < inf:
        raise InputError("AS867", f"--prune-below is {below}; it must be at least 0 and finite")


def masks_of(found: Mapping[str, PrunedGate], constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return masks of the channels that can be removed, for gates that have any.

    Args:
        found: Name of a gate -> what would become of its channels.
        constants: Name of a gate -> its constants.
    """
    masks = {}
    for name, gate in found.items():
        if gate.removed:
            masks[name] = torch.zeros(constants[name].numel(), dtype=torch.bool)
            masks[name][list(gate.removed)] = True
    return masks


def thresholds(constants: Mapping[str, Tensor], removable: Mapping[str, Tensor]) -> list[float]:
    """Return the sizes up to which constants may become 0, above 0 and ascending.

    Args:
        constants: Name of a gate -> its constants.
        removable: Name of a gate -> mask of the channels that can be removed.
    """
    found = [constants[name].flatten()[mask].abs() for name, mask in removable.items()]
    values = torch.cat(found).double().sort().values if found else torch.zeros(0)
    if not len(values):
        return []
    levels = {float(values[ceil(share * len(values)) - 1]) for share in _SHARES}
    return sorted(level for level in levels if level > 0)


def zeroed(
    constants: Mapping[str, Tensor], removable: Mapping[str, Tensor], below: float
) -> dict[str, Tensor]:
    """Return constants of which those up to a size are 0 where a channel can be removed."""
    found = {}
    for name, value in constants.items():
        if name in removable:
            small = (value.abs().double() <= below) & removable[name].reshape(value.shape)
            value = torch.where(small, torch.zeros_like(value), value)
        found[name] = value
    return found
