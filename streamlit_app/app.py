"""The dashboard: ``attnscope dashboard FOLDER`` or ``streamlit run app.py -- FOLDER``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import streamlit as st
from cached import folder, runs
from widgets import literal
from widgets_jobs import job_panel

from attnscope.errors import InputError

# The icon is a file because Streamlit loads its own page icons from another server.
st.set_page_config("attnscope", Path(__file__).parent / "icon.png", layout="wide")
RUNS = st.Page("views/runs.py", title="Runs", icon=":material/list:", default=True)
page = st.navigation(
    {
        "": [RUNS],
        "One network": [
            st.Page("views/overview.py", title="Overview", icon=":material/dashboard:"),
            st.Page("views/channels.py", title="Channel gates", icon=":material/view_column:"),
            st.Page("views/channel.py", title="Channel card", icon=":material/badge:"),
            st.Page("views/space.py", title="Gate space", icon=":material/bubble_chart:"),
            st.Page("views/maps.py", title="Spatial maps", icon=":material/grid_on:"),
            st.Page("views/image.py", title="Image", icon=":material/image:"),
            st.Page("views/upload.py", title="Your own image", icon=":material/upload:"),
            st.Page("views/usage.py", title="Decodable and used", icon=":material/science:"),
            st.Page("views/confusion.py", title="Confusion matrix", icon=":material/apps:"),
            st.Page("views/mistakes.py", title="Misclassified images", icon=":material/error:"),
            st.Page("views/figures.py", title="All figures", icon=":material/photo_library:"),
        ],
        "Two networks": [
            st.Page("views/comparison.py", title="Comparison", icon=":material/compare_arrows:")
        ],
    },
    expanded=True,
)


def _missing(known: Collection[str]) -> str | None:
    """Return the recording that the address or the visitor chose if there is no such one here.

    It is remembered until another one is chosen, so that no recording is shown in its place.
    """
    state = st.session_state
    reported, chosen = state.get("missing_run"), state.get("run")
    asked = st.query_params.get("run") or chosen or reported
    if asked == reported and chosen in known:  # the address may still name the missing one
        return None
    missing: str | None = asked if asked not in known else None
    state["missing_run"] = missing
    return missing


def _nothing_to_show(missing: str | None) -> None:
    """Say why no recording is shown."""
    if missing is not None:
        st.error(
            f"There is no recording {literal(missing)} in {literal(folder().name)}: it was moved "
            "or removed, or the address is wrong. Choose a recording on the left."
        )
    elif page.title != RUNS.title:
        st.info(f"There is no recording in {literal(folder().name)} yet.")
        st.page_link(RUNS, label="See what to do")


try:
    found, broken = runs()
    missing = _missing(found)
    with st.sidebar:
        # Without options it would remember that nothing was chosen.
        if found:
            # Only recordings found in the folder are options, so that no URL can open another path.
            st.selectbox(
                "Recording", list(found), index=0 if missing is None else None, key="run",
                bind="query-params", placeholder="Choose a recording",
            )  # fmt: skip
        noun = "recording" if len(found) == 1 else "recordings"
        st.caption(f"{len(found)} {noun} in {literal(folder().name)}")
        if broken:
            what = "One is" if len(broken) == 1 else f"{len(broken)} are"
            st.warning(f"{what} damaged.", icon=":material/warning:")
            st.page_link(RUNS, label="See what is wrong")
        job_panel(compact=True)
    if missing is not None or not found:
        _nothing_to_show(missing)
    if page.title == RUNS.title or (found and missing is None):
        page.run()
except InputError as error:
    st.error(literal(str(error)))
