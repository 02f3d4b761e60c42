"""The confusion matrix. A click on a cell shows its images."""

from __future__ import annotations

from functools import partial

import addressed
import cached
import downloads
import numpy as np
import streamlit as st
from cached import Run, confusion
from cached.confusion import BY_NUMBER, BY_SIMILARITY, COUNTS, RATES
from matrices import PREDICTED, TRUE, WHOLE, Window
from matrix_panel import Panel
from widgets import (
    choose_class,
    choose_overlay,
    chosen_run,
    gallery,
    in_percent,
    literal,
    row_of_controls,
    section,
    table_height,
)

from attnscope.plots import PLOTS
from attnscope.plots.text import as_percent as percent_of

_PAIRS = 1_000  # that the table shows


def _pair_clicked(run: Run, panel: Panel) -> None:
    """Choose the classes of the clicked pair, and zoom on its cell."""
    chosen = st.session_state["pairs"]["selection"]["cells"]
    if chosen:
        pair = confusion.pairs(run).iloc[chosen[0][0]]
        panel.choose(pair[TRUE], pair[PREDICTED])


def _pairs(run: Run, panel: Panel) -> None:
    found = confusion.pairs(run)
    if not len(found):
        st.success("No image is misclassified.")
        return
    st.markdown("**Most frequent errors.** Click one to see its images.")
    table = in_percent(found.head(_PAIRS), ["rate"])
    ends = [table[end].map(percent_of) for end in ("low", "high")]
    table["interval"] = ends[0] + " to " + ends[1]
    st.dataframe(
        table, hide_index=True, key="pairs",
        column_order=[TRUE, PREDICTED, "count", "rate", "interval"],
        on_select=partial(_pair_clicked, run, panel), selection_mode="single-cell",
        height=table_height(len(found), 13),
        column_config={
            TRUE: "True",
            PREDICTED: "Predicted",
            "count": st.column_config.NumberColumn(
                "Images", width=60,
                help="Images of the true class that are predicted as the other class.",
            ),
            "rate": st.column_config.NumberColumn(
                "Rate", format="%.1f%%", width=60, help="Share of the images of the true class."
            ),
            "interval": st.column_config.TextColumn(
                "95% CI", width=110,
                help="Confidence interval of the rate: Wilson's, over the images of the true class "
                "(`docs/reference/metrics.md`).",
            ),
        },
    )  # fmt: skip
    if len(found) > _PAIRS:
        st.caption(
            f"The first {_PAIRS:,} of {len(found):,} pairs of classes; the file has all of them."
        )
    name = downloads.file_name("confused_pairs", run.label)
    downloads.offer(name, table=lambda: confusion.pairs(run))


def _controls(run: Run) -> tuple[str, str, bool]:
    """Show what the matrix shows, and return the choice: values, order, errors only."""
    many = len(run.recording.classes) > WHOLE
    place = row_of_controls()
    shown = addressed.segmented_control(
        place, "Cells", [RATES, COUNTS], "cells",
        help="Rates: share of the images of the true class, so that each row sums to 100%. "
        "Counts: number of images.",
    )  # fmt: skip
    by = addressed.segmented_control(
        place, "Order of the classes", [BY_NUMBER, BY_SIMILARITY], "order",
        help="By similarity: classes that the network often confuses are neighbors (a tree of "
        "average linkage, see `docs/reference/metrics.md`).",
    )  # fmt: skip
    errors_only = addressed.toggle(
        place, "Color errors only", "errors", default=many,
        help="Leaves out the diagonal, where the prediction is correct, and fits the colors to the "
        "errors.",
    )  # fmt: skip
    return shown, by, errors_only


def _chart(run: Run, panel: Panel, window: Window, shown: str, by: str, errors_only: bool) -> None:
    """Show the chosen rows and columns."""
    values, look = confusion.values(run, shown, by, errors_only)
    placed = confusion.order(run, by)
    counts = confusion.counts(run)[np.ix_(placed, placed)]
    # A share of a class without images is not shown as 0.
    totals = counts.sum(1, keepdims=True).astype(np.float64)
    share = counts / np.where(totals > 0, totals, np.nan)
    table = panel.chart(
        window,
        look,
        {"value": values, "count": counts, "share": share},
        {"count": ("images", ","), "share": ("share", ".2%")},
    )
    if panel.many:
        panel.offer_window(window, look, table)
    else:
        name = downloads.file_name("confusion_matrix", run.label)
        downloads.offer_plot(name, partial(cached.plot, run), PLOTS["confusion_matrix"], 1)


def _overview(run: Run, panel: Panel, shown: str, by: str, errors_only: bool) -> None:
    """Show all classes as a picture."""
    placed = confusion.order(run, by)
    wrong = confusion.counts(run)[np.ix_(placed, placed)]
    np.fill_diagonal(wrong, 0)
    panel.overview(
        confusion.overview(run, shown, by, errors_only), wrong, "errors",
        partial(confusion.values, run, shown, by, errors_only),
        lambda: cached.confusion_matrix(run).reset_index(),
    )  # fmt: skip


def _images(run: Run) -> None:
    """Show the images of the chosen classes."""
    classes = run.recording.classes
    left, middle, right = st.columns(3)
    true = choose_class(run, left, "True class", TRUE)
    predicted = choose_class(run, middle, "Predicted class", PREDICTED)
    with right:
        source = choose_overlay(run, "show")
    if addressed.is_unknown(TRUE, PREDICTED):
        return
    if true is None and predicted is None:
        st.info("Click a cell of the matrix, or choose classes above, to see their images.")
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


@section
def _matrix(run: Run) -> None:
    classes = run.recording.classes
    shown, by, errors_only = _controls(run)
    names = [classes[k] for k in confusion.order(run, by)]
    panel = Panel("confusion_matrix", run.label, names)
    window = panel.window()
    if window is None:
        return
    with st.container(horizontal=True, gap="medium"):
        left = st.container(width="content") if panel.many else None
        with st.container(width="content"):
            _chart(run, panel, window, shown, by, errors_only)
        if left is None:
            with st.container(width="stretch"):
                _pairs(run, panel)
    if left is not None:
        with left:  # after the window, of which it shows the place
            _overview(run, panel, shown, by, errors_only)
        _pairs(run, panel)
    _images(run)


run = chosen_run()
st.title("Confusion matrix")
st.markdown(
    f"{literal(run.label)}: number of images for each pair of true and predicted class. Each row "
    "is a true class, each column a predicted class."
)
_matrix(run)
