"""The gate lab: change a gate of one image, and see what the network then predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import addressed
import downloads
import numpy as np
import pandas as pd
import streamlit as st
from cached import Run, live
from image_charts import EDITED, OWN, paired_bars, probability_figure
from image_parts import TOP, limits_of, network_allowed, softmax
from numpy.typing import NDArray
from widgets import row_of_controls, section

from attnscope.kinds import HAS_NEUTRAL, PER_CHANNEL
from attnscope.plots.text import with_minus

if TYPE_CHECKING:
    from attnscope.live import GateEdit

SLIDERS = 12
NEUTRAL, MEAN = "its neutral value", "its mean"
OTHER, CHANNELS = "that of another image", "single channels"


@section
def gate_lab(run: Run, row: int) -> None:
    """Show the controls, and the probabilities before and after the edit.

    Args:
        run: the recording.
        row: the image.
    """
    recording = run.recording
    if not recording.gates or not recording.has_scores:
        st.info("This needs gates and class scores.")
        return
    if not network_allowed():
        return
    if not addressed.toggle(
        st, "Open the network", "lab",
        help="Loads the network that was recorded, which takes a few seconds once. A network of "
        "your own code runs that code, as it did for the capture.",
    ):  # fmt: skip
        return
    names = [gate.name for gate in recording.gates]
    place = row_of_controls()
    gate = addressed.named_selectbox(
        place, "Gate to change", names, "lab_gate", "gate", scope=run.key, width=300
    )
    if gate is None:
        return
    info = recording.info(gate)
    edits = {
        **({NEUTRAL: "neutral"} if info.has(HAS_NEUTRAL) else {}),
        MEAN: "mean",
        OTHER: "other",
        # A view is a mean, and a mean cannot be set.
        **({CHANNELS: "channels"} if info.has(PER_CHANNEL) else {}),
    }
    neutral = ""
    if info.has(HAS_NEUTRAL):  # 0 for a gate that acts as x + x * g
        neutral = f"The neutral value, {info.neutral:g}, leaves the features as they are. "
    chosen = addressed.segmented_control(
        place, "Set it to", list(edits), "lab_edit", default=MEAN,
        help=f"{neutral}The mean is that over all recorded images.",
    )  # fmt: skip
    before = live.scores(run, row, None, None)  # says in one line if the network is not found
    edit = _edit(run, row, gate, chosen)
    if edit is None:
        return
    _compare(run, row, before, live.scores(run, row, gate, edit), gate)


def _edit(run: Run, row: int, gate: str, chosen: str) -> GateEdit | None:
    """Show the controls of one kind of edit, and return the edit."""
    from attnscope.live import Channels, Mean, Neutral, OfImage

    recording = run.recording
    if chosen == NEUTRAL:
        return Neutral()
    if chosen == MEAN:
        return Mean()
    if chosen == OTHER:
        number = addressed.number_input(
            st, "Number of the other image", len(recording), "lab_image", "image",
            scope=run.key,
        )  # fmt: skip
        return None if number is None else OfImage(number)
    own = recording.gate(gate, slice(row, row + 1))[0]
    far = np.argsort(-np.abs(own - live.gate_space(run, gate).mean), kind="stable")
    picked = st.multiselect(
        f"Channels (up to {SLIDERS})", range(len(own)), [int(c) for c in far[:4]],
        max_selections=SLIDERS, key=f"lab_channels {run.key} {gate} {row}",
        help="At first those in which this image differs most from the mean of all images.",
    )  # fmt: skip
    if not picked:
        st.info("Select at least one channel.")
        return None
    low, high = limits_of(run, gate)
    values = {}
    cells = st.columns(4)
    for place, channel in enumerate(picked):
        start = float(np.clip(own[channel], low, high))
        values[int(channel)] = cells[place % 4].slider(
            f"Channel {channel} (own value {start:.3f})", float(low), float(high), start,
            step=(high - low) / 200, key=f"lab {run.key} {gate} {row} {channel}",
        )  # fmt: skip
    changed = {c: v for c, v in values.items() if abs(v - float(own[c])) > (high - low) / 400}
    if not changed:
        st.caption("Drag a slider to change a channel.")
    return Channels(changed)


def _compare(
    run: Run, row: int, before: NDArray[np.float32], after: NDArray[np.float32], gate: str
) -> None:
    classes = run.recording.classes
    first, second = softmax(before), softmax(after)
    order = np.argsort(-np.maximum(first, second), kind="stable")[:TOP]
    table = pd.concat(
        [
            pd.DataFrame(
                {
                    "class": [classes[k] for k in order],
                    "state": state,
                    "probability": shares[order],
                    "logit": logits[order].astype(np.float64),
                }
            )
            for state, shares, logits in ((OWN, first, before), (EDITED, second, after))
        ]
    )
    st.altair_chart(paired_bars(table), alt="Probabilities before and after the edit")
    old, new = int(before.argmax()), int(after.argmax())
    change = with_minus(f"{float(after[old] - before[old]):+.3f}")
    largest = with_minus(f"{float(np.abs(after - before).max()):.3f}")
    verdict = (
        f"The prediction stays {classes[old]}"
        if old == new
        else f"The prediction changes from {classes[old]} to {classes[new]}"
    )
    st.text(
        f"{verdict}. Its logit changes by {change}, and the largest change of a logit is {largest}."
    )
    downloads.offer(
        f"image {row} gate lab",
        draw=lambda: probability_figure(table),
        table=lambda: table.assign(gate=gate),
    )
