"""What can take longer than a click is computed beside the page, which shows it when it is there.

The page stays usable meanwhile, and what was begun goes on when a visitor leaves it. Results are
handed over by the cache of the function that computes them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import streamlit as st
from streamlit.runtime import Runtime, get_instance

PATIENCE = 0.15
"""Seconds for which a page waits, so that what is quick or cached is shown at once."""
_SECONDS = 0.5
"""Time between two looks at what is not finished."""
_POOL = ThreadPoolExecutor(2, "background")


@dataclass(frozen=True)
class _Work:
    future: Future[Any]
    began: float = field(default_factory=time.monotonic)


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
            work = _works[name] = _Work(_POOL.submit(compute))
    # Without a server, as in Streamlit's own tests of apps, nobody would call the page again.
    has_server = type(get_instance()) is Runtime
    wait([work.future], PATIENCE if has_server else None)
    if work.future.done():
        with _lock:
            if _works.get(name) is work:
                del _works[name]
        return True
    st.fragment(_waiting, run_every=_SECONDS, key=f"background {name}")(work)
    return False


def _waiting(work: _Work) -> None:
    if work.future.done():
        st.rerun()
    seconds = time.monotonic() - work.began
    st.markdown(f":material/hourglass_top: Computing … {seconds:.0f} s")
