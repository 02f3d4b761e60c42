"""Spatial gates and Grad-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import addressed
import background
import cached
import numpy as np
import streamlit as st
from cached import Run, maps
from image_parts import classes_of, link_to, map_values, maps_download, own_bounds
from widgets import (
    chosen_run,
    literal,
    page_of,
    row_of_controls,
    section,
    show_grid,
    show_plot,
)

from attnscope.kinds import MAP
from attnscope.plots import needs, plots_of
from attnscope.plots.views import noun_of, view_note
from attnscope.recording.recording import Recording
from attnscope.statistics.maps import comparable_gates

IMAGES = 6
run = chosen_run()
recording = run.recording
spatial = recording.gates_with(MAP)
OWN, OVER = "Own resolution", "Over the image"


@section
def _images(run: Run) -> None:
    place = row_of_controls()
    names = recording.classes
    only = place.selectbox(
        "True class", range(len(names)), index=None, format_func=lambda c: names[c],
        placeholder="All classes", key=f"class {run.key}", width=200,
    )  # fmt: skip
    number = addressed.number_input(
        place, "Image number", len(recording), "map_image", "image", default=None,
        scope=run.key, placeholder="All images", width=200,
    )  # fmt: skip
    if addressed.is_unknown("map_image"):
        return
    with place:
        own = own_bounds(bool(spatial), "image_scale")
    if number is not None:
        _one(run, number, own)
        return
    drawn = addressed.segmented_control(
        place, "Gates are drawn", [OWN, OVER], "drawn",
        help="Each position of a map as one square, or smoothed over the "
        "image in gray.",
    )  # fmt: skip
    found: Sequence[int] = range(len(recording))
    if only is not None:
        found = np.flatnonzero(recording.labels == only).tolist()
    if not len(found):
        st.info("There are no images of this class.")
        return
    rows = page_of(found, f"maps {run.key} {only}", IMAGES)
    show_grid(maps.png(run, rows, own, drawn == OVER))
    maps_download(
        f"maps of images {rows[0]} to {rows[-1]}",
        partial(maps.figure, run, rows, own, drawn == OVER),
        None,
    )
    st.caption(
        "Each row is one image. Its label gives the number of the image, the true class and, after "
        "the arrow, the predicted class. Grad-CAM is shown after the ReLU, for the predicted and "
        "for the true class. All images share one color scale for the gates, and one for Grad-CAM, "
        f"which starts at 0. {view_note(spatial, MAP)}"
    )
    for row, cell in zip(rows, st.columns(IMAGES), strict=False):
        with cell:
            link_to(run, row)


def _one(run: Run, row: int, own: bool) -> None:
    """Show all maps of one image, and their values at the pointer."""
    st.text(recording.rows["path"].iloc[row])
    st.text(classes_of(run, row))
    gates, cams = maps.gates_of(run, [row]), maps.grad_cams_of(run, [row])
    show_grid(maps.one_png(run, row, own))
    maps_download(
        f"image {row} maps",
        partial(maps.recorded_figure, run, row, own),
        lambda: maps.values_table(run, gates, cams),
    )
    st.caption(
        "Each column is a spatial gate, named after its module; the last ones are Grad-CAM. Upper "
        "row: each map at its own resolution; lower row: over the image. All gates share one color "
        "scale, and both Grad-CAM maps share another one, which starts at 0."
    )
    link_to(run, row)
    st.markdown("**Raw values at the pointer**")
    map_values(run, gates, cams, own)


@section
def _class_means(run: Run) -> None:
    left, right = st.columns(2)
    names = recording.classes
    picked = left.multiselect(
        "Classes", range(len(names)), list(range(min(10, len(names)))), max_selections=12,
        format_func=lambda c: names[c], key=f"classes {run.key}",
    )  # fmt: skip
    with right:
        own = own_bounds(bool(spatial), "class_scale")
    if not picked:
        st.info("Select at least one class.")
        return
    draw = partial(cached.class_maps_png, run, picked, own)
    if not background.ready(f"class maps {run.key} {picked} {own}", draw):
        return
    show_grid(draw())
    st.caption(
        "Mean over the images of each true class. Gray maps: classes without images. "
        f"{view_note(spatial, MAP)}"
    )


def _agreement(run: Run) -> None:
    st.caption(
        f"Agreement of each {noun_of(spatial, MAP)} with Grad-CAM. Large marks are means over all "
        "images, small marks are means over one class. Two references help to interpret the "
        "values. If a gate agrees equally well with the Grad-CAM of another image (gray), the "
        "agreement is not specific to the image. If it agrees better with a Gaussian at the image "
        "center, the gate may only reflect a center bias."
    )
    for plot in plots_of(Recording):
        if plot.asks(MAP, needs.GRAD_CAM) and not show_plot(plot, partial(cached.plot, run)):
            return
    if not comparable_gates(recording):
        return  # the plot says so
    summary = cached.agreement_summary(run)
    everything = summary[summary["class"] == "all"]
    numbers = {
        "spearman": "Spearman",
        "null_spearman": "Spearman (other image)",
        "same_class_spearman": "Spearman (same class)",
        "center_spearman": "Spearman (center)",
        "iou": "IoU",
        "null_iou": "IoU (other image)",
    }
    st.dataframe(
        everything,
        hide_index=True,
        column_order=["gate", *numbers, "scored", "constant"],
        column_config={
            name: st.column_config.NumberColumn(label, format="%.3f")
            for name, label in numbers.items()
        }
        | {"gate": "Gate", "scored": "Images scored", "constant": "Constant maps"},
    )


st.title("Spatial maps")
st.markdown(
    f"{literal(run.label)}: a spatial gate multiplies the features at each position by one number. "
    "Of other gates that vary over positions, the mean over channels or slices is shown. "
    "Grad-CAM shows which positions increased the score of the predicted class."
    if not all(gate.has(MAP) for gate in spatial)
    else f"{literal(run.label)}: a spatial gate multiplies the features at each position by one "
    "number. Grad-CAM shows which positions increased the score of the predicted class."
)
if not spatial:
    st.info(
        "This network has no gates that vary over positions: its attention modules (such as SE or "
        "ECA) weight channels, branches or whole images. This page shows Grad-CAM only."
    )
views = ["Images", "Class means", *(["Agreement with Grad-CAM"] if spatial else [])]
view = addressed.segmented_control(st, "View", views, "map_view", label_visibility="collapsed")
if not spatial and not recording.grad_cam_layers:
    st.info("The recording does not contain Grad-CAM either.")
elif view == "Class means":
    _class_means(run)
elif view == "Images":
    _images(run)
elif not recording.grad_cam_layers:
    st.info("The recording does not contain Grad-CAM, so there is nothing to compare with.")
else:
    _agreement(run)
