"""One channel of a gate: its values, their distribution in each class, and its extreme images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.recording.recording import Recording
from attnscope.shapes import Array
from attnscope.statistics.reading import gate_chunks


def channel_count(recording: Recording, gate: str) -> int:
    """Return the number of channels that `Recording.channel` gives for a gate.

    Raises:
        InputError: there is no gate of that name, or it has no channels.
    """
    return int(recording.channel(gate, slice(0, 0)).shape[1])


def channel_values(recording: Recording, gate: str, channel: int) -> Float32[Array, " images"]:
    """Read one channel of a gate for all images, without holding the whole gate in memory.

    Args:
        recording: recording of one network.
        gate: name of a gate with channels.
        channel: number of the channel, from 0.

    Returns:
        The gate of each image, ``(N,)``, in units of the gate.

    Raises:
        InputError: there is no gate of that name or it has no channels, or there is no such channel
            (AS742).
    """
    count = channel_count(recording, gate)
    if not 0 <= channel < count:
        raise InputError(
            "AS742", f"gate '{gate}' has no channel {channel}; choose one from 0 to {count - 1}"
        )
    values = np.empty(len(recording), np.float32)
    for rows in gate_chunks(recording, gate):
        values[rows] = recording.channel(gate, rows)[:, channel]
    return values


def channel_extremes(values: Float32[Array, " images"], count: int) -> pd.DataFrame:
    """Return the images that close and open a channel most.

    Args:
        values: the gate of each image, ``(N,)``. Images with NaN are left out.
        count: number of images at each end. No image is at both ends.

    Returns:
        One row per image. Of equal values, the image with the lower number is first.

        - ``end``: ``high`` for the images with the largest gates, in descending order, then ``low``
          for those with the smallest, in ascending order.
        - ``image``: row of the recording.
        - ``value``: the gate.
    """
    known = np.flatnonzero(~np.isnan(values))
    upward = known[np.argsort(values[known], kind="stable")]
    downward = known[np.argsort(-values[known], kind="stable")]
    high = downward[: min(count, -(-len(known) // 2))]
    low = upward[~np.isin(upward, high)][:count]
    rows = np.concatenate([high, low])
    return pd.DataFrame(
        {
            "end": ["high"] * len(high) + ["low"] * len(low),
            "image": rows,
            "value": values[rows],
        }
    )


def channel_histogram(
    values: Float32[Array, " images"],
    labels: Int64[Array, " images"],
    classes: Sequence[int],
    bins: int = 40,
) -> pd.DataFrame:
    """Count the images of some classes by the value of a channel.

    All classes share the bins, which divide the range of the values of all images evenly.

    Args:
        values: the gate of each image, ``(N,)``. NaN is not counted.
        labels: class of each image, ``(N,)``.
        classes: numbers of the classes.
        bins: number of bins.

    Returns:
        One row per class and bin, ordered as the classes are:

        - ``class``: number of the class.
        - ``start``, ``end``: ends of the bin, in units of the gate.
        - ``count``: number of images. A value on an inner edge counts in the upper bin.
        - ``share``: count divided by the number of counted images of the class; 0 without images.
    """
    known = ~np.isnan(values)
    edges = _edges(values[known], bins)
    frames = []
    for k in classes:
        count, _ = np.histogram(values[known & (labels == k)], edges)
        total = max(int(count.sum()), 1)
        frames.append(
            pd.DataFrame(
                {
                    "class": k, "start": edges[:-1], "end": edges[1:], "count": count,
                    "share": count / total,
                }
            )
        )  # fmt: skip
    columns = ["class", "start", "end", "count", "share"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def _edges(values: NDArray[np.float32], bins: int) -> NDArray[np.float64]:
    """Return ``bins + 1`` edges over the range of values; around a single value, one of its own."""
    if not len(values):
        return np.linspace(0, 1, bins + 1)
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6 * max(abs(low), abs(high), 1e-6):  # constant up to rounding
        low, high = low - 0.005, high + 0.005
    return np.linspace(low, high, bins + 1)
