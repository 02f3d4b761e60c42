"""Every page of the dashboard, without a browser.

More than 400 lines because all pages are tested on the same two recordings.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from attnscope import statistics
from attnscope.dashboard.serve import serve
from attnscope.files import read_json
from attnscope.kinds import MAP, PER_CHANNEL
from attnscope.plots import PLOTS, register_plot
from attnscope.plots.builtin import channel_gates
from attnscope.plots.subjects import Comparison
from attnscope.recording.format import Shard
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from attnscope.statistics.verdicts import NOTHING, USED
from tests.kinds_making import AXES, record_kind
from tests.making import refused
from tests.plots.reading import make_history
from tests.plots.test_registry import TOY, Count

APP = Path(__file__).parents[2] / "streamlit_app" / "app.py"
PAGES = sorted(file.stem for file in (APP.parent / "views").glob("*.py"))
VIEWS = {
    "channels": ["One gate", "All gates"],
    "maps": ["Images", "Class means", "Agreement with Grad-CAM"],
    "usage": ["Interventions", "Constants in place of gates"],
    "comparison": ["Accuracy", "Confusion", "Gates", "Grad-CAM", "Images", "All figures"],
}
MARKUP = ["<script>alert(1)</script>", "*a* [b](http://c) $d$ `e` :smile: ``", "_f_ -> # | g\n- h"]

Maker = Callable[..., Recording]


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    def run(folder: Path, page: str = "overview", recording: str | None = None) -> AppTest:
        monkeypatch.setattr(sys, "argv", [str(APP), str(folder)])
        app = AppTest.from_file(str(APP), default_timeout=120)
        if recording is not None:
            app.query_params["run"] = recording
        app.run()
        return app.switch_page(f"views/{page}.py").run() if page != "runs" else app

    return run


@pytest.fixture
def folder(make_recording: Maker, tmp_path: Path) -> Path:
    make_recording("cbam")
    make_recording("se", spatial=False, seed=1, accuracy=0.6)
    return tmp_path


def assert_no_error(app: AppTest) -> None:
    assert [error.message for error in app.exception] == []
    assert [error.value for error in app.error] == []


def number(shown: str) -> float:
    return float(shown.rstrip(" %"))


def assert_no_interventions(app: AppTest) -> None:
    assert len(app.info) == 1
    assert not app.dataframe
    assert not app.image


def texts(app: AppTest) -> str:
    """The plain texts of a page, without the places where a name may break."""
    return "\n".join(text.value for text in app.text).replace("\u200b", "")


def views(app: AppTest) -> list[str]:
    for group in app.get("button_group"):
        if group.label == "View":
            return list(group.options)
    return []


def choose_view(app: AppTest, view: str) -> AppTest:
    next(g for g in app.get("button_group") if g.label == "View").set_value(view)
    return app.run()


@pytest.mark.parametrize("recording", ["cbam/test", "se/test"])
@pytest.mark.parametrize("page", PAGES)
def test_every_page_and_view_opens(
    page: str, recording: str, folder: Path, open_page: Callable[..., AppTest]
) -> None:
    app = open_page(folder, page, recording)
    assert_no_error(app)
    assert app.sidebar.selectbox(key="run").value == recording
    expected = VIEWS.get(page, [])
    if page == "maps" and recording.startswith("se"):
        expected = expected[:2]
    assert views(app) == expected
    for view in expected:
        assert_no_error(choose_view(app, view))


def test_gates_over_training_are_on_the_overview_and_among_all_figures(
    make_recording: Maker, tmp_path: Path, open_page: Callable[..., AppTest]
) -> None:
    make_recording("cbam")
    make_recording("se", seed=1)
    file = Run(tmp_path / "cbam").gate_history_file
    file.write_text("".join(make_history(name="cbam").lines()))
    caption = PLOTS["gates_over_training"].make(make_history(name="cbam")).caption
    overview = open_page(tmp_path, recording="cbam/test")
    assert_no_error(overview)
    assert caption in texts(overview)
    figures = open_page(tmp_path, "figures", "cbam/test")
    title = PLOTS["gates_over_training"].title
    assert title in figures.selectbox(key="figure").options
    figures.selectbox(key="figure").set_value("gates_over_training").run()
    assert_no_error(figures)
    assert caption in texts(figures)
    without = open_page(tmp_path, "figures", "se/test")
    assert title not in without.selectbox(key="figure").options
    # Nothing outside the folder is opened.
    file.rename(tmp_path.parent / "outside.jsonl")
    file.symlink_to(tmp_path.parent / "outside.jsonl")
    assert caption not in texts(open_page(tmp_path, recording="cbam/test"))
    file.unlink()
    file.write_text("nothing\n")
    damaged = open_page(tmp_path, recording="cbam/test")
    assert not damaged.exception
    assert ["AS551" in error.value for error in damaged.error] == [True]
    assert damaged.subheader[-1].value == overview.subheader[-1].value, "the page goes on"


@pytest.mark.parametrize("page", PAGES)
def test_names_with_markup_are_shown_as_they_are(
    page: str, make_recording: Maker, tmp_path: Path, open_page: Callable[..., AppTest]
) -> None:
    make_recording("*bold* `tick`", names=MARKUP)
    make_recording("<b>other</b>", names=MARKUP, seed=1)
    app = open_page(tmp_path, page)
    assert_no_error(app)
    if page == "confusion":
        app.selectbox(key="true").set_value(MARKUP[1])
        app.selectbox(key="predicted").set_value(MARKUP[1]).run()
        assert_no_error(app)
        assert MARKUP[1] in texts(app)
        assert f"``` {MARKUP[1]} ```" in "".join(m.value for m in app.markdown)
    for view in views(app):
        assert_no_error(choose_view(app, view))
    assert not any(element.allow_html for element in app.markdown)
    for element in (*app.markdown, *app.caption, *app.info, *app.warning, *app.error):
        beside_code = re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", element.value)
        for name in (*MARKUP, "*bold*", "<b>"):
            assert " ".join(name.split()) not in beside_code


def test_literal_fences_every_text(open_page: Callable[..., AppTest], folder: Path) -> None:
    open_page(folder)  # puts the app's folder on the path, as Streamlit does
    literal = sys.modules["widgets"].literal
    assert literal("cat") == "`cat`"
    assert literal("a`b") == "``a`b``"
    assert literal("`a``") == "``` `a`` ```"
    assert literal("a\n\n# b") == "`a # b`"
    assert literal("") == "` `"


def test_overview_shows_the_statistics(folder: Path, open_page: Callable[..., AppTest]) -> None:
    app, recording = open_page(folder), Recording(folder / "cbam")
    shown = {metric.label: metric.value for metric in app.metric}
    right = (recording.labels == recording.predictions).mean()
    assert number(shown["Accuracy"]) == round(100 * right, 2)
    assert shown["Images"] == "60"
    assert shown["Gates"] == "4"
    fit = statistics.calibration_summary(recording)
    assert number(shown["Calibration error"]) == round(100 * fit["value"][0], 2)
    table = next(frame.value for frame in app.dataframe if "measure" in frame.value)
    np.testing.assert_allclose(table[["value", "low", "high"]], fit[["value", "low", "high"]])
    metrics = statistics.class_metrics(recording)
    metrics[["precision", "recall", "f1"]] *= 100
    pd.testing.assert_frame_equal(app.dataframe[0].value, metrics)


def test_overview_shows_how_the_images_were_prepared(
    folder: Path, open_page: Callable[..., AppTest]
) -> None:
    config = {"image_size": 48, "normalization": {"mean": [0.5], "std": [0.125]}}
    (folder / "cbam/config.json").write_text(json.dumps(config))
    settings = open_page(folder).dataframe[-1].value.set_index("Setting")["Value"]
    assert settings["image size"] == "48×48 pixels"
    assert settings["normalization"] == "mean 0.5; standard deviation 0.125"


def test_channels_show_the_statistics(folder: Path, open_page: Callable[..., AppTest]) -> None:
    app, recording = open_page(folder, "channels"), Recording(folder / "cbam")
    gate = "layer1.attention.channel"
    effects = channel_gates.tested_effects(recording, gate)
    shown = app.dataframe[0].value
    assert shown["channel"].iloc[0] == 0, "the planted effect is first"
    pd.testing.assert_frame_equal(shown.sort_values("channel"), effects, check_like=True)
    assert "Channel 0" in [heading.value for heading in app.subheader]
    assert len(app.dataframe) == 1, "the long table is sent when it is opened"
    app.session_state["table"] = True
    app.run()
    profiles = statistics.class_profiles(recording, gate)
    pd.testing.assert_frame_equal(app.dataframe[1].value, profiles)
    state = statistics.gate_state(recording).set_index("gate").loc[gate]
    assert number(app.metric[3].value) == 100 * state["constant"] == 12.5
    app.selectbox(key="gate").set_value("layer2.attention.channel").run()
    assert_no_error(app)
    assert len(app.dataframe[0].value) == 16


def test_a_network_without_spatial_gates_shows_grad_cam_only(
    folder: Path, open_page: Callable[..., AppTest]
) -> None:
    app = open_page(folder, "maps", "se/test")
    assert len(app.info) == 1
    assert len(app.image) == 1


@pytest.mark.parametrize("kind", AXES)
def test_every_kind_of_gate_is_shown(
    kind: str, tmp_path: Path, open_page: Callable[..., AppTest]
) -> None:
    recording = record_kind(tmp_path / kind, kind)
    for page, trait in (("channels", PER_CHANNEL), ("maps", MAP)):
        gates = recording.gates_with(trait)
        app = open_page(tmp_path, page)
        assert_no_error(app)
        assert len(app.info) == (not gates)
        if gates and page == "channels":
            found = app.dataframe[0].value.sort_values("channel")
            effects = channel_gates.tested_effects(recording, gates[0].name)
            pd.testing.assert_frame_equal(found, effects, check_like=True)
        if any(gate.view(trait).about for gate in gates):
            notes = "".join(caption.value for caption in app.caption)
            assert page == "channels" or gates[-1].view(trait).about in notes
        for view in views(app):
            assert_no_error(choose_view(app, view))


def test_a_sequence_is_not_drawn_over_an_image(
    tmp_path: Path, open_page: Callable[..., AppTest]
) -> None:
    record_kind(tmp_path / "full", "full")
    app = open_page(tmp_path, "mistakes")
    (choice,) = [box for box in app.selectbox if box.label == "Overlay"]
    assert choice.options == ["none", "Grad-CAM", "block1.gate", "block3.gate"]
    choice.set_value("block3.gate").run()
    assert_no_error(app)


def test_interventions_are_shown_with_a_verdict_on_each_gate(
    folder: Path, open_page: Callable[..., AppTest], add_interventions: Callable[..., Path]
) -> None:
    recording = Recording(folder / "cbam")
    before = open_page(folder, "usage")
    assert_no_error(before)
    assert_no_interventions(before)
    assert before.code[0].value == f"attnscope intervene {folder / 'cbam'}"
    made = add_interventions(recording)
    app = open_page(folder, "usage")
    assert_no_error(app)
    assert len(app.image) == 2
    shown = app.dataframe[0].value.set_index("Gate")
    assert list(shown.index) == [gate.name for gate in recording.gates]
    assert shown["Verdict"].iloc[0] == USED
    assert shown["Verdict"].iloc[3] == NOTHING
    right = 100 * (recording.labels == recording.predictions).mean()
    assert shown["Removal (points)"].iloc[0].startswith(f"{right:+.2f} (")
    assert not shown["Removal (log loss, nats)"].iloc[0].startswith("+0.00")
    assert shown["Misinformation (points)"].iloc[0].startswith(f"{right:+.2f} (")
    assert shown["Misinformation (points)"].iloc[1].startswith("+0.00 (")
    assert "layer1.attention.channel" in texts(app), "the caption names the gate that is used"
    # Outcomes that are added later are shown at the next click.
    (made / "ablation.csv").write_text("gate,share,p\nlayer1.attention.channel,0.1,0.5\n")
    about = read_json(made / "about.json")
    (made / "about.json").write_text(json.dumps({**about, "experiments": ["ablate"]}))
    app.run()
    assert len(app.dataframe) == 2
    assert app.dataframe[1].value["p"].iloc[0] == 0.5
    # Interventions on another recording are not shown as if they were on this one.
    (made / "about.json").write_text(json.dumps({**about, "recording": "another"}))
    app.run()
    assert_no_interventions(app)


def test_a_registered_plot_is_shown(
    folder: Path, open_page: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PLOTS, "_known", dict(PLOTS))
    register_plot(replace(TOY, name="new", title="A new one"))
    compute = lambda pair: Count(len(pair.a) + len(pair.b))  # noqa: E731
    register_plot(replace(TOY, name="pair", title="Two", subject=Comparison, compute=compute))
    app = open_page(folder, "figures")
    assert_no_error(app)
    assert app.selectbox(key="figure").options[-1] == "A new one"
    app.selectbox(key="figure").set_value("new").run()
    assert_no_error(app)
    assert len(app.image) == 1
    assert "There are 60 images & no more." in texts(app)
    app = choose_view(open_page(folder, "comparison"), "All figures")
    app.selectbox(key="pair_figure").set_value("pair").run()
    assert_no_error(app)
    assert "There are 120 images & no more." in texts(app)


def test_every_figure_is_shown_with_its_caption_or_the_reason_why_it_is_unavailable(
    folder: Path, open_page: Callable[..., AppTest], add_interventions: Callable[..., Path]
) -> None:
    recording = Recording(folder / "cbam")
    add_interventions(recording)
    app = open_page(folder, "figures")
    titles = [PLOTS[name].title for name in ("decodable_and_used", "static_gates")]
    assert app.selectbox(key="figure").options[:2] == titles
    # The recording lies in no run, so there are no figures of a training.
    assert PLOTS["training_curves"].title not in app.selectbox(key="figure").options
    for name in ("static_gates", "confusion_matrix"):
        app.selectbox(key="figure").set_value(name).run()
        assert_no_error(app)
        assert len(app.image) == 1
        assert PLOTS[name].about in texts(app)


def test_figures_are_shown_although_the_interventions_cannot_be_read(
    folder: Path, open_page: Callable[..., AppTest], add_interventions: Callable[..., Path]
) -> None:
    made = add_interventions(Recording(folder / "cbam"))
    (made / "replacement.parquet").write_bytes(b"not Parquet")
    app = open_page(folder, "figures")
    assert [error.message for error in app.exception] == []
    assert [error.value[-8:-1] for error in app.error] == ["[AS632]"]
    app.selectbox(key="figure").set_value("confusion_matrix").run()
    assert len(app.image) == 1


def test_interventions_outside_the_folder_are_not_opened(
    folder: Path, open_page: Callable[..., AppTest], add_interventions: Callable[..., Path]
) -> None:
    add_interventions(Recording(folder / "cbam"))
    inside = folder / "cbam" / "recordings"  # the interventions lie beside it
    app = open_page(inside, "usage")
    assert_no_error(app)
    assert_no_interventions(app)


def test_one_image_can_be_chosen_by_number(folder: Path, open_page: Callable[..., AppTest]) -> None:
    app, recording = open_page(folder, "maps"), Recording(folder / "cbam")
    app.number_input(key="map_image").set_value(17).run()
    assert_no_error(app)
    assert app.text[0].value == recording.rows["path"][17]


@pytest.mark.parametrize("source", ["none", "Grad-CAM", "layer1.attention.spatial"])
def test_a_cell_of_the_confusion_matrix_opens_its_images(
    source: str, folder: Path, open_page: Callable[..., AppTest]
) -> None:
    app, recording = open_page(folder, "confusion"), Recording(folder / "cbam")
    assert not app.image
    app.selectbox(key="true").set_value("cat")
    app.selectbox(key="predicted").set_value("dog")
    app.selectbox(key="show").set_value(source)
    app.run()
    assert_no_error(app)
    rows = np.flatnonzero((recording.labels == 0) & (recording.predictions == 1))
    assert len(rows) == statistics.confusion_matrix(recording).loc["cat", "dog"] > 1
    assert app.subheader[0].value == f"{len(rows)} images"
    assert len(app.image) == len(rows)
    confidence = recording.probabilities.max(1)
    rows = sorted(rows, key=lambda row: -confidence[row])
    captions = [
        f"cat → dog\nconfidence {confidence[row]:.3f}\n{recording.rows['path'][row]}"
        for row in rows
    ]
    assert [text.value.replace("\u200b", "") for text in app.text] == captions


def test_comparison_without_significant_differences_warns_of_no_class(
    folder: Path, open_page: Callable[..., AppTest]
) -> None:
    app = open_page(folder, "comparison", "cbam/test")
    assert_no_error(app)
    expected = statistics.compare_accuracy(Recording(folder / "cbam"), Recording(folder / "se"))
    shown = app.dataframe[0].value
    np.testing.assert_allclose(shown["p_holm"], expected["p_holm"])
    np.testing.assert_allclose(shown["accuracy_b"], 100 * expected["accuracy_b"])
    assert expected["p_holm"].iloc[1:].min() > 0.05
    assert len(app.info) == 1
    assert not app.warning


def test_comparison_names_the_classes_with_significant_differences(
    make_recording: Maker, tmp_path: Path, open_page: Callable[..., AppTest]
) -> None:
    make_recording("good", accuracy=1.0)
    make_recording("poor", accuracy=0.0)
    app = open_page(tmp_path, "comparison")
    assert_no_error(app)
    assert "`cat`, `dog`, `owl`" in app.warning[0].value


@pytest.mark.parametrize("view", VIEWS["comparison"])
def test_recordings_of_different_images_are_refused_in_one_line(
    view: str, make_recording: Maker, tmp_path: Path, open_page: Callable[..., AppTest]
) -> None:
    make_recording("a")
    make_recording("b", count=30)
    make_recording("c", seed=1)
    app = open_page(tmp_path, "comparison")
    assert_no_error(app)
    other = app.sidebar.selectbox(key="other")
    assert (other.value, other.options) == ("c/test", ["c/test", "b/test"]), "comparable ones first"
    other.set_value("b/test").run()
    app = choose_view(app, view)
    assert [error.message for error in app.exception] == []
    assert len(app.error) == 1
    assert not app.image


def test_without_a_recording_of_the_same_images_nothing_is_compared(
    make_recording: Maker, tmp_path: Path, open_page: Callable[..., AppTest]
) -> None:
    make_recording("a")
    make_recording("b", count=30)
    app = open_page(tmp_path, "comparison")
    assert_no_error(app)
    assert len(app.info) == 1
    assert not app.get("button_group")


def test_one_recording_alone_cannot_be_compared(
    make_recording: Maker, tmp_path: Path, open_page: Callable[..., AppTest]
) -> None:
    make_recording("alone")
    app = open_page(tmp_path, "comparison")
    assert_no_error(app)
    assert len(app.info) == 1
    assert not app.get("button_group")


@pytest.mark.parametrize("page", PAGES)
def test_a_folder_without_recordings_says_what_to_do(
    page: str, tmp_path: Path, open_page: Callable[..., AppTest]
) -> None:
    app = open_page(tmp_path, page)
    assert_no_error(app)
    assert len(app.info) == 1
    assert tmp_path.name in app.info[0].value
    assert bool(app.code) == (page == "runs")


def test_a_damaged_recording_is_named_and_hides_no_other(
    folder: Path, open_page: Callable[..., AppTest]
) -> None:
    (folder / "se/recordings/test/manifest.json").write_text("{")
    app = open_page(folder)
    assert_no_error(app)
    assert app.sidebar.selectbox(key="run").options == ["cbam/test"]
    assert len(app.sidebar.warning) == 1
    runs = open_page(folder, "runs")
    assert_no_error(runs)
    assert "se/recordings/test/manifest.json" in runs.main.warning[0].value


def test_missing_arrays_show_one_error(folder: Path, open_page: Callable[..., AppTest]) -> None:
    for file in folder.glob("cbam/recordings/test/shards/*/arrays.safetensors"):
        file.unlink()
    app = open_page(folder, "channels")
    assert [error.message for error in app.exception] == []
    assert all("arrays.safetensors" in error.value for error in app.error)
    assert len(app.error) > 0


def test_a_recording_that_was_made_again_is_read_again(
    make_recording: Maker, tmp_path: Path, open_page: Callable[..., AppTest]
) -> None:
    make_recording("again", accuracy=0.0)
    app = open_page(tmp_path)
    assert number(app.metric[0].value) == 0
    shutil.rmtree(tmp_path / "again")
    make_recording("again", accuracy=1.0)
    assert number(app.run().metric[0].value) == 100


@pytest.mark.parametrize("label", ["../outside/test", "/etc", "inside/../../outside/test"])
def test_a_url_opens_nothing_outside_the_folder(
    label: str, make_recording: Maker, tmp_path: Path, open_page: Callable[..., AppTest]
) -> None:
    make_recording("outside")
    make_recording("here/inside")
    app = open_page(tmp_path / "here", recording=label)
    assert [error.message for error in app.exception] == []
    assert len(app.error) == 1
    assert label in app.error[0].value
    assert not app.title, "no other recording is shown in its place"
    assert app.sidebar.selectbox(key="run").value is None
    assert app.sidebar.selectbox(key="run").options == ["inside/test"]


def test_an_unknown_recording_is_named_until_another_one_is_chosen(
    folder: Path, open_page: Callable[..., AppTest]
) -> None:
    app = open_page(folder, recording="nothing/test")
    for _ in range(2):
        assert ["nothing/test" in error.value for error in app.error] == [True]
        assert not app.title
        app.run()
    app.sidebar.selectbox(key="run").set_value("se/test").run()
    assert_no_error(app)
    assert "se/test" in app.markdown[0].value


def test_a_recording_that_vanishes_is_named_and_no_other_is_shown(
    folder: Path, open_page: Callable[..., AppTest]
) -> None:
    app = open_page(folder, recording="se/test")
    assert_no_error(app)
    shutil.move(folder / "se", folder.parent / "moved")
    app.run()
    assert [error.message for error in app.exception] == []
    assert ["se/test" in error.value for error in app.error] == [True]
    assert not app.title
    app.sidebar.selectbox(key="run").set_value("cbam/test").run()
    assert_no_error(app)
    assert "cbam/test" in app.markdown[0].value


def test_the_list_of_recordings_reads_the_rows_of_the_chosen_one_only(
    folder: Path, open_page: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    rows_of = Recording._read_rows

    def note(recording: Recording, shard: Shard) -> pd.DataFrame:
        read.append(recording.folder.parents[1].name)
        return rows_of(recording, shard)

    monkeypatch.setattr(Recording, "_read_rows", note)
    assert_no_error(open_page(folder, recording="se/test"))
    assert set(read) == {"se"}


def test_the_pages_need_no_torch(folder: Path, tmp_path: Path) -> None:
    program = f"""
import sys
from streamlit.testing.v1 import AppTest
sys.argv = ["app.py", {str(folder)!r}]
app = AppTest.from_file({str(APP)!r}, default_timeout=120).run()
for page in {PAGES!r}:
    app.switch_page(f"views/{{page}}.py").run()
    assert not app.exception, app.exception
print("torch" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_changing_the_recording_resets_classes_that_it_does_not_have(
    make_recording: Maker, tmp_path: Path, open_page: Callable[..., AppTest]
) -> None:
    make_recording("a")
    make_recording("b", names=["x", "y"])
    app = open_page(tmp_path, "confusion", "a/test")
    app.selectbox(key="true").set_value("owl").run()
    app.selectbox(key="show").set_value("layer1.attention.spatial").run()
    app.sidebar.selectbox(key="run").set_value("b/test").run()
    assert_no_error(app)
    assert app.selectbox(key="true").value is None


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_serve_refuses_a_port_that_does_not_exist(port: int, folder: Path) -> None:
    with refused("AS140", names=(port, 65535, "--port")):
        serve(folder, port)


def test_serve_refuses_a_port_that_is_taken(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with refused("AS141", names=(port, "--port")):
            serve(folder, port)


def test_serve_refuses_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with refused("AS620", names=(tmp_path / "nowhere",)):
        serve(tmp_path / "nowhere")
