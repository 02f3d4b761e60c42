"""What titles and captions say of gates that are shown by a mean (`attnscope.views`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from attnscope.kinds import MAP, PER_CHANNEL, Gate

_NOUNS = {
    PER_CHANNEL: (("channel gate", "channel gates"), ("gate with channels", "gates with channels")),
    MAP: (("spatial gate", "spatial gates"), ("gate map", "gate maps")),
}
"""Trait -> what gates that have it are called, and what gates with a view are called."""


def noun_of(gates: Iterable[Gate], trait: str, *, plural: bool = False) -> str:
    """Return what gates are called: ``spatial gate``, or ``gate map`` if one is shown by a mean.

    Args:
        gates: the gates that are shown.
        trait: `PER_CHANNEL` or `MAP`.
        plural: whether to return the plural.
    """
    return _NOUNS[trait][not all(gate.has(trait) for gate in gates)][plural]


def view_note(gates: Iterable[Gate], trait: str) -> str:
    """Return a sentence that names the means by which gates are shown, with a space after it.

    It is empty if all values are shown. It has the names of kinds but not those of gates, which
    could act as markup in the dashboard.

    Args:
        gates: the gates that are shown.
        trait: `PER_CHANNEL` or `MAP`.
    """
    found = Counter((gate.kind, about) for gate in gates if (about := view_about(gate, trait)))
    parts = [
        f"the {kind} gate by its {about}"
        if count == 1
        else f"{count} {kind} gates by their {about}"
        for (kind, about), count in found.items()
    ]
    return f"The figure shows {'; '.join(parts)}. " if parts else ""


def view_about(gate: Gate, trait: str) -> str:
    """Return the mean by which a gate is shown, such as ``mean over channels``, or nothing."""
    view = gate.view(trait)
    return "" if view is None else view.about


def size_of(gate: Gate, channels: int) -> str:
    """Return the number of channels of a gate as text, such as ``16 channels, mean over rows``.

    Args:
        gate: the gate.
        channels: number of columns of its values with the trait `PER_CHANNEL`.
    """
    view = gate.view(PER_CHANNEL)
    if view is None:
        return f"{channels} channels"
    return ", ".join(filter(None, (f"{channels} {view.units}", view.about)))
