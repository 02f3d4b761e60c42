"""Parts that the page of all channels and the card of one channel share."""

from __future__ import annotations

import downloads
import pandas as pd
import streamlit as st
from cached import Run
from cached import channels as cached_channels
from channel_charts import intervals, intervals_figure
from widgets import page_of

ROWS = 40
"""Most classes in a chart of intervals, so that their rows do not overlap."""
HIGHEST, BY_NUMBER, BY_NAME = "Largest and smallest", "By number", "By mean"
PROFILE_HELP = (
    "The mean of the channel's gate over the images of each class. The line is its 95% confidence "
    "interval; classes of fewer than ten images have none. See docs/reference/metrics.md."
)


def class_intervals(run: Run, gate: str, channel: int, key: str) -> None:
    """Show the mean gate of each class with its interval; of many classes a part, and say which.

    Args:
        run: the recording.
        gate: name of the gate.
        channel: number of the channel.
        key: start of the keys of the controls.
    """
    profile = cached_channels.profile(run, gate, channel)
    many = len(profile) > ROWS
    orders = [*([HIGHEST] if many else []), BY_NUMBER, BY_NAME]
    order = st.segmented_control(
        "Classes", orders, default=orders[0], required=True, key=f"{key} order", help=PROFILE_HELP
    )
    ranked = profile.sort_values("mean", ascending=False, kind="stable", na_position="last")
    if order == HIGHEST:
        known = ranked[ranked["mean"].notna()]
        half = ROWS // 2
        shown = pd.concat([known.iloc[:half], known.iloc[half:].iloc[-half:]])
        st.caption(
            f"The {half} classes with the largest means, then the {half} with the smallest, of "
            f"{len(profile):,} classes."
        )
    else:
        whole = profile if order == BY_NUMBER else ranked
        shown = whole.iloc[page_of(range(len(whole)), f"{key} page {order}", ROWS)]
        if many:
            st.caption(f"{len(shown)} of {len(profile):,} classes.")
    title = f"gate of channel {channel}"
    st.altair_chart(
        intervals(shown, title),
        key=f"{key} intervals",
        alt=f"Mean gate of channel {channel} for {len(shown)} classes",
    )
    downloads.offer(
        f"{key} {gate} channel {channel} classes",
        draw=lambda: intervals_figure(shown, title),
        table=lambda: profile,
    )
