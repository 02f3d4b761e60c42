"""Profiles and states of gates, per class and per channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int64, Num
from numpy.typing import NDArray

from attnscope.kinds import MAP, PER_CHANNEL, Gate
from attnscope.recording.moments import Moments, Spread
from attnscope.recording.recording import Recording
from attnscope.shapes import Array
from attnscope.statistics.inference import FEWEST, bounded_mean_interval, mean_interval
from attnscope.statistics.reading import expect_finite, gate_chunks, units_of
from attnscope.statistics.registry import statistic

SATURATED = 0.01
"""A value is saturated within this share of the gate's range from one of its bounds."""
STUCK = 0.02
"""A value is stuck within this distance of the middle of the gate's bounds."""


@dataclass(frozen=True)
class ClassMoments:
    """Counts, means and standard deviations of K classes. Values may have any shape ``...``."""

    count: NDArray[np.int64]
    """Number of images, ``(K,)``."""
    mean: NDArray[np.float64]
    """``(K, ...)``; NaN for a class without images."""
    std: NDArray[np.float64]
    """Sample standard deviation (n - 1), ``(K, ...)``; NaN for a class of fewer than two images."""

    def interval(
        self, bounds: tuple[float, float] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the 95% interval of the mean; NaN for classes of fewer than `FEWEST` images.

        Args:
            bounds: the smallest and the largest possible value, for `bounded_mean_interval`. None:
                there are no bounds, and the interval is Student's (`mean_interval`).
        """
        if bounds is not None:
            return bounded_mean_interval(self.mean, self.std, self.count, bounds)
        few = (self.count < FEWEST).reshape(-1, *[1] * (self.mean.ndim - 1))
        low, high = mean_interval(self.mean, self.std, self.count)
        return np.where(few, np.nan, low), np.where(few, np.nan, high)


def class_moments(
    values: Num[Array, "images ..."], labels: Int64[Array, " images"], classes: int
) -> ClassMoments:
    """Compute the moments of ``(N, ...)`` over the images of each class, in double precision."""
    shape = (classes, *values.shape[1:])
    count = np.zeros(classes, np.int64)
    mean, std = np.full(shape, np.nan), np.full(shape, np.nan)
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(classes + 1))
    for k in range(classes):
        members = values[order[ends[k] : ends[k + 1]]]
        count[k] = len(members)
        if len(members) >= 1:
            mean[k] = members.mean(0, dtype=np.float64)
        if len(members) >= 2:
            std[k] = members.std(0, ddof=1, dtype=np.float64)
    return ClassMoments(count, mean, std)


def bounds_of(gate: Gate) -> tuple[float, float] | None:
    """Return the bounds of a gate; None for a multiplier without bounds."""
    return (gate.lo, gate.hi) if gate.bounded else None


def _moments_of(spread: Spread) -> ClassMoments:
    return ClassMoments(spread.count, spread.mean, spread.std)


@statistic(
    "Mean of every channel over the images of each class.",
    takes=("recording", "gate"),
    trait=PER_CHANNEL,
)
def class_profiles(recording: Recording | Moments, gate: str) -> pd.DataFrame:
    """Average every channel of a gate over the images of each class.

    The interval is Korn and Graubard's (1998, Survey Methodology 24; `bounded_mean_interval`),
    which respects the bounds of the gate; for a multiplier without bounds it is Student's t. It is
    pointwise: it is not corrected for the number of channels and classes. There is no test;
    `permuted_channel_effects` tests for differences between classes.

    Args:
        recording: recording or moments of one network.
        gate: name of a channel gate.

    Returns:
        One row per class and channel, ordered by class. All columns except count are in units of
        the gate.

        - ``class``, ``channel``
        - ``mean``
        - ``std``: sample standard deviation (n - 1 in the denominator).
        - ``low``, ``high``: 95% CI of the mean.
        - ``count``: number of images of the class.

        Without images count is 0 and the other numbers are NaN. With one image std is NaN, and with
        fewer than ten low and high are NaN.

    Raises:
        InputError: the gate does not exist or is not a channel gate.
    """
    if isinstance(recording, Moments):
        moments = _moments_of(recording.channels(gate))
    else:
        values = recording.channel(gate)
        moments = class_moments(values, recording.labels, len(recording.classes))
    low, high = moments.interval(bounds_of(recording.info(gate)))
    channels = moments.mean.shape[1]
    return pd.DataFrame(
        {
            "class": np.repeat(recording.classes, channels),
            "channel": np.tile(np.arange(channels), len(recording.classes)),
            "mean": moments.mean.ravel(),
            "std": moments.std.ravel(),
            "low": low.ravel(),
            "high": high.ravel(),
            "count": np.repeat(moments.count, channels),
        }
    )


@statistic(
    "Share of each channel's variance between classes.",
    takes=("recording", "gate"),
    trait=PER_CHANNEL,
)
def channel_effects(recording: Recording, gate: str) -> pd.DataFrame:
    """Measure how much each channel differs between classes: one-way analysis of variance.

    With K classes that have images, N images, and the sums of squares between classes (SSB), within
    classes (SSW) and in total (SST): ``MSW = SSW / (N - K)``, ``F = (SSB / (K - 1)) / MSW``, ``eta²
    = SSB / SST`` and ``omega² = (SSB - (K - 1) MSW) / (SST + MSW)`` (Hays 1963, Statistics for
    Psychologists). Unlike eta², omega² is close to 0 on average if there is no effect, and can be
    slightly negative.

    There is no test, because gates are neither normal nor of equal variance, as the F test assumes:
    where most values are 0 and classes have different sizes, its p values are far too small.
    `permuted_channel_effects` tests the channels.

    Args:
        recording: recording of one network.
        gate: name of a channel gate.

    Returns:
        One row per channel:

        - ``channel``
        - ``f``
        - ``eta_squared``, ``omega_squared``: shares of variance.
        - ``constant``: whether the channel has the same value for all images. Its numbers are NaN.

        A channel that varies between classes only has an infinite f and both shares 1. All numbers
        are NaN with fewer than two classes, or if every class has one image.

    Raises:
        InputError: the gate does not exist or is not a channel gate, or a value is not finite.
    """
    values = recording.channel(gate)
    expect_finite(values, f"gate '{gate}'", recording)
    channels = values.shape[1]
    constant = values.max(0) == values.min(0)
    f, eta, omega = (np.full(channels, np.nan) for _ in range(3))
    moments = class_moments(values, recording.labels, len(recording.classes))
    count = moments.count[:, None]
    between = int((moments.count > 0).sum()) - 1
    within = len(values) - between - 1
    varying = ~constant
    if between > 0 and within > 0 and varying.any():
        offset = moments.mean - values.mean(0, dtype=np.float64)
        ssb = np.nansum(count * offset**2, 0)[varying]
        # A class of one image contributes nothing: its NaN counts as 0.
        ssw = np.nansum((count - 1) * moments.std**2, 0)[varying]
        msw = ssw / within
        with np.errstate(
            divide="ignore"
        ):  # msw is 0 for a channel that varies between classes only
            f[varying] = ssb / between / msw
        eta[varying] = ssb / (ssb + ssw)
        omega[varying] = (ssb - between * msw) / (ssb + ssw + msw)
    return pd.DataFrame(
        {
            "channel": np.arange(channels),
            "f": f,
            "eta_squared": eta,
            "omega_squared": omega,
            "constant": constant,
        }
    )


@statistic("Mean of each gate over channels or pixels, per class.")
def gate_profiles(recording: Recording | Moments) -> pd.DataFrame:
    """Average every gate over its channels or pixels, then over the images of each class.

    For branches that share a softmax, the mean over the branches is the same for every image, so
    the mean of the first branch is used. The interval is that of `class_profiles`.
    There is no test.

    Args:
        recording: recording or moments of one network.

    Returns:
        One row per gate and class; no rows for a network without gates. mean, std, low and high are
        in units of the gate.

        - ``gate``, ``kind``, ``depth``, ``class``
        - ``mean``, ``std``, ``low``, ``high``, ``count``: as in `class_profiles`, NaN included.
    """
    frames = []
    for depth, gate in enumerate(recording.gates, start=1):
        if isinstance(recording, Moments):
            moments = _moments_of(recording.image_means(gate.name))
        else:
            image_means = np.concatenate(
                [
                    gate.image_means(recording.gate(gate.name, rows))
                    for rows in gate_chunks(recording, gate.name)
                ]
            )
            moments = class_moments(image_means, recording.labels, len(recording.classes))
        low, high = moments.interval(bounds_of(gate))
        frames.append(
            pd.DataFrame(
                {
                    "gate": gate.name,
                    "kind": gate.kind,
                    "depth": depth,
                    "class": recording.classes,
                    "mean": moments.mean,
                    "std": moments.std,
                    "low": low,
                    "high": high,
                    "count": moments.count,
                }
            )
        )
    columns = ["gate", "kind", "depth", "class", "mean", "std", "low", "high", "count"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


@statistic("Share of each gate's values that is saturated, stuck or constant.")
def gate_state(recording: Recording) -> pd.DataFrame:
    """Measure which share of a gate's values is saturated, stuck or constant.

    The raw values are counted, one per image and channel or per image and pixel. There is no
    interval; `state_sweep` has intervals and other thresholds.

    Args:
        recording: recording of one network.

    Returns:
        One row per gate. All shares are 0 to 1.

        - ``gate``, ``kind``, ``depth``
        - ``saturated_low``, ``saturated_high``: share of values within 1% of the gate's range from
          its lower and upper bound.
        - ``stuck``: share of values within 0.02 (in units of the gate) of the middle of the bounds,
          where a sigmoid starts.
        - ``constant``: for a spatial gate, the share of images whose map has the same value at all
          pixels; for other kinds, the share of units (channels of a channel gate) that have the
          same value for all images. Values must be exactly equal.

        The first three are NaN for a gate without bounds.
    """
    rows = []
    for depth, gate in enumerate(recording.gates, start=1):
        rows.append(
            {"gate": gate.name, "kind": gate.kind, "depth": depth, **state_of(recording, gate)}
        )
    columns = ["gate", "kind", "depth", "saturated_low", "saturated_high", "stuck", "constant"]
    return pd.DataFrame(rows, columns=columns)


def state_of(recording: Recording, gate: Gate) -> dict[str, float]:
    """Return the shares of `gate_state` for one gate, by the names of its columns."""
    margin = SATURATED * (gate.hi - gate.lo)
    counts = np.zeros(3, np.int64)
    low, high = (np.full(units_of(recording, gate.name), end) for end in (np.inf, -np.inf))
    flat = total = 0
    for rows in gate_chunks(recording, gate.name):
        values = recording.gate(gate.name, rows).reshape(rows.stop - rows.start, -1)
        near = np.abs(values - gate.midpoint) <= STUCK
        inside = (values <= gate.lo + margin, values >= gate.hi - margin, near)
        counts += [int(which.sum()) for which in inside]
        total += values.size
        flat += int((values.max(1) == values.min(1)).sum())
        np.minimum(low, values.min(0), out=low)
        np.maximum(high, values.max(0), out=high)
    parts = counts / total if gate.bounded else np.full(3, np.nan)
    shares = dict(zip(("saturated_low", "saturated_high", "stuck"), parts, strict=True))
    return {**shares, "constant": flat / len(recording) if gate.has(MAP) else (low == high).mean()}
