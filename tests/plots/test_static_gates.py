"""Accuracies with constants in place of gates."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from attnscope.plots.builtin import static_gates
from tests.plots.reading import numbers

TARGETS = ["a", "b", "block x", "block y", "all"]


def effects(change: list[float]) -> pd.DataFrame:
    """Rows of `replacement_effects` of a network with an accuracy of 60%."""
    moved = np.array(change)
    return pd.DataFrame(
        {
            "target": TARGETS, "change": moved, "low": moved - 0.5, "high": moved + 0.5,
            "accuracy": 0.6 + moved, "edit": "constant",
        }
    )  # fmt: skip


def test_accuracies_and_their_intervals_lie_between_0_and_100_percent(ax: Axes) -> None:
    table = effects([-0.6, 0.4, 0.0, 0.0, -0.1])
    static_gates.draw(ax, table, 0.6, [False] * 5, TARGETS)
    bars = np.array([path.vertices[:, 0] for path in ax.collections[0].get_paths()])
    np.testing.assert_allclose(bars, [[0, 0.5], [0.5, 1], [0.1, 1], [0.1, 1], [0, 1]], atol=1e-12)
    low, high = ax.get_xlim()
    assert -0.05 < low < 0
    assert 1 < high < 1.05


def test_no_target_is_named_where_no_replacement_lowers_the_accuracy() -> None:
    none = np.zeros(5, bool)
    same = static_gates.static_sentence(effects([0.0] * 5), none)
    better = static_gates.static_sentence(effects([0.0, 0.1, 0.0, 0.2, 0.0]), none)
    for said in (same, better):
        assert not any(f"at {target}" in said for target in TARGETS)
    assert numbers(same)[:4] == ["2", "95%", "−50.0", "50.0"]
    assert "changes the accuracy" in same
    assert "lowers the accuracy" in better
    worse = static_gates.static_sentence(effects([0.0, -0.1, 0.0, -0.2, 0.0]), none)
    assert "at b:" in worse
    assert "at block y:" in worse
