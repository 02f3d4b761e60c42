"""The card of one channel: when it opens, on what, and what the network does without it."""

from __future__ import annotations

from functools import partial

import addressed
import downloads
import numpy as np
import streamlit as st
from cached import Run, live, pictures
from cached import channels as cached_channels
from channel_charts import changes, changes_figure, histogram, histograms_figure
from channel_parts import PROFILE_HELP, class_intervals
from widgets import (
    breakable,
    chosen_run,
    command_for_folder_of,
    literal,
    row_of_controls,
    section,
    show_picture,
)
from widgets import table_height as height_of

from attnscope.dashboard.access import actions_allowed
from attnscope.dashboard.channel_removal import IMAGES, remove_channel
from attnscope.data.label_kinds import CLASS
from attnscope.kinds import PER_CHANNEL
from attnscope.plots.text import as_interval, as_points
from attnscope.plots.theme import class_colors
from attnscope.statistics.removal import Removal

CLASSES = 6  # most classes whose histograms are shown at a time
PER_ROW = 6
COUNTS = (6, 12, 24)
CHANGED = 20  # most classes whose change is drawn; all are in the table
ENDS = {"high": "Images that open the channel most", "low": "Images that close it most"}
run = chosen_run()
recording = run.recording
gates = [gate.name for gate in recording.gates_with(PER_CHANNEL)]
has_labels = recording.label_kind == CLASS


@section
def _distribution(run: Run, gate: str, channel: int) -> None:
    names = recording.classes
    chosen: list[int] | None = None
    if has_labels:
        profile = cached_channels.profile(run, gate, channel)
        ranked = profile[profile["mean"].notna()].sort_values("mean", kind="stable")["number"]
        some = ranked.iloc[np.unique(np.linspace(0, len(ranked) - 1, 3).round().astype(int))]
        chosen = st.multiselect(
            f"Classes (up to {CLASSES})", range(len(names)), [int(k) for k in some[::-1]],
            max_selections=CLASSES, format_func=names.__getitem__,
            key=f"histogram {run.key} {gate} {channel}",
            help="At first the classes with the largest, the median and the smallest mean.",
        )  # fmt: skip
        if not chosen:
            st.info("Select at least one class.")
            return
    counts = cached_channels.histogram(run, gate, channel, chosen)
    known = list(dict.fromkeys(counts["class"]))
    top = float(counts["share"].max()) or 1.0
    for place, (name, color) in enumerate(zip(known, class_colors(len(known)), strict=True)):
        st.text(name)
        st.altair_chart(
            histogram(counts, name, top, color, is_last=place == len(known) - 1),
            alt=f"Histogram of the gate of channel {channel}: {name}",
        )
    downloads.offer(
        f"{gate} channel {channel} histogram",
        draw=lambda: histograms_figure(counts),
        table=lambda: counts,
    )


@section
def _images(run: Run, gate: str, channel: int) -> None:
    place = row_of_controls()
    count = addressed.segmented_control(place, "Images at each end", COUNTS, "ends")
    with_maps = addressed.toggle(
        place, "Show the channel's features before and after the gate (runs the network)",
        "features",
        help="The feature map of this channel for each image, as it enters the gate and as it "
        "leaves it, at its own resolution. All maps on the page share one scale.",
    )  # fmt: skip
    table = cached_channels.extremes(run, gate, channel, count)
    rows = [int(row) for row in table["image"]]
    maps = live.channel_maps(run, gate, channel, rows) if with_maps else None
    st.caption(
        "Below each image: its gate, and its true class → predicted class."
        if has_labels and recording.has_scores
        else "Below each image: its gate, and its class as far as it is known."
    )
    if maps is not None:
        low, high = float(min(m.min() for m in maps)), float(max(m.max() for m in maps))
        st.caption(
            "Below that: the features of the channel before the gate (left) and after it (right), "
            f"from {low:.3g} (dark) to {high:.3g} (bright)."
        )
    for end, title in ENDS.items():
        here = np.flatnonzero(table["end"] == end)
        st.markdown(f"**{title}**")
        for start in range(0, len(here), PER_ROW):
            some = here[start : start + PER_ROW]
            for place, cell in zip(some, st.columns(PER_ROW), strict=False):
                with cell.container(border=True):
                    row = rows[place]
                    _image(row, float(table["value"].iloc[place]))
                    if maps is not None:
                        for side, values in zip(st.columns(2, gap="xxsmall"), maps, strict=True):
                            with side:
                                show_picture(cached_channels.map_png(run, values[place], low, high))


def _image(row: int, value: float) -> None:
    """Show one image with its gate, its classes, and a link."""
    show_picture(pictures.image(run, row, pictures.NO_OVERLAY, 0.0, 1.0))
    classes = []
    if has_labels:
        classes.append(recording.classes[recording.labels[row]])
    if recording.has_scores:
        classes.append(recording.classes[recording.predictions[row]])
    st.text(f"gate {value:.4f}\n{breakable(' → '.join(classes))}")
    st.page_link(
        "views/image.py", label=f"Image {row}", query_params={"run": run.label, "image": str(row)}
    )


@section
def _removal(run: Run, gate: str, channel: int) -> None:
    if not recording.has_accuracy:
        st.info(f"The recording has {recording.no_accuracy}, so that no accuracy can be measured.")
        return
    if not cached_channels.can_keep(run):
        st.info(
            "The result would be kept beside the recording, which is outside of the dashboard's "
            f"folder. Start the dashboard with: {command_for_folder_of(recording)}"
        )
        return
    known = cached_channels.removal(run, gate, channel)
    if known is not None:
        _show_removal(known)
        return
    allowed = actions_allowed()
    place = st.empty()
    pressed = place.button(
        "Set the channel to its mean", key="remove", disabled=not allowed,
        help=f"The network runs twice on about {IMAGES} images. The result is kept beside the "
        "recording, which does not change."
        if allowed
        else "Visitors of this dashboard may only look. Start it with --allow-actions.",
    )  # fmt: skip
    if pressed and allowed:  # a visitor can send the click of a button that is disabled
        with st.spinner(f"The network runs on {IMAGES} images", show_time=True):
            known = remove_channel(live.network(run), gate, channel)
        place.empty()
        _show_removal(known)


def _show_removal(known: Removal) -> None:
    left, middle, right = st.columns(3)
    left.metric(
        "Change in accuracy (points)", as_points(known.change), border=True,
        help=f"On {known.images} images, from {100 * known.accuracy:.1f}%: 95% CI "
        f"{as_interval(known.low, known.high, as_points)} (Bonett and Price).",
    )  # fmt: skip
    middle.metric(
        "95% confidence interval", as_interval(known.low, known.high, as_points), border=True,
        help="In percentage points. Of a hundred such intervals, five on average do not contain "
        "the change for all images of this kind.",
    )  # fmt: skip
    right.metric(
        "Predictions that change", f"{known.changed} of {known.images}", border=True,
        help="Images whose predicted class is another one if the channel is at its mean.",
    )  # fmt: skip
    names = np.array(recording.classes, object)
    table = known.classes.assign(**{"class": names[known.classes["class"].to_numpy()]})
    size = np.abs(table["probability"].fillna(0).to_numpy(float))
    table = table.iloc[np.argsort(-size, kind="stable")]
    drawn = table[table["images"] > 0].iloc[:CHANGED]
    chart, numbers = st.columns(2, gap="large")
    with chart:
        if len(drawn) < len(table):
            st.caption(f"The {len(drawn)} classes that change most, of {len(table):,}.")
        st.altair_chart(changes(drawn), alt="Change in the probability of each class")
        downloads.offer(
            "channel at its mean", draw=partial(changes_figure, drawn), table=lambda: table
        )
    with numbers:
        st.dataframe(
            table.assign(
                probability=100 * table["probability"].astype(float),
                elsewhere=100 * table["elsewhere"].astype(float),
            ),
            hide_index=True,
            height=height_of(len(table), 14),
            column_config={
                "class": "Class",
                "images": "Images",
                "before": st.column_config.NumberColumn(
                    "Right before", help="Images of the class that are predicted correctly."
                ),
                "after": st.column_config.NumberColumn(
                    "Right after", help="The same with the channel at its mean."
                ),
                "probability": st.column_config.NumberColumn(
                    "Own images (points)", format="%+.2f",
                    help="Mean change in the probability of the class on images of the class.",
                ),
                "elsewhere": st.column_config.NumberColumn(
                    "Other images (points)", format="%+.2f",
                    help="Mean change in the probability of the class on images of all others.",
                ),
            },
        )  # fmt: skip


st.title("Channel card")
if not gates:
    st.info("This network has no gates with channels.")
    st.stop()
left, right = st.columns([3, 1])
gate = addressed.named_selectbox(left, "Gate", gates, "gate", "gate", scope=run.key)
if gate is None:
    st.stop()
count = cached_channels.channel_count(recording, gate)
channel = addressed.number_input(
    right, f"Channel (0 to {count - 1})", count, "channel", "channel",
    scope=f"{run.key} {gate}", placeholder="Choose one",
)  # fmt: skip
if channel is None:
    st.stop()
st.markdown(
    f"Channel {channel} of {literal(gate)} in {literal(run.label)}: one number for each image, by "
    "which the features of this channel are multiplied."
)
st.page_link(
    "views/channels.py", label="All channels of this gate", icon=":material/view_column:",
    query_params={"run": run.label, "gate": gate},
)  # fmt: skip
one, two = st.columns(2, gap="large")
with one:
    st.subheader(
        "Distribution of the gate",
        help="How many images of a class have a gate of which size. All histograms have the same "
        "bins and axes.",
    )
    _distribution(run, gate, channel)
with two:
    st.subheader("Mean of each class", help=PROFILE_HELP)
    if has_labels:
        section(class_intervals)(run, gate, channel, "card")
    else:
        st.info("The recording has no class labels.")
st.subheader("Images at both ends", help="The images with the largest and the smallest gates.")
_images(run, gate, channel)
st.subheader(
    "Without the channel",
    help="The gate of this channel is set to its mean over other images, so that it no longer "
    "depends on the image. What the network predicts then shows whether it uses this dependence.",
)
_removal(run, gate, channel)
