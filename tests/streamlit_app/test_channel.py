"""The card of one channel: distribution, means, extreme images, features, and its removal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from attnscope import statistics
from attnscope.commands.main import main
from attnscope.dashboard.channel_removal import removed_channel
from attnscope.recording.explored import explored_file, write_explored
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from attnscope.verifying import verify
from tests.folding.runs import make_run, untrained, write_digits
from tests.streamlit_app.opening import LOOK_ONLY, assert_no_error, assert_one_error, open_view
from tests.streamlit_app.test_dashboard import MARKUP

Make = Callable[..., Recording]
Open = Callable[..., AppTest]
GATE = "layer2.attention.channel"
MANY = [f"kind {number:03d}" for number in range(120)]
BUTTON = "Set the channel to its mean"


@pytest.fixture
def open_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Open:
    def run(run: str, *words: str, folder: Path = tmp_path, **address: str) -> AppTest:
        return open_view(monkeypatch, folder, "channel", *words, run=run, **address)

    return run


@pytest.fixture(scope="module")
def live_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a captured run, whose network can be opened."""
    folder = tmp_path_factory.mktemp("live")
    images = write_digits(tmp_path_factory.mktemp("images") / "digits")
    made = make_run(folder / "cbam", images, untrained("cbam"), "layer")
    assert main(["capture", str(made)]) == 0
    return folder


def charts(app: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in app.get("vega_lite_chart")]


def texts(app: AppTest) -> list[str]:
    return [text.value for text in app.text]


def links(app: AppTest) -> list[str]:
    return [link.proto.label for link in app.get("page_link")]


def test_the_extreme_images_are_shown_with_their_gates_and_links(
    make_recording: Make, open_card: Open
) -> None:
    recording = make_recording("cbam")
    make_recording("se", spatial=False, seed=1)
    app = open_card("cbam/test", gate=GATE, channel="7")
    assert_no_error(app)
    values = recording.gate(GATE)[:, 7]
    order = np.argsort(values, kind="stable")
    rows = [*order[::-1][:6], *order[:6]]
    shown = [text for text in texts(app) if text.startswith("gate ")]
    names = recording.classes
    assert shown == [
        f"gate {values[row]:.4f}\n{names[recording.labels[row]]} → "
        f"{names[recording.predictions[row]]}"
        for row in rows
    ]
    assert len(app.image) == 12
    assert [label for label in links(app) if label.startswith("Image ")] == [
        f"Image {row}" for row in rows
    ]


def test_histograms_have_one_scale_and_classes_can_be_chosen(
    make_recording: Make, open_card: Open
) -> None:
    recording = make_recording("cbam")
    app = open_card("cbam/test", channel="0")
    assert_no_error(app)
    means = statistics.class_profiles(recording, "layer1.attention.channel")
    means = means[means["channel"] == 0].sort_values("mean", ascending=False)
    assert app.multiselect[0].value == [recording.classes.index(c) for c in means["class"]]
    histograms = [spec for spec in charts(app) if "layer" not in spec]
    assert len(histograms) == 3 == len(means)
    for axis in "xy":
        domains = [spec["encoding"][axis]["scale"]["domain"] for spec in histograms]
        assert domains[0] == domains[1] == domains[2]
    app.multiselect[0].set_value([1]).run()
    assert len([spec for spec in charts(app) if "layer" not in spec]) == 1
    app.multiselect[0].set_value([]).run()
    assert not app.exception
    assert len(app.info) == 1
    assert not [spec for spec in charts(app) if "layer" not in spec]


def test_of_many_classes_the_largest_and_smallest_means_are_shown(
    make_recording: Make, open_card: Open
) -> None:
    recording = make_recording("many", count=480, names=MANY)
    app = open_card("many/test", gate=GATE, channel="3")
    assert_no_error(app)
    means = statistics.class_profiles(recording, GATE)
    means = means[means["channel"] == 3].sort_values("mean", ascending=False, kind="stable")
    ranked = means["class"].tolist()
    (spec,) = [spec for spec in charts(app) if "layer" in spec]
    assert spec["layer"][0]["encoding"]["y"]["sort"] == [*ranked[:20], *ranked[-20:]]


@pytest.mark.parametrize(
    ("key", "value"), [("gate", "no.such.gate"), ("channel", "16"), ("channel", "-1")]
)
def test_what_the_address_names_is_said_to_be_unknown(
    key: str, value: str, make_recording: Make, open_card: Open
) -> None:
    make_recording("cbam")
    address = {"gate": GATE, "channel": "2", key: value}
    app = open_card("cbam/test", **address)
    assert_one_error(app, f"`{value}`")
    assert not app.image
    assert not charts(app)
    widget = app.selectbox(key="gate") if key == "gate" else app.number_input(key="channel")
    assert widget.value is None
    widget.set_value(GATE if key == "gate" else 3).run()
    assert_no_error(app)
    assert len(app.image) == 12


def test_names_with_markup_are_shown_as_they_are(make_recording: Make, open_card: Open) -> None:
    make_recording("cbam", names=MARKUP)
    app = open_card("cbam/test", gate=GATE)
    assert_no_error(app)
    assert any(MARKUP[0] in text for text in texts(app))
    for element in (*app.markdown, *app.caption, *app.info):
        assert not any(name in re.sub("`+.*?`+", "", element.value) for name in MARKUP)


def test_without_the_network_the_page_says_so_and_shows_the_rest(
    make_recording: Make, open_card: Open
) -> None:
    make_recording("cbam")
    app = open_card("cbam/test", gate=GATE, features="true")
    assert_one_error(app, "AS640")
    assert [b for b in app.button if b.label == BUTTON]
    app.button(key="remove").click().run()
    assert not app.exception
    assert ["AS640" in error.value for error in app.error] == [True, True]


def test_features_before_and_after_the_gate_are_shown(live_folder: Path, open_card: Open) -> None:
    gate = "layer2.0.attention.channel"
    app = open_card("cbam/test", folder=live_folder, gate=gate, channel="2")
    plain = len(app.image)
    assert plain == 12
    app.toggle(key="features").set_value(True).run()
    assert_no_error(app)
    assert len(app.image) == 3 * plain
    from attnscope.live import LiveNetwork

    recording = Recording(live_folder / "cbam")
    first = int(links(app)[1].split()[1])
    maps = LiveNetwork.open(recording).features([first], gate, 2)
    lowest, highest = re.search(
        r"from (\S+) \(dark\) to (\S+) \(bright\)", " ".join(c.value for c in app.caption)
    ).groups()
    assert float(lowest) <= min(m.min() for m in maps) + 0.01
    assert float(highest) >= max(m.max() for m in maps) - 0.01
    # A spatial gate has no channels and is not offered.
    assert all("spatial" not in name for name in app.selectbox(key="gate").options)


def test_the_removal_of_a_channel_is_measured_once_and_kept(
    live_folder: Path, open_card: Open
) -> None:
    gate = "layer2.0.attention.channel"
    address = {"gate": gate, "channel": "3"}
    manifest = live_folder / "cbam/recordings/test/manifest.json"
    before = manifest.read_bytes()
    looking = open_card("cbam/test", *LOOK_ONLY, folder=live_folder, **address)
    assert looking.button(key="remove").disabled
    app = open_card("cbam/test", folder=live_folder, **address)
    app.button(key="remove").click().run()
    assert_no_error(app)
    known = removed_channel(Run(live_folder / "cbam").recording(), gate, 3)
    assert known is not None
    again = open_card("cbam/test", *LOOK_ONLY, folder=live_folder, **address)
    assert_no_error(again)
    assert BUTTON not in [button.label for button in again.button]
    shown = {metric.label: metric.value for metric in again.metric}
    assert shown["Predictions that change"] == f"{known.changed} of {known.images}"
    table = again.dataframe[0].value.sort_values("class").reset_index(drop=True)
    np.testing.assert_array_equal(table["before"], known.classes["before"])
    np.testing.assert_allclose(table["probability"], 100 * known.classes["probability"])
    assert manifest.read_bytes() == before
    assert all(not found.problems for found in verify(live_folder / "cbam"))
    other = open_card("cbam/test", folder=live_folder, gate=gate, channel="4")
    assert BUTTON in [button.label for button in other.button]


def test_a_damaged_result_is_said_and_the_page_goes_on(
    make_recording: Make, open_card: Open
) -> None:
    recording = make_recording("cbam")
    subject = f"mean of channel 1 of gate {GATE}"
    write_explored(recording, subject, {})
    file = explored_file(recording, subject)
    file.write_bytes(file.read_bytes()[:-5])
    app = open_card("cbam/test", gate=GATE, channel="1")
    assert_one_error(app, file.name)
    assert len(app.image) == 12


def test_nothing_is_written_outside_of_the_folder(
    make_recording: Make, tmp_path: Path, open_card: Open
) -> None:
    make_recording("cbam")
    inside = tmp_path / "cbam/recordings/test"
    app = open_card("test", folder=inside, gate=GATE)
    assert_no_error(app)
    assert BUTTON not in [button.label for button in app.button]
    assert len(app.info) == 1


@pytest.mark.browser
def test_the_way_from_the_card_to_an_image_and_back(
    make_recording: Make, tmp_path: Path, browse: Callable[[Path], Any]
) -> None:
    from playwright.sync_api import expect

    make_recording("another", seed=4)  # it would be shown without a choice
    recording = make_recording("cbam")
    page = browse(tmp_path)
    page.goto(f"{page.url.rstrip('/')}/channel?run=cbam/test&gate={GATE}&channel=9")
    content = page.get_by_test_id("stMain")
    values = pd.Series(recording.gate(GATE)[:, 9])
    lowest = int(values.idxmin())
    link = content.get_by_role("link", name=f"Image {lowest}", exact=True)
    expect(link).to_be_visible()
    expect(content.get_by_test_id("stImage")).to_have_count(12)
    link.click()
    expect(content).to_contain_text(str(recording.rows["path"][lowest]))
    expect(page).to_have_url(re.compile(rf"image={lowest}\b"))
    page.go_back()
    expect(content).to_contain_text("Channel 9 of")
    content.get_by_test_id("stNumberInputStepUp").click()
    expect(content).to_contain_text("Channel 10 of")
    expect(page).to_have_url(re.compile(r"channel=10\b"))
    page.reload()
    expect(content).to_contain_text("Channel 10 of")
    expect(content).to_contain_text(f"gate {recording.gate(GATE)[:, 10].max():.4f}")
