"""Tables of what figures show, against the recordings and values by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from attnscope import statistics
from attnscope.plots import PLOTS, Note
from attnscope.plots.tables import flat, maps_table, stacked
from attnscope.recording.recording import Recording

Make = Callable[..., Recording]


def test_maps_have_a_row_for_each_pixel() -> None:
    values = np.arange(12.0).reshape(2, 2, 3)
    table = maps_table({"gate": values, "missing": None}, ["cat", "dog"], "class")
    assert list(table) == ["map", "class", "y", "x", "value"]
    assert len(table) == 12
    (found,) = table.query("`class` == 'dog' and y == 1 and x == 2")["value"]
    assert found == values[1, 1, 2]
    assert maps_table({}, [], "class").empty


def test_stacked_tables_say_where_rows_are_from() -> None:
    frames = {"a": pd.DataFrame({"gate": ["old"], "x": [1]}), "b": pd.DataFrame({"y": [2.0]})}
    table = stacked(frames, "gate")
    assert table["gate"].tolist() == ["a", "b"]
    assert table["x"].tolist()[0] == 1
    assert table["y"].isna().tolist() == [True, False]


def test_an_index_with_a_name_is_a_column() -> None:
    frame = pd.DataFrame({"x": [1, 2]}, index=pd.Index(["a", "b"], name="true"))
    assert flat(frame).columns.tolist() == ["true", "x"]
    assert flat(frame.rename_axis(None)).columns.tolist() == ["x"]


def test_the_table_of_the_confusion_matrix_has_all_classes(make_recording: Make) -> None:
    names = [f"c{k}" for k in range(120)]
    recording = make_recording(count=240, names=names, accuracy=0.5)
    plot = PLOTS["confusion_matrix"]
    table = plot.numbers(plot.result(recording)).set_index("true")
    assert (table.to_numpy() == statistics.confusion_matrix(recording).to_numpy()).all()


def test_the_table_of_channel_gates_has_profiles_and_effects(make_recording: Make) -> None:
    recording, plot = make_recording(), PLOTS["channel_gates"]
    table = plot.numbers(plot.result(recording))
    for gate, part in table.groupby("gate"):
        expected = statistics.class_profiles(recording, gate)
        np.testing.assert_array_equal(part["mean"], expected["mean"])
        assert part["omega_squared"].notna().any()


def test_the_table_of_spatial_maps_has_the_class_means(make_recording: Make) -> None:
    recording, plot = make_recording(), PLOTS["spatial_maps"]
    table = plot.numbers(plot.result(recording)).set_index(["map", "class", "y", "x"])["value"]
    gate = "layer2.attention.spatial"
    means = statistics.class_mean_maps(recording, gate)
    assert table[gate, "dog", 3, 1] == means[1, 3, 1]
    cams = statistics.class_mean_grad_cam(recording)
    assert table["Grad-CAM", "owl", 0, 2] == cams[2, 0, 2]


def test_a_note_has_no_numbers(make_recording: Make) -> None:
    plot = PLOTS["misclassified"]
    result = plot.result(make_recording(accuracy=2))
    assert isinstance(result, Note)
    assert plot.numbers(result).empty
