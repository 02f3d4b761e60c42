"""Controls whose values are in the address of a page.

A link to the page, a reload and the way back show the same choice.

Streamlit binds widgets to the address, too (``bind="query-params"``). But when a visitor leaves the
page by a link, what is bound is removed from the address of the page that he leaves, and the way
back leads to its defaults. What is kept here stays there. Only the recording in the sidebar is
bound: Streamlit takes what is bound outside of pages along to the next page.

If the address names something that does not exist, a control with a `noun` says so in one line and
gives None until something is chosen, so that nothing is shown in its place. `is_unknown` tells this
from a choice of nothing. Controls without a noun, which say how something is shown, have their
default then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import streamlit as st
from markup import literal
from streamlit.runtime.scriptrunner import get_script_run_ctx

_T = TypeVar("_T")
_FIRST: Any = object()
_SWITCH = {"true": True, "false": False}


@dataclass(frozen=True)
class _Kept:
    """What belongs to a control besides its value."""

    default: Any
    """It is left out of addresses."""
    write: Callable[[Any], str | list[str]]
    """Writes a value for the address."""
    fits: Callable[[Any], bool]
    """Whether the control can have a value."""
    scope: str
    unknown: str = ""
    """What the address names and does not exist, until something else is chosen."""


def selectbox(
    place: Any,
    label: str,
    options: Sequence[_T],
    key: str,
    *,
    default: Any = _FIRST,
    write: Callable[[Any], str] = str,
    **looks: Any,
) -> _T:
    """Show a select box in which something is always chosen, and return the choice.

    Args:
        place: where it is shown: ``st``, or a column.
        label: its label.
        options: what can be chosen.
        key: key of the widget, and name in the address.
        default: option without an address, and with an unknown one. Default: the first option.
        write: writes an option in the address.
        looks: further arguments of ``st.selectbox``.
    """
    default = options[0] if default is _FIRST else default
    _restore_option(key, options, default, write=write)
    chosen: _T = place.selectbox(label, options, key=key, on_change=_keep, args=(key,), **looks)
    return chosen


def named_selectbox(
    place: Any,
    label: str,
    options: Sequence[_T],
    key: str,
    noun: str,
    *,
    default: Any = _FIRST,
    scope: str = "",
    write: Callable[[Any], str] = str,
    **looks: Any,
) -> _T | None:
    """Show a select box that says so if the address names something unknown; return the choice.

    Args:
        place: as in `selectbox`.
        label: its label.
        options: what can be chosen.
        key: key of the widget, and name in the address.
        noun: what is chosen, such as ``gate``.
        default: option without an address; None: nothing is chosen. Default: the first option.
        scope: what the options belong to, such as the key of a recording. An option that vanishes
            from the same scope is unknown. Options of another scope begin with the default.
        write: writes an option in the address.
        looks: further arguments of ``st.selectbox``.
    """
    default = options[0] if default is _FIRST else default
    lost = _restore_option(key, options, default, noun, scope, write)
    chosen: _T | None = place.selectbox(
        label, options, index=None if lost or default is None else 0, key=key, on_change=_keep,
        args=(key,), **{"placeholder": "Choose one", **looks},
    )  # fmt: skip
    _say(key, noun)
    return chosen


def segmented_control(
    place: Any, label: str, options: Sequence[_T], key: str, *, default: Any = _FIRST, **looks: Any
) -> _T:
    """Show a choice of one of a few options, and return it.

    Args:
        place: as in `selectbox`.
        label: its label.
        options: what can be chosen.
        key: key of the widget, and name in the address.
        default: as in `selectbox`.
        looks: further arguments of ``st.segmented_control``.
    """
    default = options[0] if default is _FIRST else default
    _restore_option(key, options, default)
    chosen: _T | None = place.segmented_control(
        label, options, required=True, key=key, on_change=_keep, args=(key,), **looks
    )
    return default if chosen is None else chosen


def toggle(place: Any, label: str, key: str, *, default: bool = False, **looks: Any) -> bool:
    """Show a toggle, and return whether it is on.

    Args:
        place: as in `selectbox`.
        label: its label.
        key: key of the widget, and name in the address.
        default: value without an address.
        looks: further arguments of ``st.toggle``.
    """
    _restore_switch(key, default)
    return bool(place.toggle(label, key=key, on_change=_keep, args=(key,), **looks))


def expander(place: Any, label: str, key: str) -> Any:
    """Show a part that is closed at first, and return it; ``open`` tells whether it is open."""
    _restore_switch(key, False)
    return place.expander(label, key=key, on_change=_keep, args=(key,))


def number_input(
    place: Any,
    label: str,
    count: int,
    key: str,
    noun: str,
    *,
    default: int | None = 0,
    scope: str = "",
    **looks: Any,
) -> int | None:
    """Show a field for a number from 0, and return the number.

    Args:
        place: as in `selectbox`.
        label: its label.
        count: how many numbers there are.
        key: key of the widget, and name in the address.
        noun: as in `named_selectbox`.
        default: value without an address; None: no number.
        scope: as in `named_selectbox`.
        looks: further arguments of ``st.number_input``.
    """

    def fits(value: Any) -> bool:
        return isinstance(value, int) and 0 <= value < count

    def read(words: list[str]) -> int:
        number = int(words[-1]) if words[-1].isdecimal() else -1
        if not fits(number):
            raise ValueError
        return number

    kept = _Kept(default, str, fits, scope)
    lost = _restore(key, kept, read, noun)
    number = place.number_input(
        label, 0, count - 1, None if lost or default is None else "min", key=key, on_change=_keep,
        args=(key,), **looks,
    )  # fmt: skip
    _say(key, noun)
    return None if number is None else int(number)


def range_slider(
    place: Any, label: str, low: float, high: float, step: float, key: str, **looks: Any
) -> tuple[float, float]:
    """Show a slider with two ends, and return them.

    Args:
        place: as in `selectbox`.
        label: its label.
        low: the lowest value.
        high: the highest value.
        step: the step between values.
        key: key of the widget, and name in the address, where it stands once for each end.
        looks: further arguments of ``st.slider``.
    """

    def fits(value: Any) -> bool:
        return bool(low <= value[0] <= value[1] <= high)

    def read(words: list[str]) -> tuple[float, float]:
        first, last = map(float, words)
        if not fits((first, last)):
            raise ValueError
        return first, last

    _restore(key, _Kept((low, high), lambda ends: [f"{end:g}" for end in ends], fits, ""), read)
    first, last = place.slider(
        label, low, high, step=step, key=key, on_change=_keep, args=(key,), **looks
    )
    return float(first), float(last)


def text_input(place: Any, label: str, key: str, **looks: Any) -> str:
    """Show a field for text, and return the text without spaces around it.

    Args:
        place: as in `selectbox`.
        label: its label.
        key: key of the widget, and name in the address.
        looks: further arguments of ``st.text_input``.
    """
    _restore(key, _Kept("", str, lambda value: True, ""), lambda words: words[-1])
    return str(place.text_input(label, key=key, on_change=_keep, args=(key,), **looks)).strip()


def is_unknown(*keys: str) -> bool:
    """Return whether the address names something unknown for any of these controls, which say so.

    Args:
        keys: keys of controls that have been shown.
    """
    return any(st.session_state[_name(key)].unknown for key in keys)


def choose(**values: Any) -> None:
    """Give controls other values, also in the address: for callbacks of charts and buttons.

    Args:
        values: key -> value.
    """
    state, written = st.session_state, dict[str, str | list[str]]()
    for key, value in values.items():
        state[key] = value
        kept: _Kept = state[_name(key)]
        state[_name(key)] = replace(kept, unknown="")
        if value is None or value == kept.default:
            st.query_params.pop(key, None)
        else:
            written[key] = kept.write(value)
    if written:
        st.query_params.update(written)  # at once: each message is a step of the way back


def _keep(key: str) -> None:
    """Put the value of a control into the address: for ``on_change`` of the widget."""
    kept: _Kept = st.session_state[_name(key)]
    value = st.session_state[key]
    # A browser may send an option of the gate before while the page changes.
    choose(**{key: value if value is None or kept.fits(value) else kept.default})


def _restore_option(
    key: str,
    options: Sequence[Any],
    default: Any,
    noun: str = "",
    scope: str = "",
    write: Callable[[Any], str] = str,
) -> bool:
    by_text = {write(option): option for option in options}
    kept = _Kept(default, write, partial(_is_option, options), scope)
    return _restore(key, kept, lambda words: by_text[words[-1]], noun)


def _is_option(options: Sequence[Any], value: Any) -> bool:
    return value in options


def _restore_switch(key: str, default: bool) -> None:
    kept = _Kept(default, lambda on: str(on).lower(), lambda value: True, "")
    _restore(key, kept, lambda words: _SWITCH[words[-1]])


def _restore(key: str, kept: _Kept, read: Callable[[list[str]], Any], noun: str = "") -> bool:
    """Give a widget the value that the address has, before the widget is created.

    Args:
        key: key of the widget, and name in the address.
        kept: what belongs to the control.
        read: reads a value from the address; raises KeyError or ValueError if there is no such one.
        noun: what is chosen; the value is None then if the address names an unknown one.

    Returns:
        Whether the address names something unknown and nothing else has been chosen yet.
    """
    state, default = st.session_state, kept.default
    before: _Kept | None = state.get(_name(key))
    words, unknown = st.query_params.get_all(key), ""
    if (
        key not in state
        or before is None
        or (before.unknown and before.scope != kept.scope)
        or _went_through_history()
    ):
        state[key] = default
        if words:
            try:
                state[key] = read(words)
            except (KeyError, ValueError):
                if noun:
                    state[key], unknown = None, words[-1]
    elif before.unknown:
        unknown = before.unknown
    elif state[key] is not None and not kept.fits(state[key]):
        if noun and before.scope == kept.scope:
            state[key], unknown = None, str(before.write(state[key]))
        else:  # the options are those of another recording or gate now
            state[key] = default
            st.query_params.pop(key, None)
    elif state[key] == before.default != default and not words:
        state[key] = default  # nothing was chosen, and the default may be another one now
    state[_name(key)] = replace(kept, unknown=unknown)
    return bool(unknown)


def _say(key: str, noun: str) -> None:
    unknown = st.session_state[_name(key)].unknown
    if unknown:
        st.error(f"There is no {noun} {literal(unknown)} here. Choose another one.")


def _name(key: str) -> str:
    """Return where the session keeps what belongs to a control."""
    return f"address of {key}"


def _went_through_history() -> bool:
    """Return whether the visitor went back or forward to this address."""
    context = get_script_run_ctx()
    return context is not None and bool(getattr(context, "is_history_navigation", False))
