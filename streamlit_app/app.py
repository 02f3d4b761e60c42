"""The dashboard: ``attnscope dashboard FOLDER`` or ``streamlit run app.py -- FOLDER``."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from cached import folder, runs
from widgets import literal

from attnscope.errors import InputError

# The icon is a file because Streamlit loads its own page icons from another server.
st.set_page_config("attnscope", Path(__file__).parent / "icon.png", layout="wide")
page = st.navigation(
    {
        "One network": [
            st.Page("views/overview.py", title="Overview", icon=":material/dashboard:"),
            st.Page("views/channels.py", title="Channel gates", icon=":material/view_column:"),
            st.Page("views/maps.py", title="Spatial maps", icon=":material/grid_on:"),
            st.Page("views/usage.py", title="Decodable and used", icon=":material/science:"),
            st.Page("views/confusion.py", title="Confusion matrix", icon=":material/apps:"),
            st.Page("views/mistakes.py", title="Misclassified images", icon=":material/error:"),
            st.Page("views/figures.py", title="All figures", icon=":material/photo_library:"),
        ],
        "Two networks": [
            st.Page("views/comparison.py", title="Comparison", icon=":material/compare_arrows:")
        ],
    }
)
try:
    found, broken = runs()
    with st.sidebar:
        # Only recordings found in the folder are options, so that no URL can open another path.
        st.selectbox("Recording", list(found), key="run", bind="query-params")
        noun = "recording" if len(found) == 1 else "recordings"
        st.caption(f"{len(found)} {noun} in {literal(folder().name)}")
        for line in broken:
            st.warning(literal(line))
    if found:
        page.run()
except InputError as error:
    st.error(literal(str(error)))
