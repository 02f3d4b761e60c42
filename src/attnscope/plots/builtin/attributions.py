"""Example images with the maps of every recorded attribution method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnscope.plots import needs
from attnscope.plots.images import draw_colorbar, draw_image, draw_map, row_name
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Identity, identity
from attnscope.plots.tables import maps_table
from attnscope.plots.text import method_name, shorten
from attnscope.plots.theme import SIGNED_MAP, drawable_names
from attnscope.plots.titles import title_of
from attnscope.recording.recording import Recording

_IMAGES = 8


@dataclass(frozen=True)
class AttributionMaps:
    """Images and the signed maps of each method."""

    of: Identity
    labels: Sequence[int]
    """Label of each image."""
    classes: Sequence[str]
    images: Sequence[NDArray[np.uint8]]
    maps: Mapping[str, NDArray[np.float32]]
    """Method -> ``(images, h, w)``, of the predicted class."""
    recorded: int
    """Number of images with maps of all methods."""

    def reach(self, method: str) -> float:
        """Return the largest magnitude of a method in the figure, the end of its color scale."""
        return max(float(np.abs(self.maps[method]).max()), 1e-6)


def compute(recording: Recording) -> AttributionMaps:
    """Read the maps of some images that have them, evenly spaced over the recording."""
    other = [name for name in recording.attribution_methods if name != "grad_cam"]
    rows = recording.attributed_rows(other[0])
    places = np.unique(np.linspace(0, len(rows) - 1, min(_IMAGES, len(rows))).round().astype(int))
    maps = {}
    for method in recording.attribution_methods:
        at = np.searchsorted(recording.attributed_rows(method), rows[places])
        maps[method] = recording.attribution(method)[at]
    return AttributionMaps(
        identity(recording),
        [int(recording.labels[row]) for row in rows[places]],
        recording.classes,
        [recording.image(int(row)) for row in rows[places]],
        maps,
        len(rows),
    )


def lay_out(shown: AttributionMaps) -> list[Figure]:
    """Draw a row for each image and a column, with one color scale, for each method."""
    columns = 1 + len(shown.maps)
    size = (max(5.5, 2.2 + 1.25 * columns), 1.2 + 1.05 * len(shown.images))
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots(len(shown.images), columns, squeeze=False)
    names = drawable_names(shown.classes)
    for row, image in enumerate(shown.images):
        draw_image(axes[row, 0], image, "" if row else "image")
        row_name(axes[row, 0], names[shown.labels[row]])
        for ax, method in zip(axes[row, 1:], shown.maps, strict=True):
            reach = shown.reach(method)
            words = shorten(method_name(method), 28).replace(" integrated", "\nintegrated")
            title = "" if row else f"{words}\n±{reach:.2g}"
            scaled = shown.maps[method][row] / reach
            draw_map(ax, scaled, low=-1, high=1, title=title, cmap=SIGNED_MAP)
    draw_colorbar(axes[0, 1], "attribution / end of the column's scale", list(axes[:, 1:].ravel()))
    figure.suptitle(f"Attributions of the predicted class: {title_of(shown.of)}")
    return [figure]


def table(shown: AttributionMaps) -> pd.DataFrame:
    """Return the values of the maps."""
    names = [f"{i}: {shown.classes[label]}" for i, label in enumerate(shown.labels)]
    return maps_table(shown.maps, names, "image")


def caption(shown: AttributionMaps) -> str:
    """Describe the images, the methods and their color scales."""
    scales = ", ".join(f"{method_name(method)} ±{shown.reach(method):.3g}" for method in shown.maps)
    return (
        f"Attributions of the predicted class for {len(shown.images)} of the {shown.recorded:,} "
        "images with attributions, evenly spaced over the recording. Red is evidence for the "
        "predicted class, blue is evidence against it. Maps are signed and summed over channels. "
        f"Each method has one color scale for all images: {scales}. The methods have different "
        "units, so their magnitudes cannot be compared."
    )


register_plot(
    Plot(
        name="attributions",
        title="Attributions",
        about="Example images with the map of every recorded attribution method.",
        subject=Recording,
        compute=compute,
        draw=draw_map,
        lay_out=lay_out,
        caption=caption,
        table=table,
        needs=(needs.attributions(),),
        place=92,
    )
)
