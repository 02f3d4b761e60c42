"""Two networks on the same images: accuracy, gates and Grad-CAM per class."""

from __future__ import annotations

from functools import partial

import cached
import numpy as np
import streamlit as st
from cached import Run
from widgets import (
    browse,
    chosen_run,
    in_percent,
    literal,
    page_of,
    percent,
    section,
    show_grid,
    show_plot,
    table_height,
)

from attnscope.kinds import PER_CHANNEL
from attnscope.plots import PLOTS, needs, plots_of
from attnscope.plots.builtin.per_class_accuracy import no_difference_sentence
from attnscope.plots.subjects import Comparison
from attnscope.statistics.inference import LEVEL, significant

IMAGES = 6
EVERY, ONLY_A, ONLY_B, NEITHER = (
    "All",
    "Only first correct",
    "Only second correct",
    "Both wrong",
)


def _accuracy(a: Run, b: Run) -> None:
    comparison = cached.compare_accuracy(a, b)
    whole = comparison.iloc[0]
    columns = st.columns(4)
    columns[0].metric("Accuracy (first)", percent(whole["accuracy_a"]), border=True)
    columns[1].metric("Accuracy (second)", percent(whole["accuracy_b"]), border=True)
    columns[2].metric(
        "Difference (second − first)", f"{100 * whole['difference']:+.2f} points", border=True,
        help="In percentage points.",
    )  # fmt: skip
    columns[3].metric(
        "p (McNemar)", f"{whole['p']:.3g}", border=True,
        help="McNemar's exact test on the images that only one network classifies correctly. It "
        "compares these two trained networks and says nothing about other seeds.",
    )  # fmt: skip
    differs = comparison.iloc[1:]
    differs = differs[significant(differs["p_holm"])]
    if not len(differs):
        st.info(no_difference_sentence(comparison.iloc[1:]))
    else:
        names = ", ".join(literal(name) for name in differs["class"])
        st.warning(
            "Classes with a significant difference in accuracy "
            f"(p < {LEVEL:g} after Holm's correction): {names}."
        )
    show_plot(PLOTS["per_class_accuracy"], partial(cached.comparison, a, b))
    share = {
        name: st.column_config.NumberColumn(label, format=form)
        for name, label, form in (
            ("accuracy_a", "Accuracy (first)", "%.2f%%"),
            ("accuracy_b", "Accuracy (second)", "%.2f%%"),
            ("difference", "Difference (points)", "%.2f"),
        )
    }  # fmt: skip
    st.dataframe(
        in_percent(comparison, share),
        hide_index=True,
        height=table_height(len(comparison)),
        column_config={
            "class": "Class",
            "count": "Images",
            "only_a": "Only first correct",
            "only_b": "Only second correct",
            "p": st.column_config.NumberColumn("p (McNemar)", format="%.3g"),
            "p_holm": st.column_config.NumberColumn("p (Holm)", format="%.3g"),
            **share,
        },
    )


def _gates(a: Run, b: Run) -> None:
    st.caption(
        "Distance of the mean channel gates of each class from the mean over all classes (root "
        "mean square over channels). The channels of two networks do not correspond to each other, "
        "so single channels are not compared."
    )
    _plots_that_need(PER_CHANNEL, a, b)
    left, right = st.columns([3, 2], gap="large")
    left.dataframe(
        cached.compare_profiles(a, b),
        hide_index=True,
        column_config={
            "gate": "Gate",
            "class": "Class",
            "distance_a": st.column_config.NumberColumn("Distance (first)", format="%.4f"),
            "distance_b": st.column_config.NumberColumn("Distance (second)", format="%.4f"),
        },
    )
    right.dataframe(
        cached.compare_class_order(a, b),
        hide_index=True,
        column_config={
            "gate": "Gate",
            "spearman": st.column_config.NumberColumn(
                "Spearman (distances)", format="%.3f",
                help="How similarly the two networks order the classes by distance. Images that "
                "both share, and classes of few images, make the orders agree by themselves.",
            ),
        },
        column_order=["gate", "spearman"],
    )  # fmt: skip


def _grad_cam(a: Run, b: Run) -> None:
    st.caption(
        "Agreement between the Grad-CAM maps of the two networks for the same image. The gray "
        "marks show the agreement with the Grad-CAM of another image, as a reference."
    )
    _plots_that_need(needs.GRAD_CAM, a, b)
    if a.recording.grad_cam_layers and b.recording.grad_cam_layers:  # otherwise the plot says so
        _grad_cam_table(a, b)
    st.subheader("Spatial gate and Grad-CAM", anchor=False)
    st.caption("Agreement of the last spatial gate of each network with its own Grad-CAM.")
    show_plot(PLOTS["per_class_agreement"], partial(cached.comparison, a, b))


def _grad_cam_table(a: Run, b: Run) -> None:
    numbers = {
        "spearman": "Spearman",
        "null_spearman": "Spearman (other image)",
        "iou": "IoU",
        "null_iou": "IoU (other image)",
    }
    st.dataframe(
        cached.compare_grad_cam(a, b),
        hide_index=True,
        column_order=["class", *numbers, "scored"],
        height=table_height(1 + len(a.recording.classes)),
        column_config={
            name: st.column_config.NumberColumn(label, format="%.3f")
            for name, label in numbers.items()
        }
        | {"class": "Class", "scored": "Images scored"},
    )


def _images(a: Run, b: Run) -> None:
    cached.compare_accuracy(a, b)  # raises InputError if the recordings are of different images
    _chosen_images(a, b)
    st.subheader("Images that only one network classifies correctly", anchor=False)
    show_plot(PLOTS["disagreements"], partial(cached.comparison, a, b))


def _all(a: Run, b: Run) -> None:
    browse(
        {plot.name: partial(cached.comparison, a, b) for plot in plots_of(Comparison)},
        "pair_figure",
    )


def _plots_that_need(what: str, a: Run, b: Run) -> None:
    for plot in plots_of(Comparison):
        if plot.asks(what):
            show_plot(plot, partial(cached.comparison, a, b))


@section
def _chosen_images(a: Run, b: Run) -> None:
    left, right = st.columns([1, 2])
    names = a.recording.classes
    only = left.selectbox(
        "True class", range(len(names)), index=None, format_func=lambda c: names[c],
        placeholder="All classes", key=f"side class {a.key}",
    )  # fmt: skip
    which = right.segmented_control(
        "Images", [EVERY, ONLY_A, ONLY_B, NEITHER], default=EVERY, required=True, key="which"
    )
    right_a, right_b = (run.recording.right for run in (a, b))
    wanted = {
        EVERY: np.ones(len(a.recording), bool),
        ONLY_A: right_a & ~right_b,
        ONLY_B: right_b & ~right_a,
        NEITHER: ~right_a & ~right_b,
    }[str(which)]
    if only is not None:
        wanted &= a.recording.labels == only
    rows = np.flatnonzero(wanted).tolist()
    st.subheader(f"{len(rows):,} {'image' if len(rows) == 1 else 'images'}", anchor=False)
    if rows:
        shown = page_of(rows, f"side {a.key} {b.key} {only} {which}", IMAGES)
        show_grid(cached.two_cams_png(a, b, shown))
        st.caption(
            "Each row is one image. Its label gives the number of the image, the true class and, "
            "after the arrows, the classes predicted by the first and the second network. "
            "Grad-CAM is shown after the ReLU, for the predicted class. Each network has its own "
            "color scale."
        )


run = chosen_run()
found, _ = cached.runs()
others = [label for label in found if label != run.label]
st.title("Comparison")
if not others:
    st.info(
        "A comparison needs two recordings of the same images, and this folder contains one "
        "recording."
    )
    st.stop()
# A recording of the same images comes first, because the first one is preselected.
same = [label for label in others if cached.same_images(run, found[label])]
others = [*same, *(label for label in others if label not in same)]
if not same:
    st.info("No other recording in this folder is of the same images.")
    st.stop()
with st.sidebar:
    st.selectbox("Compare with", others, key="other", bind="query-params")
other = found[st.session_state["other"]]
st.markdown(f"First network {literal(run.label)}, second network {literal(other.label)}.")
VIEWS = {
    "Accuracy": _accuracy, "Gates": _gates, "Grad-CAM": _grad_cam, "Images": _images,
    "All figures": _all,
}  # fmt: skip
view = st.segmented_control(
    "View", list(VIEWS), default="Accuracy", required=True, key="comparison_view",
    bind="query-params", label_visibility="collapsed",
)  # fmt: skip
VIEWS[str(view)](run, other)
