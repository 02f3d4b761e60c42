"""The HTML page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import escape

from attnscope import statistics
from attnscope.errors import InputError, first_line
from attnscope.files import read_json
from attnscope.plots import plots_for, plots_of
from attnscope.plots.subjects import Comparison
from attnscope.plots.text import as_points
from attnscope.recording.recording import Recording
from attnscope.report import files, page, write_report
from attnscope.statistics.comparison import expect_same_images
from tests.making import refused
from tests.plots.reading import IN_A_RUN_ONLY, add_run_files, draw_plot, only

Make = Callable[..., Recording]


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "DPI", 30)
    monkeypatch.setattr(page, "DPI", 20)


class Page(HTMLParser):
    """What a page would load, and how its tables and pictures stand."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.alts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name in {"src", "href", "srcset", "data", "action"}:
                self.loads.append(value or "")
            if name == "alt":
                self.alts.append(value or "")


def test_report_is_one_file_that_loads_nothing_else(make_recording: Make, tmp_path: Path) -> None:
    a, b = make_recording("se", spatial=False), make_recording("cbam", seed=1)
    add_run_files(a)
    (b.folder.parents[1] / "config.json").write_text("{}")
    out = write_report([a.folder, b.folder], tmp_path / "deep" / "report.html")
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert all(re.match(r"data:image/png;base64,|#", load) for load in page.loads)
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "iframe", "object", "embed", "link"} & set(page.tags)
    pictures = 2 * len(plots_for(a)) - len(IN_A_RUN_ONLY) + len(plots_of(Comparison))
    pictures -= 1  # map_agreement of a network without spatial gates
    assert page.tags.count("img") == pictures == len([alt for alt in page.alts if alt])
    for plot in plots_of(Comparison):
        assert str(escape(draw_plot(plot.name, a, b).caption)) in text
    assert "made by the test" in text  # the source
    assert "training_curves: " in text
    assert [p.name for p in out.parent.iterdir()] == ["report.html"]


def test_a_report_of_two_kinds_of_several_seeds_begins_with_what_holds_over_seeds(
    make_seeds: Make,
    add_interventions: Callable[[Recording], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, "gate_profiles", "seed_usage", "seed_differences")
    kinds = [make_seeds("se", (1, 0), spatial=False), make_seeds("cbam", (1, 0))]
    for recording in kinds[1]:
        add_interventions(recording)
    folders = [recording.folder for kind in kinds for recording in kind]
    text = write_report(folders, tmp_path / "report.html").read_text(encoding="utf-8")
    places = [text.index(f'id="{name}-1"') for name in ("seeds", "kinds", "run")]
    assert places == sorted(places)
    se, cbam = ([Recording(kind[k].folder) for k in (1, 0)] for kind in kinds)  # by seed
    difference = statistics.compare_seeds(se, cbam).iloc[0]["difference"]
    assert as_points(difference) in text


def test_report_escapes_what_comes_from_data(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "confusion_matrix", "gate_profiles", "map_agreement")
    evil = "<script>alert(1)</script>"
    names = [evil, '" onerror="x', "&amp; {{ 7 * 7 }}"]
    a = make_recording("<b>a</b>", names=names, spatial=False)
    b = make_recording("b", names=names, seed=1)
    out = write_report([a.folder, b.folder], tmp_path / "report.html")
    text = out.read_text(encoding="utf-8")
    assert evil not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    page = Page(text)
    assert "script" not in page.tags
    assert "b" not in page.tags


def test_report_of_one_run_compares_nothing(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "confusion_matrix")
    recording = make_recording(spatial=False)
    text = write_report([recording.folder], tmp_path / "one.html").read_text()
    right = int((recording.labels == recording.predictions).sum())
    assert f"{right} of 60" in text
    assert "comparison-1" not in text
    recall = statistics.class_metrics(recording)["recall"][0]
    assert f"<td>{100 * recall:.1f}%</td>" in text


def test_report_says_why_two_recordings_cannot_be_compared(
    make_recording: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, "confusion_matrix")
    a = make_recording("a", count=30, spatial=False)
    b = make_recording("b", count=33, spatial=False)
    text = write_report([a.folder, b.folder], tmp_path / "r.html").read_text()
    with pytest.raises(InputError) as caught:
        expect_same_images(a, b)
    assert str(escape(first_line(caught.value))) in text
    (record,) = (record for record in caplog.records if record.args[:2] == ("a", "b"))
    assert record.args[2].code == caught.value.code


def test_report_without_a_run_is_refused(tmp_path: Path) -> None:
    with refused("AS914"):
        write_report([], tmp_path / "r.html")
    with refused("AS601", names=(tmp_path,)):
        write_report([tmp_path], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_report_is_not_written_to_a_folder_or_below_a_file(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "confusion_matrix")
    recording = make_recording(count=12)
    with refused("AS116", names=(tmp_path, "--out")):
        write_report([recording.folder], tmp_path)
    with refused("AS116", names=(recording.folder / "manifest.json",)):
        write_report([recording.folder], recording.folder / "manifest.json" / "report.html")


def test_report_needs_neither_torch_nor_pyplot() -> None:
    code = (
        "import sys, attnscope.report\n"
        "print([m for m in ('torch', 'matplotlib.pyplot', 'captum') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_two_networks_of_one_name_are_told_apart(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "confusion_matrix")
    for seed in (0, 1):
        edit_manifest(make_recording(f"seed{seed}", count=12, seed=seed), name="build")
    folders = [tmp_path / f"seed{seed}" for seed in (0, 1)]
    text = write_report(folders, tmp_path / "r.html").read_text(encoding="utf-8")
    for seed in (0, 1):
        assert f"<h2>build (seed{seed})</h2>" in text
        assert f"build (seed{seed})</th>" in text  # the columns of the comparison
    assert "Attention gates: build (seed0), build (seed1)</title>" in text


def test_the_page_has_the_preparation_of_the_images_and_a_list_of_notes(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "confusion_matrix")
    recording = make_recording(count=12)
    notes = ["one, with a comma", "two <b>"]
    edit_manifest(recording, notes=notes)
    config = {"image_size": 48, "normalization": {"mean": [0.5, 0.25], "std": [0.125, 1.0]}}
    (recording.folder.parents[1] / "config.json").write_text(json.dumps(config))
    text = write_report([recording.folder], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<ul><li>one, with a comma</li><li>two &lt;b&gt;</li></ul>" in text
    assert "48×48 pixels" in text
    assert "mean 0.5, 0.25; standard deviation 0.125, 1" in text


def test_what_a_comparison_lacks_is_left_out_with_its_reason(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "confusion_matrix")
    folders = [make_recording(n, count=12, spatial=False).folder for n in ("a", "b")]
    text = write_report(folders, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Not shown: per_class_agreement: " in text
    drawn = 2 + len(plots_of(Comparison)) - 1
    assert Page(text).tags.count("img") == drawn


def edit_manifest(recording: Recording, **about: object) -> None:
    """Change what a recording says of itself."""
    file = recording.folder / "manifest.json"
    manifest = read_json(file)
    manifest["about"] |= about
    file.write_text(json.dumps(manifest))
