"""Controls whose values are in the address of a page, and links that can be followed back.

Streamlit binds widgets to the address, too (``bind="query-params"``). But when a visitor leaves the
page by a link, what is bound is removed from the address of the page that he leaves, and the way
back leads to its defaults. What is kept here stays there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from widgets import literal


def read(
    key: str, options: Mapping[str, Any] | None, default: Any, *, noun: str = "", scope: str = ""
) -> bool:
    """Give a widget the value that the address has, before the widget is created.

    Args:
        key: key of the widget, and name in the address.
        options: what can be chosen: text in the address -> value of the widget. None: any text.
        default: value without an address. It is left out of addresses.
        noun: what is chosen, such as ``gate``. If it is given, an unknown one in the address is
            said, and the widget gets None, so that nothing is shown in its place. Otherwise it gets
            the default.
        scope: what the options belong to, such as the key of a recording.

    Returns:
        Whether the address names something unknown and nothing else has been chosen yet.
    """
    state, mark = st.session_state, f"unknown {key}"
    asked = st.query_params.get(key)
    if key not in state or _went_through_history():
        known = asked is not None and (options is None or asked in options)
        state[key] = default
        state[mark] = None
        if known:
            state[key] = asked if options is None else options[asked or ""]
        elif asked is not None and noun:
            state[key], state[mark] = None, (asked, scope)
    elif options is not None and state[key] is not None and state[key] not in options.values():
        state[key] = default  # the options are those of another recording or gate now
        st.query_params.pop(key, None)
    unknown = state.get(mark)
    if state[key] is not None or unknown is None:
        return False
    st.error(f"There is no {noun} {literal(unknown[0])} here. Choose another one.")
    return True


def keep(key: str, default: Any) -> None:
    """Put the value of a widget into the address: for ``on_change`` of the widget."""
    value = st.session_state[key]
    if value is None or value == default:
        st.query_params.pop(key, None)
    else:
        st.query_params[key] = str(value).lower() if isinstance(value, bool) else str(value)


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


SWITCH = {"true": True, "false": False}
"""Options of a toggle."""


def _went_through_history() -> bool:
    """Return whether the visitor went back or forward to this address."""
    context = get_script_run_ctx()
    return context is not None and bool(getattr(context, "is_history_navigation", False))
