"""Checks that the tests of the statistics share."""

from __future__ import annotations

import numpy as np
import pandas as pd

from attnscope.statistics.questions import QUESTIONS, columns_of
from attnscope.statistics.verdicts import NOTHING


def usage_table(removal: list[float], misinformation: list[float], p: float = 0.5) -> pd.DataFrame:
    """`gate_usage` of two gates in one seed, with the columns that are summarized over seeds."""
    table = pd.DataFrame(
        {
            "gate": ["early", "late"],
            "kind": "channel",
            "depth": [1, 2],
            "balanced_accuracy": [0.2, 0.6],
            "chance": 0.1,
            "p_read": [0.04, 0.001],
        }
    )
    for question in QUESTIONS:
        table[columns_of(question.name)] = np.nan
    return table.assign(
        removal_value=removal,
        p_removal=p,
        removal_log_loss=[
            -size if value < 0 else size for value, size in zip(removal, (0.1, 0.2), strict=True)
        ],
        p_removal_log_loss=[0.5, 0.5],
        misinformation_value=misinformation,
        p_misinformation=p,
        misinformation_log_loss=[0.3, 0.0],
        p_misinformation_log_loss=[0.5, 0.5],
        own_log_loss=2.0,
        verdict=NOTHING,
    )


def outcomes_with_errors(wrong: dict[str, int]) -> pd.DataFrame:
    """Outcomes of 100 correct images; ``constant`` makes the first ``wrong[target]`` wrong."""
    rng = np.random.default_rng(0)
    right = pd.DataFrame({"row": range(100), "label": 0, "prediction": 0})
    log_loss = 3 + rng.random(100)
    frames = [right.assign(target="", edit="own", log_loss=log_loss)]
    for target, count in wrong.items():
        for edit in ("mean", "constant", "swap_same", "swap_other"):
            lost = count if edit == "constant" else 0
            prediction = (np.arange(100) < lost).astype(int)
            moved = log_loss + 2 * prediction + 1e-3 * rng.normal(size=100)
            edited = right.assign(target=target, edit=edit, prediction=prediction, log_loss=moved)
            frames.append(edited)
    return pd.concat(frames, ignore_index=True)
