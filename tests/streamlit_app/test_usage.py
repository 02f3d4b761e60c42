"""Interventions and folds: shown, and started from the page."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from attnscope.dashboard import jobs
from attnscope.files import read_json, write_sealed
from attnscope.recording.outcomes import Outcomes, read_outcomes, write_outcomes
from attnscope.recording.recording import Recording
from attnscope.recording.writer import ShardWriter
from tests.dashboard.test_folds import BUILT
from tests.streamlit_app.test_dashboard import APP, choose_view

Maker = Callable[..., Recording]
Open = Callable[..., AppTest]
FOLDS = "Constants in place of gates"
Started = list[tuple[Any, ...]]


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """What was started; nothing runs."""
    jobs.stop_all()
    found: Started = []
    monkeypatch.setattr(jobs, "start", lambda *a, **options: found.append(a))
    yield found
    jobs.stop_all()


@pytest.fixture
def open_usage(monkeypatch: pytest.MonkeyPatch) -> Open:
    def run(folder: Path, view: str = "Interventions") -> AppTest:
        monkeypatch.setattr(sys, "argv", [str(APP), str(folder)])
        app = AppTest.from_file(str(APP), default_timeout=120).run()
        app.switch_page("views/usage.py").run()
        return checked(app if view == "Interventions" else choose_view(app, view))

    return run


def checked(app: AppTest) -> AppTest:
    assert [error.message for error in app.exception] == []
    assert [error.value for error in app.error] == []
    return app


def press(app: AppTest, label: str) -> None:
    checked(next(button for button in app.button if button.label == label).click().run())


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def test_interventions_are_started_by_a_button(
    make_recording: Maker, tmp_path: Path, open_usage: Open, started: Started
) -> None:
    make_recording("cbam", count=100)
    run = tmp_path / "cbam"
    app = open_usage(tmp_path)
    press(app, "Measure quickly")
    press(app, "Measure in full")
    (_, quick, folder), (_, full, _) = started
    edits = ["--edits", "mean", "constant", "swap_any"]
    assert quick == ["intervene", str(run), *edits, "--images", "50"]
    assert full == ["intervene", str(run)]
    assert folder == run


def test_the_commands_that_are_started_are_those_of_the_program(
    make_recording: Maker, tmp_path: Path, open_usage: Open, started: Started
) -> None:
    """Each option is known: the command line accepts it, and does its work."""
    from attnscope.commands import fold, intervene
    from attnscope.commands.parsing import parse

    make_recording("cbam")
    for view in ("Interventions", FOLDS):
        app = open_usage(tmp_path, view)
        for label in labels(app):
            press(app, label)
    kinds = {"intervene": intervene.Intervene, "fold": fold.Fold}
    assert len(started) == 4
    for _, (name, *options), _ in started:
        made: Any = parse(kinds[name], name, options)
        assert made.run == tmp_path / "cbam"


def test_another_split_is_named(
    make_recording: Maker, tmp_path: Path, open_usage: Open, started: Started
) -> None:
    recording = make_recording("cbam")
    recording.folder.rename(recording.folder.with_name("validation"))
    app = open_usage(tmp_path)
    press(app, "Measure in full")
    assert started[0][1] == ["intervene", str(tmp_path / "cbam"), "--split", "validation"]


def test_more_is_offered_only_if_something_was_not_measured(
    make_recording: Maker,
    tmp_path: Path,
    open_usage: Open,
    add_interventions: Callable[..., Path],
) -> None:
    add_interventions(make_recording("cbam"))
    assert "Measure in full" not in labels(open_usage(tmp_path)), "all edits were made"


def test_interventions_that_only_decoded_so_far_say_so_once(
    make_recording: Maker, tmp_path: Path, open_usage: Open, add_interventions: Callable[..., Path]
) -> None:
    folder = add_interventions(make_recording("cbam"))
    made = read_outcomes(folder)
    shutil.rmtree(folder)
    about = {**made.about, "experiments": ["decode"]}
    write_outcomes(folder, Outcomes(about, None, {"decoding": made.table("decoding")}))
    app = open_usage(tmp_path)
    assert len(app.info) == 1
    assert {"Measure quickly", "Measure in full"} <= set(labels(app))


def test_folds_are_started_beside_the_run(
    make_recording: Maker, tmp_path: Path, open_usage: Open, started: Started
) -> None:
    make_recording("cbam")
    app = open_usage(tmp_path, FOLDS)
    press(app, "Fold what passes the test")
    press(app, "Fold all gates")
    run, out = str(tmp_path / "cbam"), str(tmp_path / "cbam-folded")
    assert [words for _, words, _ in started] == [
        ["fold", run, "--out", f"{out}-tested"],
        ["fold", run, "--out", out, "--gates", "all"],
    ]
    (tmp_path / "cbam-folded").mkdir()
    assert "Fold all gates" not in labels(open_usage(tmp_path, FOLDS)), "nothing is overwritten"


def test_nothing_is_written_outside_the_folder(
    make_recording: Maker, tmp_path: Path, open_usage: Open
) -> None:
    make_recording("cbam")
    app = open_usage(tmp_path / "cbam")
    assert labels(app) == ["Measure quickly", "Measure in full"]
    app = open_usage(tmp_path / "cbam", FOLDS)
    assert labels(app) == [], "a fold lies beside the run"
    app = open_usage(tmp_path / "cbam/recordings/test")
    assert labels(app) == []
    assert f"attnscope intervene {tmp_path / 'cbam'}" in [block.value for block in app.code]


@pytest.mark.parametrize("tolerance", [None, 0.5])
def test_a_fold_is_shown_with_its_loss_and_whether_it_was_tested(
    tolerance: float | None,
    make_recording: Maker,
    tmp_path: Path,
    open_usage: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    init = ShardWriter.__init__

    def with_weights(self: ShardWriter, *args: Any, about: Any, **options: Any) -> None:
        init(self, *args, about={**about, "weights_sha256": "w"}, **options)

    monkeypatch.setattr(ShardWriter, "__init__", with_weights)
    recording = make_recording("cbam")
    assert read_json(recording.folder / "manifest.json")["about"]["weights_sha256"] == "w"
    chosen = None if tolerance is None else {"tolerance": tolerance}
    (tmp_path / "small").mkdir()
    write_sealed(tmp_path / "small/fold.json", {**BUILT, "chosen": chosen})
    app = open_usage(tmp_path, FOLDS)
    shown = {metric.label: metric.value for metric in app.metric}
    assert shown["Folded gates"] == "2 of 3"
    assert shown["Accuracy (test)"] == "95.00%"
    assert shown["Loss (points)"] == "1.00"
    assert "−0.50 to 2.50" in next(m.delta for m in app.metric if m.label == "Loss (points)")
    assert shown["Parameters"] == "90"
    assert bool(app.warning) == (tolerance is None), "nothing was tested"
    assert any("0.5 percentage points" in c.value for c in app.caption) == (tolerance is not None)


@pytest.mark.browser
def test_a_network_is_measured_and_folded_from_the_page(
    browse: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    from PIL import Image
    from playwright.sync_api import expect

    from attnscope.commands.main import main

    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 12)):
        for name in ("a", "b"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{i:02d}.png")
    options = ["--attention", "se", "--width", "16", "--reduction", "4", "--epochs", "1"]
    options += ["--data", f"folder:{tmp_path / 'images'}", "--device", "cpu", "--capture"]
    assert main(["train", *options, "--out", str(tmp_path / "runs/tiny")]) == 0
    page = browse(tmp_path / "runs")
    page.get_by_test_id("stSidebar").get_by_role("link", name="Decodable and used").click()
    main_part = page.get_by_test_id("stMain")
    page.get_by_text(FOLDS).click()
    page.get_by_role("button", name="Fold all gates").click()
    expect(main_part.get_by_text("is finished")).to_be_visible()
    expect(main_part).to_contain_text("tiny-folded")
    expect(main_part).to_contain_text("Nothing was tested")
    page.get_by_role("button", name="Close").click()
    page.get_by_text("Interventions", exact=True).click()
    page.get_by_role("button", name="Measure quickly").click()
    expect(main_part.get_by_text("is finished")).to_be_visible()
    expect(page.get_by_role("heading", name="Verdict per gate")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Verdict per gate")).to_be_visible()
    page.goto(page.url.split("?")[0] + "?usage_view=Constants+in+place+of+gates")
    expect(main_part).to_contain_text("tiny-folded")
