"""What the gates are, per class and per channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.kinds import MAP, PER_CHANNEL
from attnscope.recording.moments import Moments, Spread
from attnscope.recording.recording import Recording
from attnscope.statistics.inference import benjamini_yekutieli, f_test, mean_interval
from attnscope.statistics.registry import statistic

SATURATED = 0.01
"""A value is saturated within this share of the gate's range from one of its bounds."""
STUCK = 0.02
"""A value is stuck within this distance of the middle of the gate's bounds."""


@dataclass(frozen=True)
class ClassMoments:
    """Counts, means and standard deviations of ``K`` classes; values may have any shape ``...``."""

    count: NDArray[np.int64]
    """``(K,)``"""
    mean: NDArray[np.float64]
    """``(K, ...)``; NaN for a class without images."""
    std: NDArray[np.float64]
    """``(K, ...)``, with n - 1 below the sum; NaN for a class of fewer than two images."""

    def interval(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The 95 % interval of the mean, ``mean ± t(0.975, n - 1) std / √n``; NaN where std is."""
        return mean_interval(self.mean, self.std, self.count)


def class_moments(values: NDArray[Any], labels: NDArray[np.int64], classes: int) -> ClassMoments:
    """Moments of ``values``, ``(N, ...)``, over the images of each class, in double precision."""
    shape = (classes, *values.shape[1:])
    count = np.zeros(classes, np.int64)
    mean, std = np.full(shape, np.nan), np.full(shape, np.nan)
    for k in range(classes):
        members = values[labels == k]
        count[k] = len(members)
        if len(members) >= 1:
            mean[k] = members.mean(0, dtype=np.float64)
        if len(members) >= 2:
            std[k] = members.std(0, ddof=1, dtype=np.float64)
    return ClassMoments(count, mean, std)


def _moments_of(spread: Spread) -> ClassMoments:
    return ClassMoments(spread.count, spread.mean, spread.std)


@statistic(
    "The mean of every channel over the images of each class.",
    takes=("recording", "gate"),
    trait=PER_CHANNEL,
)
def class_profiles(recording: Recording | Moments, gate: str) -> pd.DataFrame:
    """The mean of every channel of a gate over the images of each class.

    Returns:
        One row a class and channel, class by class: class, channel, mean, std (n - 1 below the
        sum), low and high (t interval of the mean, 95 %), count (images). All but count are in
        units of the gate. Of a class without images all is NaN and count 0; of a class with one
        image std, low and high are NaN. An interval is of its own mean alone: it is not corrected
        for the number of channels and classes.

    Raises:
        InputError: there is no such gate, or it is no channel gate.
    """
    if isinstance(recording, Moments):
        moments = _moments_of(recording.channels(gate))
    else:
        values = recording.channel(gate)
        moments = class_moments(values, recording.labels, len(recording.classes))
    low, high = moments.interval()
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
    "How much of each channel's variance lies between the classes (F test).",
    takes=("recording", "gate"),
    trait=PER_CHANNEL,
)
def channel_effects(recording: Recording, gate: str) -> pd.DataFrame:
    """How much of each channel's variance lies between the classes: one-way analysis of variance.

    With K classes that have images, N images, and the sums of squares between classes (SSB), within
    them (SSW) and in total (SST), ``MSW = SSW / (N - K)``, ``F = (SSB / (K - 1)) / MSW``,
    ``eta² = SSB / SST`` and ``omega² = (SSB - (K - 1) MSW) / (SST + MSW)`` (Hays 1963, Statistics
    for Psychologists; unlike eta squared it is near 0 where there is no effect, and can be a little
    below).

    The null of p: the channel has one mean in all classes (with normal values of one variance). The
    channels of a gate depend on each other, so p_by is corrected over the channels that vary by
    Benjamini and Yekutieli (2001, Annals of Statistics 29), which holds under any dependence.

    Returns:
        One row a channel: channel, f, p, p_by, eta_squared, omega_squared (shares of variance),
        constant. A channel whose value is the same for all images has constant True and NaN. A
        channel that varies between classes only has f infinite, p 0 and both shares 1. With images
        of fewer than two classes, or of one image a class, all is NaN.

    Raises:
        InputError: there is no such gate, or it is no channel gate.
    """
    values = recording.channel(gate)
    channels = values.shape[1]
    constant = values.max(0) == values.min(0)
    f, p, p_by, eta, omega = (np.full(channels, np.nan) for _ in range(5))
    moments = class_moments(values, recording.labels, len(recording.classes))
    count = moments.count[:, None]
    between = int((moments.count > 0).sum()) - 1
    within = len(values) - between - 1
    varying = ~constant
    if between > 0 and within > 0 and varying.any():
        offset = moments.mean - values.mean(0, dtype=np.float64)
        ssb = np.nansum(count * offset**2, 0)[varying]
        # A class of one image has no deviation to add, and its NaN counts as 0.
        ssw = np.nansum((count - 1) * moments.std**2, 0)[varying]
        msw = ssw / within
        with np.errstate(
            divide="ignore"
        ):  # msw is 0 for a channel that varies between classes only
            f[varying] = ssb / between / msw
        p[varying] = f_test(f[varying], between, within)
        p_by[varying] = benjamini_yekutieli(p[varying])
        eta[varying] = ssb / (ssb + ssw)
        omega[varying] = (ssb - between * msw) / (ssb + ssw + msw)
    return pd.DataFrame(
        {
            "channel": np.arange(channels),
            "f": f,
            "p": p,
            "p_by": p_by,
            "eta_squared": eta,
            "omega_squared": omega,
            "constant": constant,
        }
    )


@statistic("The image's mean gate, per gate and class.")
def gate_profiles(recording: Recording | Moments) -> pd.DataFrame:
    """The image's mean gate, over its channels or pixels, per gate and class.

    Of paths that share a softmax, whose mean is the same for every image, that of the first path.

    Returns:
        One row a gate and class: gate, kind, depth, class, mean, std, low, high, count, with the
        meaning and the NaN of ``class_profiles``. A network without gates gives no row.
    """
    frames = []
    for depth, gate in enumerate(recording.gates, start=1):
        if isinstance(recording, Moments):
            moments = _moments_of(recording.image_means(gate.name))
        else:
            image_means = gate.image_means(recording.gate(gate.name))
            moments = class_moments(image_means, recording.labels, len(recording.classes))
        low, high = moments.interval()
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


@statistic("Which shares of a gate's values are saturated, stuck or constant.")
def gate_state(recording: Recording) -> pd.DataFrame:
    """Which shares of a gate's raw values are saturated or stuck, and what of it is constant.

    The first three are shares of all values, one an image and channel or an image and pixel:
    saturated_low lies within 1 % of the gate's range from its lower bound, saturated_high from its
    upper bound, stuck within 0.02 (in units of the gate) of the middle of the bounds, which is
    where a sigmoid starts.

    ``constant`` is, for a spatial gate, the share of images whose map is the same at all pixels;
    for any other kind the share of units (of a channel gate: channels) that are the same for all
    images. Both mean equal to the last bit.

    Returns:
        One row a gate: gate, kind, depth, saturated_low, saturated_high, stuck, constant; shares of
        0 to 1.
    """
    rows = []
    for depth, gate in enumerate(recording.gates, start=1):
        values = recording.gate(gate.name)
        values = values.reshape(len(values), -1)
        margin = SATURATED * (gate.hi - gate.lo)
        axis = 1 if gate.has(MAP) else 0
        rows.append(
            {
                "gate": gate.name,
                "kind": gate.kind,
                "depth": depth,
                "saturated_low": (values <= gate.lo + margin).mean(),
                "saturated_high": (values >= gate.hi - margin).mean(),
                "stuck": (np.abs(values - gate.midpoint) <= STUCK).mean(),
                "constant": (values.max(axis) == values.min(axis)).mean(),
            }
        )
    columns = ["gate", "kind", "depth", "saturated_low", "saturated_high", "stuck", "constant"]
    return pd.DataFrame(rows, columns=columns)
