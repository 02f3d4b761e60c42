"""Accuracies of two networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from attnscope.plots import (
    per_class_accuracy,
)
from attnscope.recording.recording import Recording
from tests.plots.reading import draw_plot, labels

Make = Callable[..., Recording]


def accuracy_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "class": ["all", "cat", "dog"],
            "accuracy_a": [0.6, 0.5, 0.7],
            "accuracy_b": [0.8, 0.9, 0.7],
            "only_a": [3, 1, 2],
            "only_b": [23, 21, 2],
            "p": [1e-4, 1e-5, 1.0],
            "p_holm": [1e-4, 2e-5, 1.0],
        }
    )


def test_per_class_accuracy(ax: Axes) -> None:
    per_class_accuracy.draw(ax, accuracy_frame(), ("SE", "CBAM"))
    lines = {line.get_label(): list(line.get_xdata()) for line in ax.lines}
    assert lines["SE"] == [0.6, 0.5, 0.7]
    assert lines["CBAM"] == [0.8, 0.9, 0.7]
    assert labels(ax.get_yticklabels()) == ["all", "cat", "dog"]
    low, high = ax.get_ylim()
    assert low > high  # the first row is on top


def test_disagreements(ax: Axes) -> None:
    per_class_accuracy.draw_disagreements(ax, accuracy_frame(), ("SE", "CBAM"))
    widths = [[bar.get_width() for bar in group] for group in ax.containers]
    assert widths == [[-1, -2], [21, 2]]  # without the row of all, which would flatten them
    bold = [text.get_text() for text in ax.texts if text.get_fontweight() == "bold"]
    assert bold == ["p < 0.001", "p < 0.001"]
    assert "3   |   23" in labels(ax.texts)
    assert "p = 1.000" in labels(ax.texts)


def test_a_planted_difference_is_found_and_none_is_called_none(make_recording: Make) -> None:
    good, bad = make_recording("good", accuracy=2), make_recording("bad", accuracy=0, seed=1)
    found = draw_plot("per_class_accuracy", good, bad).caption
    assert "3 of 3 classes differ after Holm's correction: " in found
    assert "cat (100.0 % and 0.0 %, p < 0.001)" in found
    twin = make_recording("twin", accuracy=2, seed=2)
    none = draw_plot("per_class_accuracy", good, twin).caption
    assert "No class differs: of 3 classes none has p < 0.05" in none
    assert "no difference found" in none


def test_one_class_that_differs_is_named() -> None:
    frame = pd.DataFrame(
        {
            "class": ["all", "cat", "dog", "owl"],
            "count": [300, 100, 100, 0],
            "accuracy_a": [0.7, 0.5, 0.9, np.nan],
            "accuracy_b": [0.8, 0.7, 0.9, np.nan],
            "only_a": [3, 1, 2, 0],
            "only_b": [23, 21, 2, 0],
            "p": [0.001, 0.002, 0.04, np.nan],
            "p_holm": [0.001, 0.004, 0.08, np.nan],  # without Holm the dog would differ, too
        }
    )
    classes = ["cat", "dog", "owl"]
    shown = per_class_accuracy.PerClassAccuracy(("SE", "CBAM"), classes, frame)
    sentence = per_class_accuracy.caption(shown)
    assert "1 of 2 classes differs" in sentence
    assert sentence.endswith("cat (50.0 % and 70.0 %, p = 0.004).")
    assert "SE is right on 70.0 % of 300 images, CBAM on 80.0 %" in sentence
