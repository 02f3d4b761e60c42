"""What a plot needs of its subject: each need says in words what is missing.

A new need is a new `Need`; nothing else knows them one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attnscope.plots.subjects import Pair, has_grad_cam, no_gate
from attnscope.plots.subjects import no_grad_cam as without_grad_cam
from attnscope.recording.outcomes import REPLACED, Outcomes
from attnscope.recording.places import run_of
from attnscope.recording.recording import Recording

GATES = "gates"
GRAD_CAM = "Grad-CAM"


@dataclass(frozen=True)
class Need:
    """Something without which a plot cannot be drawn."""

    what: str
    """One or two words: `GATES`, a trait of `attnscope.kinds`, `GRAD_CAM`, a file ..."""
    missing: Callable[[Any], str]
    """Subject -> a sentence that says what is missing; empty where nothing is."""
    left_out: bool = False
    """Whether the plot is left out without it. Otherwise the sentence stands on the figure."""
    asked_for: bool = False
    """Whether it is there only where somebody asked for it: without it the plot is not spoken of,
    unless it is wanted by name."""


def gates(trait: str = "", consequence: str = "") -> Need:
    """A gate whose kind has a trait; any gate where none is given.

    Args:
        trait: of `attnscope.kinds`.
        consequence: a sentence that follows the one that names the gates there are.
    """

    def missing(recording: Recording) -> str:
        if recording.gates_with(trait) if trait else recording.gates:
            return ""
        return f"{no_gate(recording, trait)} {consequence}".strip()

    return Need(trait or GATES, missing)


def grad_cam(text: str) -> Need:
    """Grad-CAM.

    Args:
        text: what is said without it.
    """
    return Need(GRAD_CAM, lambda recording: "" if has_grad_cam(recording) else text)


def attributions() -> Need:
    """Attribution methods beside Grad-CAM."""

    def missing(recording: Recording) -> str:
        if recording.attributions.methods:
            return ""
        return f"{recording.folder} has no attributions beside Grad-CAM; capture --attribution"

    return Need("attributions", missing, left_out=True, asked_for=True)


def both_grad_cam() -> Need:
    """Grad-CAM of two recordings."""

    def missing(pair: Pair) -> str:
        return without_grad_cam(pair.a, pair.b)

    return Need(GRAD_CAM, missing)


def shared_gate(trait: str, word: str) -> Need:
    """A gate with a trait that has the same name in two networks.

    Args:
        trait: of `attnscope.kinds`.
        word: what such gates are called.
    """

    def missing(pair: Pair) -> str:
        names = [{gate.name for gate in each.gates_with(trait)} for each in (pair.a, pair.b)]
        if names[0] & names[1]:
            return ""
        return f"{pair.a.name} and {pair.b.name} have no {word} gate of the same name to compare."

    return Need(trait, missing)


def run_file(name: str) -> Need:
    """A file of the run in which the recording lies.

    Args:
        name: of `attnscope.layout`.
    """

    def missing(recording: Recording) -> str:
        run = run_of(recording.folder)
        if run is not None and (run / name).is_file():
            return ""
        return f"{recording.folder} lies in no run with a {name}"

    return Need(name, missing, left_out=True)


def outcome(name: str) -> Need:
    """A table of interventions.

    Args:
        name: `REPLACED`, or of `attnscope.recording.outcomes.TABLES`.
    """

    return Need(name, lambda subject: without_outcome(subject.outcomes, name), left_out=True)


def without_outcome(outcomes: Outcomes, name: str) -> str:
    """A sentence that says that a table of interventions was not made; empty where it was."""
    if name in outcomes.tables or (name == REPLACED and outcomes.replacement is not None):
        return ""
    what = "replaced no gate yet" if name == REPLACED else f"have no {name}"
    return (
        f"the interventions on {outcomes.about.get('name')} {what}; run attnscope intervene "
        "without --experiments, which makes those that are missing"
    )
