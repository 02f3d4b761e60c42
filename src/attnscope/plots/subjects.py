"""What a plot can be of, and what is known of it. No matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnscope.errors import InputError
from attnscope.kinds import MAP, PER_CHANNEL
from attnscope.recording.outcomes import Outcomes
from attnscope.recording.recording import Recording
from attnscope.statistics import group_by_kind

_WORDS = {PER_CHANNEL: "channel", MAP: "spatial"}
"""What gates with a trait are called."""


@dataclass(frozen=True)
class Intervened:
    """One recording, and what interventions found out about its network."""

    recording: Recording
    outcomes: Outcomes


@dataclass(frozen=True)
class Pair:
    """Two recordings of the same images."""

    a: Recording
    b: Recording


@dataclass(frozen=True)
class Seeds:
    """Several seeds of one kind of network, with interventions on each."""

    kind: str
    """What the kind is called."""
    recordings: Sequence[Recording]
    outcomes: Sequence[Outcomes]
    """On each of the recordings."""


@dataclass(frozen=True)
class TwoKinds:
    """Two kinds of network with the same seeds each, all recorded on the same images."""

    names: tuple[str, str]
    """What the kinds are called."""
    a: Sequence[Recording]
    b: Sequence[Recording]


SUBJECTS = (Intervened, Recording, Pair, Seeds, TwoKinds)
"""What a plot can be of. What interventions say comes first: it is what a reader asks first."""


@dataclass(frozen=True)
class Identity:
    """What titles say of a recording."""

    name: str
    split: str | None
    images: int


def two_kinds(recordings: Sequence[Recording]) -> TwoKinds:
    """Sorts recordings into two kinds of network.

    Raises:
        InputError: they are of one kind, or of more than two; or as
            `attnscope.statistics.group_by_kind`.
    """
    kinds = group_by_kind(recordings)
    if len(kinds) != 2:
        raise InputError(
            f"these are {len(kinds)} kinds of network ({', '.join(kinds)}); compare takes two "
            "runs, or several seeds of two kinds"
        )
    (name_a, a), (name_b, b) = kinds.items()
    return TwoKinds((name_a, name_b), a, b)


def identity(recording: Recording) -> Identity:
    """What titles say of a recording."""
    return Identity(recording.name, recording.split, len(recording))


def no_gate(recording: Recording, trait: str = "") -> str:
    """A sentence that says which gates there are instead of those with a trait."""
    has = ", ".join(gate_counts(recording))
    if not has:
        return f"{recording.name} has no gates at all."
    return f"{recording.name} has no {_WORDS.get(trait, trait)} gates (its gates: {has})."


def gate_counts(recording: Recording) -> list[str]:
    """``8 channel``, ``8 spatial``: how many gates of each kind there are."""
    kinds = [gate.kind for gate in recording.gates]
    return [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]


def has_grad_cam(recording: Recording) -> bool:
    """Whether Grad-CAM was recorded."""
    return bool(recording.grad_cam_layers)


def no_grad_cam(*recordings: Recording) -> str:
    """A sentence that says for which of them no Grad-CAM was recorded; empty where there is all."""
    without = " and ".join(r.name for r in recordings if not has_grad_cam(r))
    return f"No Grad-CAM was recorded for {without}." if without else ""
