"""Where the spatial gates look, beside Grad-CAM."""

from __future__ import annotations

from functools import partial

import cached
import streamlit as st
from cached import Run
from widgets import chosen_run, literal, page_of, part, show_grid, show_plot

from attnscope.kinds import MAP
from attnscope.plots import needs, plots_of
from attnscope.recording.recording import Recording

IMAGES = 6
run = chosen_run()
recording = run.recording
spatial = recording.gates_with(MAP)
BOUNDS, SEEN = "the gate's bounds", "the range of the values shown"


def _own_bounds(key: str) -> bool:
    if not spatial:
        return True
    scale = st.segmented_control(
        "Scale from dark to bright", [BOUNDS, SEEN], default=BOUNDS, required=True, key=key,
        help="One scale holds for all gates on the page either way, and the bar states it. "
        "Values are the gates themselves, never normalized.",
    )  # fmt: skip
    return scale == BOUNDS


@part
def _images(run: Run) -> None:
    left, middle, right = st.columns([1, 1, 2])
    names = recording.classes
    only = left.selectbox(
        "True class", range(len(names)), index=None, format_func=lambda c: names[c],
        placeholder="every class", key=f"class {run.key}",
    )  # fmt: skip
    number = middle.number_input(
        "Image number", 0, len(recording) - 1, None, key="image", bind="query-params",
        placeholder="several",
    )  # fmt: skip
    with right:
        own = _own_bounds("image_scale")
    if number is not None:
        rows = [int(number)]
        st.text(recording.rows["path"].iloc[rows[0]])
    else:
        found = [i for i, c in enumerate(recording.labels) if only is None or c == only]
        if not found:
            st.info("No image is of this class.")
            return
        rows = page_of(found, f"maps {run.key} {only}", IMAGES)
    show_grid(cached.image_maps_png(run, rows, own))
    st.caption(
        "Beside each picture: its number, the true class, and after the arrow the predicted one. "
        "Grad-CAM explains the predicted class, after its ReLU, and is drawn over the picture; its "
        "scale starts at 0 and holds for the images shown."
    )


@part
def _class_means(run: Run) -> None:
    left, right = st.columns(2)
    names = recording.classes
    picked = left.multiselect(
        "Classes", range(len(names)), list(range(min(10, len(names)))), max_selections=12,
        format_func=lambda c: names[c], key=f"classes {run.key}",
    )  # fmt: skip
    with right:
        own = _own_bounds("class_scale")
    if not picked:
        st.info("Pick a class.")
        return
    show_grid(cached.class_maps_png(run, picked, own))
    st.caption("Means over the images of each true class. Gray: a class without images.")


def _agreement(run: Run) -> None:
    st.caption(
        "Does a spatial gate look where Grad-CAM does? Large marks are all images, small ones are "
        "classes. A gate that agrees no better than with another image's Grad-CAM (gray) knows "
        "nothing of the image; one that agrees better with a Gaussian in the middle may just be "
        "looking there."
    )
    for plot in plots_of(Recording):
        if plot.asks(MAP, needs.GRAD_CAM):
            show_plot(plot, partial(cached.plot, run))
    summary = cached.agreement_summary(run)
    everything = summary[summary["class"] == "all"]
    numbers = {
        "spearman": "Spearman",
        "null_spearman": "Spearman, null",
        "same_class_spearman": "Same class",
        "center_spearman": "Center",
        "iou": "IoU",
        "null_iou": "IoU, null",
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
    f"{literal(run.label)}: a spatial gate multiplies each place of a block's features by one "
    "number; Grad-CAM says which places raised the predicted class."
)
if not spatial:
    st.info(
        "This network has no spatial gate: its attention (such as SE or ECA) weighs channels, not "
        "places. Shown is Grad-CAM alone."
    )
views = ["Images", "Class means", *(["Agreement with Grad-CAM"] if spatial else [])]
view = st.segmented_control(
    "View", views, default=views[0], required=True, key="map_view", bind="query-params",
    label_visibility="collapsed",
)  # fmt: skip
if not spatial and not recording.grad_cam_layers:
    st.info("No Grad-CAM was recorded either.")
elif view == "Class means":
    _class_means(run)
elif view == "Images":
    _images(run)
elif not recording.grad_cam_layers:
    st.info("No Grad-CAM was recorded to compare with.")
else:
    _agreement(run)
