"""The page of one image and its gate lab."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from attnscope.commands.main import main
from attnscope.dashboard.access import script_arguments
from attnscope.live import Channels, LiveNetwork, Mean, Neutral, OfImage
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from attnscope.statistics.between import class_line
from attnscope.statistics.neighbors import gate_space, nearest_images
from tests.folding.runs import write_digits
from tests.streamlit_app.image_runs import make_captured_run

APP = Path(__file__).parents[2] / "streamlit_app" / "app.py"
CHANNEL, SPATIAL = "layer2.attention.channel", "layer2.attention.spatial"

Maker = Callable[..., Recording]


@pytest.fixture
def open_image(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    def run(folder: Path, *, actions: bool = True, **query: str) -> AppTest:
        arguments = script_arguments(folder, actions=actions)
        monkeypatch.setattr(sys, "argv", [str(APP), *arguments])
        app = AppTest.from_file(str(APP), default_timeout=120).run()
        for name, value in query.items():
            app.query_params[name] = value
        return app.switch_page("views/image.py").run()

    return run


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A captured run whose folder is not changed by the tests."""
    return make_captured_run(tmp_path_factory.mktemp("image"))


def assert_no_error(app: AppTest) -> None:
    assert [error.message for error in app.exception] == []
    assert [error.value for error in app.error] == []


def texts(app: AppTest) -> str:
    return "\n".join(text.value for text in app.text)


def linked(app: AppTest) -> list[int]:
    """Return the numbers of the images that the page leads to."""
    found = (re.fullmatch(r"Open image (\d+)", each.label) for each in app.button)
    return [int(match[1]) for match in found if match]


def chart_of(app: AppTest, alt: str) -> Any:
    (chart,) = (each for each in app.get("vega_lite_chart") if alt in each.proto.alt)
    return chart.proto


def test_it_shows_the_image_of_the_address_and_goes_to_the_next_and_back(
    make_recording: Maker, tmp_path: Path, open_image: Callable[..., AppTest]
) -> None:
    recording = make_recording("cbam", accuracy=0.4)
    row = int(np.flatnonzero(~recording.right)[0])
    app = open_image(tmp_path, image=str(row))
    assert_no_error(app)
    true, predicted = (
        recording.classes[k] for k in (recording.labels[row], recording.predictions[row])
    )
    shown = texts(app)
    assert recording.rows["path"][row] in shown
    assert f"true class: {true}" in shown
    assert f"predicted class: {predicted}" in shown
    assert f"confidence: {recording.confidence[row]:.3f}" in shown
    first = linked(app)[0]
    app.button(key=f"to {first}").click().run()
    assert app.number_input(key="image").value == first
    app.number_input(key="image").set_value(row).run()
    app.button(key="next").click().run()
    assert_no_error(app)
    assert app.number_input(key="image").value == row + 1
    assert recording.rows["path"][row + 1] in texts(app)
    app.button(key="previous").click().run()
    assert recording.rows["path"][row] in texts(app)
    last = open_image(tmp_path, image="59")
    assert last.button(key="next").disabled
    assert not last.button(key="previous").disabled
    assert open_image(tmp_path, image="0").button(key="previous").disabled


@pytest.mark.parametrize("image", ["60", "-1", "cat", "1.5", "../1"])
def test_an_image_that_does_not_exist_is_said_and_no_other_is_shown(
    image: str, make_recording: Maker, tmp_path: Path, open_image: Callable[..., AppTest]
) -> None:
    make_recording("cbam")
    app = open_image(tmp_path, image=image)
    assert not app.exception
    assert [image in error.value for error in app.error] == [True]
    assert not app.text
    assert not app.image
    app.number_input(key="image").set_value(5).run()
    assert_no_error(app)
    assert "test/owl/0005.png" in texts(app)


def test_neighbors_are_those_of_the_statistic(
    make_recording: Maker, tmp_path: Path, open_image: Callable[..., AppTest]
) -> None:
    recording = make_recording("cbam")
    gate = recording.gates[-1].name
    app = open_image(tmp_path, image="7")
    space = gate_space(recording, gate)
    wanted = nearest_images(recording, space, recording.gate(gate, 7), without=7)
    assert linked(app) == wanted["image"].tolist()
    assert f"distance {wanted['distance'][0]:.3f}" in texts(app)
    other = recording.gates[0].name
    app.selectbox(key="near_gate").set_value(other).run()
    space = gate_space(recording, other)
    wanted = nearest_images(recording, space, recording.gate(other, 7), without=7)
    assert linked(app) == wanted["image"].tolist()
    named = open_image(tmp_path, image="7", near_gate=other)
    assert linked(named) == wanted["image"].tolist()
    unknown = open_image(tmp_path, image="7", near_gate="nothing")
    assert ["nothing" in error.value for error in unknown.error] == [True]
    assert linked(unknown) == []


def test_places_between_classes_are_those_of_the_statistic(
    make_recording: Maker, tmp_path: Path, open_image: Callable[..., AppTest]
) -> None:
    recording = make_recording("cbam", accuracy=0.4)
    row = int(np.flatnonzero(~recording.right)[0])
    names, gate = recording.classes, recording.gates[0].name
    first, second = int(recording.predictions[row]), int(recording.labels[row])
    third = ({0, 1, 2} - {first, second}).pop()

    def expect_shown(app: AppTest, other: int) -> None:
        assert_no_error(app)
        line = class_line(recording, gate, first, other)
        tables = [
            pa.ipc.open_stream(each.data.data).read_all().to_pandas()
            for each in chart_of(app, "between two classes").datasets
        ]
        (ranges,) = (table for table in tables if "p05" in table)
        assert ranges["class"].unique().tolist() == [
            f"images of {names[first]}", f"images of {names[other]}",
        ]  # fmt: skip
        wanted = np.median(line.positions[: line.firsts])
        assert ranges["median"].iloc[0] == pytest.approx(wanted)
        (own,) = (table for table in tables if "position" in table)
        position = line.position(row, recording.gate(gate, row))
        assert own["position"].iloc[0] == pytest.approx(position)

    app = open_image(tmp_path, image=str(row))
    expect_shown(app, second)
    app.selectbox(key="versus").set_value(names[third]).run()
    expect_shown(app, third)
    expect_shown(open_image(tmp_path, image=str(row), versus=names[third]), third)
    app.selectbox(key="versus").set_value(names[first]).run()
    assert_no_error(app)
    assert any("predicted class itself" in info.value for info in app.info)
    unknown = open_image(tmp_path, image=str(row), versus="cow")
    assert ["cow" in error.value for error in unknown.error] == [True]


def test_a_network_without_spatial_gates_shows_grad_cam(
    make_recording: Maker, tmp_path: Path, open_image: Callable[..., AppTest]
) -> None:
    make_recording("se", spatial=False)
    app = open_image(tmp_path, image="3")
    assert_no_error(app)
    assert len(app.get("image")) == 2 + 10  # the picture, Grad-CAM, and ten neighbors


@pytest.mark.parametrize(
    "kind", ["its neutral value", "its mean", "that of another image", "single channels"]
)
def test_the_gate_lab_shows_the_logits_of_the_edited_network(
    kind: str, captured: Run, open_image: Callable[..., AppTest]
) -> None:
    recording = captured.recording()
    app = open_image(captured.folder.parent, image="4", lab="true", lab_gate=CHANNEL)
    assert_no_error(app)
    (edit_control,) = (g for g in app.get("button_group") if g.label == "Set it to")
    edit_control.set_value(kind)
    app.run()
    network = LiveNetwork.open(recording)
    edit: Any = {"its neutral value": Neutral(), "its mean": Mean()}.get(kind)
    if kind == "that of another image":
        app.number_input(key="lab_image").set_value(9).run()
        edit = OfImage(9)
    if kind == "single channels":
        slider = app.slider[0]
        slider.set_value(1.0).run()
        channel = int(re.match(r"Channel (\d+)", slider.label)[1])  # type: ignore[index]
        edit = Channels({channel: 1.0})
    assert_no_error(app)
    before, after = network.scores([4]), network.scores([4], {CHANNEL: edit})
    old = int(before.argmax())
    change = f"{float(after[0, old] - before[0, old]):+.3f}".replace("-", "−")
    assert f"Its logit changes by {change}" in texts(app)
    largest = f"{float(np.abs(after - before).max()):.3f}"
    assert f"the largest change of a logit is {largest}" in texts(app)


def test_the_gate_lab_names_the_neutral_value_of_the_gate(
    tmp_path: Path, open_image: Callable[..., AppTest]
) -> None:
    """It is 0 for a gate that acts as x + x * g."""
    digits = write_digits(tmp_path / "digits")
    given = ["--model", "tests.test_live:added", "--data", f"folder:{digits}", "--image-size", "16"]
    assert main(["capture", *given, "--out", str(tmp_path / "captured")]) == 0
    app = open_image(tmp_path / "captured", image="4", lab="true")
    assert_no_error(app)
    (edit_control,) = (g for g in app.get("button_group") if g.label == "Set it to")
    assert "The neutral value, 0, leaves" in edit_control.help


def test_the_gate_lab_says_in_one_line_that_the_network_is_not_found(
    make_recording: Maker, tmp_path: Path, open_image: Callable[..., AppTest]
) -> None:
    make_recording("cbam")
    app = open_image(tmp_path, image="4")
    assert_no_error(app)
    app.toggle(key="lab").set_value(True).run()
    assert not app.exception
    (error,) = app.error
    assert "AS640" in error.value
    assert "\n" not in error.value


def test_other_machines_may_not_run_the_network(
    captured: Run, open_image: Callable[..., AppTest]
) -> None:
    app = open_image(captured.folder.parent, actions=False, image="4", lab="true")
    assert_no_error(app)
    assert not [each for each in app.toggle if each.key == "lab"]
    assert any("--allow-actions" in info.value for info in app.info)


@pytest.mark.browser
def test_in_a_browser_a_gallery_leads_to_an_image_whose_address_can_be_shared(
    make_recording: Maker, tmp_path: Path, browse: Callable[[Path], Any]
) -> None:
    from playwright.sync_api import expect

    recording = make_recording("cbam", accuracy=0.3)
    make_recording("poor", accuracy=0.3, seed=1)
    page = browse(tmp_path)
    page.get_by_role("link", name="Misclassified images").click()
    main = page.get_by_test_id("stMain")
    links = main.get_by_role("link", name=re.compile(r"^Open image \d+$"))
    expect(links).to_have_count(20)  # a page of the gallery; links can appear in any order
    link = links.first
    row = int(link.inner_text().split()[-1])
    link.click()
    expect(page.get_by_role("heading", name="Image", exact=True)).to_be_visible()
    expect(main).to_contain_text(recording.rows["path"][row])
    buttons = main.get_by_role("button", name=re.compile(r"^Open image \d+$"))
    expect(buttons).to_have_count(10)  # the page is complete
    page.wait_for_timeout(2000)
    main.get_by_role("button", name="Next").click()
    expect(main).to_contain_text(recording.rows["path"][row + 1])
    expect(page).to_have_url(re.compile(rf"image={row + 1}\b"))
    expect(main.get_by_role("heading", name="Between two classes")).to_be_visible()
    page.reload()
    expect(main).to_contain_text(recording.rows["path"][row + 1])
    gate = recording.gates[-1].name
    found = nearest_images(
        recording, gate_space(recording, gate), recording.gate(gate, row + 1), without=row + 1
    )
    expect(buttons).to_have_count(10)
    assert [int(text.split()[-1]) for text in buttons.all_inner_texts()] == found["image"].tolist()
    buttons.first.click()
    nearest = int(found["image"][0])
    expect(main).to_contain_text(recording.rows["path"][nearest])
    expect(page).to_have_url(re.compile(rf"image={nearest}\b"))
    page.go_back()
    expect(main).to_contain_text(recording.rows["path"][row + 1])


@pytest.mark.browser
def test_in_a_browser_a_dragged_channel_moves_the_probabilities(
    captured: Run, browse: Callable[[Path], Any]
) -> None:
    from playwright.sync_api import expect

    page = browse(captured.folder.parent)
    url = page.url.split("?")[0].rstrip("/")
    page.goto(f"{url}/image?image=4&lab=true&lab_gate={CHANNEL}&lab_edit=single+channels")
    main = page.get_by_test_id("stMain")
    expect(main).to_contain_text("Drag a slider to change a channel.")
    expect(main).to_contain_text("Its logit changes by +0.000")
    slider = main.get_by_role("slider").first
    slider.focus()
    for _ in range(3):
        page.keyboard.press("End")
    expect(main).not_to_contain_text("Drag a slider to change a channel.")
    expect(main.get_by_text(re.compile(r"Its logit changes by [+−]0\.000"))).to_have_count(0)
