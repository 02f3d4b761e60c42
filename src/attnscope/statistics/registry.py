"""All statistics by name, with what each of them takes.

A package adds its own where it is imported::

    from attnscope.kinds import PER_CHANNEL
    from attnscope.statistics import statistic

    @statistic("The largest value of each channel.", takes=("recording", "gate"), trait=PER_CHANNEL)
    def channel_maxima(recording, gate): ...

and announces its module as an entry point of the group ``attnscope.plugins``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from attnscope.kinds import TRAITS, Gate
from attnscope.recording.reader import ShardReader
from attnscope.registry import Registry

INPUTS = {
    "recording": "a `Recording`; two of them are of the same images",
    "recordings": "a list of recordings, one a seed",
    "gate": "the name of a gate of the recording",
    "outcomes": "the frame of `attnscope.interventions.replace_gates`",
    "edit": "the name of an edit of the outcomes",
    "decoding": "the frame of `decode_gates`",
    "usages": "a list of frames of `gate_usage` or `joint_usage`, one a seed",
}
"""What a statistic may take, by the name that `Statistic.takes` uses."""


@dataclass(frozen=True)
class Statistic:
    """A function that turns recordings or outcomes into a frame, an array or a number."""

    function: Callable[..., Any]
    about: str
    """What it says, in one line."""
    takes: tuple[str, ...]
    """Its positional arguments in their order, of `INPUTS`. All others have defaults."""
    trait: str | None = None
    """Where it takes a gate: the trait of `attnscope.kinds` that the gate must have, if any."""

    def gates_of(self, recording: ShardReader) -> list[Gate]:
        """The gates of a recording that it can be given, in the order in which they act."""
        if "gate" not in self.takes:
            return []
        return recording.gates if self.trait is None else recording.gates_with(self.trait)


def _check(thing: Statistic) -> None:
    if not callable(thing.function):
        raise TypeError("it must be a function")
    if not thing.about.strip() or "\n" in thing.about:
        raise ValueError("say in one line what it is about")
    unknown = [name for name in thing.takes if name not in INPUTS]
    if unknown or not thing.takes:
        raise ValueError(f"it takes {unknown or 'nothing'}; take of {', '.join(INPUTS)}")
    if thing.trait is not None and (thing.trait not in TRAITS or "gate" not in thing.takes):
        raise ValueError(
            f"'{thing.trait}' is no trait of a gate that it takes; there are "
            f"{', '.join(sorted(TRAITS))}"
        )


STATISTICS: Registry[Statistic] = Registry("statistic", _check)
"""All statistics by the names of their functions."""

Function = TypeVar("Function", bound=Callable[..., Any])


def statistic(
    about: str, *, takes: tuple[str, ...] = ("recording",), trait: str | None = None
) -> Callable[[Function], Function]:
    """Register a function as a statistic under its own name.

    Args:
        about: what it says, in one line.
        takes: its positional arguments, of `INPUTS`.
        trait: that of `attnscope.kinds` which the gate that it takes must have.

    Raises:
        InputError: the name is taken, or something is missing.
    """

    def register(function: Function) -> Function:
        STATISTICS.register(function.__name__, Statistic(function, about, takes, trait))
        return function

    return register
