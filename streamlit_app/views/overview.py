"""Accuracy of the network, its gates, and the settings of the recording."""

from __future__ import annotations

from functools import partial
from typing import Any

import altair as alt
import cached
import downloads
import pandas as pd
import streamlit as st
from cached import standouts
from calibration_figure import draw_calibration
from widgets import (
    chosen_history,
    chosen_interventions,
    chosen_run,
    in_percent,
    literal,
    percent,
    section,
    show_plot,
    table_height,
)

from attnscope.dashboard import highlights
from attnscope.gate_history import GateHistory
from attnscope.layout import METRICS
from attnscope.plots import plots_of
from attnscope.plots.subjects import gate_counts
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from attnscope.statistics.predictions import CALIBRATION_MEASURES

run = chosen_run()
recording = run.recording


def _flat(about: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested settings: ``{"model": {"width": 16}}`` becomes ``{"model.width": "16"}``."""
    table: dict[str, str] = {}
    for name, value in about.items():
        if isinstance(value, dict):
            table |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            table[f"{prefix}{name}"] = "; ".join(str(item) for item in value) or "none"
        else:
            table[f"{prefix}{name}"] = str(value)
    return table


# Page -> what a link to it says; the column is narrow.
LINKS = {
    highlights.CHANNELS: "Gate",
    highlights.MAPS: "Maps",
    highlights.USAGE: "Interventions",
    highlights.CONFUSION: "Images",
}


@section
def _show_highlights() -> None:
    """Show what stands out, each sentence with a link to the page that shows more."""
    st.subheader(
        "What stands out",
        help="Sentences that follow from the numbers of this recording. The ranges are confidence "
        "intervals (CI), of 95% unless the sentence says otherwise: values that are compatible "
        "with these images. The most extreme gate, class or "
        "pair is partly so by chance, so that other images are likely to show less of it.",
    )
    intervened = chosen_interventions(run)
    found = standouts.of_gates(run, intervened) if recording.gates else []
    if recording.has_accuracy:
        found = [*found, *standouts.of_classes(run)]
    with st.container(border=True):
        for each in found:
            left, right = st.columns([6, 1], vertical_alignment="center")
            left.markdown(each.write(literal))
            right.page_link(
                f"views/{each.page}.py",
                label=LINKS[each.page],
                icon=":material/arrow_forward:",
                query_params={"run": run.label, **each.query},
            )
        if not found:
            st.markdown(
                "Nothing stands out: no gate with bounds is the same for all images, and no pair "
                "of classes is confused twice."
                if recording.gates and recording.has_accuracy
                else "Nothing stands out in the numbers of this recording."
            )
        if intervened is None and recording.gates and recording.has_accuracy:
            left, right = st.columns([6, 1], vertical_alignment="center")
            left.markdown("Whether the network needs its gates has not been measured yet.")
            right.page_link(
                "views/usage.py",
                label="Measure it",
                icon=":material/arrow_forward:",
                query_params={"run": run.label},
            )


@section
def _show_accuracy() -> None:
    """Show the accuracy of each class, and the calibration."""
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Accuracy per class")
        share = {
            name: st.column_config.ProgressColumn(
                label, min_value=0, max_value=100, format="%.1f%%", help=text, width="small"
            )
            for name, label, text in (
                (
                    "precision",
                    "Precision",
                    "Share of the images predicted as this class that belong to it.",
                ),
                ("recall", "Recall", "Share of the images of this class that are predicted as it."),
                ("f1", "F1", "Harmonic mean of precision and recall."),
            )
        }
        st.dataframe(
            in_percent(cached.class_metrics(run), share),
            hide_index=True,
            column_config={
                "class": "Class",
                "support": st.column_config.NumberColumn("Images", width="small"),
                **share,
            },
            height=table_height(len(recording.classes), 12),
        )
        downloads.offer("accuracy_per_class", table=partial(cached.class_metrics, run))
    with right:
        st.subheader("Calibration")
        bins = cached.calibration(run).dropna()
        scale = alt.Scale(domain=[0, 1])
        points = alt.Chart(bins).encode(
            alt.X("confidence:Q", scale=scale, title="confidence", axis=alt.Axis(format="%")),
            alt.Y("accuracy:Q", scale=scale, title="accuracy", axis=alt.Axis(format="%")),
        )
        diagonal = (
            alt.Chart(pd.DataFrame({"x": [0.0, 1.0]}))
            .mark_line(color="#9aa3b2", strokeDash=[4, 4])
            .encode(alt.X("x:Q", title="confidence"), alt.Y("x:Q", title="accuracy"))
        )
        st.altair_chart(
            diagonal
            + points.mark_line()
            + points.mark_circle(opacity=1).encode(
                alt.Size(
                    "count:Q", title="images", legend=alt.Legend(orient="bottom", tickCount=3)
                ),
                tooltip=[
                    alt.Tooltip("confidence:Q", format=".1%"),
                    alt.Tooltip("accuracy:Q", format=".1%"),
                    alt.Tooltip("count:Q", title="images"),
                ],
            ),
            height=360,
            alt="Accuracy in each of 15 bins of confidence",
        )
        downloads.offer(
            "calibration",
            draw=lambda: draw_calibration(bins, run.label),
            table=partial(cached.calibration, run),
        )
        st.caption(
            "Where points lie below the dashed line, the network is overconfident. Points of few "
            "images lie off the line by chance as well; the table has intervals."
        )
        st.dataframe(
            cached.calibration_summary(run).replace({"measure": CALIBRATION_MEASURES}),
            hide_index=True,
            column_order=["measure", "value", "low", "high"],
            column_config={
                "measure": "Measure",
                **{
                    name: st.column_config.NumberColumn(label, format="%.3f")
                    for name, label in (
                        ("value", "Value"),
                        ("low", "95% CI, low"),
                        ("high", "95% CI, high"),
                    )
                },
            },
        )


st.title("Overview")
st.markdown(f"{literal(run.label)}: how well the network classifies these images.")
columns = st.columns(5)
accuracy = percent(recording.right.mean()) if recording.has_accuracy else "–"
columns[0].metric("Accuracy", accuracy, border=True)
columns[1].metric("Images", f"{len(recording):,}", border=True)
columns[2].metric("Classes", len(recording.classes), border=True)
columns[3].metric(
    "Gates", len(recording.gates), border=True,
    help=", ".join(f"{count} gates" for count in gate_counts(recording)) or None,
)  # fmt: skip
columns[4].metric(
    "Calibration error",
    percent(cached.calibration_summary(run)["value"].iloc[0]) if recording.has_accuracy else "–",
    border=True,
    help="Expected calibration error without its bias: mean difference between confidence and "
    "accuracy over 15 bins, less what chance adds. It can be slightly negative.",
)

_show_highlights()
if recording.has_accuracy:
    _show_accuracy()
else:
    st.info(f"There is no accuracy and no calibration, because there are {recording.no_accuracy}.")

# A recording of a network that attnscope did not train has no training curves.
folder = Run.holding(recording)
if folder is not None and folder.metrics_file.is_file():
    st.subheader("Training")
    for plot in plots_of(Recording):
        if plot.asks(METRICS):
            show_plot(plot, partial(cached.plot, run))
monitored = chosen_history(run)
if monitored is not None:
    st.subheader("Gates over training")
    for each in plots_of(GateHistory):
        show_plot(each, partial(cached.training_plot, monitored))

left, right = st.columns([3, 2], gap="large")
with left:
    st.subheader("Gates")
    st.dataframe(
        pd.DataFrame(
            {
                "Gate": gate.name,
                "Kind": gate.kind,
                "Channels": gate.channels,
                "Map size": f"{gate.grid[0]} × {gate.grid[1]}" if gate.grid else "–",
                "Activation": gate.activation,
                "Bounds": gate.bounds_text,
            }
            for gate in recording.gates
        ),
        hide_index=True,
        height=table_height(max(1, len(recording.gates)), 18),
    )
with right:
    st.subheader("How the recording was made")
    about = _flat(recording.about | recording.preparation)
    st.dataframe(
        pd.DataFrame({"Setting": list(about), "Value": list(about.values())}),
        hide_index=True,
        height=table_height(max(1, len(about)), 18),
    )
