"""The statistics of a recording as CSV files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attnscope import statistics
from attnscope.kinds import PER_CHANNEL
from attnscope.recording.recording import Recording
from attnscope.report import tables, write_tables
from attnscope.statistics.registry import STATISTICS

Make = Callable[..., Recording]


def test_each_table_is_that_of_its_statistic(make_recording: Make, tmp_path: Path) -> None:
    recording = make_recording(count=30)
    assert write_tables(recording, tmp_path / "deep" / "out") == {}
    found = {file.stem: pd.read_csv(file) for file in (tmp_path / "deep" / "out").iterdir()}
    single = {
        name
        for name, known in STATISTICS.items()
        if known.takes == ("recording",) and known.concerns(recording)
    }
    assert not any("localization" in name for name in found.keys() | single)  # without masks
    assert found.keys() >= single - {"class_mean_grad_cam", "decode_gates"}
    assert not {"decode_gates", "class_mean_maps", "gate_logits", "compare_gates"} & found.keys()
    pd.testing.assert_frame_equal(found["gate_state"], statistics.gate_state(recording))
    value = found["calibration_error"]["value"].item()
    assert value == pytest.approx(statistics.calibration_error(recording))
    matrix = statistics.confusion_matrix(recording)
    assert found["confusion_matrix"]["true"].tolist() == recording.classes
    np.testing.assert_array_equal(found["confusion_matrix"][recording.classes], matrix)
    effects = found["channel_effects"]
    names = [gate.name for gate in recording.gates_with(PER_CHANNEL)]
    assert effects["gate"].unique().tolist() == names
    own = effects[effects["gate"] == names[1]].drop(columns="gate").reset_index(drop=True)
    pd.testing.assert_frame_equal(own, statistics.channel_effects(recording, names[1]))
    # Rows that a statistic sorts keep their order and get no column of their old numbers.
    assert list(found["misclassified"]) == list(statistics.misclassified(recording))


def test_what_cannot_be_computed_or_is_too_long_is_named(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_ROWS", 40)
    left_out = write_tables(make_recording(count=30, spatial=False), tmp_path / "out")
    written = {file.stem for file in (tmp_path / "out").iterdir()}
    assert "no spatial gates" in left_out["map_agreement"]
    assert "rows" in left_out["image_states"]
    assert not left_out.keys() & written
    assert "gate_state" in written


def test_classes_may_be_called_like_columns(make_recording: Make, tmp_path: Path) -> None:
    write_tables(make_recording(count=30, names=["gate", "true", "class"]), tmp_path)
    head = (tmp_path / "class_distances.csv").read_text().splitlines()[0]
    assert head == "gate,class,gate,true,class"
    head = (tmp_path / "confusion_matrix.csv").read_text().splitlines()[0]
    assert head == "true,gate,true,class"
