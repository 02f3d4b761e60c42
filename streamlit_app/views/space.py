"""The gates of images as points: principal components and t-SNE."""

from __future__ import annotations

from functools import partial

import addressed
import background
import downloads
import numpy as np
import streamlit as st
from cached import Run, space
from channel_charts import BRUSH, points, points_figure
from numpy.typing import NDArray
from widgets import choose_overlay, chosen_run, command_for_folder_of, gallery, literal, section
from widgets_jobs import job_panel, start_button

from attnscope.dashboard.gate_space import MOST as PLACED
from attnscope.kinds import PER_CHANNEL
from attnscope.statistics.embedding import MOST

PCA, T_SNE = "PCA", "t-SNE"
run = chosen_run()
recording = run.recording
gates = [gate.name for gate in recording.gates if gate.per_image]


@section
def _components(run: Run, gate: str, by: str | None, only: list[str]) -> None:
    if not background.ready(f"PCA {run.key} {gate}", partial(space.components, run, gate)):
        return
    known = space.components(run, gate)
    count = int((known.explained > 0).sum())
    if count == 0:
        st.info("The gate is the same for all images, so that all points would lie on each other.")
        return
    names = {k: f"Component {k + 1} ({100 * known.explained[k]:.1f}%)" for k in range(count)}
    left, right, note = st.columns([1, 1, 2])
    x, y = (
        addressed.selectbox(
            place, f"{label} axis", list(names), key, default=k, write=lambda k: str(k + 1),
            format_func=names.__getitem__,
            help="The percentage is the explained variance: the share of the variance of the "
            "gates that lies along this axis.",
        )
        for place, label, key, k in (
            (left, "Horizontal", "x", 0), (right, "Vertical", "y", min(1, count - 1)),
        )
    )  # fmt: skip
    note.metric(
        "Explained variance of both axes",
        f"{100 * float(known.explained[list({x, y})].sum()):.1f}%",
        help="Share of the variance of the gates that the figure shows. The rest lies along other "
        "components.",
    )
    titles = (names[x], names[y])
    _plane(run, gate, PCA, known.rows, known.scores[:, [x, y]], titles, by, only)
    if len(known.rows) < len(recording):
        st.caption(
            f"The components are those of {len(known.rows):,} of {len(recording):,} images, a "
            f"random sample (at most {MOST:,})."
        )


@section
def _neighbors(run: Run, gate: str, by: str | None, only: list[str]) -> None:
    st.caption(
        "t-SNE puts images with similar gates side by side. Distances between groups, and their "
        "sizes, have no meaning."
    )
    known = space.places(run, gate)
    if known is None:
        if not space.can_keep(run):
            st.info(
                "t-SNE is kept beside the recording, which is outside of the dashboard's folder. "
                f"Start the dashboard with: {command_for_folder_of(recording)}"
            )
            return
        if len(recording) > PLACED:
            st.text(f"A random sample of {PLACED:,} of {len(recording):,} images is used.")
        start_button(
            "Compute t-SNE", f"t-SNE of {gate}", [str(recording.folder), gate],
            folder=recording.folder, module="attnscope.dashboard.gate_space",
        )  # fmt: skip
        job_panel()
        return
    _plane(run, gate, T_SNE, known.rows, known.places, ("t-SNE 1", "t-SNE 2"), by, only)
    if len(known.rows) < len(recording):
        st.caption(f"{len(known.rows):,} of {len(recording):,} images, a random sample.")


def _plane(
    run: Run,
    gate: str,
    what: str,
    rows: NDArray[np.int64],
    places: NDArray[np.float64],
    titles: tuple[str, str],
    by: str | None,
    only: list[str],
) -> None:
    """Show images as points, and below those that the visitor dragged over."""
    frame, groups = space.points(run, rows, places, by, only)
    event = st.altair_chart(
        points(frame, *titles, groups),
        key=f"{what} {run.key} {gate} {titles} {by} {only}",
        on_select="rerun",
        alt=f"{what} of the gates of {len(frame)} images",
    )
    note = "" if len(frame) == len(rows) else f"A random sample of {len(frame):,} points is shown. "
    if len(groups) > 40:
        note += f"There are {len(groups):,} classes; point at an image to see its class. "
    st.caption(f"{note}Drag over points to see their images.")
    downloads.offer(
        f"{gate} {what}",
        draw=lambda: points_figure(frame, *titles, groups),
        table=lambda: frame,
    )
    brushed = event["selection"].get(BRUSH)
    if not brushed:
        return
    inside = frame["x"].between(*sorted(brushed["x"])) & frame["y"].between(*sorted(brushed["y"]))
    images = [int(image) for image in frame["image"][inside]]
    st.subheader(f"{len(images):,} selected {'image' if len(images) == 1 else 'images'}")
    if images:
        if recording.has_scores:
            gallery(run, images, choose_overlay(run, "show"), f"brushed {what} {gate} {images[0]}")
        else:
            st.info("The recording has no class scores, so that no gallery can be shown.")


st.title("Gate space")
st.markdown(
    f"{literal(run.label)}: each point is an image, placed by its gate: the numbers by which one "
    "attention gate multiplies the features of this image. Images with similar gates lie close "
    "together."
)
if not gates:
    st.info("This network has no gates.")
    st.stop()
left, middle, right = st.columns([2, 1, 1])
gate = addressed.named_selectbox(left, "Gate", gates, "gate", "gate", scope=run.key)
method = addressed.segmented_control(
    middle, "Method", [PCA, T_SNE], "method",
    help="PCA: the directions along which the gates vary most. t-SNE: a map that keeps neighbors "
    "together, computed on request.",
)  # fmt: skip
colorings = space.colorings(run)
by = None
if colorings:
    by = addressed.selectbox(right, "Color", colorings, "color")
only: list[str] = []
if by in (space.BY_TRUE, space.BY_PREDICTED) and len(recording.classes) > 1:
    only = st.multiselect(
        "Color only these classes (up to 10)", recording.classes, key=f"only {run.key}",
        max_selections=10, placeholder="All classes",
        help="More than ten colors can hardly be told apart. All other classes become gray.",
    )  # fmt: skip
if gate is None:
    st.stop()
if not recording.info(gate).offers(PER_CHANNEL):
    st.caption("The numbers of this gate are its values at all positions.")
if method == PCA:
    _components(run, gate, by, only)
else:
    _neighbors(run, gate, by, only)
