"""What can take longer than a click is computed beside the page, which shows it when it is there.

The page stays usable meanwhile, and what was begun goes on when a visitor leaves it. Results are
handed over by the cache of the function that computes them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import streamlit as st
from streamlit.runtime import Runtime, get_instance

PATIENCE = 0.05
"""Seconds for which a page waits, so that what is quick or cached is shown at once."""
_SECONDS = 0.5
"""Time between two looks at what is not finished."""
_slots = threading.BoundedSemaphore(2)
"""So many are computed at a time."""


class _Work:
    """One computation in a thread of its own."""

    def __init__(self, compute: Callable[[], object]) -> None:
        self.ended = threading.Event()
        self.began = time.monotonic()
        # A server that is stopped does not wait for it.
        threading.Thread(target=self._run, args=(compute,), daemon=True).start()

    def _run(self, compute: Callable[[], object]) -> None:
        try:
            # The page calls the function, too, and meets what it raises.
            with _slots, suppress(Exception):
                compute()
        finally:
            self.ended.set()


_works: dict[str, _Work] = {}
_lock = threading.Lock()


def ready(name: str, compute: Callable[[], object]) -> bool:
    """Return whether something is computed; if not, compute it and say so on the page.

    The page is drawn once more when it is there. Visitors who wait for the same share one
    computation.

    Args:
        name: what is computed, and from what. It must be unique on the page.
        compute: calls a cached function, whose result the page then reads. It runs outside of any
            page, so it must not show anything. What it raises, the page meets when it calls the
            function itself.
    """
    with _lock:
        work = _works.get(name)
        if work is None:
            work = _works[name] = _Work(compute)
    # Without a server, as in Streamlit's own tests of apps, nobody would call the page again.
    has_server = type(get_instance()) is Runtime
    if work.ended.wait(PATIENCE if has_server else None):
        with _lock:
            if _works.get(name) is work:
                del _works[name]
        return True
    st.fragment(_waiting, run_every=_SECONDS, key=f"background {name}")(work)
    return False


def _waiting(work: _Work) -> None:
    if work.ended.is_set():
        st.rerun()
    seconds = time.monotonic() - work.began
    st.markdown(f":material/hourglass_top: Computing … {seconds:.0f} s")
