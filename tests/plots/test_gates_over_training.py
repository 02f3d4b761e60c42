"""Gates over training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from attnscope import Run, plots
from attnscope.gate_history import MEASURES, GateHistory
from attnscope.plots import PLOTS, Note
from attnscope.recording.recording import Recording
from attnscope.report import write_figures
from tests.making import refused
from tests.plots.reading import add_run_files, make_history, numbers, only

PLOT = "gates_over_training"


def write(history: GateHistory, file: Path) -> Path:
    file.write_text("".join(history.lines()))
    return file


def test_each_kind_has_a_row_and_each_measure_a_column_on_one_scale() -> None:
    history = make_history()
    (figure,) = PLOTS[PLOT].make(history).figures
    panels = np.array([ax for ax in figure.axes if ax.lines]).reshape(2, 5)
    titles = [ax.get_title("left") for ax in panels[0]]
    assert titles == list(MEASURES.values())
    for column, measure in zip(panels.T, MEASURES, strict=True):
        values = history.values(measure)
        for ax, gates in zip(column, ([0, 2], [1]), strict=True):
            assert [list(line.get_xdata()) for line in ax.lines] == [[0, 50, 100, 150]] * len(gates)
            drawn = np.array([line.get_ydata() for line in ax.lines])
            np.testing.assert_array_equal(drawn, values[:, gates].T)
        assert column[0].get_ylim() == column[1].get_ylim()
        low, high = column[0].get_ylim()
        assert low <= values.min()
        assert high >= values.max()
    colors = [line.get_color() for ax in panels[:, 0] for line in ax.lines]
    assert len({tuple(color) for color in colors}) == 3


def test_the_caption_has_the_largest_values_at_the_end() -> None:
    caption = PLOTS[PLOT].make(make_history()).caption
    assert numbers(caption) == [
        "3", "12", "50", "150", "150", "0.400", "0.420", "22.0%", "2.0%", "82.0%", "0", "−2.0%", "0.5%",
    ]  # fmt: skip
    assert caption.count("layer2.channel") == 4


def test_without_labels_the_column_is_left_out_and_lost_gates_are_counted() -> None:
    drawing = PLOTS[PLOT].make(make_history(classes=0, lost=True))
    assert len([ax for ax in drawing.figures[0].axes if ax.lines]) == 2 * 4
    assert "first at step 100" in drawing.caption
    assert "layer1.spatial" in drawing.caption, "the largest of those that are finite"


def test_one_observation_is_drawn_as_points_and_none_is_said() -> None:
    (figure,) = PLOTS[PLOT].make(make_history(steps=1)).figures
    assert {line.get_marker() for ax in figure.axes for line in ax.lines} == {"o"}
    assert isinstance(PLOTS[PLOT].result(make_history(steps=0)), Note)


def test_it_is_called_with_a_history_a_file_a_monitor_a_run_or_a_recording(
    make_recording: Callable[..., Recording], tmp_path: Path
) -> None:
    recording = make_recording(count=12)
    run = Run(add_run_files(recording))
    with refused("AS550", names=(run.gate_history_file,)):
        plots.gates_over_training(run)
    history = make_history(name=run.name)
    write(history, run.gate_history_file)
    assert run.gate_history() == history
    monitor = SimpleNamespace(history=history)
    wanted = plots.gates_over_training(history).caption
    for target in (monitor, run, run.folder, str(run.folder), recording, recording.folder):
        assert plots.gates_over_training(target).caption == wanted
    file = write(history, tmp_path / "mine.jsonl")
    assert plots.gates_over_training(file).caption == wanted.replace(f"of {run.name}", "of mine")
    with refused("AS900", names=("int",)):
        plots.gates_over_training(5)


def test_it_is_among_the_figures_of_a_run(
    make_recording: Callable[..., Recording],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    only(monkeypatch, "confusion_matrix")
    recording = make_recording(count=12)
    run = Run(add_run_files(recording))
    files = [file.stem for file in write_figures(recording.folder, tmp_path / "a")]
    assert PLOT not in files
    write(make_history(), run.gate_history_file)
    files = [file.stem for file in write_figures(recording.folder, tmp_path / "b")]
    assert files == [PLOT, PLOT, "confusion_matrix", "confusion_matrix"]
    run.gate_history_file.write_text("nothing\n")
    files = [file.stem for file in write_figures(recording.folder, tmp_path / "c")]
    assert files == ["confusion_matrix"] * 2
    assert "AS551" in caplog.text
