"""What stands out in a recording, for the page Overview."""

from __future__ import annotations

import pandas as pd

from attnscope.dashboard import highlights
from attnscope.dashboard.highlights import Highlight
from attnscope.plots import Unavailable
from attnscope.plots.usage import joint_of
from cached import tables
from cached.caching import statistic
from cached.found import Intervened, Run


@statistic
def still_gates(run: Run) -> pd.DataFrame:
    """``highlights.still_gates``"""
    return highlights.still_gates(run.recording)


@statistic
def joint_usage(intervened: Intervened) -> pd.DataFrame:
    """``plots.usage.joint_of``"""
    return joint_of(intervened.outcomes)


def of_gates(run: Run, intervened: Intervened | None) -> list[Highlight]:
    """Return what stands out in the gates."""
    found = highlights.gates_that_never_move(still_gates(run), len(run.recording))
    if intervened is None:
        return found
    try:
        found += highlights.gates_that_could_be_constants(tables.gate_usage(intervened))
        found += highlights.all_gates_at_once(joint_usage(intervened))
    except Unavailable:  # an experiment was not run
        pass
    return found


def of_classes(run: Run) -> list[Highlight]:
    """Return what stands out in the predictions."""
    found = highlights.confused_pairs(tables.confusion_matrix(run))
    return found + highlights.weakest_classes(tables.class_metrics(run))
