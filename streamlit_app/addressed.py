"""What the address of a page names: it is shown, or said to be unknown."""

from __future__ import annotations

from collections.abc import Collection

import streamlit as st
from widgets import literal


def is_unknown(key: str, options: Collection[str], noun: str, scope: str) -> bool:
    """Return whether the address names something that does not exist, and say so in one line.

    It is remembered until something else is chosen, so that nothing is shown in its place. The
    widget of the key should then start without a choice.

    Args:
        key: key of the widget that the address sets (``bind="query-params"``).
        options: what can be chosen, as text.
        noun: what is chosen, such as ``gate``.
        scope: where the options belong, such as the key of a recording.
    """
    state, mark = st.session_state, f"unknown {key} {scope}"
    chosen, reported = state.get(key), state.get(mark)
    chosen = None if chosen is None else str(chosen)
    asked = st.query_params.get(key) or chosen or reported
    if asked == reported and chosen in options:  # the address may still name the unknown one
        asked = None
    state[mark] = asked if asked not in options else None
    if asked is None or state[mark] is None:
        return False
    st.error(f"There is no {noun} {literal(asked)} here. Choose another one.")
    return True
