"""How the pages cache: by the hash of a manifest, which contains the hashes of all files.

A recording that was made again is therefore read again at the next click.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from cached.found import Intervened, Monitored, Run


def _key(subject: Run | Intervened | Monitored) -> str:
    return subject.key


_BY_KEY: dict[str | type[Any], Callable[[Any], Any]] = {
    kind: _key for kind in (Run, Intervened, Monitored)
}

statistic = st.cache_data(
    show_spinner="Computing statistics", show_time=True, max_entries=200, hash_funcs=_BY_KEY
)
"""Cache a function of recordings that returns a table or an array."""

drawing = st.cache_data(show_spinner=False, max_entries=64, hash_funcs=_BY_KEY)
"""Cache a function of recordings that returns figures as bytes. It can run outside of any page."""

picture = st.cache_data(show_spinner=False, max_entries=2000, hash_funcs=_BY_KEY)
"""Cache a function that returns one small picture as bytes."""

arrays = st.cache_resource(
    show_spinner="Computing statistics", show_time=True, max_entries=12, hash_funcs=_BY_KEY
)
"""Cache a function that returns large arrays, which are not copied and must not be changed."""

result = st.cache_resource(show_spinner=False, max_entries=12)
"""Cache what a plot computes, which is not copied and must not be changed. It can run outside of
any page."""

slow = st.cache_data(show_spinner=False, max_entries=200, hash_funcs=_BY_KEY)
"""Cache a table of recordings that can take longer than a click. It can run outside of any page."""

small = st.cache_data(show_spinner=False, max_entries=5000, hash_funcs=_BY_KEY)
"""Cache a function that returns a few bytes about one recording, of which there may be many."""

resource = st.cache_resource(show_spinner="Opening the network", max_entries=4, hash_funcs=_BY_KEY)
"""Cache an object that is not copied, such as a network. Sessions share it."""
