"""Choices on pages are in their addresses: links, reloads and one step back show them again."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from attnscope.recording.recording import Recording
from tests.streamlit_app.in_browser import settle
from tests.streamlit_app.opening import assert_no_error, assert_one_error

Maker = Callable[..., Recording]
Visit = Callable[..., AppTest]
GATE = "layer2.attention.channel"
IMAGE = re.compile(r"^(Open i|I)mage \d+$")
CARD = re.compile(r"^Open the card of channel \d+$")

# Page, what is chosen on it (label of a select box and option, or a segment), what the address has
# then, and the link by which the page is left (None: that of the first page in the sidebar).
Case = tuple[str, Sequence[tuple[str, str] | str], dict[str, str], "re.Pattern[str] | None"]
CASES: list[Case] = [
    (
        "mistakes",
        [("True class", "owl"), "Confidence"],
        {"true": "owl", "sort": "Confidence"},
        IMAGE,
    ),
    ("confusion", ["Counts", ("Predicted class", "dog")], {"predicted": "dog"}, IMAGE),
    ("maps", ["Over the image"], {"drawn": "Over the image"}, IMAGE),
    ("channel", [("Gate", GATE), "12"], {"gate": GATE, "ends": "12"}, IMAGE),
    ("channels", [("Gate", GATE)], {"gate": GATE}, CARD),
    ("space", [("Gate", GATE), ("Vertical axis", "Component 3")], {"gate": GATE, "y": "3"}, None),
    ("image", ["Length (Euclidean)"], {"near_distance": "Length (Euclidean)"}, None),
    (
        "comparison",
        ["Images", ("True class", "cat"), "Both wrong"],
        {"comparison_view": "Images", "true": "cat", "which": "Both wrong"},
        None,
    ),
    ("figures", [("Figure", "Gate state")], {"figure": "Gate state"}, None),
]


@pytest.mark.browser
def test_one_step_back_and_a_reload_show_what_was_chosen(
    make_recording: Maker, tmp_path: Path, browse: Callable[[Path], Any]
) -> None:
    make_recording("another", seed=1)  # it would be shown without an address
    make_recording("poor", accuracy=0.3)
    page = browse(tmp_path)
    root = page.url.rstrip("/")
    for name, choices, _, link in CASES:
        page.goto(f"{root}/{name}?run=poor/test")
        for choice in choices:
            _choose(page, choice)
        address = page.url
        assert "run=poor" in address
        _leave(page, link)
        page.go_back()
        page.wait_for_url(address)
        _expect(page, choices)
        page.reload()
        _expect(page, choices)
        assert page.url == address


def _choose(page: Any, choice: tuple[str, str] | str) -> None:
    """Choose an option or a segment, and wait until the page and its address show it."""
    before = page.url
    main = page.get_by_test_id("stMain")
    if isinstance(choice, str):
        main.get_by_role("radio", name=choice, exact=True).click()
    else:
        main.get_by_role("combobox", name=choice[0], exact=True).click()
        page.get_by_role("option", name=choice[1]).click()
    page.wait_for_url(lambda url: url != before)
    _expect(page, [choice])
    settle(page)


def _expect(page: Any, choices: Sequence[tuple[str, str] | str]) -> None:
    from playwright.sync_api import expect

    main = page.get_by_test_id("stMain")
    for choice in choices:
        if isinstance(choice, str):
            expect(main.get_by_role("radio", name=choice, exact=True)).to_be_checked()
        else:
            box = main.get_by_role("combobox", name=choice[0], exact=True)
            expect(box).to_have_value(re.compile(re.escape(choice[1])))


def _leave(page: Any, link: re.Pattern[str] | None) -> None:
    """Follow a link, and wait until the other page is there."""
    from playwright.sync_api import expect

    if link is None:
        page.get_by_test_id("stSidebar").get_by_role("link", name="Runs", exact=True).click()
        expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    else:
        found = page.get_by_test_id("stMain").get_by_role("link", name=link).first
        target = found.get_attribute("href")
        page.locator(f'[data-testid="stMain"] a[href="{target}"]').first.click()
        title = "Channel card" if link is CARD else "Image"
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    settle(page)


def _words(app: AppTest, key: str) -> list[str]:
    """Return what the address has for a key."""
    found: Any = app.query_params.get(key, [])
    return [found] if isinstance(found, str) else list(found)


@pytest.mark.parametrize(("name", "address"), [(case[0], case[2]) for case in CASES])
def test_an_address_opens_a_page_with_its_choices(
    name: str, address: dict[str, str], make_recording: Maker, tmp_path: Path, visit: Visit
) -> None:
    make_recording("another", seed=1)
    make_recording("poor", accuracy=0.3)
    app = visit(tmp_path, name, run="poor/test", **address)
    assert_no_error(app)
    assert app.session_state["run"] == "poor/test"
    read = {key: app.session_state[key] for key in address}
    read |= {"figure": "Gate state"} if read.get("figure") == "gate_state" else {}
    read |= {"y": str(read["y"] + 1)} if "y" in read else {}
    assert {key: str(value) for key, value in read.items()} == address
    assert {key: _words(app, key) for key in address} == {k: [v] for k, v in address.items()}


def test_what_is_chosen_is_written_and_the_default_is_left_out(
    make_recording: Maker, tmp_path: Path, visit: Visit
) -> None:
    make_recording("poor", accuracy=0.3)
    app = visit(tmp_path, "mistakes")
    app.slider(key="confidence").set_range(0.25, 1.0)
    app.selectbox(key="true").set_value("owl").run()
    assert _words(app, "confidence") == ["0.25", "1"]
    assert _words(app, "true") == ["owl"]
    again = visit(tmp_path, "mistakes", confidence=["0.25", "1"], true="owl")  # type: ignore[arg-type]
    assert_no_error(again)
    assert again.slider(key="confidence").value == (0.25, 1)
    assert again.main.subheader[0].value == app.main.subheader[0].value
    app.slider(key="confidence").set_range(0.0, 1.0)
    app.selectbox(key="true").set_value(None).run()
    assert not {"confidence", "true"} & set(app.query_params)


def test_another_recording_begins_with_its_own_default(
    make_recording: Maker, tmp_path: Path, visit: Visit
) -> None:
    make_recording("few")
    make_recording("many", count=480, names=[f"kind {number:03d}" for number in range(120)])
    app = visit(tmp_path, "confusion", run="few/test", true="owl")
    assert_no_error(app)
    assert not app.toggle(key="errors").value
    app.sidebar.selectbox(key="run").set_value("many/test").run()
    assert_no_error(app)
    assert app.toggle(key="errors").value, "of many classes, only errors are colored at first"
    assert app.selectbox(key="true").value is None
    assert "true" not in app.query_params
    app.toggle(key="errors").set_value(False).run()
    assert _words(app, "errors") == ["false"]
    app.sidebar.selectbox(key="run").set_value("few/test").run()
    assert not app.toggle(key="errors").value


@pytest.mark.parametrize(
    ("name", "address", "key"),
    [
        ("figures", {"figure": "No <b>such</b> figure"}, "figure"),
        ("comparison", {"other": "gone/test"}, "other"),
        ("mistakes", {"predicted": "unicorn"}, "predicted"),
    ],
)
def test_what_does_not_exist_is_said_until_something_else_is_chosen(
    name: str,
    address: dict[str, str],
    key: str,
    make_recording: Maker,
    tmp_path: Path,
    visit: Visit,
) -> None:
    make_recording("a", accuracy=0.3)
    make_recording("b", accuracy=0.3)
    app = visit(tmp_path, name, run="a/test", **address)
    assert_one_error(app, f"`{address[key]}`")
    assert not app.main.image
    assert_one_error(app.run(), f"`{address[key]}`")
    box = app.selectbox(key=key)
    assert box.value is None
    box.set_value(box.options[0] if key == "figure" else {"other": "b/test"}.get(key, "owl")).run()
    assert_no_error(app)
    assert _words(app, key) != [address[key]]
