"""Files of plots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from attnscope.errors import InputError
from attnscope.plots import plots_for, plots_of
from attnscope.plots.subjects import Pair, TwoKinds, two_kinds
from attnscope.recording.recording import Recording
from attnscope.report import files, page, write_comparison, write_figures, write_plots, write_report
from tests.plots.reading import IN_A_RUN_ONLY, add_run_files, only

Make = Callable[..., Recording]


def of(subject: type) -> list[str]:
    return [plot.name for plot in plots_of(subject)]


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "DPI", 30)
    monkeypatch.setattr(page, "DPI", 20)


def test_every_name_gives_png_and_pdf(make_recording: Make) -> None:
    recording = make_recording(count=30)
    run = add_run_files(recording)
    files = write_figures(run)
    names = [plot.name for plot in plots_for(recording)]
    assert set(of(Recording)) - set(names) == {"attributions", "attribution_agreement"}
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


def test_interventions_that_cannot_be_read_cost_no_other_figure(
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
    assert "figures of interventions left out" in caplog.text
    page = write_report([recording.folder], tmp_path / "page.html")
    assert "Confusion" in page.read_text(encoding="utf-8")


def test_figures_are_the_same_bytes_again(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "confusion_matrix", "misclassified")
    recording = make_recording(count=12, spatial=False)
    first = write_figures(recording.folder, tmp_path / "a")
    second = write_figures(recording.folder, tmp_path / "b")
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]


def test_outside_a_run_what_is_missing_is_said(
    make_recording: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, *IN_A_RUN_ONLY, "confusion_matrix")
    recording = make_recording(count=12, spatial=False)
    names = {file.stem for file in write_figures(recording.folder, tmp_path / "out")}
    assert names == {"confusion_matrix"}
    said = "\n".join(caplog.messages)
    assert "training_curves left out" in said
    assert "metrics.csv" in said
    assert "training_images left out" in said


def test_comparison_writes_every_figure(make_recording: Make, tmp_path: Path) -> None:
    a, b = make_recording("se", spatial=False), make_recording("cbam", seed=1)
    files = write_comparison(a.folder, b.folder, tmp_path / "out")
    assert files == [tmp_path / "out" / f"{n}.{e}" for n in of(Pair) for e in ("png", "pdf")]
    assert all(file.stat().st_size > 1000 for file in files)


def test_different_images_leave_nothing_behind(make_recording: Make, tmp_path: Path) -> None:
    a, b = make_recording("a", count=30), make_recording("b", count=60)
    with pytest.raises(InputError, match="not of the same images"):
        write_comparison(a.folder, b.folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_without_a_font_give_one_line(
    make_recording: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, "confusion_matrix", "misclassified")
    names = ["\U0010ffff", "\U0010ffff\U0010fffe", "owl"]
    recording = make_recording(count=12, names=names)
    write_figures(recording.folder, tmp_path / "out")
    lines = [line for line in caplog.messages if "font" in line]
    assert len(lines) == 1
    assert "2 characters" in lines[0]


def test_two_kinds_of_network_have_every_plot_over_seeds(
    make_recording: Make, tmp_path: Path
) -> None:
    seeds = [make_recording(f"r{i}", count=30, seed=i, accuracy=0.3 + 0.2 * i) for i in range(3)]
    one_each = TwoKinds(("se", "cbam"), seeds[:1], seeds[1:2])
    names = [file.name for file in write_plots(one_each, tmp_path / "out")]
    stems = ["seed_differences", "seed_differences_2"]  # the second page has the images
    assert names == [f"{stem}.{ending}" for stem in stems for ending in ("png", "pdf")]
    with pytest.raises(InputError, match="1 against 2 recordings"):
        write_plots(TwoKinds(("se", "cbam"), seeds[:1], seeds[1:]), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_recordings_are_sorted_into_two_kinds_or_refused(make_recording: Make) -> None:
    made = [make_recording(name, count=12) for name in ("a", "b", "c")]
    for recording, (attention, seed) in zip(made, [("se", 1), ("cbam", 0), ("se", 0)], strict=True):
        recording.about |= {"model": {"attention": attention}, "seed": seed}
    kinds = two_kinds(made)
    assert kinds.names == ("se", "cbam")
    assert [[r.name for r in kind] for kind in (kinds.a, kinds.b)] == [["c", "a"], ["b"]]
    made[1].about["model"] = {"attention": "se"}
    made[1].about["seed"] = 2
    with pytest.raises(InputError, match="1 kinds of network"):
        two_kinds(made)
