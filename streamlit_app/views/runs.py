"""Every run and recording in the folder, and what to do where there is none."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import cached
import pandas as pd
import streamlit as st
from cached import listing
from widgets import literal, section, table_height
from widgets_jobs import job_panel, start_button

from attnscope.dashboard import inventory
from attnscope.dashboard.inventory import Entry
from attnscope.shell import shell_command

SECONDS = 5  # between two looks at the folder
MOST_NEWS = 5  # recordings or folders that a message names
READING = 1.0  # seconds in which accuracies are read; the next look goes on
STATES = {
    inventory.WHOLE: "whole",
    inventory.GROWING: "being recorded",
    inventory.INTERRUPTED: "interrupted",
    inventory.DAMAGED: "damaged",
    inventory.NOT_RECORDED: "not recorded",
    inventory.TRAINING: "being trained",
}


def _table(entries: list[Entry], accuracies: dict[str, float]) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "Run": entry.label,
            "State": STATES[entry.state],
            "Network": entry.network,
            "Data": entry.data,
            "Accuracy": 100 * accuracies.get(entry.label, float("nan")),
            "Images": entry.images,
            "Gates": entry.gates,
            "Written": None if entry.changed is None else datetime.fromtimestamp(entry.changed),
            "MB": None if entry.size is None else entry.size / 1e6,
            # A small window cuts off the last ones; the label of a run has its split.
            "Seed": entry.seed,
            "Classes": entry.classes,
            "Split": entry.split or None,
        }
        for entry in entries
    )
    whole = ["Images", "Classes", "Gates", "Seed"]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def _number(help: str, width: int, form: str = "localized") -> Any:
    return st.column_config.NumberColumn(format=form, help=help, width=width)


def _show(entries: list[Entry], accuracies: dict[str, float]) -> None:
    above = st.container(height=56, border=False, vertical_alignment="center")
    event = st.dataframe(
        _table(entries, accuracies),
        hide_index=True,
        key=f"runs {hash(tuple(entry.label for entry in entries))}",
        on_select="rerun",
        selection_mode=["single-row", "single-cell"],
        placeholder="",
        height=table_height(len(entries), 15),
        column_config={
            "Run": st.column_config.TextColumn(
                help="Folder of the run, and the split that was recorded.", pinned=True
            ),
            "State": st.column_config.TextColumn(
                help="Whole: every file is there. Damaged: a file is missing or cannot be read. "
                "Not recorded: the network was trained, and its gates were not recorded yet."
            ),
            "Network": st.column_config.TextColumn(help="The network and its attention modules."),
            "Data": st.column_config.TextColumn(help="The data set that the images come from."),
            "Accuracy": _number(
                "Share of the recorded images that the network classifies correctly.",
                78,
                "%.2f%%",
            ),
            "Images": _number("Number of recorded images.", 65),
            "Gates": _number(
                "Number of gates: values from 0 to 1, or other bounds, that the network computes "
                "from the image and multiplies its features by.",
                56,
            ),
            "Written": st.column_config.DatetimeColumn(
                format="YYYY-MM-DD HH:mm", help="When the recording was written.", width=130
            ),
            "MB": _number("Size on disk in megabytes.", 60, "%.1f"),
            "Seed": _number("The random seed of the run.", 50),
            "Classes": _number("Number of classes.", 65),
            "Split": st.column_config.TextColumn(
                help="The split of the data set that was recorded.", width=75
            ),
        },
    )
    rows = [*event["selection"]["rows"], *(row for row, _ in event["selection"]["cells"])]
    if not rows or rows[0] >= len(entries):
        above.caption("Click a row to open it. Click a title to sort.")
        return
    entry = entries[rows[0]]
    if entry.can_be_opened:
        above.page_link(
            "views/overview.py",
            label=f"Open {literal(entry.label)}",
            icon=":material/arrow_forward:",
            query_params={"run": entry.label},
        )
    else:
        above.caption(f"{literal(entry.label)} cannot be opened: it is {STATES[entry.state]}.")


@section
def _record(entries: list[Entry]) -> None:
    """Offer to record a run that has no recording, or whose recording was interrupted."""
    missing = [
        entry
        for entry in entries
        if entry.run is not None
        and (
            entry.state == inventory.NOT_RECORDED
            or (entry.state == inventory.INTERRUPTED and entry.split)
        )
    ]
    if not missing:
        return
    st.subheader("Record a run")
    st.markdown(
        "The pages of this dashboard show recordings: what each gate of a network did for each "
        "image. These runs have none yet. Recording runs the network once over its test images, "
        "which takes from seconds to minutes."
    )
    by_label = {entry.label: entry for entry in missing}
    label = st.selectbox("Run", list(by_label), key="unrecorded")
    entry = by_label[str(label)]
    split = entry.split or "test"
    words = ["capture", entry.run, *([] if split == "test" else ["--split", split])]
    start_button(
        f"Record the {split} images", f"Recording of {label}", words, _of(entry), kind="primary"
    )
    st.code(shell_command(*words), language="sh")


def _of(entry: Entry) -> Path:
    assert entry.run is not None
    return entry.run


def _damaged(entries: list[Entry]) -> None:
    damaged = [entry for entry in entries if entry.state == inventory.DAMAGED]
    unfinished = [
        entry
        for entry in entries
        if entry.state in (inventory.GROWING, inventory.INTERRUPTED, inventory.TRAINING)
    ]
    for entry in unfinished:
        st.info(f"{literal(entry.label)}: {literal(entry.note)}")
    for entry in damaged:
        st.warning(f"{literal(entry.label)}: {literal(entry.note)}")


def _empty() -> None:
    """Say what to do in a folder without runs."""
    place = cached.folder()
    st.info(f"There are no runs and no recordings in {literal(str(place))} yet.")
    inner = inventory.folders_of_runs(place)
    if inner:
        st.markdown("Folders in it have some. To open one of them:")
        commands = [shell_command("dashboard", folder) for folder in inner[:MOST_NEWS]]
        st.code("\n".join(commands), language="sh")
    st.markdown(
        "To see everything at once, train two small networks on scikit-learn's digits. It takes "
        "some minutes and downloads nothing:"
    )
    st.code(shell_command("demo", "--out", place / "demo"), language="sh")
    st.markdown("Or train a network of your own choice, and record its gates:")
    run = place / "cifar10-cbam"
    st.code(
        "\n".join(
            [
                shell_command("train", "--data", "cifar10", "--attention", "cbam", "--out", run),
                shell_command("capture", run),
            ]
        ),
        language="sh",
    )
    st.caption(
        "This page notices new runs and recordings by itself. The demo fills a folder of its own: "
        f"open it with {literal(shell_command('dashboard', place / 'demo'))}."
    )


@st.fragment(run_every=SECONDS)
def _watch(shown: dict[str, tuple[object, ...]], is_complete: bool, drawn: float) -> None:
    """Draw the page again if recordings have appeared, changed or vanished since.

    Args:
        shown: label -> what the page shows of it.
        is_complete: whether all accuracies are shown.
        drawn: when the page was drawn, which tells the next look from this one.
    """
    if st.session_state.get("runs_drawn") != drawn:  # the page itself is being drawn
        st.session_state["runs_drawn"] = drawn
        return
    now = _signature(cached.entries())
    if now != shown:
        news = [f"New: {literal(label)}" for label in sorted(now.keys() - shown.keys())]
        news += [f"Gone: {literal(label)}" for label in sorted(shown.keys() - now.keys())]
        st.session_state["news"] = news[:MOST_NEWS]
    if now != shown or not is_complete:
        st.rerun()


def _signature(entries: list[Entry]) -> dict[str, tuple[object, ...]]:
    return {entry.label: (entry.state, entry.note, entry.changed) for entry in entries}


st.title("Runs")
for line in st.session_state.pop("news", []):
    st.toast(line)
entries = cached.entries()
found, _ = cached.runs()
job_panel()
if not entries:
    _empty()
else:
    st.markdown(f"The networks in {literal(str(cached.folder()))}, and what was recorded of them.")
    accuracies = listing.accuracies(found.values(), READING)
    _show(entries, accuracies)
    left = len(found) - len(accuracies)
    if left:
        st.caption(f"The accuracy of {left} recordings is still being read.")
    _damaged(entries)
    _record(entries)
_watch(_signature(entries), not entries or len(accuracies) == len(found), time.time())
