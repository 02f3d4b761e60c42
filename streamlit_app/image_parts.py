"""What the pages of one image share: its maps, probabilities, neighbors, and the network."""

from __future__ import annotations

from typing import Any

import addressed
import cached
import downloads
import numpy as np
import pandas as pd
import streamlit as st
from cached import Run, live, maps
from image_charts import LARGEST_GRID, bars, probability_figure, value_maps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from widgets import breakable, literal, row_of_controls, show_picture

from attnscope.dashboard.access import actions_allowed
from attnscope.data.label_kinds import CLASS
from attnscope.plots.images import scale_of
from attnscope.statistics.neighbors import Distance

TOP = 10
"""Classes whose probabilities are drawn."""
BOUNDS, RANGE = "Bounds of the gates", "Range of the shown values"
DISTANCES: dict[str, Distance] = {"Angle (cosine)": "cosine", "Length (Euclidean)": "euclidean"}


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return probabilities ``(K,)`` of logits ``(K,)``."""
    shifted = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    found: NDArray[np.float64] = shifted / shifted.sum()
    return found


def own_bounds(has_gates: bool, key: str) -> bool:
    """Show the control for the color scale of gates; return whether it goes from bound to bound."""
    if not has_gates:
        return True
    scale = st.segmented_control(
        "Color scale of the gates", [BOUNDS, RANGE], default=BOUNDS, required=True, key=key,
        help="All gates on the page share one color scale. The values are raw gate values and are "
        "not normalized.",
    )  # fmt: skip
    return bool(scale == BOUNDS)


def probabilities(run: Run, logits: NDArray[Any], true: int | None, key: str) -> None:
    """Show the most probable classes, and the true one if it is not among them."""
    classes, shares = run.recording.classes, softmax(logits)
    order = np.argsort(-shares, kind="stable")[:TOP].tolist()
    predicted = order[0]
    if true is not None and true not in order:
        order.append(true)
    roles = ["true" if k == true else "predicted" if k == predicted else "other" for k in order]
    table = pd.DataFrame(
        {
            "class": [classes[k] for k in order],
            "probability": shares[order],
            "logit": np.asarray(logits, np.float64)[order],
            "role": roles,
        }
    )
    st.altair_chart(bars(table), alt="Probabilities of the most probable classes")
    downloads.offer(
        f"{key} probabilities", draw=lambda: probability_figure(table), table=lambda: table
    )


def map_values(run: Run, gates: maps.Maps, cams: maps.Maps, own: bool) -> None:
    """Show maps whose raw values appear where the pointer is, as far as they are small enough."""

    def fits(each: maps.Maps) -> maps.Maps:
        return {name: m for name, m in each.items() if max(m.shape[1:]) <= LARGEST_GRID}

    small, small_cams = fits(gates), fits(cams)
    left_out = len(gates) + len(cams) - len(small) - len(small_cams)
    if left_out:
        st.caption(
            f"Values are shown for maps of at most {LARGEST_GRID}×{LARGEST_GRID} positions; "
            f"{left_out} larger {'map is' if left_out == 1 else 'maps are'} left out here."
        )
    if not small and not small_cams:
        return
    table = maps.values_table(run, small, small_cams)
    for kind, some in (("gate", small), ("Grad-CAM", small_cams)):
        if some:
            columns = maps.columns_of(
                run, gates if kind == "gate" else {}, cams if kind != "gate" else {},
                own_bounds=own, is_over=False,
            )  # fmt: skip
            here = table[table["kind"] == kind]
            st.altair_chart(
                value_maps(here, columns[0].low, columns[0].high, kind), width="content",
                alt=f"Raw values of each {kind} map",
            )  # fmt: skip


def show_neighbors(run: Run, table: pd.DataFrame, searched: int, *, is_here: bool = False) -> None:
    """Show the nearest images with their distances and links.

    Args:
        run: the recording.
        table: of `nearest_images`.
        searched: number of images that were searched.
        is_here: whether this is the page of an image. A link from a page to itself does not change
            the address, so that buttons are shown, which set the number of the image.
    """
    recording = run.recording
    said = f"{searched:,} evenly spaced images" if searched < len(recording) else "all images"
    st.caption(
        f"The nearest of {said}. Below each image: its distance, and its true class → predicted "
        "class."
    )
    rows = [int(row) for row in table["image"]]
    for start in range(0, len(rows), 5):
        cells = st.columns(5)
        for place, cell in zip(range(start, min(start + 5, len(rows))), cells, strict=False):
            row = rows[place]
            with cell.container(border=True):
                show_picture(cached.image(run, row, cached.NO_OVERLAY, 0.0, 1.0))
                st.text(f"distance {table['distance'].iloc[place]:.3f}\n{classes_of(run, row)}")
                if not is_here:
                    link_to(run, row)
                elif st.button(f"Open image {row}", key=f"to {row}", on_click=_go, args=(row,)):
                    st.rerun()  # the whole page, and not only this section


def _go(row: int) -> None:
    addressed.choose(image=row)


def classes_of(run: Run, row: int) -> str:
    """Return the true and the predicted class of an image in words, as far as they are known."""
    recording, known = run.recording, []
    if recording.label_kind == CLASS:
        known.append(recording.classes[recording.labels[row]])
    if recording.has_scores:
        known.append(recording.classes[recording.predictions[row]])
    return breakable(" → ".join(known))


def link_to(run: Run, row: int) -> None:
    """Show a link to the page of an image."""
    st.page_link(
        "views/image.py",
        label=f"Open image {row}",
        query_params={"run": run.label, "image": str(row)},
    )


def choose_space(run: Run, key: str) -> tuple[str | None, Distance]:
    """Show the controls for neighbors; return the gate (None: an unknown one) and the distance."""
    names = [gate.name for gate in run.recording.gates]
    place = row_of_controls()
    gate = addressed.named_selectbox(
        place, "Gate", names, f"{key}_gate", "gate", default=names[-1], scope=run.key, width=300,
        help="The images are compared by the values of this gate.",
    )  # fmt: skip
    distance = addressed.segmented_control(
        place, "Distance", list(DISTANCES), f"{key}_distance",
        help="Each channel or position is first scaled to mean 0 and standard deviation 1 over the "
        "images. The angle compares the pattern of the gate, the length also how strong it is.",
    )  # fmt: skip
    return gate, DISTANCES[distance]


def maps_download(name: str, draw: Any, table: Any) -> None:
    """Show the menu of downloads of maps."""

    def figure() -> Figure:
        found: Figure = draw()
        return found

    downloads.offer(name, draw=figure, table=table)


def network_allowed() -> bool:
    """Return whether visitors may run the network; if not, say so in one line.

    Opening a network can run the code of the user who captured it.
    """
    if actions_allowed():
        return True
    st.info(
        "Running the network is switched off here, because this dashboard can be reached from "
        f"other machines. Its owner can allow it with {literal('--allow-actions')}."
    )
    return False


def limits_of(run: Run, gate: str) -> tuple[float, float]:
    """Return the bounds of a gate, or the range of the first images if it has none."""
    info = run.recording.info(gate)
    return scale_of(info, [run.recording.gate(gate, slice(0, 100))])


def gate_space_size(run: Run, gate: str) -> int:
    """Return how many images are searched for neighbors."""
    return len(live.gate_space(run, gate).rows)
