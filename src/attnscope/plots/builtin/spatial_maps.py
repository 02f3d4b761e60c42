"""Mean spatial gates and mean Grad-CAM of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnscope import statistics
from attnscope.kinds import MAP, Gate
from attnscope.plots.choosing import choice_note, most_different
from attnscope.plots.images import (
    bounds_of,
    draw_colorbar,
    draw_map,
    row_name,
    shared_scale,
    top_of,
)
from attnscope.plots.maps import some_gates
from attnscope.plots.registry import Plot, Unavailable, register_plot
from attnscope.plots.subjects import Identity, has_grad_cam, identity, no_gate, no_grad_cam
from attnscope.plots.tables import maps_table
from attnscope.plots.text import short_names, shorten
from attnscope.plots.theme import GRAD_CAM_MAP, drawable, drawable_names
from attnscope.plots.titles import title_of
from attnscope.plots.views import noun_of, view_note
from attnscope.recording.recording import Recording

CLASSES_A_PAGE = 20
_MAPS_A_ROW = 10  # where only Grad-CAM is drawn


@dataclass(frozen=True)
class SpatialMaps:
    """Class means of spatial gates, of Grad-CAM, or of both."""

    of: Identity
    classes: Sequence[str]
    gates: Sequence[Gate]
    """The gates that are drawn; empty if the network has none."""
    maps: Mapping[str, NDArray[np.float64]]
    """Gate -> ``(classes, h, w)``."""
    grad_cam: NDArray[np.float64] | None
    """``(classes, h, w)``; None if it was not recorded."""
    left_out: str
    """A sentence if not all gates are drawn, else empty."""
    without: str
    """A sentence if the network has no spatial gate, else empty."""
    chosen: Sequence[int] | None = None
    """Numbers of the classes that are drawn; None for all."""

    @property
    def drawn(self) -> Sequence[int]:
        """Numbers of the classes that are drawn."""
        return range(len(self.classes)) if self.chosen is None else self.chosen


def compute(recording: Recording) -> SpatialMaps:
    """Compute the class means of all recorded maps; choose the classes that differ most if there
    are many.

    Raises:
        Unavailable: there are no maps.
    """
    gates, left_out = some_gates(recording.gates_with(MAP))
    without = "" if gates else no_gate(recording, MAP)
    cams = None
    if has_grad_cam(recording):
        cams = statistics.class_mean_grad_cam(recording, "predicted")
    elif not gates:
        raise Unavailable("AS904", f"{without} {no_grad_cam(recording)}".removesuffix("."))
    maps = {gate.name: statistics.class_mean_maps(recording, gate.name) for gate in gates}
    means = [*maps.values()] if cams is None or gates else [cams]
    chosen = most_different(means, len(recording.classes), CLASSES_A_PAGE)
    return SpatialMaps(
        identity(recording), recording.classes, gates, maps, cams, left_out, without, chosen
    )


def lay_out(shown: SpatialMaps) -> list[Figure]:
    """Draw a row for each class; only Grad-CAM if there is no spatial gate."""
    if not shown.gates:
        return [_grad_cam_alone(shown)]
    return [
        _page(shown, shown.drawn[first : first + CLASSES_A_PAGE])
        for first in range(0, len(shown.drawn), CLASSES_A_PAGE)
    ]


def table(shown: SpatialMaps) -> pd.DataFrame:
    """Return the values of the maps that are drawn."""
    drawn = list(shown.drawn)
    maps = {**shown.maps, "Grad-CAM": shown.grad_cam}
    of_drawn = {name: None if means is None else means[drawn] for name, means in maps.items()}
    return maps_table(of_drawn, [shown.classes[k] for k in drawn], "class")


def caption(shown: SpatialMaps) -> str:
    """Describe the maps and their color scales."""
    cams = shown.grad_cam
    of_cam = ""
    if cams is not None:
        top = f"{top_of(cams):.3g}"
        of_cam = (
            "mean Grad-CAM of the predicted class after the ReLU, over the images of each class, "
            f"on one color scale from 0 to {top}. Grad-CAM is not normalized, so images with "
            "larger gradients have more weight."
        )
    what = "Grad-CAM differs" if not shown.gates else "gates differ"
    chosen = choice_note(shown.classes, shown.drawn, f"whose mean {what} most from the mean")
    if not shown.gates:
        return f"{shown.without} The figure shows {of_cam} {chosen}".rstrip()
    low, high = shared_scale(shown.maps.values())
    text = (
        f"Mean {noun_of(shown.gates, MAP)} over the images of each class, gates in forward order, "
        f"on one color scale from {low:.3g} to {high:.3g} ({bounds_of(shown.gates)}), without "
        f"interpolation. {shown.left_out}{view_note(shown.gates, MAP)}"
    )
    text = f"{text}Last column: {of_cam}" if of_cam else text.strip()
    return f"{text} {chosen}".rstrip()


def _page(shown: SpatialMaps, page: Sequence[int]) -> Figure:
    gates, cams = shown.gates, shown.grad_cam
    low, high = shared_scale(shown.maps.values())
    top = top_of(cams) if cams is not None else 1.0
    short = short_names([gate.name for gate in gates])
    names = drawable_names(shown.classes)
    columns = len(gates) + (cams is not None)
    size = (max(5.5, 2 + 0.82 * columns), 1.0 + 0.78 * len(page))
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots(len(page), columns, squeeze=False)
    for row, i in zip(axes, page, strict=True):
        first = i == page[0]
        for ax, gate, text in zip(row, gates, short, strict=False):
            values = shown.maps[gate.name][i]
            title = f"{shorten(text, 16)}\n{values.shape[0]} × {values.shape[1]}"
            draw_map(ax, values, low=low, high=high, title=title if first else "")
        if cams is not None:
            title = f"Grad-CAM\n{cams.shape[1]} × {cams.shape[2]}" if first else ""
            draw_map(row[-1], cams[i], low=0, high=top, title=title, cmap=GRAD_CAM_MAP)
        row_name(row[0], names[i])
    label = f"mean {noun_of(gates, MAP)} ({bounds_of(gates)})"
    draw_colorbar(axes[0, 0], label, list(axes[:, : len(gates)].ravel()))
    if cams is not None:
        draw_colorbar(axes[0, -1], "mean Grad-CAM after the ReLU", list(axes[:, -1]))
    figure.suptitle(f"Mean {noun_of(gates, MAP, plural=True)} per class: {title_of(shown.of)}")
    return figure


def _grad_cam_alone(shown: SpatialMaps) -> Figure:
    assert shown.grad_cam is not None  # else there is nothing to draw
    every = drawable_names(shown.classes)
    cams, names = shown.grad_cam[list(shown.drawn)], [every[i] for i in shown.drawn]
    rows = -(-len(names) // _MAPS_A_ROW)
    columns = -(-len(names) // rows)
    width = max(6.0, 1 + 1.1 * columns)
    side = min(
        2.2, (width - 1.6) / columns
    )  # of a map; its height follows, so that nothing is empty
    figure = Figure(figsize=(width, 0.7 + rows * (side + 0.25)), layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    for ax, cam, name in zip(axes, cams, names, strict=False):
        title = shorten(name, 16)
        draw_map(ax, cam, low=0, high=top_of(shown.grad_cam), title=title, cmap=GRAD_CAM_MAP)
    draw_colorbar(axes[0], "mean Grad-CAM after the ReLU", list(axes))
    figure.suptitle(f"Mean Grad-CAM per class: {title_of(shown.of)}\n{drawable(shown.without)}")
    return figure


register_plot(
    Plot(
        name="spatial_maps",
        title="Spatial maps",
        about="Mean spatial gates and mean Grad-CAM of each class.",
        subject=Recording,
        compute=compute,
        draw=draw_map,
        lay_out=lay_out,
        caption=caption,
        table=table,
        place=70,
    )
)
