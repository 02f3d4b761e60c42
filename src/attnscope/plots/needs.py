"""What a plot needs of its subject. Each need says in a sentence what is missing.

A new need is a new `Need`. The registry knows none of them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attnscope.plots.subjects import Comparison, no_gate
from attnscope.plots.subjects import no_grad_cam as without_grad_cam
from attnscope.recording.masks import has_masks, without_masks
from attnscope.recording.outcomes import EXPERIMENT_OF, REPLACED, Outcomes
from attnscope.recording.places import run_of
from attnscope.recording.recording import Recording

GATES = "gates"
GRAD_CAM = "Grad-CAM"
MASKS = "masks"


@dataclass(frozen=True)
class Need:
    """Something without which a plot cannot be drawn."""

    what: str
    """One or two words: `GATES`, a trait of `attnscope.kinds`, `GRAD_CAM`, a file ..."""
    missing: Callable[[Any], str]
    """Subject -> a sentence that says what is missing; empty if nothing is."""
    left_out: bool = False
    """Whether the plot is left out without it. Otherwise the sentence stands on the figure."""
    asked_for: bool = False
    """Whether it exists only if the user asked for it, as for attributions. Without it, lists of
    all plots do not mention the plot; it can still be drawn by name."""
    code: str = "AS904"
    """Code of the error (`attnscope.errors.ERRORS`) if the plot is left out."""


def gates(trait: str = "") -> Need:
    """Return the need of a gate whose kind has a trait, or of any gate.

    Args:
        trait: of `attnscope.kinds`; empty for any gate.
    """

    def missing(recording: Recording) -> str:
        there = recording.gates_with(trait) if trait else recording.gates
        return "" if there else no_gate(recording, trait)

    return Need(trait or GATES, missing, left_out=True)


def bounded_gates() -> Need:
    """Return the need of a gate with bounds."""

    def missing(recording: Recording) -> str:
        if not recording.gates or any(gate.bounded for gate in recording.gates):
            return ""
        return (
            f"{recording.folder} has no gate with bounds, and only such gates have states; record "
            "other kinds of gates with: attnscope capture --kinds"
        )

    return Need("gates with bounds", missing, left_out=True)


def grad_cam() -> Need:
    """Return the need of Grad-CAM."""
    return Need(GRAD_CAM, without_grad_cam, left_out=True)


def attributions() -> Need:
    """Return the need of attribution methods other than Grad-CAM."""

    def missing(recording: Recording) -> str:
        if recording.attributions.methods:
            return ""
        return (
            f"{recording.folder} has no attributions other than Grad-CAM; record them with: "
            "attnscope capture RUN --attribution-methods METHOD"
        )

    return Need("attributions", missing, left_out=True, asked_for=True, code="AS908")


def masks() -> Need:
    """Return the need of masks of the recording's images."""

    def missing(recording: Recording) -> str:
        return "" if has_masks(recording) else without_masks(recording)

    return Need(MASKS, missing, left_out=True, asked_for=True, code="AS915")


def both_grad_cam() -> Need:
    """Return the need of Grad-CAM in both recordings of a comparison."""

    def missing(pair: Comparison) -> str:
        return without_grad_cam(pair.a, pair.b)

    return Need(GRAD_CAM, missing, left_out=True)


def shared_gate(trait: str, word: str) -> Need:
    """Return the need of a gate with a trait that has the same name in two networks.

    Args:
        trait: of `attnscope.kinds`.
        word: what such gates are called.
    """

    def missing(pair: Comparison) -> str:
        names = [{gate.name for gate in each.gates_with(trait)} for each in (pair.a, pair.b)]
        if names[0] & names[1]:
            return ""
        a, b = pair.names
        return f"{a} and {b} have no {word} gate of the same name to compare."

    return Need(trait, missing, left_out=True)


def run_file(name: str) -> Need:
    """Return the need of a file of the run that the recording belongs to.

    Args:
        name: of `attnscope.layout`.
    """

    def missing(recording: Recording) -> str:
        run = run_of(recording.folder)
        if run is not None and (run / name).is_file():
            return ""
        return (
            f"{recording.folder} is not in a run that has a {name}; take the recording of a run "
            "that attnscope train made"
        )

    return Need(name, missing, left_out=True, code="AS909")


def outcome(name: str, *, asked_for: bool = False) -> Need:
    """Return the need of a table of interventions.

    Args:
        name: `REPLACED`, or of `attnscope.recording.outcomes.TABLES`.
        asked_for: whether its experiment is run only if the user names it.
    """

    def missing(subject: Any) -> str:
        return without_outcome(subject.outcomes, name)

    return Need(name, missing, left_out=True, asked_for=asked_for, code="AS906")


def without_outcome(outcomes: Outcomes, name: str) -> str:
    """Return a sentence that says which table of interventions is missing; empty if it is there."""
    if name in outcomes.tables or (name == REPLACED and outcomes.replacement is not None):
        return ""
    what = "have not replaced any gate" if name == REPLACED else f"have no table '{name}'"
    return (
        f"the interventions on {outcomes.about.get('name')} {what}; run attnscope intervene "
        f"with --experiments {EXPERIMENT_OF.get(name, 'EXPERIMENT')}"
    )
