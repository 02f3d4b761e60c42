"""Misclassified images: filtered, sorted, and their list as a file."""

from __future__ import annotations

import addressed
import cached
import downloads
import pandas as pd
import streamlit as st
from cached import Run
from matrices import PREDICTED, TRUE
from widgets import (
    choose_class,
    choose_overlay,
    chosen_run,
    gallery,
    literal,
    percent,
    section,
)

BY_LOSS, BY_CONFIDENCE = "Loss", "Confidence"


def _filtered(run: Run) -> pd.DataFrame | None:
    """Show the filters, and return the images that pass; None if the address is wrong."""
    wrong = cached.misclassified(run)
    first, second, third = st.columns(3)
    true = choose_class(run, first, "True class", TRUE)
    predicted = choose_class(run, second, "Predicted class", PREDICTED)
    low, high = addressed.range_slider(
        third, "Confidence", 0.0, 1.0, 0.01, "confidence",
        help="The probability that the network gives to the predicted class (softmax).",
    )  # fmt: skip
    if addressed.is_unknown(TRUE, PREDICTED):
        return None
    wanted = wrong["confidence"].between(low, high)
    if true is not None:
        wanted &= wrong["label"] == true
    if predicted is not None:
        wanted &= wrong["prediction"] == predicted
    return wrong[wanted]


@section
def _mistakes(run: Run) -> None:
    wrong = cached.misclassified(run)
    if not len(wrong):
        st.success("All images are classified correctly.")
        return
    shown = _filtered(run)
    first, second, third = st.columns(3, vertical_alignment="bottom")
    by = addressed.segmented_control(
        first, "Sorted by", [BY_LOSS, BY_CONFIDENCE], "sort",
        help="Loss: the negative logarithm of the probability of the true class (in nats), which "
        "is largest where the network excludes the right answer. Confidence: the probability of "
        "the predicted class. The largest comes first (`docs/reference/metrics.md`).",
    )  # fmt: skip
    with second:
        source = choose_overlay(run, "show")
    if shown is None:
        return
    column = "loss" if by == BY_LOSS else "confidence"
    shown = shown.sort_values(column, ascending=False, kind="stable")
    if not len(shown):
        st.info(
            f"None of the {len(wrong):,} misclassified images passes these filters. Choose a wider "
            "range of confidence, or other classes."
        )
        return
    with third:
        listed = shown.rename(columns={"label": "true", "prediction": "predicted"})
        downloads.button(
            f"Download the list of {len(shown):,} (CSV)",
            f"{downloads.file_name('misclassified', run.label)}.csv",
            lambda: listed.to_csv(index=False).encode(),
            ":material/download:",
        )
    st.subheader(f"{len(shown):,} of {len(wrong):,} misclassified images", anchor=False)
    # Other filters are another list, which begins on its first page.
    state = st.session_state
    chosen = [state[key] for key in (TRUE, PREDICTED, "confidence", "sort")]
    gallery(run, shown["row"].tolist(), source, f"wrong {run.key} {chosen!r}")


run = chosen_run()
st.title("Misclassified images")
share = percent(len(cached.misclassified(run)) / len(run.recording))
st.markdown(
    f"{literal(run.label)}: the network misclassifies {share} of {len(run.recording):,} images."
)
_mistakes(run)
