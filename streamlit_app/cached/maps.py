"""Spatial gates and Grad-CAM of some images, as one picture and as tables."""

from __future__ import annotations

from typing import Any

import grids
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnscope.data.label_kinds import CLASS
from attnscope.kinds import MAP, Gate
from attnscope.plots.text import short_names, shorten
from attnscope.plots.theme import drawable_names
from cached.caching import drawing, picture
from cached.found import Run
from cached.pictures import GRAD_CAM, gate_columns, top_of

Maps = dict[str, NDArray[Any]]
"""Title -> one map ``(h, w)`` per image, ``(n, h, w)``."""


def gates_of(run: Run, rows: list[int]) -> Maps:
    """Return the spatial gates of some images, by the names of the gates."""
    gates = run.recording.gates_with(MAP)
    return {gate.name: run.recording.spatial(gate.name, rows) for gate in gates}


def grad_cams_of(run: Run, rows: list[int]) -> Maps:
    """Return the recorded Grad-CAM after the ReLU, for the predicted and for the true class."""
    if not run.recording.grad_cam_layers:
        return {}
    targets = {"predicted": f"{GRAD_CAM}\npredicted"}
    if run.recording.label_kind == CLASS:
        targets["true"] = f"{GRAD_CAM}\ntrue"
    return {
        title: run.recording.grad_cam(target=target, rows=rows).clip(0)
        for target, title in targets.items()
    }


def columns_of(
    run: Run, gates: Maps, cams: Maps, *, own_bounds: bool, is_over: bool
) -> list[grids.Column]:
    """Return the columns of a grid: all gates on one scale, and all Grad-CAM on another one."""
    columns = [
        grids.Column(each.title, each.maps, each.low, each.high, grad_cam=False, is_over=is_over)
        for each in gate_columns(run, gates, own_bounds)
    ]
    if cams:
        top = max(top_of(maps) for maps in cams.values())
        columns += [
            grids.Column(title, maps, 0, top, grad_cam=True, is_over=is_over)
            for title, maps in cams.items()
        ]
    return columns


def labels_of(run: Run, rows: list[int]) -> list[str]:
    """Return number, true class and predicted class of images, as labels of the rows of a grid."""
    recording = run.recording
    classes = [shorten(name, 16) for name in drawable_names(recording.classes)]
    titles = [str(row) for row in rows]
    if recording.label_kind == CLASS:
        titles = [f"{row}: {classes[recording.labels[row]]}" for row in rows]
    if recording.has_scores:
        predicted = recording.predictions
        titles = [
            f"{title}\n→ {classes[predicted[row]]}" for title, row in zip(titles, rows, strict=True)
        ]
    return titles


def figure(run: Run, rows: list[int], own_bounds: bool, is_over: bool) -> Figure:
    """Draw some images with their spatial gates and Grad-CAM, one row per image."""
    columns = columns_of(
        run, gates_of(run, rows), grad_cams_of(run, rows), own_bounds=own_bounds, is_over=is_over
    )
    images = list(run.recording.pictures(rows))
    return grids.grid_figure(labels_of(run, rows), images, columns)


@drawing
def png(run: Run, rows: list[int], own_bounds: bool, is_over: bool) -> bytes:
    """Draw `figure` as PNG."""
    return grids.as_png(figure(run, rows, own_bounds, is_over))


def one_figure(
    run: Run,
    pixels: NDArray[np.uint8],
    gates: Maps,
    cams: Maps,
    own_bounds: bool,
) -> Figure:
    """Draw one image with all its maps: at their own resolution, and below that over the image.

    Args:
        run: whose gates they are.
        pixels: the image, ``(H, W, 3)``.
        gates: maps ``(1, h, w)`` by the names of the gates.
        cams: maps ``(1, h, w)`` by their titles.
        own_bounds: whether the scale of the gates goes from bound to bound, and not only over the
            values that are shown.
    """
    columns = columns_of(run, gates, cams, own_bounds=own_bounds, is_over=False)
    both = [_repeated(column) for column in columns]
    return grids.grid_figure(["own\nresolution", "over the\nimage"], [pixels, pixels], both)


@picture
def one_png(run: Run, row: int, own_bounds: bool) -> bytes:
    """Draw `one_figure` of a recorded image as PNG."""
    return grids.as_png(recorded_figure(run, row, own_bounds))


def recorded_figure(run: Run, row: int, own_bounds: bool) -> Figure:
    """Draw `one_figure` of a recorded image."""
    gates, cams = gates_of(run, [row]), grad_cams_of(run, [row])
    return one_figure(run, run.recording.image(row), gates, cams, own_bounds)


def values_table(run: Run, gates: Maps, cams: Maps) -> pd.DataFrame:
    """Return the raw values of maps ``(1, h, w)``: one row per map and position.

    Returns:
        Columns: map (title), kind (``gate`` or ``Grad-CAM``), row, column, value.
    """
    parts = []
    every = [gate.name for gate in run.recording.gates_with(MAP)]
    short = dict(zip(every, short_names(every), strict=True))
    titles = {name: short[name] for name in gates}
    for name, maps in {**gates, **cams}.items():
        height, width = maps.shape[1:]
        parts.append(
            pd.DataFrame(
                {
                    "map": titles.get(name, name).replace("\n", ", "),
                    "kind": "gate" if name in titles else GRAD_CAM,
                    "row": np.repeat(np.arange(height), width),
                    "column": np.tile(np.arange(width), height),
                    "value": np.asarray(maps[0], np.float64).ravel(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _repeated(column: grids.Column) -> grids.Column:
    """Return a column of two rows with the same map, of which the second is over the image."""
    return grids.Column(
        column.title, [column.maps[0], column.maps[0]], column.low, column.high,
        grad_cam=column.grad_cam, is_over=(False, True),
    )  # fmt: skip


def as_maps(gate: Gate, values: NDArray[Any]) -> NDArray[Any]:
    """Return the values of a gate ``(n, ...)`` as one map per image, ``(n, h, w)``."""
    view = gate.view(MAP)
    return values if view is None else view.reduce(values)
