"""What state a gate is in: saturated, neutral, where it began, constant, dead.

Every threshold is a share of the gate's own range ``hi - lo``. States are of single values, one an
image and unit (a channel, or a pixel of a spatial gate), never of class means: a mean of half open
and half closed is nowhere.
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
from attnscope.statistics.reading import stretches
from attnscope.statistics.registry import statistic

THRESHOLDS = (0.001, 0.01, 0.05, 0.1)
"""Shares of the gate's range within which a value counts as at a bound, neutral or at its start."""
_STATES = ("saturated_low", "saturated_high", "identity", "stuck")


@dataclass(frozen=True)
class _Tally:
    """Of a gate of U units, T thresholds and N images."""

    by_image: NDArray[np.float64]
    """``(4, T, N)``: share of the image's units in each state."""
    by_unit: NDArray[np.float64]
    """``(4, T, U)``: share of the images in which the unit is in each state."""
    spread: NDArray[np.float64]
    """``(U,)``: largest less smallest value, as a share of the gate's range."""


@statistic("The states of each gate over thresholds.")
def state_sweep(recording: Recording, thresholds: Sequence[float] = THRESHOLDS) -> pd.DataFrame:
    """The states of each gate at each threshold t, a share of the gate's range.

    A value is ``saturated_low`` within t of the lower bound, ``saturated_high`` within t of the
    upper one, ``identity`` within t of the value that changes nothing (the upper bound of a plain
    sigmoid), ``stuck`` within t of the middle of the bounds, where a sigmoid starts. A unit (a
    channel; of another kind of gate a position) is ``constant`` where its values over all images
    span at most t, and ``dead`` where it is saturated low for every image.

    Shares of values are means over images, and their interval is Student's over images. What is
    ``constant`` or ``dead`` is so for the images that were seen: of N images without exception,
    exceptions are rarer than ``1 - 0.05^(1/N)``, about 3 / N, at 95 %.

    Returns:
        One row a gate and threshold: gate, kind, depth, threshold; saturated_low, saturated_high,
        identity and stuck, shares of values, 0 to 1, each with NAME_from and NAME_to (95 %; NaN for
        one image); constant and dead, shares of units.

    Raises:
        InputError: a threshold is not in 0 to 0.5.
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
            low, high = moments.interval()
            frame[name] = moments.mean[0]
            frame[f"{name}_from"] = np.maximum(low[0], 0)
            frame[f"{name}_to"] = np.minimum(high[0], 1)
        frame["constant"] = (tally.spread <= np.array(thresholds)[:, None]).mean(1)
        frame["dead"] = (tally.by_unit[0] == 1).mean(1)
        frames.append(frame.assign(gate=gate.name, kind=gate.kind, depth=depth))
    columns += ["constant", "dead"]
    empty = pd.DataFrame(columns=columns)
    return pd.concat(frames, ignore_index=True)[columns] if frames else empty


@statistic(
    "The states of each channel over thresholds.", takes=("recording", "gate"), trait=PER_CHANNEL
)
def channel_states(
    recording: Recording, gate: str, thresholds: Sequence[float] = THRESHOLDS
) -> pd.DataFrame:
    """The states of each channel of a channel gate: in which share of the images it is in which.

    Returns:
        One row a threshold and channel: threshold, channel; saturated_low, saturated_high, identity
        and stuck, shares of images, 0 to 1; constant and dead, whether it is. What they mean is
        said in ``state_sweep``.

    Raises:
        InputError: there is no such gate, it is no channel gate, or a threshold is not in 0 to 0.5.
    """
    thresholds = _checked(thresholds)
    recording.channel(gate, slice(0, 0))  # says what is wrong with the name
    tally = _tally(recording, gate, thresholds)
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
    frame["dead"] = tally.by_unit[0].ravel() == 1
    return frame


@statistic("The states of a gate in each image over thresholds.", takes=("recording", "gate"))
def image_states(
    recording: Recording, gate: str, thresholds: Sequence[float] = THRESHOLDS
) -> pd.DataFrame:
    """The states of a gate in each image: which share of its units is in which.

    Returns:
        One row a threshold and image: threshold, row (in the recording), class (the true one);
        saturated_low, saturated_high, identity and stuck, shares of the gate's channels or
        positions, 0 to 1. What they mean is said in ``state_sweep``.

    Raises:
        InputError: there is no such gate, or a threshold is not in 0 to 0.5.
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
            f"thresholds are shares of the gate's range, 0 to 0.5, not {list(thresholds)}; "
            f"take {', '.join(map(str, THRESHOLDS))}"
        )
    return list(thresholds)


def _tally(recording: Recording, name: str, thresholds: list[float]) -> _Tally:
    gate = recording.info(name)
    units = int(np.prod(recording.gate(name, slice(0, 0)).shape[1:]))
    by_image = np.zeros((len(_STATES), len(thresholds), len(recording)))
    by_unit = np.zeros((len(_STATES), len(thresholds), units), np.int64)
    low, high = np.full(units, np.inf), np.full(units, -np.inf)
    for rows in stretches(len(recording)):
        values = recording.gate(name, rows).reshape(-1, units)
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
    return _Tally(by_image, by_unit / len(recording), (high - low) / (gate.hi - gate.lo))
