"""Mean gates of two networks over depth, against the values in the recordings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from attnscope.comparison import Comparison
from attnscope.plots import PLOTS
from attnscope.recording.recording import Recording
from tests.making import refused
from tests.plots.reading import labels

Make = Callable[..., Recording]
PLOT = PLOTS["gates_over_depth"]


def test_means_and_class_means_are_those_of_the_values(make_recording: Make) -> None:
    a, b = make_recording("a", effect=0.4), make_recording("b", seed=1, spatial=False)
    table = PLOT.numbers(PLOT.result(Comparison(a, b)))
    assert table["network"].tolist() == ["a"] * 4 + ["b"] * 2
    for row in table.itertuples():
        recording = {"a": a, "b": b}[row.network]
        per_image = recording[row.gate].reshape(len(recording), -1).mean(1, dtype=np.float64)
        of_classes = [per_image[recording.labels == k].mean() for k in range(3)]
        assert row.mean == pytest.approx(per_image.mean(), rel=1e-6)
        assert (row.lowest, row.highest) == pytest.approx((min(of_classes), max(of_classes)))
        assert row.lowest_class == recording.classes[int(np.argmin(of_classes))]
        assert row.highest_class == recording.classes[int(np.argmax(of_classes))]


def test_each_kind_of_gate_has_a_panel_with_a_line_for_each_network(make_recording: Make) -> None:
    a, b = make_recording("a"), make_recording("b", seed=1, spatial=False)
    drawing = PLOT.make(Comparison(a, b))
    channel, spatial = drawing.figures[0].axes
    assert (channel.get_title(loc="left"), spatial.get_title(loc="left")) == (
        "channel gates",
        "spatial gates",
    )
    table = PLOT.numbers(PLOT.result(Comparison(a, b)))
    assert [len(ax.lines) for ax in (channel, spatial)] == [2, 1]
    for line, side in zip(channel.lines, "ab", strict=True):
        own = table[(table["network"] == side) & (table["kind"] == "channel")]
        np.testing.assert_array_equal(line.get_ydata(), own["mean"])
        np.testing.assert_array_equal(line.get_xdata(), [1, 2])
    (legend,) = drawing.figures[0].legends
    assert labels(legend.get_texts()) == ["a", "b"]


def test_two_networks_without_gates_have_no_figure(write_recording: Make) -> None:
    a, b = (write_recording(name, labels=[0, 1, 2]) for name in "ab")
    with refused("AS904", names=("a", "b")):
        PLOT.make(Comparison(a, b))
