"""Mean gates per class over depth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from attnscope import statistics
from attnscope.kinds import MAP
from attnscope.plots.builtin import gate_profiles as gates_over_depth
from attnscope.plots.subjects import no_gate
from attnscope.recording.recording import Recording
from tests.plots.reading import draw_plot, labels, numbers

Make = Callable[..., Recording]


def gate_profiles(classes: list[str]) -> pd.DataFrame:
    rows = [
        {
            "gate": f"layer{depth}.attention.channel",
            "kind": "channel",
            "class": name,
            "mean": depth + i / 10,
            "low": depth + i / 10 - 0.05,
            "high": depth + i / 10 + 0.05,
        }
        for depth in (1, 2, 3)
        for i, name in enumerate(classes)
    ]
    return pd.DataFrame(rows)


def test_gate_profiles_draw_means_and_intervals(ax: Axes) -> None:
    gates_over_depth.draw(ax, gate_profiles(["cat", "dog"]))
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(lines["dog"].get_ydata(), [1.1, 2.1, 3.1])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(0.95)
    assert band.max() == pytest.approx(3.05)
    assert labels(ax.get_xticklabels()) == ["layer1", "layer2", "layer3"]


def test_gate_profiles_centered(ax: Axes) -> None:
    gates_over_depth.draw(ax, gate_profiles(["cat", "dog"]), centered=True)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), -0.05)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), 0.05)


def test_gate_profiles_of_many_classes_name_the_highlighted_only(ax: Axes) -> None:
    names = [f"c{i}" for i in range(100)]
    gates_over_depth.draw(ax, gate_profiles(names), highlight=["c7", "c42"])
    assert len(ax.lines) == 100
    assert ax.get_legend_handles_labels()[1] == ["98 other classes", "c7", "c42"]


def test_gate_profiles_separate_the_kinds(make_recording: Make) -> None:
    recording = make_recording()
    axes = draw_plot("gate_profiles", recording).figures[0].axes
    assert [ax.get_title("left") for ax in axes[:2]] == ["channel gates", "spatial gates"]
    frame = statistics.gate_profiles(recording)
    owl = frame[(frame["kind"] == "spatial") & (frame["class"] == "owl")]["mean"]
    np.testing.assert_allclose(axes[1].lines[2].get_ydata(), owl)


def test_the_caption_names_the_gate_where_classes_differ_most(make_recording: Make) -> None:
    recording = make_recording("se", spatial=False, effect=0.5)
    caption = draw_plot("gate_profiles", recording).caption
    frame = statistics.gate_profiles(recording)
    frame = frame[frame["gate"] == "layer1.attention.channel"].set_index("class")["mean"]
    assert "layer1.attention.channel" in caption
    assert {f"{frame.min():.3f}", f"{frame.max():.3f}"} <= set(numbers(caption))
    assert no_gate(recording, MAP) in caption


def test_more_than_a_hundred_gray_classes_are_one_line_with_gaps(ax: Axes) -> None:
    names = [f"c{i}" for i in range(120)]
    gates_over_depth.draw(ax, gate_profiles(names), highlight=["c7"])
    gray, color = ax.lines
    assert [gray.get_label(), color.get_label()] == ["119 other classes", "c7"]
    drawn = gray.get_ydata().reshape(119, 4)
    others = [i for i in range(120) if i != 7]
    np.testing.assert_allclose(drawn[:, :3], np.add.outer(np.array(others) / 10, [1, 2, 3]))
    assert np.isnan(drawn[:, 3]).all()
    np.testing.assert_array_equal(gray.get_xdata().reshape(119, 4)[:, :3], [[0, 1, 2]] * 119)
