"""Checks that the tests of the statistics share."""

from __future__ import annotations

import numpy as np
import pandas as pd


def usage_table(
    class_value: list[float], dynamic_value: list[float], p: float = 0.5
) -> pd.DataFrame:
    """`gate_usage` of two gates in one seed, with the columns that are summarized over seeds."""
    return pd.DataFrame(
        {
            "gate": ["early", "late"],
            "kind": "channel",
            "depth": [1, 2],
            "balanced_accuracy": [0.2, 0.6],
            "chance": 0.1,
            "p_read": [0.04, 0.001],
            "class_value": class_value,
            "p_used": p,
            "class_margin": [0.1, 0.2],
            "p_margin": [0.5, 0.01],
            "dynamic_value": dynamic_value,
            "p_dynamic": p,
            "dynamic_margin": [0.3, 0.0],
            "margin_std": 2.0,
        }
    )


def outcomes_with_errors(wrong: dict[str, int]) -> pd.DataFrame:
    """Outcomes of 100 correct images; ``swap_other`` makes the first ``wrong[target]`` wrong."""
    rng = np.random.default_rng(0)
    right = pd.DataFrame({"row": range(100), "label": 0, "prediction": 0})
    margin = 1 + rng.random(100)
    frames = [right.assign(target="", edit="own", margin=margin)]
    for target, count in wrong.items():
        for edit in ("mean", "swap_same", "swap_other"):
            lost = count if edit == "swap_other" else 0
            prediction = (np.arange(100) < lost).astype(int)
            moved = margin - 2 * prediction + 1e-3 * rng.normal(size=100)
            edited = right.assign(target=target, edit=edit, prediction=prediction, margin=moved)
            frames.append(edited)
    return pd.concat(frames, ignore_index=True)
