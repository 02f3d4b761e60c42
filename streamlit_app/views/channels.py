"""Channel gates per class."""

from __future__ import annotations

from functools import partial

import altair as alt
import cached
import streamlit as st
from cached import Run
from widgets import chosen_run, in_percent, literal, percent, section, show_plot, table_height

from attnscope.kinds import PER_CHANNEL
from attnscope.plots import needs, plots_of
from attnscope.plots.views import view_about
from attnscope.recording.recording import Recording

NUMBERS = {
    name: st.column_config.NumberColumn(label, format="%.4f")
    for name, label in (
        ("mean", "Mean"), ("std", "SD"), ("low", "95% CI, low"), ("high", "95% CI, high"),
    )
}  # fmt: skip
run = chosen_run()
with_channels = run.recording.gates_with(PER_CHANNEL)
gates = [gate.name for gate in with_channels]


@section
def _heat_map(run: Run, gate: str) -> None:
    by_effect = st.toggle(
        "Sort channels by omega squared",
        help="Show the channels first whose gates differ most between the classes.",
        key="by_effect",
    )
    st.image(cached.channels_png(run, gate, by_effect), width="stretch")


@section
def _one_channel(run: Run, gate: str) -> None:
    effects = cached.channel_effects(run, gate).sort_values("omega_squared", ascending=False)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Channels that differ between classes")
        st.caption(
            "Omega squared is the share of the variance of a channel that is between classes. "
            "Select a row to show the channel on the right."
        )
        event = st.dataframe(
            effects,
            key=f"effects {run.key} {gate}",
            on_select="rerun",
            selection_mode="single-row-required",
            selection_default={"selection": {"rows": [0]}},
            hide_index=True,
            height=table_height(len(effects), 11),
            column_config={
                "channel": "Channel",
                "f": st.column_config.NumberColumn("F", format="%.2f"),
                "p": st.column_config.NumberColumn(
                    "p", format="%.2g",
                    help="Test for different class means by permutations of the labels (Welch's "
                    "F, which allows unlike spreads).",
                ),
                "p_max": st.column_config.NumberColumn(
                    "p (corrected)", format="%.2g",
                    help="Corrected over the channels: compared with the largest F of any channel "
                    "under each permutation.",
                ),
                "omega_squared": st.column_config.NumberColumn("Omega²", format="%.3f"),
                "constant": st.column_config.CheckboxColumn("Constant"),
            },
            column_order=["channel", "omega_squared", "f", "p", "p_max", "constant"],
        )  # fmt: skip
    picked = event["selection"]["rows"] or [0]
    channel = int(effects["channel"].iloc[picked[0]])
    profiles = cached.class_profiles(run, gate)
    shown = profiles[profiles["channel"] == channel]
    with right:
        st.subheader(f"Channel {channel}")
        st.caption("Mean gate over the images of each class, with its 95% CI.")
        base = alt.Chart(shown).encode(
            alt.Y("class:N", sort=None, title=None, axis=alt.Axis(labelLimit=160)),
            tooltip=[
                "class:N",
                *(alt.Tooltip(f"{c}:Q", format=".4f") for c in ("mean", "low", "high")),
            ],
        )
        x = alt.X("low:Q", title="gate", scale=alt.Scale(zero=False))
        st.altair_chart(
            base.mark_rule(color="#1f5f99", strokeWidth=2).encode(x, alt.X2("high:Q"))
            + base.mark_circle(color="#1f5f99", size=70, opacity=1).encode(alt.X("mean:Q")),
            height=max(160, 30 * min(len(shown), 40)),
            alt=f"Mean gate of channel {channel} for each class",
        )
    with st.expander("Table of all channels and classes"):
        st.dataframe(
            profiles,
            hide_index=True,
            column_config={
                "class": "Class",
                "channel": "Channel",
                "count": "Images",
                **NUMBERS,
            },
        )


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
view = st.segmented_control(
    "View", views, default=views[0], required=True, key="channel_view",
    bind="query-params", label_visibility="collapsed",
)  # fmt: skip
if view == "All gates":
    for plot in plots_of(Recording):
        if plot.asks(needs.GATES):
            show_plot(plot, partial(cached.plot, run))
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
        height=table_height(len(state), 20),
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
    gate = st.selectbox("Gate", gates, key="gate", bind="query-params")
    shares = cached.gate_state(run).set_index("gate")
    info = run.recording.info(gate)
    if about := view_about(info, PER_CHANNEL):
        st.caption(
            f"{info.kind.capitalize()} gate, shown by its {about}. The states count all its values."
        )
    for column, (name, label, text) in zip(
        st.columns(4),
        (
            (
                "saturated_low",
                "Saturated low",
                f"Share of values within 1% of the gate's range from the bound {info.lo:g}.",
            ),
            (
                "saturated_high",
                "Saturated high",
                f"Share of values within 1% of the gate's range from the bound {info.hi:g}.",
            ),
            (
                "stuck",
                "Stuck",
                "Share of values within 0.02 of the midpoint of the bounds "
                f"({info.midpoint:g}), where a sigmoid starts.",
            ),
            (
                "constant",
                "Constant channels" if info.has(PER_CHANNEL) else "Constant values",
                "Share of channels whose gate is the same for all images."
                if info.has(PER_CHANNEL)
                else "Share of the gate's values that are the same for all images.",
            ),
        ),
        strict=True,
    ):
        column.metric(
            label, percent(float(shares.loc[[gate], name].iloc[0])), border=True, help=text
        )
    _heat_map(run, gate)
    _one_channel(run, gate)
