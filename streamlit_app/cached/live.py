"""The network of a recording, neighbors in gate space, and the line between two classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.statistics import between, neighbors
from cached.caching import resource, statistic
from cached.found import Run

if TYPE_CHECKING:
    from attnscope.live import GateEdit, LiveNetwork


@resource
def network(run: Run) -> LiveNetwork:
    """``LiveNetwork.open``

    Raises:
        InputError: the network is not found, or has changed.
    """
    if not run.recording.has_source:
        run.recording.source()  # raises without torch, whose import takes seconds
    from attnscope.live import LiveNetwork

    return LiveNetwork.open(run.recording)


@statistic
def scores(run: Run, row: int, gate: str | None, edit: GateEdit | None) -> NDArray[np.float32]:
    """Return the logits of one image, ``(K,)``, from the network with an edited gate.

    Raises:
        InputError: as `LiveNetwork.scores`.
    """
    edits = {} if gate is None or edit is None else {gate: edit}
    found: NDArray[np.float32] = network(run).scores([row], edits)[0]
    return found


@statistic
def channel_maps(
    run: Run, gate: str, channel: int, rows: list[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the features of a channel before and after its gate, ``(n, h, w)`` each.

    Raises:
        InputError: the network or the images are not found, or the gate has no such maps.
    """
    return network(run).features(np.array(rows), gate, channel)


@statistic
def gate_space(run: Run, gate: str) -> neighbors.GateSpace:
    """``neighbors.gate_space``"""
    return neighbors.gate_space(run.recording, gate)


@statistic
def nearest(run: Run, gate: str, row: int, distance: neighbors.Distance) -> pd.DataFrame:
    """``neighbors.nearest_images`` of a recorded image"""
    space = gate_space(run, gate)
    values = run.recording.values(gate, space.trait, slice(row, row + 1))[0]
    return neighbors.nearest_images(run.recording, space, values, distance=distance, without=row)


def nearest_of(
    run: Run, gate: str, values: NDArray[Any], distance: neighbors.Distance
) -> pd.DataFrame:
    """Return ``neighbors.nearest_images`` of another image.

    Args:
        run: the recording that is searched.
        gate: name of the gate.
        values: the gate of the image with all its axes, ``(*gate)``.
        distance: as for `nearest`.
    """
    space = gate_space(run, gate)
    view = None if space.trait is None else run.recording.info(gate).view(space.trait)
    seen = values if view is None else view.reduce(values[None])[0]
    return neighbors.nearest_images(run.recording, space, seen, distance=distance)


@statistic
def class_points(run: Run, gate: str, number: int) -> between.ClassPoints:
    """``between.class_points``"""
    return between.class_points(run.recording, gate, number)


@statistic
def between_classes(run: Run, row: int, first: int, second: int) -> pd.DataFrame:
    """Return where the gates of an image lie between two classes, one row per gate.

    Returns:
        Columns: gate, position, and for ``first`` and ``second`` each the quantiles
        ``first_p05``, ``first_p25``, ``first_median``, ``first_p75``, ``first_p95``.

    Raises:
        InputError: a class has fewer than two images.
    """
    rows = []
    for gate in run.recording.gates:
        points = (class_points(run, gate.name, number) for number in (first, second))
        line = between.line_between(*points)
        values = run.recording.values(gate.name, line.trait, slice(row, row + 1))[0]
        found: dict[str, Any] = {"gate": gate.name, "position": line.position(row, values)}
        for quantiles in line.quantiles().to_dict("records"):
            side = quantiles.pop("side")
            found |= {f"{side}_{name}": value for name, value in quantiles.items()}
        rows.append(found)
    return pd.DataFrame(rows)
