"""The page of all runs: what is there, opening it, and recording what is not there yet."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from attnscope.commands.main import main
from attnscope.dashboard import access, jobs
from attnscope.files import locked, write_json
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from tests.streamlit_app.in_browser import settle
from tests.streamlit_app.test_dashboard import APP

Maker = Callable[..., Recording]
Open = Callable[..., AppTest]


@pytest.fixture
def open_runs(monkeypatch: pytest.MonkeyPatch) -> Open:
    def run(folder: Path, *options: str, **address: str) -> AppTest:
        monkeypatch.setattr(sys, "argv", [str(APP), str(folder), *options])
        app = AppTest.from_file(str(APP), default_timeout=120)
        for key, value in address.items():
            app.query_params[key] = value
        return app.run()

    return run


@pytest.fixture(autouse=True)
def no_job() -> Iterator[None]:
    jobs.stop_all()
    yield
    jobs.stop_all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``runs`` with one trained run that was not recorded; the images lie beside it."""
    place = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name in ("a", "b"):
            (place / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / "images" / split / name / f"{i:02d}.png")
    options = ["--attention", "se", "--width", "16", "--reduction", "4", "--epochs", "1"]
    options += ["--data", f"folder:{place / 'images'}", "--device", "cpu"]
    assert main(["train", *options, "--out", str(place / "runs/tiny")]) == 0
    return place / "runs"


def assert_no_error(app: AppTest) -> None:
    assert [error.message for error in app.exception] == []
    assert [error.value for error in app.error] == []


def table(app: AppTest) -> Any:
    return app.main.dataframe[0].value.set_index("Run")


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def test_every_recording_is_listed_with_what_it_is(
    make_recording: Maker, tmp_path: Path, open_runs: Open
) -> None:
    recording = make_recording("cbam", accuracy=0.7)
    make_recording("se", spatial=False, count=30, seed=1)
    app = open_runs(tmp_path)
    assert_no_error(app)
    assert app.title[0].value == "Runs"
    shown = table(app)
    assert list(shown.index) == ["cbam/test", "se/test"]
    assert list(shown["Images"]) == [60, 30]
    assert list(shown["Gates"]) == [4, 2]
    assert list(shown["State"]) == ["whole", "whole"]
    assert shown.loc["cbam/test", "Accuracy"] == pytest.approx(100 * recording.right.mean())
    assert shown["MB"].min() > 0
    assert not app.main.warning


def test_damaged_growing_and_unrecorded_ones_are_listed_with_their_line(
    make_recording: Maker, tmp_path: Path, open_runs: Open
) -> None:
    make_recording("good")
    make_recording("bad")
    (tmp_path / "bad/recordings/test/manifest.json").write_text("{")
    run = tmp_path / "busy"
    partial = run / "recordings/.test.partial"
    partial.mkdir(parents=True)
    write_json(run / "config.json", {"data": "digits"})
    write_json(partial / "plan.json", {"about": {"split": "test"}, "images": 7})
    with locked(run / "recordings/.test.lock"):
        app = open_runs(tmp_path)
    assert_no_error(app)
    assert dict(table(app)["State"]) == {
        "bad/test": "damaged",
        "busy/test": "being recorded",
        "good/test": "whole",
    }
    assert ["bad/test" in warning.value for warning in app.main.warning] == [True]
    assert "manifest.json" in app.main.warning[0].value
    assert ["busy/test" in info.value for info in app.main.info] == [True]
    assert app.sidebar.selectbox(key="run").options == ["good/test"]
    assert not labels(app), "what is being recorded now cannot be recorded"
    stopped = open_runs(tmp_path)
    assert table(stopped).loc["busy/test", "State"] == "interrupted"
    assert labels(stopped) == ["Record the test images"]


def test_only_manifests_are_read_for_the_list(
    make_recording: Maker, tmp_path: Path, open_runs: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        make_recording(name)
    monkeypatch.setattr(Recording, "__init__", lambda *a, **k: pytest.fail("it was opened"))
    app = open_runs(tmp_path)
    assert_no_error(app)
    assert len(table(app)) == 3


def test_the_first_page_of_200_recordings_is_there_within_two_seconds(
    make_recording: Maker, tmp_path: Path, open_runs: Open
) -> None:
    make_recording("run000")
    assert_no_error(open_runs(tmp_path))  # imports take their time, which the server does first
    for number in range(1, 200):
        shutil.copytree(tmp_path / "run000", tmp_path / f"run{number:03d}")
    begun = time.process_time()
    app = open_runs(tmp_path)
    assert time.process_time() - begun < 2
    assert_no_error(app)
    assert len(table(app)) == 200
    for _ in range(5):
        app.run()
    assert table(app)["Accuracy"].notna().all(), "accuracies are read a few at a time"


def test_recordings_that_appear_and_vanish_are_noticed(
    make_recording: Maker, tmp_path: Path, open_runs: Open
) -> None:
    make_recording("first")
    app = open_runs(tmp_path)
    make_recording("second")
    assert list(table(app.run()).index) == ["first/test", "second/test"]
    shutil.rmtree(tmp_path / "first")
    app.run()
    assert list(table(app).index) == ["second/test"]
    assert ["first/test" in error.value for error in app.error] == [True], "it was chosen"


def test_the_first_recording_of_a_folder_can_be_opened_at_once(
    make_recording: Maker, tmp_path: Path, open_runs: Open
) -> None:
    app = open_runs(tmp_path)
    make_recording("first")
    assert_no_error(app.run())
    assert app.sidebar.selectbox(key="run").value == "first/test"
    app.switch_page("views/overview.py").run()
    assert_no_error(app)
    assert "first/test" in app.markdown[0].value


def test_a_folder_of_folders_of_runs_names_them(
    tmp_path: Path, make_recording: Maker, open_runs: Open
) -> None:
    recording = make_recording("toy", count=6)
    for name in ("first", "second", ".hidden"):
        shutil.copytree(recording.folder.parents[1], tmp_path / "all" / name / "toy")
    (tmp_path / "all" / "notes").mkdir()
    (tmp_path / "all" / "elsewhere").symlink_to(tmp_path / "all" / "first")
    app = open_runs(tmp_path / "all")
    commands = app.code[0].value.splitlines()
    assert commands == [f"attnscope dashboard {tmp_path / 'all' / n}" for n in ("first", "second")]


def test_an_empty_folder_names_the_next_commands(tmp_path: Path, open_runs: Open) -> None:
    app = open_runs(tmp_path)
    assert_no_error(app)
    code = "\n".join(block.value for block in app.code)
    for command in ("demo", "train", "capture"):
        assert f"attnscope {command} " in code
    assert str(tmp_path) in code
    (tmp_path / "missing").mkdir()
    gone = open_runs(tmp_path / "nothing")
    assert [error.message for error in gone.exception] == []
    assert ["AS620" in error.value for error in gone.error] == [True]


def test_an_unknown_recording_in_the_address_is_said(
    make_recording: Maker, tmp_path: Path, open_runs: Open
) -> None:
    make_recording("here")
    app = open_runs(tmp_path, run="../here/test")
    assert [error.message for error in app.exception] == []
    assert ["../here/test" in error.value for error in app.error] == [True]
    assert list(table(app).index) == ["here/test"]


def test_a_button_starts_the_recording_of_a_run(
    trained: Path, open_runs: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[Any, ...]] = []
    monkeypatch.setattr(jobs, "start", lambda *a, **options: started.append((*a, options)))
    app = open_runs(trained)
    assert_no_error(app)
    assert table(app).loc["tiny", "State"] == "not recorded"
    assert [block.value for block in app.code] == [f"attnscope capture {trained / 'tiny'}"]
    app.button[0].click().run()
    assert_no_error(app)
    ((title, words, folder, options),) = started
    assert "tiny" in title
    assert words == ["capture", str(trained / "tiny")]
    assert folder == trained / "tiny"
    assert options == {"module": "attnscope"}


def test_work_cannot_be_started_where_visitors_may_only_look(
    trained: Path, open_runs: Open
) -> None:
    look_only = access.script_arguments(trained, actions=False)[1:]
    app = open_runs(trained, *look_only)
    assert_no_error(app)
    assert [button.disabled for button in app.button] == [True]
    assert any("--allow-actions" in caption.value for caption in app.main.caption)


def test_a_job_is_shown_on_every_page_and_blocks_others(
    trained: Path, open_runs: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job_of_page.py").write_text(
        "import time\nprint(' 12%|#  | 43/359 [00:01<00:05]', flush=True)\ntime.sleep(120)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job = jobs.start("Long *work*", [], tmp_path, module="job_of_page")
    while job.progress is None:
        time.sleep(0.05)
    app = open_runs(trained)
    assert_no_error(app)
    buttons = {button.label: button for button in app.button}
    assert buttons["Record the test images"].disabled
    assert any("`Long *work*` is running" in caption.value for caption in app.main.caption)
    bars = [element.proto for element in (*app.main.get("progress"), *app.sidebar.get("progress"))]
    assert [bar.value for bar in bars] == [11, 11]
    assert all("43 of 359" in bar.text for bar in bars)
    buttons["Cancel"].click().run()
    assert job.wait(60) == "cancelled"
    app.run()
    assert any("Long *work*" in info.value for info in app.info)
    next(button for button in app.button if button.label == "Close").click().run()
    assert not any("Long *work*" in info.value for info in app.info)
    assert not next(b for b in app.button if b.label == "Record the test images").disabled


def test_a_visitor_who_may_only_look_cannot_cancel(
    trained: Path, open_runs: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job_of_page.py").write_text("import time\ntime.sleep(120)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    jobs.start("Work", [], tmp_path, module="job_of_page")
    app = open_runs(trained, *access.script_arguments(trained, actions=False)[1:])
    assert "Cancel" not in labels(app)


def test_a_job_that_failed_says_why(trained: Path, open_runs: Open, tmp_path: Path) -> None:
    job = jobs.start("Record it", ["capture", str(tmp_path / "nothing")], tmp_path)
    job.wait(120)
    app = open_runs(trained)
    assert [error.message for error in app.exception] == []
    assert ["AS530" in error.value for error in app.error] == [True]


@pytest.mark.browser
def test_a_run_is_recorded_opened_and_found_again_by_its_address(
    trained: Path, browse: Callable[[Path], Any], tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    shutil.copytree(trained / "tiny", tmp_path / "runs/tiny")
    page = browse(tmp_path / "runs")
    main_part = page.get_by_test_id("stMain")
    page.get_by_role("button", name="Record the test images").click()
    expect(main_part.get_by_text("Recording of tiny").first).to_be_visible()
    expect(main_part.get_by_text("is finished")).to_be_visible()
    recording = Run(tmp_path / "runs/tiny").recording()
    assert len(recording) == 8
    sidebar = page.get_by_test_id("stSidebar")
    expect(sidebar).to_contain_text("1 recording")
    grid = main_part.get_by_test_id("stDataFrame").locator("canvas").first
    expect(grid).to_be_visible()
    settle(page)
    box = grid.bounding_box()
    page.mouse.click(box["x"] + 80, box["y"] + 35 + 17)  # the name in the first row
    main_part.get_by_role("link", name="Open tiny/test").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(main_part).to_contain_text("tiny/test")
    assert "run=tiny%2Ftest" in page.url
    assert "/overview" in page.url
    expect(main_part).to_contain_text(f"{100 * recording.right.mean():.2f}%")
    address = page.url
    page.go_back()
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    page.goto(address)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(main_part).to_contain_text("tiny/test")


@pytest.mark.browser
def test_a_recording_that_appears_is_shown_without_a_click(
    make_recording: Maker, browse: Callable[[Path], Any], tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    page = browse(tmp_path)
    expect(page.get_by_test_id("stMain")).to_contain_text("attnscope demo")
    make_recording("late")
    expect(page.get_by_test_id("stMain").get_by_test_id("stDataFrame")).to_be_visible()
    expect(page.get_by_test_id("stToast")).to_contain_text("late/test")
    shutil.rmtree(tmp_path / "late")
    expect(page.get_by_test_id("stMain")).to_contain_text("attnscope demo")
