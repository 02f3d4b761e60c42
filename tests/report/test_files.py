"""Plots as files."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from attnscope.files import read_json
from attnscope.plots import PLOTS, plots_for, plots_of
from attnscope.plots.subjects import Comparison, SeedComparison
from attnscope.recording.recording import Recording
from attnscope.report import files, page, write_comparison, write_figures, write_plots, write_report
from tests.making import refused
from tests.plots.reading import ASKED_FOR, IN_A_RUN_ONLY, add_run_files, only

Make = Callable[..., Recording]


def of(subject: type) -> list[str]:
    return [plot.name for plot in plots_of(subject)]


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "DPI", 30)
    monkeypatch.setattr(page, "DPI", 20)


def test_every_plot_of_a_recording_is_written_as_png_and_pdf(make_recording: Make) -> None:
    recording = make_recording(count=30)
    run = add_run_files(recording)
    files = write_figures(run)
    names = [plot.name for plot in plots_for(recording)]
    assert set(of(Recording)) - set(names) == ASKED_FOR
    assert files == [run / "figures" / f"{name}.{e}" for name in names for e in ("png", "pdf")]
    assert {f.name for f in (run / "figures").iterdir()} == {f.name for f in files}
    for file in files:
        start = b"\x89PNG" if file.suffix == ".png" else b"%PDF"
        assert file.read_bytes().startswith(start)


def test_figures_of_interventions_come_first(
    make_recording: Make,
    add_interventions: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, "confusion_matrix")
    recording = make_recording(count=30)
    add_interventions(recording)
    files = write_figures(recording.folder, tmp_path / "out")
    names = ["decodable_and_used", "static_gates", "confusion_matrix"]
    assert files == [tmp_path / "out" / f"{n}.{e}" for n in names for e in ("png", "pdf")]


def test_unreadable_interventions_leave_out_only_their_own_figures(
    make_recording: Make,
    add_interventions: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    only(monkeypatch, "confusion_matrix")
    recording = make_recording(count=30)
    (add_interventions(recording) / "about.json").unlink()
    files = write_figures(recording.folder, tmp_path / "out")
    assert [file.name for file in files] == ["confusion_matrix.png", "confusion_matrix.pdf"]
    assert len(caplog.records) == 1
    assert "toy/interventions/test" in caplog.text
    page = write_report([recording.folder], tmp_path / "page.html")
    assert "Confusion" in page.read_text(encoding="utf-8")


def test_figures_are_written_with_the_same_bytes_each_time(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "confusion_matrix", "misclassified")
    recording = make_recording(count=12, spatial=False)
    first = write_figures(recording.folder, tmp_path / "a")
    second = write_figures(recording.folder, tmp_path / "b")
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]


def test_plots_that_need_a_run_are_named_in_the_log(
    make_recording: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, *IN_A_RUN_ONLY, "confusion_matrix")
    recording = make_recording(count=12, spatial=False)
    config = recording.folder.parents[1] / "config.json"
    config.write_text("{}")
    names = {file.stem for file in write_figures(recording.folder, tmp_path / "out")}
    assert names == {"confusion_matrix"}
    assert named(caplog.messages) == IN_A_RUN_ONLY
    assert all("[AS909]" in message for message in caplog.messages)
    assert "metrics.csv" in caplog.text
    caplog.clear()
    config.unlink()  # a network that attnscope did not train
    assert len(write_figures(recording.folder, tmp_path / "out")) == 2
    assert not caplog.messages


def named(messages: list[str]) -> set[str]:
    """The plots that lines of the log name as left out."""
    found = (re.match(r"left out: ([\w, ]+): ", message) for message in messages)
    return {name for line in found if line for name in line[1].split(", ")}


def test_a_reason_for_several_figures_is_said_once(
    make_recording: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plots that need labels; those of maps have a reason of their own."""
    wanted = ("confusion_matrix", "gate_profiles", "misclassified", "map_agreement")
    only(monkeypatch, *wanted, "gate_state")
    recording = make_recording(count=12, spatial=False)
    manifest = recording.folder / "manifest.json"
    manifest.write_text(json.dumps({**read_json(manifest), "label_kind": "none"}))
    written = write_figures(recording.folder, tmp_path / "out")
    assert {file.stem for file in written} == {"gate_state"}
    of_labels, of_maps = sorted(caplog.messages, key=lambda line: "[AS904]" in line)
    assert named([of_labels]) == set(wanted[:3])
    assert "[AS648]" in of_labels
    assert named([of_maps]) == {"map_agreement"}


def test_comparison_writes_every_figure(make_recording: Make, tmp_path: Path) -> None:
    a, b = make_recording("se", spatial=False), make_recording("cbam", seed=1)
    files = write_comparison(a.folder, b.folder, tmp_path / "out")
    assert files == [tmp_path / "out" / f"{n}.{e}" for n in of(Comparison) for e in ("png", "pdf")]
    assert all(file.stat().st_size > 1000 for file in files)


def test_recordings_of_different_images_leave_no_folder(
    make_recording: Make, tmp_path: Path
) -> None:
    a, b = make_recording("a", count=30), make_recording("b", count=60)
    with refused("AS721", names=(30, 60)):
        write_comparison(a.folder, b.folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_characters_without_a_font_give_one_warning(
    make_recording: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, "confusion_matrix", "misclassified")
    names = ["\U0010ffff", "\U0010ffff\U0010fffe", "owl"]
    recording = make_recording(count=12, names=names)
    write_figures(recording.folder, tmp_path / "out")
    (record,) = (record for record in caplog.records if record.args[-1] == 2)
    assert record.args == ("\U0010ffff\U0010fffe", 2)


def test_a_seed_comparison_has_every_plot_over_seeds(make_recording: Make, tmp_path: Path) -> None:
    seeds = [make_recording(f"r{i}", count=30, seed=i, accuracy=0.3 + 0.2 * i) for i in range(3)]
    one_each = SeedComparison(("se", "cbam"), seeds[:1], seeds[1:2])
    names = [file.name for file in write_plots(one_each, tmp_path / "out")]
    stems = ["seed_differences", "seed_differences_2"]  # the second page has the images
    assert names == [f"{stem}.{ending}" for stem in stems for ending in ("png", "pdf")]
    with refused("AS731", names=("1", "2")):
        write_plots(SeedComparison(("se", "cbam"), seeds[:1], seeds[1:]), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_png_has_the_bytes_that_savefig_writes(make_recording: Make) -> None:
    recording = make_recording("cbam")

    def draw() -> Figure:
        return PLOTS["gate_state"].make(recording).figures[0]

    expected, figure = io.BytesIO(), draw()
    draw().savefig(expected, format="png", dpi=60, metadata={"Software": None})
    before = figure.dpi
    assert files.render(figure, "png", 60) == expected.getvalue()
    assert figure.dpi == before
