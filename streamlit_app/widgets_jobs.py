"""Starting, watching and cancelling the job of the server, which all visitors share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st
from widgets import literal

from attnscope.dashboard import jobs
from attnscope.dashboard.access import actions_allowed
from attnscope.dashboard.jobs import Job
from attnscope.errors import InputError

_SECONDS = 2
"""Time between two looks at a job that runs."""


def start_button(
    label: str,
    title: str,
    arguments: Sequence[object],
    folder: Path,
    *,
    module: str = "attnscope",
    help: str | None = None,
    kind: str = "secondary",
) -> None:
    """Show a button that starts a job. It is disabled, with the reason, where that cannot be.

    Args:
        label: text of the button. It must be unique on the page.
        title: what the job does, which `job_panel` shows.
        arguments: words after ``attnscope``, or after ``python -m MODULE``.
        folder: the run or recording that the job works on. It must lie in the dashboard's folder.
        module: what Python runs.
        help: a tooltip.
        kind: ``primary`` for the main action of a page.
    """
    reason = _why_not()
    pressed = st.button(
        label, key=f"start {label}", icon=":material/play_arrow:", disabled=bool(reason),
        help=reason or help, type="primary" if kind == "primary" else "secondary",
    )  # fmt: skip
    if reason:
        st.caption(reason)
    if pressed and not reason:  # a visitor can send the click of a button that is disabled
        try:
            jobs.start(title, [str(word) for word in arguments], folder, module=module)
        except InputError as error:  # another visitor was faster
            st.error(literal(str(error)))
        else:
            st.rerun()


def job_panel(*, compact: bool = False) -> None:
    """Show the job that runs, with its progress and a button that cancels it, or how it ended.

    It is refreshed every two seconds while the job runs; then the page is drawn once more.

    Args:
        compact: whether to show title and progress of a running job only, as in the sidebar.
    """
    job = jobs.latest()
    if job is None:
        return
    if job.state == "running":
        st.fragment(_running, run_every=_SECONDS, key=f"job {job.number} {compact}")(job, compact)
    elif not compact and st.session_state.get("read_job") != job.number:
        _ended(job)


def _running(job: Job, compact: bool) -> None:
    if job.state != "running":
        st.rerun()
    done, total = job.progress or (0, 0)
    share = min(done / total, 1.0) if total else 0.0
    counted = f": {done:,} of {total:,}" if total and total != 100 else ""
    counted = counted or (f": {share:.0%}" if total else " …")
    with st.container(border=True):
        st.progress(share, text=f"{literal(job.title)}{counted}")
        if compact:
            return
        if job.line:
            st.caption(literal(job.line))
        if job.is_ending:
            st.caption("The job was canceled. It stops after it has saved its finished work.")
        elif actions_allowed():
            st.button(
                "Cancel", key=f"cancel {job.number}", icon=":material/stop:", on_click=job.cancel
            )


def _ended(job: Job) -> None:
    """Say how a job ended, until the visitor has read it."""
    left, right = st.columns([8, 1], vertical_alignment="center")
    with left:
        if job.state == "done":
            st.success(f"{literal(job.title)} is finished.", icon=":material/check:")
        elif job.state == "cancelled":
            st.info(
                f"{literal(job.title)} was canceled. Finished work is kept, and the same button "
                "continues from there."
            )
        else:
            st.error(f"{literal(job.title)} failed: {literal(job.line or 'it said nothing')}")
    right.button(
        "Close", key=f"close {job.number}", on_click=_read, args=(job.number,), width="stretch"
    )


def _read(number: int) -> None:
    st.session_state["read_job"] = number


def _why_not() -> str:
    """Return why no job can be started now; empty if one can."""
    if not actions_allowed():
        return (
            "This dashboard only shows what is there. Start it with --allow-actions to start work "
            "from here, or run the command in a terminal."
        )
    busy = jobs.current()
    if busy is not None:
        return f"{literal(busy.title)} is running: one job runs at a time."
    return ""
