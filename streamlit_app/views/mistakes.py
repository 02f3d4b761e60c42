"""Misclassified images: filtered, sorted, and their list as a file."""

from __future__ import annotations

import cached
import downloads
import pandas as pd
import streamlit as st
from cached import Run
from widgets import choose_overlay, chosen_run, gallery, is_unknown, literal, percent, section

BY_LOSS, BY_CONFIDENCE = "Loss", "Confidence"


def _filtered(run: Run) -> pd.DataFrame | None:
    """Show the filters, and return the images that pass; None if the address is wrong."""
    wrong, classes = cached.misclassified(run), run.recording.classes
    unknown = [is_unknown(key, classes, "class") for key in ("true", "predicted")]
    first, second, third = st.columns(3)
    true = first.selectbox(
        "True class", classes, index=None, key="true", bind="query-params", placeholder="Any"
    )
    predicted = second.selectbox(
        "Predicted class", classes, index=None, key="predicted", bind="query-params",
        placeholder="Any",
    )  # fmt: skip
    low, high = third.slider(
        "Confidence", 0.0, 1.0, (0.0, 1.0), 0.01, key="confidence", bind="query-params",
        help="The probability that the network gives to the predicted class (softmax).",
    )  # fmt: skip
    if any(unknown):
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
    by = first.segmented_control(
        "Sorted by", [BY_LOSS, BY_CONFIDENCE], default=BY_LOSS, required=True, key="sort",
        bind="query-params",
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
    chosen = [state[key] for key in ("true", "predicted", "confidence", "sort")]
    gallery(run, shown["row"].tolist(), source, f"wrong {run.key} {chosen!r}")


run = chosen_run()
st.title("Misclassified images")
share = percent(len(cached.misclassified(run)) / len(run.recording))
st.markdown(
    f"{literal(run.label)}: the network misclassifies {share} of {len(run.recording):,} images."
)
_mistakes(run)
