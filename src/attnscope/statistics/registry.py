"""All statistics by name, with the inputs of each.

A package registers its own statistics when it is imported::

    from attnscope.kinds import PER_CHANNEL
    from attnscope.statistics import statistic

    @statistic("Largest value of each channel.", takes=("recording", "gate"), trait=PER_CHANNEL)
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
    "recording": "a `Recording`; two recordings must hold the same images",
    "recordings": "a list of recordings, one per seed",
    "gate": "name of a gate of the recording",
    "outcomes": "table of `attnscope.interventions.replace_gates`",
    "edit": "name of an edit in the outcomes",
    "decoding": "table of `decode_gates`",
    "usages": "a list of tables of `gate_usage` or `joint_usage`, one per seed",
}
"""Description of each input that a statistic can take, by the name that `Statistic.takes` uses."""


@dataclass(frozen=True)
class Statistic:
    """A function that computes a table, an array or a number from recordings or outcomes."""

    function: Callable[..., Any]
    about: str
    """What the statistic computes, in one line."""
    takes: tuple[str, ...]
    """Names in `INPUTS` of the required positional arguments, in order. All others have defaults.
    """
    trait: str | None = None
    """Trait of `attnscope.kinds` that the gate must have, if the statistic takes a gate."""
    concerns: Callable[[ShardReader], bool] = lambda recording: True
    """Recording -> whether it has what the user adds for this statistic, such as masks. Without it,
    tables of all statistics do not mention the statistic."""

    def gates_of(self, recording: ShardReader) -> list[Gate]:
        """Return the gates of a recording that the statistic accepts, in network order."""
        if "gate" not in self.takes:
            return []
        return recording.gates if self.trait is None else recording.gates_with(self.trait)


def _check(thing: Statistic) -> None:
    if not callable(thing.function):
        raise TypeError("a statistic must be a function")
    if not thing.about.strip() or "\n" in thing.about:
        raise ValueError("its description must be one line of text")
    unknown = [name for name in thing.takes if name not in INPUTS]
    if unknown or not thing.takes:
        raise ValueError(
            f"its inputs are {', '.join(thing.takes) or 'empty'}; they must be one or more of "
            f"{', '.join(INPUTS)}"
        )
    if thing.trait is not None and (thing.trait not in TRAITS or "gate" not in thing.takes):
        raise ValueError(
            f"its trait is '{thing.trait}'; it must be one of {', '.join(sorted(TRAITS))}, and a "
            "gate must be among its inputs"
        )


STATISTICS: Registry[Statistic] = Registry("statistic", _check)
"""All statistics by the names of their functions."""

Function = TypeVar("Function", bound=Callable[..., Any])


def statistic(
    about: str,
    *,
    takes: tuple[str, ...] = ("recording",),
    trait: str | None = None,
    concerns: Callable[[ShardReader], bool] = lambda recording: True,
) -> Callable[[Function], Function]:
    """Register a function as a statistic under its own name.

    Args:
        about: what the statistic computes, in one line.
        takes: names in `INPUTS` of its required positional arguments.
        trait: trait of `attnscope.kinds` that its gate must have.
        concerns: as `Statistic.concerns`.

    Returns:
        A decorator that returns the function unchanged.

    Raises:
        InputError: the name is already registered, or an argument is incomplete.
    """

    def register(function: Function) -> Function:
        STATISTICS.register(function.__name__, Statistic(function, about, takes, trait, concerns))
        return function

    return register
