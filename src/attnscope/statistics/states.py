"""States of gates over thresholds: saturated, neutral, stuck at the start, constant, dead.

Every threshold is a share of the gate's range ``hi - lo``; for a gate without bounds the states are
NaN. States are assigned to single values, one per image and unit (a channel, or a pixel of a
spatial gate), never to class means: the mean of open and closed values would be in neither state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.kinds import PER_CHANNEL
from attnscope.recording.recording import Recording
from attnscope.statistics.profiles import class_moments
from attnscope.statistics.reading import gate_chunks
from attnscope.statistics.registry import statistic

THRESHOLDS = (0.001, 0.01, 0.05, 0.1)
"""Default thresholds, as shares of the gate's range."""
_STATES = ("saturated_low", "saturated_high", "identity", "stuck")


@dataclass(frozen=True)
class _Tally:
    """State frequencies of a gate of U units, for T thresholds and N images."""

    by_image: NDArray[np.float64]
    """``(4, T, N)``: share of the image's units in each state."""
    by_unit: NDArray[np.float64]
    """``(4, T, U)``: share of the images in which the unit is in each state."""
    dead: NDArray[np.bool_]
    """``(T, U)``: whether the unit multiplies the features by 0 in every image."""
    spread: NDArray[np.float64]
    """``(U,)``: largest minus smallest value, as a share of the gate's range."""


@statistic("States of each gate over thresholds.")
def state_sweep(recording: Recording, thresholds: Sequence[float] = THRESHOLDS) -> pd.DataFrame:
    """Measure the share of values in each state, for every gate and threshold.

    At the threshold t, a share of the gate's range, a value is

    - ``saturated_low`` within t of the lower bound,
    - ``saturated_high`` within t of the upper bound,
    - ``identity`` within t of the neutral value, which changes nothing (the upper bound of a plain
      sigmoid),
    - ``stuck`` within t of the middle of the bounds, where a sigmoid starts.

    A unit (a channel, or a position for other kinds of gates) is ``constant`` if its values over
    all images span at most t, and ``dead`` if every image has a value within t of the one that
    removes the features: 0, or -1 for ``x + x * g``. A gate that cannot reach this value, such as
    ``1 + sigmoid``, is never dead, whatever its lower bound.

    Shares of values are means over images. Their interval (95%) is Korn and Graubard's (1998,
    Survey Methodology 24; `bounded_mean_interval`): it has a width also if no image has such a
    value. ``constant`` and ``dead`` refer to the recorded images: if N images show no exception,
    exceptions are rarer than ``1 - 0.05^(1/N)``, about 3 / N, with 95% confidence. There is no
    test.

    Args:
        recording: recording of one network.
        thresholds: shares of the gate's range, 0 to 0.5.

    Returns:
        One row per gate and threshold; no rows for a network without gates:

        - ``gate``, ``kind``, ``depth``, ``threshold``
        - ``saturated_low``, ``saturated_high``, ``identity``, ``stuck``: shares of values, 0 to 1,
          each with the ends of its 95% CI in NAME_from and NAME_to, which are NaN for fewer than
          ten images.
        - ``constant``, ``dead``: shares of units, 0 to 1.

    Raises:
        InputError: there is no threshold, or one is outside 0 to 0.5.
    """
    thresholds = _checked(thresholds)
    columns = ["gate", "kind", "depth", "threshold"]
    columns += [f"{name}{end}" for name in _STATES for end in ("", "_from", "_to")]
    frames = []
    for depth, gate in enumerate(recording.gates, start=1):
        tally = _tally(recording, gate.name, thresholds)
        frame = pd.DataFrame({"threshold": thresholds})
        for name, shares in zip(_STATES, tally.by_image, strict=True):
            moments = class_moments(shares.T, np.zeros(len(recording), np.int64), 1)
            low, high = moments.interval((0, 1))
            frame[name] = moments.mean[0]
            frame[f"{name}_from"], frame[f"{name}_to"] = low[0], high[0]
        frame["constant"] = (tally.spread <= np.array(thresholds)[:, None]).mean(1)
        frame["dead"] = tally.dead.mean(1)
        frames.append(frame.assign(gate=gate.name, kind=gate.kind, depth=depth))
    columns += ["constant", "dead"]
    empty = pd.DataFrame(columns=columns)
    return pd.concat(frames, ignore_index=True)[columns] if frames else empty


@statistic(
    "States of each channel over thresholds.", takes=("recording", "gate"), trait=PER_CHANNEL
)
def channel_states(
    recording: Recording, gate: str, thresholds: Sequence[float] = THRESHOLDS
) -> pd.DataFrame:
    """Measure in which share of the images each channel is in each state.

    The states are defined in `state_sweep`. There is no interval and no test.

    Args:
        recording: recording of one network.
        gate: name of a channel gate.
        thresholds: shares of the gate's range, 0 to 0.5.

    Returns:
        One row per threshold and channel:

        - ``threshold``, ``channel``
        - ``saturated_low``, ``saturated_high``, ``identity``, ``stuck``: shares of images, 0 to 1.
        - ``constant``, ``dead``: True or False.

    Raises:
        InputError: the gate does not exist or is not a channel gate, there is no threshold, or one
            is outside 0 to 0.5.
    """
    thresholds = _checked(thresholds)
    tally = _tally(recording, gate, thresholds, PER_CHANNEL)
    channels = tally.by_unit.shape[2]
    frame = pd.DataFrame(
        {
            "threshold": np.repeat(thresholds, channels),
            "channel": np.tile(np.arange(channels), len(thresholds)),
        }
    )
    for name, shares in zip(_STATES, tally.by_unit, strict=True):
        frame[name] = shares.ravel()
    frame["constant"] = (tally.spread <= np.array(thresholds)[:, None]).ravel()
    frame["dead"] = tally.dead.ravel()
    return frame


@statistic("States of a gate in each image over thresholds.", takes=("recording", "gate"))
def image_states(
    recording: Recording, gate: str, thresholds: Sequence[float] = THRESHOLDS
) -> pd.DataFrame:
    """Measure which share of a gate's units is in each state, for each image.

    The states are defined in `state_sweep`. There is no interval and no test.

    Args:
        recording: recording of one network.
        gate: name of a gate of any kind.
        thresholds: shares of the gate's range, 0 to 0.5.

    Returns:
        One row per threshold and image:

        - ``threshold``
        - ``row``: row in the recording.
        - ``class``: true class.
        - ``saturated_low``, ``saturated_high``, ``identity``, ``stuck``: shares of the gate's
          channels or positions, 0 to 1.

    Raises:
        InputError: the gate does not exist, there is no threshold, or one is outside 0 to 0.5.
    """
    thresholds = _checked(thresholds)
    tally = _tally(recording, gate, thresholds)
    images = len(recording)
    classes = np.array(recording.classes)[recording.labels]
    frame = pd.DataFrame(
        {
            "threshold": np.repeat(thresholds, images),
            "row": np.tile(np.arange(images), len(thresholds)),
            "class": np.tile(classes, len(thresholds)),
        }
    )
    for name, shares in zip(_STATES, tally.by_image, strict=True):
        frame[name] = shares.ravel()
    return frame


def _checked(thresholds: Sequence[float]) -> list[float]:
    if not thresholds or not all(0 <= t <= 0.5 for t in thresholds):
        raise InputError(
            "AS703",
            f"the thresholds are {list(thresholds)}; they must be shares of the gate's range from "
            f"0 to 0.5, for example {', '.join(map(str, THRESHOLDS))}",
        )
    return list(thresholds)


def _tally(
    recording: Recording, name: str, thresholds: list[float], trait: str | None = None
) -> _Tally:
    gate = recording.info(name)
    units = int(np.prod(recording.values(name, trait, slice(0, 0)).shape[1:]))
    by_image = np.zeros((len(_STATES), len(thresholds), len(recording)))
    by_unit = np.zeros((len(_STATES), len(thresholds), units), np.int64)
    dead = np.full((len(thresholds), units), gate.bounded)
    low, high = np.full(units, np.inf), np.full(units, -np.inf)
    # The features are multiplied by g, whose neutral value is 1, or by 1 + g, where it is 0.
    zero = gate.neutral - 1
    for rows in gate_chunks(recording, name):
        values = recording.values(name, trait, rows).reshape(-1, units)
        np.minimum(low, values.min(0), out=low)
        np.maximum(high, values.max(0), out=high)
        for j, threshold in enumerate(thresholds):
            margin = threshold * (gate.hi - gate.lo)
            inside = (
                values <= gate.lo + margin,
                values >= gate.hi - margin,
                (values >= gate.neutral - margin) & (values <= gate.neutral + margin),
                (values >= gate.midpoint - margin) & (values <= gate.midpoint + margin),
            )
            for i, which in enumerate(inside):
                by_image[i, j, rows] = which.mean(1)
                by_unit[i, j] += which.sum(0)
            dead[j] &= ((values >= zero - margin) & (values <= zero + margin)).all(0)
    shares = by_unit / len(recording)
    if not gate.bounded:  # there is no range of which a threshold could be a share
        return _Tally(by_image * np.nan, shares * np.nan, dead, (high - low) * np.nan)
    return _Tally(by_image, shares, dead, (high - low) / (gate.hi - gate.lo))
