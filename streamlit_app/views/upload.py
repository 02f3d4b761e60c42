"""An image of the visitor: prediction, maps, Grad-CAM, and the recorded images that are nearest."""

from __future__ import annotations

import hashlib
from functools import partial

import streamlit as st
from cached import Run, live, maps, uploads
from grids import as_png
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
from widgets import chosen_run, literal, section, show_grid, show_picture

from attnscope.dashboard.access import actions_allowed
from attnscope.kinds import MAP
from attnscope.plots.views import view_note

LARGEST = 20  # MiB
run = chosen_run()
recording = run.recording


@section
def _try(run: Run) -> None:
    sent = st.file_uploader(
        "Image file (PNG, JPEG or WebP)", ["png", "jpg", "jpeg", "webp"], key="upload",
        max_upload_size=LARGEST,
        help=f"At most {LARGEST} MiB and 50 megapixels, one picture. The file stays in the memory "
        "of the dashboard and is not written anywhere.",
    )  # fmt: skip
    if sent is None:
        return
    content = sent.getvalue()
    key = hashlib.sha256(content).hexdigest()
    seen = uploads.look(run, key, content)
    left, right = st.columns([1, 2])
    with left.container(border=True):
        show_picture(uploads.shown(seen))
    left.caption(seen.about)
    with right:
        if seen.logits is not None:
            st.text(
                f"Prediction: {recording.classes[int(seen.logits.argmax())]}, confidence "
                f"{softmax(seen.logits).max():.3f}. The network knows "
                f"{len(recording.classes)} classes, and gives one of them for any image."
            )
            probabilities(run, seen.logits, None, "own image")
        else:
            st.info("The network gives no class scores, so that there is no prediction.")
    _maps(run, seen)
    if recording.gates:
        st.subheader(
            "Nearest recorded images",
            help="The recorded images whose gate is most like that of your image.",
        )
        gate, distance = choose_space(run, "own")
        if gate is None:
            return
        table = live.nearest_of(run, gate, seen.gates[gate][0], distance)
        show_neighbors(run, table, gate_space_size(run, gate))


def _maps(run: Run, seen: uploads.Seen) -> None:
    spatial = recording.gates_with(MAP)
    gates = {gate.name: maps.as_maps(gate, seen.gates[gate.name]) for gate in spatial}
    cams = {} if seen.grad_cam is None else {"Grad-CAM\npredicted": seen.grad_cam.clip(0)}
    if not gates and not cams:
        return
    st.subheader("Maps", help="What the spatial gates and Grad-CAM show for your image.")
    own = own_bounds(bool(gates), "own_scale")
    figure = partial(maps.one_figure, run, seen.picture, gates, cams, own)
    show_grid(as_png(figure()))
    maps_download("own image maps", figure, lambda: maps.values_table(run, gates, cams))
    st.caption(
        "Each map at its own resolution, and below that over the image, as the network received "
        f"it. All gates share one color scale. {view_note(spatial, MAP)}"
    )
    with st.expander("Values at the pointer"):
        map_values(run, gates, cams, own)


st.title("Your own image")
st.markdown(
    f"{literal(run.label)}: send an image and see what the network predicts for it, and where its "
    "gates are open. It is prepared as the recorded images were."
)
if actions_allowed():
    _try(run)
else:
    st.info(
        "Sending images is switched off here, because this dashboard can be reached from other "
        f"machines. Its owner can allow it with {literal('--allow-actions')}."
    )
