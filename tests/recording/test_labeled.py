"""Recordings as tables of pandas and data sets of xarray, and as text in a notebook."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from attnscope.kinds import Gate
from attnscope.recording.moments import ClassSums, Moments, MomentsWriter
from attnscope.recording.outcomes import Outcomes, find_outcomes
from attnscope.recording.recording import Recording, RecordingWriter
from tests.making import refused
from tests.recording.making import CLASSES, GATES, make_arrays, make_rows, write

CHANNEL, SPATIAL = (gate.name for gate in GATES)


def test_table_has_one_row_per_image_and_one_column_per_gate(folder: Path) -> None:
    recording, arrays = Recording(folder), make_arrays()
    table = recording.to_pandas()
    facts = ["path", "label", "prediction", "right", "confidence"]
    assert list(table.columns) == [*facts, CHANNEL, SPATIAL]
    assert table.index.tolist() == list(range(8))
    assert table["path"].tolist() == recording.rows["path"].tolist()
    assert table["label"].tolist() == [CLASSES[k] for k in recording.labels]
    assert table["prediction"].tolist() == [CLASSES[k] for k in recording.predictions]
    assert table["right"].tolist() == (recording.labels == recording.predictions).tolist()
    np.testing.assert_array_equal(table["confidence"], recording.probabilities.max(1))
    for name in (CHANNEL, SPATIAL):
        means = [image.mean(dtype=np.float64) for image in arrays[f"gate/{name}"]]
        np.testing.assert_allclose(table[name], means, rtol=1e-14)


def test_table_of_a_gate_has_one_column_per_channel(folder: Path) -> None:
    recording = Recording(folder)
    table = recording.to_pandas(CHANNEL)
    assert list(table.columns[5:]) == [f"channel_{c}" for c in range(6)]
    assert table.columns.nlevels == 1
    np.testing.assert_array_equal(table.iloc[:, 5:], recording.gate(CHANNEL))
    with refused("AS609", names=(SPATIAL,)):
        recording.to_pandas(SPATIAL)
    with refused("AS608", names=("layer9",)):
        recording.to_pandas("layer9")


def test_label_that_is_not_a_class_is_refused(tmp_path: Path) -> None:
    """An index of -1 would silently be the last class."""
    arrays = make_arrays()
    for number in (-1, 3):
        rows = make_rows(arrays)
        rows.loc[4, "label"] = number
        recording = Recording(write(tmp_path / str(number), arrays, rows))
        for convert in (recording.to_pandas, recording.to_xarray):
            with refused("AS616", names=("row 4", "label", str(number))):
                convert()


def test_data_set_has_named_dimensions_and_coordinates(folder: Path) -> None:
    recording = Recording(folder)
    data = recording.to_xarray()
    assert list(data.data_vars) == [CHANNEL, SPATIAL, "logits"]
    assert data[CHANNEL].dims == ("image", f"channel:{CHANNEL}")
    assert data[SPATIAL].dims == ("image", f"height:{SPATIAL}", f"width:{SPATIAL}")
    assert data["logits"].dims == ("image", "class")
    for name in (CHANNEL, SPATIAL):
        np.testing.assert_array_equal(data[name].values, recording.gate(name))
    np.testing.assert_array_equal(data["logits"], recording.logits)
    assert data["class"].to_numpy().tolist() == CLASSES
    assert data["path"].to_numpy().tolist() == recording.rows["path"].tolist()
    assert data["label"].to_numpy().tolist() == [CLASSES[k] for k in recording.labels]
    assert data["prediction"].to_numpy().tolist() == [CLASSES[k] for k in recording.predictions]
    assert data.attrs == {"name": "toy"}
    bounds = [
        (data[g].attrs["lower_bound"], data[g].attrs["upper_bound"]) for g in data if g != "logits"
    ]
    assert bounds == [(0.0, 1.0), (0.0, 2.0)]


def test_data_set_of_one_gate_has_plain_dimensions(folder: Path) -> None:
    recording = Recording(folder)
    values = recording.gate(SPATIAL)
    found = recording.to_xarray(SPATIAL)[SPATIAL]
    assert found.dims == ("image", "height", "width")
    np.testing.assert_array_equal(found.mean("image"), values.mean(0))
    picked = found.isel(image=[5, 1], height=slice(None, None, -2), width=-1)
    np.testing.assert_array_equal(picked, values[[5, 1]][:, ::-2, -1])
    np.testing.assert_array_equal(found.isel(image=6, height=[2, 0]), values[6, [2, 0]])
    of_class = found.groupby("label").mean("image").sel(label="dog")
    np.testing.assert_allclose(of_class, values[recording.labels == 1].mean(0), rtol=1e-6)
    assert list(recording.to_xarray([CHANNEL])) == [CHANNEL, "logits"]
    with refused("AS608", names=("layer9",)):
        recording.to_xarray(gates=["layer9"])


def test_data_set_reads_values_when_they_are_used(folder: Path) -> None:
    recording = Recording(folder)
    data = recording.to_xarray()
    file = folder / "shards/00000/arrays.safetensors"
    file.unlink()
    assert data[CHANNEL].isel(image=slice(3, 8)).to_numpy().shape == (5, 6)
    with refused("AS606", names=(file,)):
        data[CHANNEL].load()


def test_gates_of_other_kinds_and_with_the_names_of_columns(tmp_path: Path) -> None:
    gates = [
        Gate("label", "branch", 4, None, "softmax", 0.0, 1.0, 1.0, axes="NBC"),
        Gate("", "strip", 4, None, "sigmoid", 0.0, 1.0, 1.0),  # its axes are not known
    ]
    rng, arrays = np.random.default_rng(0), make_arrays(5)
    kept = {key: arrays[key] for key in ("logits", "images")}
    kept |= {"gate/label": rng.random((5, 2, 4), np.float32)}
    kept |= {"gate/": rng.random((5, 4, 3), np.float32)}
    with RecordingWriter(
        tmp_path / "r", gates=gates, classes=CLASSES, grad_cam_layers=[], about={}
    ) as writer:
        writer.add_shard(kept, make_rows(arrays))
    recording = Recording(tmp_path / "r")
    table = recording.to_pandas()
    assert list(table.columns[5:]) == ["gate:label", "gate:"]
    np.testing.assert_allclose(table["gate:label"], kept["gate/label"][:, 0].mean(1), rtol=1e-6)
    assert table["label"].tolist() == [CLASSES[k] for k in recording.labels]
    assert recording.to_xarray("label")["gate:label"].dims == ("image", "branch", "channel")
    assert recording.to_xarray("")["gate:"].dims == ("image", "axis_1", "axis_2")
    np.testing.assert_array_equal(recording.to_xarray()["gate:"].values, kept["gate/"])


def test_missing_xarray_is_refused_with_the_command_to_install_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    with refused("AS615", names=("pip install 'attnscope[xarray]'",)):
        Recording(folder).to_xarray()


# --- in a notebook --------------------------------------------------------------------------------


def test_representation_names_images_classes_gates_and_accuracy(
    make_recording: Callable[..., Recording],
) -> None:
    recording = make_recording("cbam", count=1200)
    accuracy = f"{recording.right.mean():.1%}"
    assert repr(recording) == (
        f"<Recording 'cbam/test': 1,200 images, 3 classes, 4 gates, accuracy {accuracy}>"
    )
    html = recording._repr_html_()
    for text in (
        "cbam/test",
        "1,200",
        accuracy,
        "2 channel, 2 spatial",
        *(gate.name for gate in recording),
    ):
        assert text in html


def test_representation_of_moments(tmp_path: Path) -> None:
    arrays = make_arrays()
    sums = ClassSums(GATES)
    rows = make_rows(arrays)
    sums.add(arrays, rows["label"].to_numpy())
    with MomentsWriter(
        tmp_path / "m", gates=GATES, classes=CLASSES, grad_cam_layers=["layer1"], about={}
    ) as writer:
        writer.add_shard(sums.arrays(), rows)
    moments = Moments(tmp_path / "m")
    assert repr(moments).startswith("<Moments 'm': 8 images, 3 classes, 2 gates, accuracy ")
    assert CHANNEL in moments
    assert list(moments) == GATES


def test_html_escapes_names(write_recording: Callable[..., Recording]) -> None:
    recording = write_recording("<b>&", labels=[0, 1], gates={"<script>": [[0.5], [0.5]]})
    html = recording._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;b&gt;&amp;" in html


def test_representation_of_outcomes_has_verdicts_by_gate(
    make_recording: Callable[..., Recording], add_interventions: Callable[..., Path]
) -> None:
    recording = make_recording("cbam")
    add_interventions(recording)
    outcomes = find_outcomes(recording)
    assert outcomes is not None
    assert repr(outcomes) == "<Outcomes of 'cbam': decode, replace; 60 images; seed 0>"
    table = outcomes._repr_html_().split("<table>")[-1]
    header, *rows = [
        re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", table)
    ]
    summary = pd.DataFrame(rows, columns=header).set_index("Gate")
    assert list(summary.index) == [*(gate.name for gate in recording), "all"]
    decoding = outcomes.table("decoding").set_index("gate")
    effects = outcomes.table("effects").set_index(["target", "edit"])
    for gate in recording:
        accuracy = decoding.loc[gate.name, "balanced_accuracy"]
        assert summary.loc[gate.name].iloc[0].startswith(f"{accuracy:.1%} [")
        for column in summary.columns[1:]:
            change = f"{100 * effects.loc[(gate.name, column), 'change']:+.1f} [".replace("-", "−")
            assert summary.loc[gate.name, column].startswith(change)


def test_representation_of_empty_outcomes() -> None:
    empty = Outcomes({"name": "<x>", "images": 5, "of": 20, "experiments": []}, None, {})
    assert repr(empty) == "<Outcomes of '<x>': no experiments; 5 of 20 images>"
    assert "&lt;x&gt;" in empty._repr_html_()


def test_undefined_values_are_not_shown_as_numbers() -> None:
    row: dict[str, Any] = {"gate": "g", "balanced_accuracy": np.nan, "low": np.nan, "high": np.nan}
    table = pd.DataFrame([row])
    html = Outcomes({"name": "x"}, None, {"decoding": table})._repr_html_()
    assert "nan" not in html
