"""Misclassified images, sorted by confidence."""

from __future__ import annotations

import cached
import streamlit as st
from cached import Run
from widgets import choose_overlay, chosen_run, gallery, literal, percent, section


@section
def _mistakes(run: Run) -> None:
    wrong = cached.misclassified(run)
    if not len(wrong):
        st.success("All images are classified correctly.")
        return
    first, second, third = st.columns(3)
    classes = run.recording.classes
    with first:
        true = st.selectbox(
            "True class", classes, index=None, key=f"true {run.key}", placeholder="Any"
        )
    with second:
        predicted = st.selectbox(
            "Predicted class", classes, index=None, key=f"predicted {run.key}", placeholder="Any"
        )
    with third:
        source = choose_overlay(run, "show")
    shown = wrong
    if true is not None:
        shown = shown[shown["label"] == true]
    if predicted is not None:
        shown = shown[shown["prediction"] == predicted]
    st.subheader(f"{len(shown):,} of {len(wrong):,} misclassified images", anchor=False)
    if len(shown):
        gallery(run, shown["row"].tolist(), source, f"wrong {run.key} {true!r} {predicted!r}")


run = chosen_run()
st.title("Misclassified images")
share = percent(len(cached.misclassified(run)) / len(run.recording))
st.markdown(
    f"{literal(run.label)}: the network misclassifies {share} of {len(run.recording):,} images. "
    "They are sorted by confidence (the softmax probability of the predicted class), highest first."
)
_mistakes(run)
