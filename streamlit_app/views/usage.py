"""What the gates could tell about the class, beside what the network uses of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import cached
import pandas as pd
import streamlit as st
from cached import Intervened
from widgets import chosen_run, literal, part, show_plot, table_height

from attnscope.plots import Plot, Unavailable, plots_of, subjects
from attnscope.report.advice import intervene_command

_FURTHER = {
    "ablation": "Some channels as their mean, against random ones",
    "erasing_areas": "Deletion and insertion of pixels, in the order of a map",
    "randomization": "Parameters drawn anew, against other seeds",
}


@part
def _plot(made: Intervened, plot: Plot[Any, Any]) -> None:
    show_plot(plot, partial(cached.usage_plot, made))


@part
def _verdicts(made: Intervened) -> None:
    try:
        usage = cached.gate_usage(made)
    except Unavailable:
        return  # the figure above has said why
    st.subheader("Verdict on each gate")
    st.caption(
        "Balanced accuracy of a linear probe of the gate, and under permuted labels; then, with "
        "95 % intervals, what the class is worth in the gate (another image of the same class "
        "against one of another class), in points of accuracy and in the margin (logits), and the "
        "image's own gate against the mean, in points. No use seen is not no use: the intervals "
        f"say how large it may still be. The margins' standard deviation is "
        f"{usage['margin_std'].max():.3g}."
    )
    worth = {
        title: [
            f"{unit * row[value]:+.2f} ({unit * row[low]:+.2f} to {unit * row[high]:+.2f})".replace(
                "-", "\N{MINUS SIGN}"
            )
            for _, row in usage.iterrows()
        ]
        for title, unit, value, low, high in (
            ("Class, points", 100, "class_value", "class_low", "class_high"),
            ("Class, margin", 1, "class_margin", "class_margin_low", "class_margin_high"),
            ("Own gate, points", 100, "dynamic_value", "dynamic_low", "dynamic_high"),
        )
    }
    st.dataframe(
        pd.DataFrame(
            {
                "Gate": usage["gate"],
                "Verdict": usage["verdict"],
                "Read from it": 100 * usage["balanced_accuracy"],
                "By chance": 100 * usage["chance"],
                **worth,
            }
        ),
        hide_index=True,
        column_config={
            name: st.column_config.NumberColumn(format="%.1f %%")
            for name in ("Read from it", "By chance")
        },
        height=table_height(len(usage), 18),
    )


@part
def _further(made: Intervened) -> None:
    for name, title in _FURTHER.items():
        if name in made.outcomes.tables:
            with st.expander(title):
                st.dataframe(made.outcomes.table(name), hide_index=True)


run = chosen_run()
st.title("Decodable and used")
st.markdown(
    f"{literal(run.label)}: what each gate could tell about the class, and what the network loses "
    "when the gate is another one."
)
if not run.recording.gates:
    st.info("This network has no gate.")
    st.stop()
made = cached.interventions(run)
if made is None:
    command = intervene_command(run.recording)
    how = "the command below" if command else "attnscope.interventions, from Python"
    st.info(
        "There are no interventions on this recording as it is now in the folder that is served. "
        "They run the network again, "
        f"which takes minutes; make them with {how}, and come back."
    )
    if command:
        st.code(command, language="sh")
    st.stop()
for plot in plots_of(subjects.Intervened):
    _plot(made, plot)
_verdicts(made)
_further(made)
