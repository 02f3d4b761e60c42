"""The images of a recording whose gate is most like that of one image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.kinds import MAP, PER_CHANNEL
from attnscope.recording.recording import Recording
from attnscope.statistics.reading import expect_finite, row_chunks

Distance = Literal["cosine", "euclidean"]
SEARCHED = 20_000
"""Most images that are searched; of more, these are spaced evenly over the recording."""


@dataclass(frozen=True)
class GateSpace:
    """One gate as a space in which each image is a point, with the same spread along each axis."""

    gate: str
    trait: str | None
    """As for `Recording.values`: which values of the gate are the coordinates."""
    rows: NDArray[np.int64]
    """The images that are searched, sorted, ``(n,)``."""
    mean: NDArray[np.float64]
    """Mean of each value over these images, ``(U,)``."""
    std: NDArray[np.float64]
    """Standard deviation of each value over these images, ``(U,)``; 0 for values that are equal in
    all of them, which count for no distance."""

    @property
    def constant(self) -> bool:
        """Whether the gate is the same for all images."""
        return not self.std.any()

    def point(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return standardized values ``(n, U)`` of values of the gate, ``(n, ...)``."""
        flat = np.asarray(values, np.float64).reshape(len(values), -1)
        scale = np.where(self.std > 0, self.std, 1)
        return np.where(self.std > 0, (flat - self.mean) / scale, 0.0)


def gate_space(recording: Recording, gate: str, most: int = SEARCHED) -> GateSpace:
    """Measure mean and spread of a gate, so that distances in it can be computed.

    The coordinates are the channels of the gate, or else its positions, or else all its values.

    Args:
        recording: recording of one network.
        gate: name of the gate.
        most: most images that are searched.

    Raises:
        InputError: there is no gate of that name, or a value is not finite.
    """
    info = recording.info(gate)
    trait = next((trait for trait in (PER_CHANNEL, MAP) if info.offers(trait)), None)
    rows = np.arange(len(recording))
    if len(rows) > most:
        rows = np.unique(np.linspace(0, len(recording) - 1, most).round().astype(np.int64))
    origin = _read(recording, gate, trait, rows[:1])[0]
    total, square = np.zeros_like(origin), np.zeros_like(origin)
    low, high = origin.copy(), origin.copy()
    for _, values in _chunks(recording, gate, trait, rows):
        expect_finite(values, f"gate '{gate}'", recording)
        np.minimum(low, values.min(0), out=low)
        np.maximum(high, values.max(0), out=high)
        values -= origin
        total += values.sum(0)
        square += np.einsum("nu,nu->u", values, values)
    variance = np.maximum(square - total**2 / len(rows), 0) / len(rows)
    std = np.where(low == high, 0.0, np.sqrt(variance))
    return GateSpace(gate, trait, rows, origin + total / len(rows), std)


def nearest_images(
    recording: Recording,
    space: GateSpace,
    values: NDArray[Any],
    *,
    count: int = 10,
    distance: Distance = "cosine",
    without: int | None = None,
) -> pd.DataFrame:
    """Find the images whose gate is nearest to given values.

    Distances are between standardized values: each channel or position has mean 0 and standard
    deviation 1 over the searched images, so that all of them count equally.

    Args:
        recording: recording of one network.
        space: of `gate_space` for this recording.
        values: the gate of one image, as `Recording.values` gives it for the trait of the space.
        count: number of images.
        distance: ``cosine`` is 1 minus the cosine of the angle between the two points as seen from
            the mean, 0 to 2. ``euclidean`` is the length of the line between them, divided by the
            root of the number of values that vary, so that it is about 1.4 for unrelated images.
        without: the row of an image that is left out, such as the image itself.

    Returns:
        One row per image, the nearest first; of equal distances the lower row.

        - ``image``: row of the recording.
        - ``distance``

    Raises:
        InputError: AS760, the gate is the same for all images.
    """
    if space.constant:
        raise InputError(
            "AS760",
            f"the gate '{space.gate}' is the same for all images, so that none is nearer than "
            "another; choose another gate",
        )
    point = space.point(np.asarray(values)[None])[0]
    found = np.empty(len(space.rows))
    for part, chunk in _chunks(recording, space.gate, space.trait, space.rows):
        points = space.point(chunk)
        if distance == "cosine":
            lengths = np.linalg.norm(points, axis=1) * np.linalg.norm(point)
            # A point at the mean has no direction.
            with np.errstate(invalid="ignore", divide="ignore"):
                found[part] = np.clip(1 - points @ point / lengths, 0, 2)
        else:
            varying = np.count_nonzero(space.std)
            found[part] = np.linalg.norm(points - point, axis=1) / np.sqrt(varying)
    kept = ~np.isnan(found) & (space.rows != (-1 if without is None else without))
    order = np.argsort(found[kept], kind="stable")[:count]
    return pd.DataFrame({"image": space.rows[kept][order], "distance": found[kept][order]})


def _read(
    recording: Recording, gate: str, trait: str | None, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the values of a gate for some rows as points, ``(n, U)``."""
    consecutive = len(rows) and rows[-1] - rows[0] == len(rows) - 1
    wanted = slice(int(rows[0]), int(rows[-1]) + 1) if consecutive else rows
    values = recording.values(gate, trait, wanted)
    return values.reshape(len(values), -1).astype(np.float64)


def _chunks(
    recording: Recording, gate: str, trait: str | None, rows: NDArray[np.int64]
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    units = int(np.prod(recording.gate(gate, slice(0, 0)).shape[1:]))
    for part in row_chunks(len(rows), units):
        yield part, _read(recording, gate, trait, rows[part])
