"""The confusion matrix. A click on a cell shows its images."""

from __future__ import annotations

import altair as alt
import cached
import numpy as np
import streamlit as st
from cached import Run
from widgets import choose_overlay, chosen_run, gallery, literal, section

from attnscope.plots.choosing import MOST_CLASSES, most_confused

TRUE, PREDICTED = "true", "predicted"
_CLASSES = 40  # that the matrix shows, if there are many


def _chart(run: Run, mistakes_only: bool) -> alt.LayerChart | alt.FacetChart:
    counts = cached.confusion_matrix(run)
    totals = counts.sum(axis=1)
    chosen = most_confused(counts.to_numpy(), _CLASSES)
    counts = counts.iloc[chosen, chosen]
    classes = list(counts.index)
    cells = counts.reset_index().melt(TRUE, var_name=PREDICTED, value_name="count")
    of_class = cells[TRUE].map(totals)
    cells["share"] = cells["count"] / of_class.where(of_class > 0)
    if mistakes_only:
        cells.loc[cells[TRUE] == cells[PREDICTED], "share"] = np.nan
    top = float(cells["share"].max()) if mistakes_only else 1.0
    cell = alt.selection_point(name="cell", fields=[TRUE, PREDICTED], toggle=False)
    few = len(classes) <= 15
    axis = alt.Axis(
        labelAngle=-45,
        labelLimit=120,
        labelOverlap=not few,
        orient="top",
        domain=False,
        ticks=False,
    )
    base = alt.Chart(cells).encode(
        alt.X(f"{PREDICTED}:N", sort=classes, title="predicted class", axis=axis),
        alt.Y(
            f"{TRUE}:N", sort=classes, title="true class",
            axis=alt.Axis(labelLimit=120, labelOverlap=not few, domain=False, ticks=False),
        ),
    )  # fmt: skip
    color = alt.Color(
        "share:Q",
        scale=alt.Scale(scheme="cividis", domain=[0, top or 1]),
        legend=alt.Legend(title="share of true class", format=".0%", gradientLength=140),
    )
    squares = base.mark_rect(cursor="pointer", stroke="white", strokeWidth=0.5).encode(
        color=alt.condition("isValid(datum.share)", color, alt.value("#e4e4e4")),
        tooltip=[
            alt.Tooltip(f"{TRUE}:N", title="true"),
            alt.Tooltip(f"{PREDICTED}:N", title="predicted"),
            alt.Tooltip("count:Q", title="images"),
            alt.Tooltip("share:Q", title="share", format=".2%"),
        ],
    )
    frame = base.mark_rect(fill=None, stroke="#d62728", strokeWidth=3).encode(
        opacity=alt.condition(cell, alt.value(1), alt.value(0), empty=False)
    )
    layers = [squares.add_params(cell), frame]
    if few:
        bright = f"datum.share > {0.6 * top} || !isValid(datum.share)"
        layers.append(
            base.mark_text(fontSize=12).encode(
                alt.Text("count:Q"),
                color=alt.condition(bright, alt.value("#1b2430"), alt.value("white")),
                opacity=alt.condition("datum.count > 0", alt.value(1), alt.value(0.25)),
            )
        )
    # The sizes include labels and legend.
    side = min(700, max(200, 46 * len(classes)))
    return alt.layer(*layers).properties(width=side + 270, height=side + 110)


def _clicked() -> None:
    """Copy the classes of the clicked cell to the two select boxes."""
    cells = st.session_state["matrix"]["selection"]["cell"]
    st.session_state[TRUE] = cells[0][TRUE] if cells else None
    st.session_state[PREDICTED] = cells[0][PREDICTED] if cells else None


@section
def _matrix(run: Run) -> None:
    classes = run.recording.classes
    left, right = st.columns([3, 1], gap="large")
    with right:
        st.caption("Click a cell of the matrix, or choose the classes here.")
        true = st.selectbox(
            "True class", classes, index=None, key=TRUE, bind="query-params", placeholder="Any"
        )
        predicted = st.selectbox(
            "Predicted class", classes, index=None, key=PREDICTED, bind="query-params",
            placeholder="Any",
        )  # fmt: skip
        source = choose_overlay(run, "show")
        mistakes_only = st.toggle("Color errors only", key="mistakes_only")
    with left:
        st.altair_chart(
            _chart(run, mistakes_only), width="content", key="matrix", on_select=_clicked,
            alt="Confusion matrix with true classes in rows and predicted classes in columns",
        )  # fmt: skip
        if len(classes) > MOST_CLASSES:
            st.caption(
                f"Of {len(classes):,} classes, the matrix shows up to {_CLASSES} of the most "
                "frequent errors. All classes can be chosen on the right."
            )
    if true is None and predicted is None:
        st.info("Click a cell of the matrix to see its images.")
        return
    labels, predictions = run.recording.labels, run.recording.predictions
    wanted = np.ones(len(labels), bool)
    if true is not None:
        wanted &= labels == classes.index(true)
    if predicted is not None:
        wanted &= predictions == classes.index(predicted)
    rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(-cached.confidence(run)[rows], kind="stable")]
    st.subheader(f"{len(rows):,} {'image' if len(rows) == 1 else 'images'}", anchor=False)
    st.markdown(
        f"True class: {literal(true) if true is not None else 'any'}. Predicted class: "
        f"{literal(predicted) if predicted is not None else 'any'}. Sorted by confidence, highest "
        "first."
    )
    if len(rows):
        gallery(run, rows.tolist(), source, f"cell {run.key} {true!r} {predicted!r}")


run = chosen_run()
st.title("Confusion matrix")
st.markdown(
    f"{literal(run.label)}: number of images for each pair of true and predicted class. The color "
    "shows the share of the images of the true class."
)
_matrix(run)
