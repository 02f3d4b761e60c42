"""Example images with their masks, drawn on each map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnscope import statistics
from attnscope.data.label_kinds import CLASS
from attnscope.kinds import MAP, Gate
from attnscope.plots import needs
from attnscope.plots.images import (
    bounds_of,
    draw_colorbar,
    draw_image,
    draw_map,
    row_name,
    shared_scale,
    top_of,
)
from attnscope.plots.maps import SEED, gate_of, grad_cam_of, some_gates
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Identity, identity
from attnscope.plots.text import as_percent, short_names, shorten
from attnscope.plots.theme import GRAD_CAM_MAP, drawable_names
from attnscope.plots.titles import title_of
from attnscope.plots.views import noun_of, view_note
from attnscope.recording.masks import attributions_on_image, masks_of, on_image
from attnscope.recording.recording import Recording

_IMAGES = 8
_CAM = "Grad-CAM"


@dataclass(frozen=True)
class MaskedImages:
    """Images with their masks and maps."""

    of: Identity
    rows: Sequence[int]
    names: Sequence[str]
    """Class or number of each image."""
    images: Sequence[NDArray[np.uint8]]
    masks: NDArray[np.uint8]
    """Masks on the grid of the pictures, in 255ths, ``(images, h, w)``."""
    areas: Sequence[float]
    gates: Sequence[Gate]
    maps: Mapping[str, NDArray[np.float32]]
    """Gate -> ``(images, h, w)``."""
    grad_cam: NDArray[np.float32] | None
    energy: Mapping[str, Sequence[float]]
    """Gate or ``Grad-CAM`` -> the share of each map's energy inside the mask."""
    masked: int
    """Number of images with a mask."""
    left_out: str
    """A sentence if not all gates are drawn, else empty."""


def compute(recording: Recording) -> MaskedImages:
    """Choose images with a mask at random, and read their maps and scores."""
    masks = masks_of(recording)
    random = np.random.default_rng(SEED)
    places = np.sort(random.permutation(len(masks.rows))[:_IMAGES])
    rows = [int(row) for row in masks.rows[places]]
    of_maps = [gate for gate in recording.gates_with(MAP) if on_image(gate)]
    gates, left_out = some_gates(of_maps)
    energy = {}
    for gate in gates:
        table = statistics.localization(recording, gate.name, masks=masks)
        energy[gate.name] = table.set_index("row").loc[rows, "energy"].tolist()
    cams = grad_cam_of(recording, rows) if attributions_on_image(recording) else None
    if cams is not None:
        table = statistics.attribution_localization(recording, masks=masks)
        energy[_CAM] = table.set_index("row").loc[rows, "energy"].tolist()
    classes = drawable_names(recording.classes)
    labels = recording.labels if recording.label_kind == CLASS else None
    return MaskedImages(
        identity(recording),
        rows,
        [f"image {row}" if labels is None else classes[labels[row]] for row in rows],
        [recording.image(row) for row in rows],
        masks.pictures[places],
        masks.areas[places].tolist(),
        gates,
        {gate.name: gate_of(recording, gate.name, rows) for gate in gates},
        cams,
        energy,
        len(masks.rows),
        left_out,
    )


def draw(ax: Axes, mask: NDArray[np.uint8], grid: tuple[int, int]) -> Axes:
    """Draw the outline of a mask over an image or a map.

    Args:
        ax: Axes that show an image of ``grid`` rows and columns.
        mask: ``(h, w)``, in 255ths.
        grid: rows and columns of what the Axes show.
    """
    # A margin that is outside closes the outline of a mask that reaches the border of the image.
    wide = np.pad(mask.astype(np.float64) / 255, 1)
    y, x = (
        (np.arange(-1, size + 1) + 0.5) / size * cells - 0.5
        for size, cells in zip(mask.shape, grid, strict=True)
    )
    for color, width in (("black", 2.0), ("#FF4FC3", 1.0)):
        ax.contour(x, y, wide, levels=[0.5], colors=color, linewidths=width)
    ax.set_xlim(-0.5, grid[1] - 0.5)
    ax.set_ylim(grid[0] - 0.5, -0.5)
    return ax


def lay_out(shown: MaskedImages) -> list[Figure]:
    """Draw one row for each image: the image, every gate and Grad-CAM, each with the outline."""
    gates, cams = shown.gates, shown.grad_cam
    low, high = shared_scale(shown.maps.values()) if gates else (0.0, 1.0)
    top = top_of(cams) if cams is not None else 1.0
    short = short_names([gate.name for gate in gates])
    columns = 1 + len(gates) + (cams is not None)
    size = (max(5.5, 2 + 0.95 * columns), 1.0 + 1.0 * len(shown.images))
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots(len(shown.images), columns, squeeze=False)
    for i, image in enumerate(shown.images):
        draw_image(axes[i, 0], image, "" if i else "image")
        row_name(axes[i, 0], shown.names[i])
        _score(axes[i, 0], shown.areas[i])
        shapes = [image.shape[:2]]
        for ax, gate, text in zip(axes[i, 1:], gates, short, strict=False):
            values = shown.maps[gate.name][i]
            draw_map(ax, values, low=low, high=high, title="" if i else shorten(text, 16))
            _score(ax, shown.energy[gate.name][i])
            shapes.append(values.shape)
        if cams is not None:
            title = "" if i else _CAM
            draw_map(axes[i, -1], cams[i], low=0, high=top, title=title, cmap=GRAD_CAM_MAP)
            _score(axes[i, -1], shown.energy[_CAM][i])
            shapes.append(cams[i].shape)
        for ax, (height, width) in zip(axes[i], shapes, strict=True):
            draw(ax, shown.masks[i], (height, width))
    if gates:
        label = f"{noun_of(gates, MAP)} ({bounds_of(gates)})"
        draw_colorbar(axes[0, 1], label, list(axes[:, 1 : 1 + len(gates)].ravel()))
    if cams is not None:
        draw_colorbar(axes[0, -1], "Grad-CAM after the ReLU", list(axes[:, -1]))
    figure.suptitle(f"Masks on images and maps: {title_of(shown.of)}")
    return [figure]


def table(shown: MaskedImages) -> pd.DataFrame:
    """Return area of each mask and energy of each map inside it."""
    energy = {f"energy {name}": shares for name, shares in shown.energy.items()}
    return pd.DataFrame({"row": shown.rows, "image": shown.names, "area": shown.areas, **energy})


def caption(shown: MaskedImages) -> str:
    """Describe the choice of images, the numbers below the maps, and the color scales."""
    text = (
        f"{len(shown.rows)} of {shown.masked:,} images with a mask, chosen at random with seed "
        f"{SEED}; outlines show the masks. The number below an image is the share of it that the "
        "mask covers, and that below a map the share of its energy inside the mask (a dash for a "
        "constant map). "
    )
    if shown.gates:
        low, high = shared_scale(shown.maps.values())
        text += (
            f"{noun_of(shown.gates, MAP, plural=True).capitalize()} are raw values on one color "
            f"scale from {low:.3g} to {high:.3g} ({bounds_of(shown.gates)}). {shown.left_out}"
            f"{view_note(shown.gates, MAP)}"
        )
    if shown.grad_cam is not None:
        text += (
            "Grad-CAM of the predicted class after the ReLU is on one color scale from 0 to "
            f"{top_of(shown.grad_cam):.3g}."
        )
    return text.rstrip()


def _score(ax: Axes, share: float) -> None:
    ax.set_xlabel(as_percent(share, 0), fontsize=6.5, labelpad=1)


register_plot(
    Plot(
        name="masked_images",
        title="Masks on images and maps",
        about="Example images and their maps with the outlines of the masks.",
        subject=Recording,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=table,
        needs=(needs.masks(),),
        place=96,
    )
)
