"""One image: its probabilities, maps, place between classes, neighbors, and the gate lab."""

from __future__ import annotations

from functools import partial

import addressed
import downloads
import numpy as np
import streamlit as st
from cached import NO_OVERLAY, Run, live, maps
from cached import image as picture_of
from gate_lab import gate_lab
from image_charts import between_chart, between_figure
from image_parts import (
    choose_space,
    gate_space_size,
    map_values,
    maps_download,
    own_bounds,
    probabilities,
    show_neighbors,
    softmax,
)
from widgets import chosen_run, literal, row_of_controls, section, show_grid, show_picture

from attnscope.data.label_kinds import CLASS
from attnscope.errors import InputError
from attnscope.kinds import MAP
from attnscope.plots.text import short_names
from attnscope.plots.views import view_note

_LACKING = "AS76"  # codes of what a recording can lack without being wrong
run = chosen_run()
recording = run.recording
has_labels, has_scores = recording.label_kind == CLASS, recording.has_scores


def _step(by: int) -> None:
    """Go to the next or the previous image."""
    row = int(st.session_state.get("image") or 0) + by
    addressed.choose(image=min(max(row, 0), len(recording) - 1))


def _choose() -> int | None:
    """Show the number of the image and the buttons beside it; return the chosen row."""
    place = row_of_controls()
    row = addressed.number_input(
        place, "Image number", len(recording), "image", "image", scope=run.key, width=200,
        help="The row of the image in the recording, from 0.",
    )  # fmt: skip
    place.button(
        "Previous", icon=":material/chevron_left:", key="previous", disabled=not row,
        on_click=_step, args=(-1,),
    )  # fmt: skip
    place.button(
        "Next", icon=":material/chevron_right:", key="next", on_click=_step, args=(1,),
        disabled=row is None or row == len(recording) - 1,
    )  # fmt: skip
    return row


def _summary(row: int) -> None:
    left, right = st.columns([1, 2])
    with left.container(border=True):
        if recording.has_pictures:
            show_picture(picture_of(run, row, NO_OVERLAY, 0.0, 1.0))
    true = int(recording.labels[row]) if has_labels else None
    facts = [f"file: {recording.rows['path'].iloc[row]}"]
    if true is not None:
        facts.append(f"true class: {recording.classes[true]}")
    if has_scores:
        logits = recording.logits_of(slice(row, row + 1))[0]
        predicted = int(recording.predictions[row])
        facts.append(f"predicted class: {recording.classes[predicted]}")
        facts.append(f"confidence: {softmax(logits)[predicted]:.3f}")
    if recording.has_accuracy:
        facts.append(f"loss: {recording.rows['loss'].iloc[row]:.3f}")
    with left:
        st.text("\n".join(facts))
    with right:
        if has_scores:
            probabilities(run, logits, true, f"image {row}")
        else:
            st.info("The recording has no class scores, so that there are no probabilities.")


@section
def _maps(run: Run, row: int) -> None:
    spatial = recording.gates_with(MAP)
    if not spatial and not recording.grad_cam_layers:
        st.info("The network has no gates that vary over positions, and Grad-CAM was not recorded.")
        return
    place = row_of_controls()
    with place:
        own = own_bounds(bool(spatial), "image_scale")
    with_values = addressed.toggle(
        place, "Show values at the pointer", "values",
        help="Draws each map once more, so that the raw value of each position appears where the "
        "pointer is.",
    )  # fmt: skip
    show_grid(maps.one_png(run, row, own))
    maps_download(
        f"image {row} maps",
        partial(maps.recorded_figure, run, row, own),
        lambda: maps.values_table(run, maps.gates_of(run, [row]), maps.grad_cams_of(run, [row])),
    )
    st.caption(
        "Each column is a spatial gate, named after its module; the last ones are Grad-CAM. Upper "
        "row: each map at its own resolution; lower row: over the image. All gates share one color "
        "scale, and both Grad-CAM maps share another one. Grad-CAM shows which positions increased "
        f"the score of a class. {view_note(spatial, MAP)}"
    )
    if with_values:
        map_values(run, maps.gates_of(run, [row]), maps.grad_cams_of(run, [row]), own)


@section
def _between(run: Run, row: int) -> None:
    names = recording.classes
    if not has_labels or len(names) < 2 or not recording.gates:
        st.info("This needs gates and at least two classes.")
        return
    true = int(recording.labels[row])
    first, other = true, next(k for k in range(len(names)) if k != true)
    if has_scores:
        first = int(recording.predictions[row])
        logits = recording.logits_of(slice(row, row + 1))[0]
        ranked = np.argsort(-logits, kind="stable")
        other = true if true != first else int(ranked[ranked != first][0])
    chosen = addressed.named_selectbox(
        st, f"Compare {names[first]} with", names, "versus", "class", default=None,
        scope=run.key, placeholder=names[other],
        help="The first class is the predicted one. Without a choice, the second class is the true "
        "class, or the next most probable one if the prediction is right.",
    )  # fmt: skip
    if addressed.is_unknown("versus"):
        return
    second = other if chosen is None else names.index(chosen)
    if second == first:
        st.info("This is the predicted class itself. Choose another class.")
        return
    try:
        table = live.between_classes(run, row, first, second)
    except InputError as error:
        if not error.code.startswith(_LACKING):
            raise
        st.info(literal(str(error)))
        return
    labels = short_names(list(table["gate"]))
    chart = between_chart(table, labels, names[first], names[second])
    st.altair_chart(chart, alt="Where the gates of the image lie between two classes")
    downloads.offer(
        f"image {row} between classes",
        draw=lambda: between_figure(table, labels, names[first], names[second]),
        table=lambda: table,
    )
    st.caption(
        "Each gate of the image is projected on the line from the mean gate of one class to that "
        "of the other. Thick lines hold the middle half of the images of a class, thin lines 90% "
        "of them. An image is left out of the mean of its own class. Where the two classes "
        "overlap, the gate does not tell them apart."
    )


@section
def _neighbors(run: Run, row: int) -> None:
    if not recording.gates:
        st.info("The network has no gates.")
        return
    gate, distance = choose_space(run, "near")
    if gate is None:
        return
    try:
        found = live.nearest(run, gate, row, distance)
    except InputError as error:
        if not error.code.startswith(_LACKING):
            raise
        st.info(literal(str(error)))
        return
    show_neighbors(run, found, gate_space_size(run, gate), is_here=True)


st.title("Image")
st.markdown(f"{literal(run.label)}: everything that is known about one image.")
row = _choose()
if row is not None:
    _summary(row)
    st.subheader("Maps", help="What the spatial gates and Grad-CAM show for this image.")
    _maps(run, row)
    st.subheader(
        "Between two classes",
        help="Whether the gates of this image are like those of one class or of another.",
    )
    _between(run, row)
    st.subheader(
        "Nearest images in gate space",
        help="The images whose gate is most like that of this image, among all that were recorded.",
    )
    _neighbors(run, row)
    st.subheader(
        "Gate lab",
        help="Change a gate of this image and see what the network then predicts.",
    )
    gate_lab(run, row)
