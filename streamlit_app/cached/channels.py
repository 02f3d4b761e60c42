"""Channels of gates: means of the classes, orders, and single channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import layouts
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope import statistics
from attnscope.dashboard.channel_removal import removed_channel
from attnscope.plots.images import scale_of
from attnscope.plots.theme import GATE_MAP, SIGNED_MAP
from attnscope.recording.places import explored_folder
from attnscope.statistics import ordering
from attnscope.statistics import profiles as of_profiles
from attnscope.statistics.channel import channel_count as channel_count
from attnscope.statistics.channel import channel_extremes, channel_histogram, channel_values
from attnscope.statistics.profiles import ClassMoments, bounds_of, class_moments
from attnscope.statistics.removal import Removal
from cached.caching import arrays, drawing, picture, statistic
from cached.found import Run, folder

NUMBER, OMEGA, SIMILARITY = "By number", "By omega squared", "By similarity"
DIFFERENCE = "Most different first"
CHANNEL_ORDERS = (NUMBER, OMEGA, SIMILARITY)
CLASS_ORDERS = (NUMBER, SIMILARITY, DIFFERENCE)
MEANS, DIFFERENCES = "Mean gate", "Difference between classes"
_MOST_PIXELS = 1600
"""Most rows and columns of a picture of all classes and channels; more are averaged."""


@dataclass(frozen=True)
class Scale:
    """The ends of a color scale, and its colors."""

    low: float
    high: float
    cmap: str


@arrays
def moments(run: Run, gate: str) -> ClassMoments:
    """Return counts, means and standard deviations of each class and channel, ``(K, C)``."""
    recording = run.recording
    return class_moments(recording.channel(gate), recording.labels, len(recording.classes))


def cells(run: Run, gate: str, classes: list[int], channels: list[int]) -> pd.DataFrame:
    """Return ``statistics.class_profiles`` of some classes and channels, and the difference.

    Returns:
        The columns of ``class_profiles``, and ``difference``: the mean minus the channel's mean
        over the classes.
    """
    known = moments(run, gate)
    where = np.ix_(classes, channels)
    part = ClassMoments(known.count[classes], known.mean[where], known.std[where])
    low, high = part.interval(bounds_of(run.recording.info(gate)))
    names = np.array(run.recording.classes, object)[classes]
    return pd.DataFrame(
        {
            "class": np.repeat(names, len(channels)),
            "channel": np.tile(channels, len(classes)),
            "mean": part.mean.ravel(),
            "std": part.std.ravel(),
            "low": low.ravel(),
            "high": high.ravel(),
            "count": np.repeat(part.count, len(channels)),
            "difference": ordering.differences(known.mean)[where].ravel(),
        }
    )


@statistic
def effects(run: Run, gate: str) -> pd.DataFrame:
    """``statistics.channel_effects``, without a test"""
    return statistics.channel_effects(run.recording, gate)


@statistic
def state(run: Run, gate: str) -> dict[str, float]:
    """Return the shares of ``statistics.gate_state`` for one gate."""
    return of_profiles.state_of(run.recording, run.recording.info(gate))


@statistic
def channel_order(run: Run, gate: str, by: str) -> list[int]:
    """Return the channels in an order of `CHANNEL_ORDERS`."""
    if by == OMEGA:
        ranked = effects(run, gate).sort_values(
            "omega_squared", ascending=False, na_position="last", kind="stable"
        )
        return [int(channel) for channel in ranked["channel"]]
    apart = ordering.differences(moments(run, gate).mean)
    if by == SIMILARITY:
        there = ~np.isnan(apart).any(1)
        return [int(channel) for channel in ordering.similarity_order(apart[there].T)]
    return list(range(apart.shape[1]))


@statistic
def class_order(run: Run, gate: str, by: str) -> list[int]:
    """Return the classes in an order of `CLASS_ORDERS`."""
    means = moments(run, gate).mean
    if by == SIMILARITY:
        order = ordering.similarity_order(ordering.differences(means))
    elif by == DIFFERENCE:
        order = ordering.difference_order(means)
    else:
        order = np.arange(len(means))
    return [int(k) for k in order]


def contrast(run: Run, gate: str, classes: list[int], channels: list[int]) -> pd.DataFrame:
    """``ordering.contrast``"""
    return ordering.contrast(moments(run, gate).mean, classes, channels)


def scale(run: Run, gate: str, what: str) -> Scale:
    """Return the color scale of all classes and channels of a gate.

    Args:
        run: the recording.
        gate: name of the gate.
        what: `MEANS` or `DIFFERENCES`.
    """
    means = moments(run, gate).mean
    if what == MEANS:
        low, high = scale_of(run.recording.info(gate), [means])
        return Scale(low, high, GATE_MAP)
    limit = float(np.nanmax(np.abs(ordering.differences(means)), initial=1e-6))
    return Scale(-limit, limit, SIGNED_MAP)


@drawing
def heat_png(run: Run, gate: str, what: str, by_class: str, by_channel: str) -> bytes:
    """Draw all classes (rows) and channels (columns) as a picture without labels."""
    means = moments(run, gate).mean
    values = means if what == MEANS else ordering.differences(means)
    rows, columns = class_order(run, gate, by_class), channel_order(run, gate, by_channel)
    shown = layouts.binned(values[np.ix_(rows, columns)], _MOST_PIXELS)
    known = scale(run, gate, what)
    return layouts.colored(shown, known.low, known.high, known.cmap, width=1200, height=420)


@arrays
def values(run: Run, gate: str, channel: int) -> NDArray[np.float32]:
    """``statistics.channel.channel_values``"""
    return channel_values(run.recording, gate, channel)


@statistic
def profile(run: Run, gate: str, channel: int) -> pd.DataFrame:
    """Return ``statistics.class_profiles`` of one channel, with the number of each class."""
    recording, classes = run.recording, len(run.recording.classes)
    known = class_moments(values(run, gate, channel), recording.labels, classes)
    low, high = known.interval(bounds_of(recording.info(gate)))
    return pd.DataFrame(
        {
            "number": np.arange(classes),
            "class": recording.classes,
            "mean": known.mean,
            "std": known.std,
            "low": low,
            "high": high,
            "count": known.count,
        }
    )


@statistic
def extremes(run: Run, gate: str, channel: int, count: int) -> pd.DataFrame:
    """``statistics.channel.channel_extremes``"""
    return channel_extremes(values(run, gate, channel), count)


@statistic
def histogram(run: Run, gate: str, channel: int, classes: list[int] | None) -> pd.DataFrame:
    """``statistics.channel.channel_histogram`` with names of classes; None: of all images"""
    of = values(run, gate, channel)
    if classes is None:
        counted = channel_histogram(of, np.zeros(len(of), np.int64), [0])
        return counted.assign(**{"class": "all images"})
    counted = channel_histogram(of, run.recording.labels, classes)
    names = run.recording.classes
    return counted.assign(**{"class": [names[k] for k in counted["class"]]})


@picture
def map_png(run: Run, values: NDArray[Any], low: float, high: float) -> bytes:
    """Draw a feature map, enlarged, on a scale from ``low`` (dark) to ``high`` (bright)."""
    return layouts.colored(values, low, high, "viridis", width=192, height=192, square=True)


def can_keep(run: Run) -> bool:
    """Return whether results about a recording are kept in the folder of the dashboard."""
    place = explored_folder(run.recording.folder)
    return place.resolve().is_relative_to(folder().resolve())


def removal(run: Run, gate: str, channel: int) -> Removal | None:
    """Return what `channel_removal.remove_channel` kept in the folder of the dashboard, or None.

    Raises:
        InputError: the file cannot be read.
    """
    return removed_channel(run.recording, gate, channel) if can_keep(run) else None
