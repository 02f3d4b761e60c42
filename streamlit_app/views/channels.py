"""Channel gates per class."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlencode

import addressed
import background
import cached
import downloads
import numpy as np
import pandas as pd
import streamlit as st
from cached import Run
from cached import channels as cached_channels
from channel_charts import BRUSH, heat_figure, heat_map
from channel_parts import class_intervals
from widgets import (
    chosen_run,
    in_percent,
    literal,
    page_of,
    percent,
    row_of_controls,
    section,
    show_picture,
    show_plot,
)
from widgets import table_height as height_of

from attnscope.kinds import PER_CHANNEL, Gate
from attnscope.plots import needs, plots_of
from attnscope.plots.views import view_about
from attnscope.recording.recording import Recording

CELLS = 6_000  # most cells of the heat map that can be clicked; more make a browser slow
CLASSES = 50  # most classes in it: more rows than fit on a screen cannot be compared
CHANNELS = 128  # most channels in it: narrower columns cannot be clicked
TABLE = 20_000  # most rows of the table of all classes and channels that are sent to the browser
TESTED = 2**20  # number of values of a gate up to which its channels are tested at once
NUMBERS = {
    name: st.column_config.NumberColumn(label, format="%.4f")
    for name, label in (
        ("mean", "Mean"), ("std", "SD"), ("low", "95% CI, low"), ("high", "95% CI, high"),
    )
}  # fmt: skip
run = chosen_run()
with_channels = run.recording.gates_with(PER_CHANNEL)
gates = [gate.name for gate in with_channels]


def _card(gate: str, channel: int) -> dict[str, str]:
    return {"run": run.label, "gate": gate, "channel": str(channel)}


@section
def _heat_map(run: Run, gate: str) -> None:
    names = run.recording.classes
    channels = cached_channels.channel_count(run.recording, gate)
    many, wide = len(names) > CLASSES, channels > CHANNELS
    place = row_of_controls()
    kinds = (cached_channels.DIFFERENCES, cached_channels.MEANS)
    what = addressed.segmented_control(
        place, "Show", kinds, "heat",
        help="Mean gate: the mean over the images of a class. Difference between classes: the same "
        "minus the channel's mean over all classes, because channels differ much more from each "
        "other than classes do.",
    )  # fmt: skip
    orders = cached_channels.CHANNEL_ORDERS
    by_channel = addressed.selectbox(
        place, "Channels", orders, "by_channel", default=orders[1 if wide else 0], width=220,
        help="Omega squared is the share of a channel's variance that is between classes. "
        "By similarity: channels with similar class means are neighbors (hierarchical "
        "clustering). See docs/reference/metrics.md.",
    )  # fmt: skip
    orders = cached_channels.CLASS_ORDERS
    by_class = addressed.selectbox(
        place, "Classes", orders, "by_class", default=orders[2 if many else 0], width=220,
        help="By similarity: classes with similar gates are neighbors (hierarchical "
        "clustering). Most different first: by the distance of a class from the mean of all "
        "classes.",
    )  # fmt: skip
    wanted = addressed.text_input(
        place, "Find classes", "find", placeholder="Part of a name", width=220,
        help="Show only classes whose names contain this text.",
    )  # fmt: skip
    order = cached_channels.class_order(run, gate, by_class)
    found = [k for k in order if wanted.casefold() in names[k].casefold()]
    if not found:
        st.info(f"No class has {literal(wanted)} in its name. Change the text to find classes.")
        return
    pages_left, pages_right = st.columns(2)
    with pages_left:
        rows = page_of(found, f"classes {run.key} {wanted} {by_class}", CLASSES)
    width = min(CHANNELS, max(1, CELLS // len(rows)))
    with pages_right:
        ranked = cached_channels.channel_order(run, gate, by_channel)
        columns = page_of(ranked, f"channels {run.key} {gate} {by_channel}", width)
    cells = cached_channels.cells(run, gate, rows, columns)
    scale = cached_channels.scale(run, gate, what)
    shown = [names[k] for k in rows]
    links = {c: f"channel?{urlencode(_card(gate, c))}" for c in columns}
    event = st.altair_chart(
        heat_map(cells, what, scale, shown, links),
        key=f"heat map {run.key} {gate} {what} {by_class} {by_channel} {rows[0]} {columns[0]}",
        on_select="rerun",
        alt=f"{what} of {len(rows)} classes and {len(columns)} channels",
    )
    part = "" if len(rows) == len(names) else f"{len(rows)} of {len(names):,} classes. "
    part += "" if len(columns) == channels else f"{len(columns)} of {channels:,} channels. "
    st.caption(
        f"{part}Click a cell to open the card of its channel. Drag over cells to compare these "
        "classes with all others. All classes and channels of the gate share the color scale."
    )
    downloads.offer(
        f"{gate} class means",
        draw=lambda: heat_figure(cells, what, scale, shown, columns),
        table=lambda: cells,
    )
    is_part = len(rows) < len(names) or len(columns) < channels
    if is_part and addressed.toggle(
        st, f"Show all {len(names):,} classes and {channels:,} channels as a picture", "whole"
    ):
        show_picture(cached_channels.heat_png(run, gate, what, by_class, by_channel))
        st.caption(
            f"Each row is a class and each column a channel, in the same orders as above, from "
            f"{scale.low:.3g} (blue or dark) to {scale.high:.3g} (red or bright). Neighbors are "
            "averaged where there are more than 1,600."
        )
    if brushed := event["selection"].get(BRUSH):
        _brushed(gate, brushed.get("class", shown), brushed.get("channel", columns))


def _brushed(gate: str, classes: list[str], channels: list[str] | list[int]) -> None:
    """Compare the classes that the visitor dragged over with all others."""
    names = run.recording.classes
    numbers = [k for k, name in enumerate(names) if name in set(classes)]
    table = cached_channels.contrast(run, gate, numbers, [int(c) for c in channels])
    st.subheader("Selected classes against all others", anchor=False)
    st.text(f"{len(numbers)} classes: {', '.join(names[k] for k in numbers[:20])}")
    st.dataframe(
        table,
        hide_index=True,
        height=height_of(len(table), 8),
        column_config={
            "channel": "Channel",
            "inside": st.column_config.NumberColumn("Mean, selected", format="%.4f"),
            "outside": st.column_config.NumberColumn("Mean, all others", format="%.4f"),
            "difference": st.column_config.NumberColumn(
                "Difference", format="%+.4f",
                help="Selected minus all others. Every class has the same weight. Nothing is "
                "tested: the classes were selected because they differ.",
            ),
        },
    )  # fmt: skip
    best = int(table["channel"].iloc[0])
    st.page_link(
        "views/channel.py", label=f"Open the card of channel {best}", icon=":material/open_in_new:",
        query_params=_card(gate, best),
    )  # fmt: skip


def _effects(run: Run, gate: str) -> pd.DataFrame:
    """Return the effect of the class on each channel, tested at once if that is quick."""
    recording = run.recording
    size = len(recording) * cached_channels.channel_count(recording, gate)
    tested = size <= TESTED or st.toggle(
        "Test the channels (takes a while for a recording of this size)", key=f"test {gate}"
    )
    if tested and background.ready(
        f"test {run.key} {gate}", partial(cached.channel_effects, run, gate)
    ):
        return cached.channel_effects(run, gate)
    return cached_channels.effects(run, gate)


@section
def _one_channel(run: Run, gate: str) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Channels that differ between classes")
        st.caption(
            "Omega squared is the share of the variance of a channel that is between classes. "
            "Select a row to show the channel on the right."
        )
        effects = _effects(run, gate).sort_values("omega_squared", ascending=False)
        event = st.dataframe(
            effects,
            key=f"effects {run.key} {gate} {'p' in effects}",
            on_select="rerun",
            selection_mode="single-row-required",
            selection_default={"selection": {"rows": [0]}},
            hide_index=True,
            height=height_of(len(effects), 11),
            column_config={
                "channel": "Channel",
                "f": st.column_config.NumberColumn(
                    "F", format="%.2f",
                    help="Variance between classes divided by the variance within classes. It is "
                    "not tested: p is that of Welch's F.",
                ),
                "p": st.column_config.NumberColumn(
                    "p", format="%.2g",
                    help="Test for different class means by permutations of the labels (Welch's "
                    "F, which allows unlike spreads).",
                ),
                "p_max": st.column_config.NumberColumn(
                    "p (corrected)", format="%.2g",
                    help="Corrected over the channels of this gate: compared with the largest "
                    "Welch's F of any channel under each permutation.",
                ),
                "omega_squared": st.column_config.NumberColumn(
                    "Omega²", format="%.3f",
                    help="Share of the variance between classes: 0 without an effect, 1 if all "
                    "variance is between classes. See docs/reference/metrics.md.",
                ),
                "constant": st.column_config.CheckboxColumn(
                    "Constant", help="Whether the gate of the channel is the same for all images."
                ),
            },
            column_order=[
                name
                for name in ("channel", "omega_squared", "f", "p", "p_max", "constant")
                if name in effects
            ],
        )  # fmt: skip
        if "p" in effects and effects["p"].isna().all() and not effects["constant"].all():
            st.caption(
                "There is no p: classes of fewer than ten images are not tested, because their "
                "standard errors are not known well enough."
            )
    picked = event["selection"]["rows"] or [0]
    channel = int(effects["channel"].iloc[picked[0]])
    with right:
        st.subheader(f"Channel {channel}")
        st.page_link(
            "views/channel.py", label=f"Open the card of channel {channel}",
            icon=":material/open_in_new:", query_params=_card(gate, channel),
        )  # fmt: skip
        class_intervals(run, gate, channel, "one")
    _table(run, gate)


def _table(run: Run, gate: str) -> None:
    """Show the means of all channels and classes, or of as many channels as can be sent."""
    count, classes = cached_channels.channel_count(run.recording, gate), len(run.recording.classes)
    at_most = max(1, TABLE // classes)
    with addressed.expander(st, "Table of all channels and classes", "table") as part:
        if not part.open:
            return
        if count > at_most:
            first = int(
                st.number_input("First channel", 0, count - 1, 0, at_most, key=f"first {gate}")
            )
            st.caption(f"{min(at_most, count - first)} of {count:,} channels.")
        else:
            first = 0
        channels = list(range(first, min(first + at_most, count)))
        frame = cached_channels.cells(run, gate, list(range(classes)), channels)
        st.dataframe(
            frame.drop(columns="difference"),
            hide_index=True,
            column_config={
                "class": "Class",
                "channel": "Channel",
                "count": "Images",
                **NUMBERS,
            },
        )


def _states(info: Gate) -> None:
    """Show which share of the gate's values does not move."""
    shares = cached_channels.state(run, info.name)
    of_channels = info.has(PER_CHANNEL)
    texts = {
        "saturated_low": (
            "Saturated low",
            f"Share of values within 1% of the gate's range from the bound {info.lo:g}.",
        ),
        "saturated_high": (
            "Saturated high",
            f"Share of values within 1% of the gate's range from the bound {info.hi:g}.",
        ),
        "stuck": (
            "Stuck",
            "Share of values within 0.02 of the midpoint of the bounds "
            f"({info.midpoint:g}), where a sigmoid starts.",
        ),
        "constant": (
            "Constant channels" if of_channels else "Constant values",
            "Share of channels whose gate is the same for all images."
            if of_channels
            else "Share of the gate's values that are the same for all images.",
        ),
    }
    place = row_of_controls()
    for name, (label, text) in texts.items():
        share = "–" if np.isnan(shares[name]) else percent(float(shares[name]))
        place.metric(label, share, border=True, help=text, width=220)


st.title("Channel gates")
st.markdown(
    f"{literal(run.label)}: for each image, a channel gate multiplies every channel of the "
    "features by one number. This page shows how these numbers differ between classes."
    + (
        ""
        if all(gate.has(PER_CHANNEL) for gate in with_channels)
        else " Of gates that also vary over positions, the mean over positions is shown; branches "
        "and groups count as channels."
    )
)
if not run.recording.gates:
    st.info("This network has no gates.")
    st.stop()
if not gates:
    st.info("This network has no gates with channels. The gates that it has are averaged here.")
views = [*(["One gate"] if gates else []), "All gates"]
view = addressed.segmented_control(st, "View", views, "channel_view", label_visibility="collapsed")
if view == "All gates":
    shown = [
        show_plot(plot, partial(cached.plot, run))
        for plot in plots_of(Recording)
        if plot.asks(needs.GATES)
    ]
    if not all(shown):
        st.stop()
    profiles, state = cached.gate_profiles(run), cached.gate_state(run)
    st.subheader("State of each gate")
    columns = ("saturated_low", "saturated_high", "stuck", "constant")
    st.dataframe(
        in_percent(state, columns),
        hide_index=True,
        column_config={
            name: st.column_config.NumberColumn(
                name.replace("_", " ").capitalize(), format="%.2f%%"
            )
            for name in columns
        }
        | {"gate": "Gate", "kind": "Kind", "depth": "Depth"},
        height=height_of(len(state), 20),
    )
    st.subheader("Mean gate of each class")
    st.dataframe(
        profiles,
        hide_index=True,
        column_config={
            "gate": "Gate",
            "kind": "Kind",
            "depth": "Depth",
            "class": "Class",
            "count": "Images",
            **NUMBERS,
        },
    )
else:
    gate = addressed.named_selectbox(st, "Gate", gates, "gate", "gate", scope=run.key)
    if gate is None:
        st.stop()
    info = run.recording.info(gate)
    if about := view_about(info, PER_CHANNEL):
        st.caption(
            f"{info.kind.capitalize()} gate, shown by its {about}. The states count all its values."
        )
    _states(info)
    _heat_map(run, gate)
    _one_channel(run, gate)
