"""Accuracies of two networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from attnscope.plots.builtin import per_class_accuracy
from attnscope.recording.recording import Recording
from attnscope.statistics.inference import paired_accuracy_change
from tests.plots.reading import draw_plot, labels, numbers

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
    low, high = paired_accuracy_change(good.right, bad.right)[1:]
    ends = [f"{100 * end:.1f}".replace("-", "−") for end in (low, high)]
    found = numbers(draw_plot("per_class_accuracy", good, bad).caption)
    assert found[:3] == ["60", "100.0%", "0.0%"]
    assert found[3:10] == ["−100.0", "95%", *ends, "0.001", "60", "0"]
    assert found[10:12] == ["3", "3"]
    assert found[12:] == ["100.0%", "0.0%", "0.001"] * 3
    twin = make_recording("twin", accuracy=2, seed=2)
    none = numbers(draw_plot("per_class_accuracy", good, twin).caption)
    assert none[:4] == ["60", "100.0%", "100.0%", "+0.0"]
    # Of 3 classes; the smallest p is 1; 20 images per class would have shown larger differences.
    assert none[7:13] == ["1.000", "0", "0", "3", "1.000", "20"]
    assert none[-1] == "80%"


def test_one_class_that_differs_is_named() -> None:
    frame = pd.DataFrame(
        {
            "class": ["all", "cat", "dog", "owl"],
            "count": [300, 100, 100, 0],
            "accuracy_a": [0.7, 0.5, 0.9, np.nan],
            "accuracy_b": [0.8, 0.7, 0.9, np.nan],
            "difference": [0.1, 0.2, 0.0, np.nan],
            "low": [0.03, 0.1, -0.04, np.nan],
            "high": [0.16, 0.3, 0.04, np.nan],
            "only_a": [3, 1, 2, 0],
            "only_b": [23, 21, 2, 0],
            "p": [0.001, 0.002, 0.04, np.nan],
            "p_holm": [0.001, 0.004, 0.08, np.nan],  # without Holm the dog would differ, too
        }
    )
    classes = ["cat", "dog", "owl"]
    shown = per_class_accuracy.PerClassAccuracy(("SE", "CBAM"), classes, frame)
    sentence = per_class_accuracy.caption(shown)
    said = numbers(sentence)
    assert said[:7] == ["300", "70.0%", "80.0%", "+10.0", "95%", "3.0", "16.0"]
    assert said[7:10] == ["0.001", "3", "23"]
    assert said[10:] == ["1", "2", "50.0%", "70.0%", "0.004"]
    assert "cat" in sentence
    assert "dog" not in sentence
