"""What plots compute, kept for all that shows it: figures, files, tables of the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attnscope.plots import PLOTS
from attnscope.plots.subjects import Comparison, SeedComparison
from attnscope.plots.subjects import Intervened as IntervenedSubject
from cached.caching import result
from cached.found import Intervened, Monitored, Run


def of_run(name: str, run: Run, version: object = None) -> Any:
    """Return ``Plot.result`` of a recording, which must not be changed.

    Args:
        name: name of the plot.
        run: the recording.
        version: what else the result depends on; it is computed again if this changes.

    Raises:
        Unavailable: the recording lacks what the plot needs.
    """
    return _result(name, f"{run.key} {version}", run.recording)


def of_interventions(name: str, intervened: Intervened) -> Any:
    """Return ``Plot.result`` of the interventions on one recording, as `of_run`."""
    subject = IntervenedSubject(intervened.run.recording, intervened.outcomes)
    return _result(name, intervened.key, subject)


def of_training(name: str, monitored: Monitored) -> Any:
    """Return ``Plot.result`` of the gates over training, as `of_run`."""
    return _result(name, monitored.key, monitored.history)


def of_comparison(name: str, a: Run, b: Run) -> Any:
    """Return ``Plot.result`` of two recordings, as `of_run`."""
    return _result(name, f"{a.key} {b.key}", Comparison(a.recording, b.recording))


def of_seeds(name: str, a: Sequence[Run], b: Sequence[Run], names: tuple[str, str]) -> Any:
    """Return ``Plot.result`` of two configurations over seeds, as `of_run`."""
    key = repr([names, *([run.key for run in runs] for runs in (a, b))])
    return _result(name, key, SeedComparison(names, *([r.recording for r in c] for c in (a, b))))


@result
def _result(name: str, key: str, _subject: object) -> Any:
    return PLOTS.find(name).result(_subject)
