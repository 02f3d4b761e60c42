"""The verdict on each gate with what it rests on, as the report and the command show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from attnscope.plots.registry import Unavailable
from attnscope.plots.text import as_interval, as_number, as_percent, as_plain_points
from attnscope.plots.usage import usage_of
from attnscope.plots.usage_sentences import effect_of
from attnscope.recording.outcomes import Outcomes
from attnscope.statistics.inference import significant
from attnscope.statistics.questions import REMOVAL
from attnscope.statistics.verdicts import UNTESTED

_NOT_MEASURED = "not measured"
_COLUMNS = {
    "gate": "gate",
    "decodable": "class decodable",
    "accuracy_lost": "accuracy lost (points)",
    "log_loss_added": "log loss added (nats)",
    "verdict": "verdict",
}
"""Columns of the verdicts and their headings."""


def verdict_table(outcomes: Outcomes) -> pd.DataFrame:
    """Return the verdict on each gate, with what it rests on in words.

    Args:
        outcomes: of the experiments decode and replace.

    Returns:
        One row per gate, all columns but the first as text; no rows if an experiment is missing:

        - ``gate``, ``kind``
        - ``decodable``: whether the class is, with the balanced accuracy and chance.
        - ``accuracy_lost``, ``log_loss_added``: by the best constant instead of the image's own
          gate, in percentage points and in nats, with the 95% CI.
        - ``verdict``: one of `attnscope.statistics.verdicts.VERDICTS`.
        - ``effect``: both losses as a sentence.
    """
    columns = ["gate", "kind", "decodable", "accuracy_lost", "log_loss_added", "verdict", "effect"]
    try:
        usage = usage_of(outcomes)
    except Unavailable:
        return pd.DataFrame(columns=columns)
    rows = [
        {
            "decodable": _decodable(row),
            "accuracy_lost": _loss(row, "", as_plain_points),
            "log_loss_added": _loss(row, "_log_loss", as_number),
            "effect": _NOT_MEASURED if row["verdict"] == UNTESTED else effect_of(row, REMOVAL),
        }
        for _, row in usage.iterrows()
    ]
    found = pd.DataFrame(rows, usage.index, columns=[c for c in columns if c not in usage])
    return usage[["gate", "kind", "verdict"]].join(found)[columns]


def in_columns(verdicts: pd.DataFrame) -> str:
    """Return the table of verdicts with a sentence that explains it."""
    cells = [list(_COLUMNS.values()), *verdicts[list(_COLUMNS)].to_numpy(str).tolist()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    about = (
        "Balanced accuracy of a linear probe of the class, and losses with the best constant "
        "instead of the image's own gate, with 95% CIs.\n"
        "Verdicts are corrected for the number of tests (Holm), intervals are not."
    )
    return "\n".join([about, *lines])


def _decodable(row: pd.Series[Any]) -> str:
    """Say whether the class is decodable, with the balanced accuracy and chance."""
    if np.isnan(row["balanced_accuracy"]):
        return "no probe"
    found = "not tested" if np.isnan(row["p_read"]) else "not shown"
    if significant(row["p_read"]):
        found = "yes"
    return f"{found}: {as_percent(row['balanced_accuracy'])} (chance {as_percent(row['chance'])})"


def _loss(row: pd.Series[Any], measure: str, form: Callable[[float], str]) -> str:
    """Write what removal costs, with the ends of the 95% CI."""
    value = float(row[f"{REMOVAL}{'' if measure else '_value'}{measure}"])
    if row["verdict"] == UNTESTED or np.isnan(value):
        return _NOT_MEASURED
    ends = float(row[f"{REMOVAL}{measure}_low"]), float(row[f"{REMOVAL}{measure}_high"])
    return f"{form(value)} ({as_interval(*ends, form).removeprefix('95% CI ')})"
