"""Whether the class can be decoded from the gates, and whether the network uses them."""

from __future__ import annotations

from functools import partial
from typing import Any

import cached
import pandas as pd
import streamlit as st
from cached import Intervened
from widgets import chosen_run, literal, section, show_plot, table_height

from attnscope.plots import Plot, Unavailable, plots_for, subjects
from attnscope.report.advice import intervene_command

_OTHER_TABLES = {
    "constants": "Constants: the best one of each gate, chosen on images that are not scored",
    "ablation": "Ablation: channels replaced by their mean, compared with random channels",
    "erasing_areas": "Deletion and insertion: pixels erased or restored in the order of a map",
    "randomization": "Randomization: parameters reinitialized, compared with other seeds",
}


@section
def _plot(intervened: Intervened, plot: Plot[Any, Any]) -> None:
    show_plot(plot, partial(cached.usage_plot, intervened))


@section
def _verdicts(intervened: Intervened) -> None:
    try:
        usage = cached.gate_usage(intervened)
    except Unavailable:
        return  # the plot above shows the reason
    st.subheader("Verdict per gate")
    st.caption(
        "Probe accuracy: balanced accuracy of a linear probe that predicts the class from the "
        "gate; chance: the same with permuted labels. Removal: accuracy with the image's own gate "
        "minus accuracy with the best constant, in percentage points, and the same for the margin "
        "(logits). Resample: the same for the gate of any other image. Misinformation: accuracy "
        "with the gate of another image of the same class minus accuracy with that of another "
        "class; matched: with donors of equal brightness and contrast. A gate is called used only "
        "if removal costs. The intervals in parentheses are 95% CIs. "
        f"The standard deviation of the margins is {usage['margin_std'].max():.3g}. If no use is "
        "detected, a loss of the points in the column Detectable would have been seen with a power "
        "of 80%."
    )
    effects = {
        title: [_effect(row, columns, unit) for _, row in usage.iterrows()]
        for title, unit, columns in (
            ("Removal (points)", 100, ("removal_value", "removal_low", "removal_high")),
            (
                "Removal (margin)",
                1,
                ("removal_margin", "removal_margin_low", "removal_margin_high"),
            ),
            ("Resample (points)", 100, ("resample_value", "resample_low", "resample_high")),
            (
                "Misinformation (points)",
                100,
                ("misinformation_value", "misinformation_low", "misinformation_high"),
            ),
            ("Matched (points)", 100, ("matched_value", "matched_low", "matched_high")),
            ("Oracle (points)", 100, ("oracle_value", "oracle_low", "oracle_high")),
        )
        if usage[columns[0]].notna().any()
    }
    st.dataframe(
        pd.DataFrame(
            {
                "Gate": usage["gate"],
                "Verdict": usage["verdict"],
                "Probe accuracy": 100 * usage["balanced_accuracy"],
                "Chance": 100 * usage["chance"],
                **effects,
                "Detectable": 100 * usage["detectable"],
            }
        ),
        hide_index=True,
        column_config={
            name: st.column_config.NumberColumn(format="%.1f%%")
            for name in ("Probe accuracy", "Chance", "Detectable")
        },
        height=table_height(len(usage), 18),
    )


def _effect(row: pd.Series, columns: tuple[str, str, str], unit: float) -> str:
    """Write a value with its interval, or that it was not measured."""
    value, low, high = (unit * float(row[column]) for column in columns)
    if value != value:
        return "not measured"
    interval = f" ({low:+.2f} to {high:+.2f})" if low == low else " (no interval)"
    return f"{value:+.2f}{interval}".replace("-", "\N{MINUS SIGN}")


@section
def _other_tables(intervened: Intervened) -> None:
    for name, title in _OTHER_TABLES.items():
        if name in intervened.outcomes.tables:
            with st.expander(title):
                st.dataframe(intervened.outcomes.table(name), hide_index=True)


run = chosen_run()
st.title("Decodable and used")
st.markdown(
    f"{literal(run.label)}: how well the class can be decoded from each gate, and how much "
    "accuracy the network loses when the gate is replaced."
)
if not run.recording.gates:
    st.info("This network has no gates.")
    st.stop()
if not run.recording.has_accuracy:
    st.info(f"Interventions measure the accuracy, and there are {run.recording.no_accuracy}.")
    st.stop()
intervened = cached.interventions(run)
if intervened is None:
    command = intervene_command(run.recording)
    how = "the command below" if command else "attnscope.interventions in Python"
    st.info(
        "There are no interventions on this recording, or the recording has changed since. "
        f"Interventions run the network again and take minutes. Run them with {how}, then reload "
        "this page."
    )
    if command:
        st.code(command, language="sh")
    st.stop()
for plot in plots_for(subjects.Intervened(run.recording, intervened.outcomes)):
    _plot(intervened, plot)
_verdicts(intervened)
_other_tables(intervened)
