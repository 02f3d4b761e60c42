"""Moments: sums over the images of each class, for sets whose single images nobody wants to keep.

Every shard holds the sums of its own images, and only of the classes that it has images of. Sums
of shards are joined in the order of the images when they are read, one gate at a time.

Sums of squares are about a fixed origin, the first value of that class in the shard, which is
stored beside them: about the middle of the bounds, the standard deviation of a channel that is
nearly always closed would be lost in the rounding of float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope import layout
from attnscope.errors import InputError
from attnscope.kinds import MAP, PER_CHANNEL, Gate
from attnscope.recording.format import TARGETS, Shard
from attnscope.recording.reader import ShardReader
from attnscope.recording.writer import ShardWriter

NEAR = 0.02
"""How near (in units of the gate) to a bound or to the middle a value is counted as there."""
_TAILS = ("low", "middle", "high")


class ClassSums:
    """What a shard of moments holds, gathered batch by batch."""

    def __init__(self, gates: Sequence[Gate]) -> None:
        self._gates = gates
        self._classes: dict[int, dict[str, Any]] = {}
        self._logits: list[NDArray[Any]] = []

    def add(self, arrays: Mapping[str, NDArray[Any]], labels: NDArray[np.int64]) -> None:
        """Adds images.

        Args:
            arrays: ``gate/NAME``, ``(n, ...)``, ``grad_cam/LAYER/TARGET``, ``(n, h, w)``, signed,
                and ``logits``, ``(n, K)``; others are not looked at.
            labels: the true classes, ``(n,)``.
        """
        self._logits.append(arrays["logits"])
        for label in np.unique(labels):
            members = labels == label
            sums = self._classes.setdefault(int(label), {"count": np.int64(0)})
            sums["count"] += members.sum()
            for gate in self._gates:
                values = arrays[f"gate/{gate.name}"][members].astype(np.float64)
                _add_spread(sums, f"image_mean/{gate.name}", gate.image_means(values))
                key = f"gate/{gate.name}"
                if gate.has(PER_CHANNEL):
                    _add_spread(sums, key, values)
                else:
                    _add(sums, f"{key}/sum", values.sum(0))
                # By channel where there is one value for each, else all of an image's together.
                axis = 0 if gate.has(PER_CHANNEL) else None
                for tail, near in (
                    ("low", values <= gate.lo + NEAR),
                    ("middle", np.abs(values - gate.midpoint) <= NEAR),
                    ("high", values >= gate.hi - NEAR),
                ):
                    _add(sums, f"{key}/{tail}", near.sum(axis, dtype=np.int64))
            for key, maps in arrays.items():
                if key.startswith("grad_cam/"):
                    relu = np.maximum(maps[members], 0)
                    _add(sums, f"{key}/sum", relu.sum(0, dtype=np.float64))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """``classes``, the k classes of the images, each sum with one row for each, and logits."""
        classes = sorted(self._classes)
        arrays: dict[str, NDArray[Any]] = {
            "classes": np.array(classes, np.int64),
            "logits": np.concatenate(self._logits),
        }
        for key in self._classes[classes[0]]:
            arrays[key] = np.stack([self._classes[k][key] for k in classes])
        return arrays


class MomentsWriter(ShardWriter):
    """Writes moments; the arrays of a shard are those of `ClassSums`."""

    kind = "moments"

    def _check(self, arrays: Mapping[str, NDArray[Any]], rows: pd.DataFrame) -> None:
        counted, logits = int(arrays["count"].sum()), len(arrays["logits"])
        if not len(rows) == counted == logits > 0:
            raise ValueError(
                f"a shard of {len(rows)} rows cannot hold sums of {counted} images and {logits} "
                "logits"
            )


@dataclass(frozen=True)
class Spread:
    """How values are spread within each of ``K`` classes; NaN for a class without images."""

    count: NDArray[np.int64]
    """Images, ``(K,)``."""
    mean: NDArray[np.float64]
    """``(K, ...)``"""
    std: NDArray[np.float64]
    """``(K, ...)``, with n - 1 below the sum; NaN for a class of one image."""
    minimum: NDArray[np.float64]
    """``(K, ...)``"""
    maximum: NDArray[np.float64]
    """``(K, ...)``"""


@dataclass(frozen=True)
class Tails:
    """Numbers of values near the bounds and the middle of a gate, by class.

    Of a channel gate ``(K, C)``, of any other ``(K,)``, all values of an image together.
    """

    low: NDArray[np.int64]
    """At most 0.02 above the lower bound."""
    middle: NDArray[np.int64]
    """At most 0.02 from the middle of the bounds, which is where a sigmoid starts."""
    high: NDArray[np.int64]
    """At most 0.02 below the upper bound."""


class Moments(ShardReader):
    """What one network did on one data set, as sums over the images of each class.

    Rows and logits are there for each image, as in a recording.
    """

    kind = "moments"
    _place = layout.MOMENTS

    @property
    def counts(self) -> NDArray[np.int64]:
        """Images of each class, ``(K,)``."""
        return self._total("count").astype(np.int64)

    def channels(self, gate: str) -> Spread:
        """The channels of a channel gate over the images of each class, ``(K, C)``.

        Raises:
            InputError: there is no such gate, or it is of another kind.
        """
        self._expect_trait(gate, PER_CHANNEL)
        return self._spread(f"gate/{gate}")

    def image_means(self, gate: str) -> Spread:
        """The image's mean gate (`Gate.image_means`), over the images of each class, ``(K,)``.

        Raises:
            InputError: there is no such gate.
        """
        self.info(gate)
        return self._spread(f"image_mean/{gate}")

    def mean_gate(self, gate: str) -> NDArray[np.float64]:
        """The mean gate of each class: ``(K, C)``, ``(K, H, W)`` or as the gate's kind is.

        NaN for a class without images.

        Raises:
            InputError: there is no such gate.
        """
        if self.info(gate).has(PER_CHANNEL):
            return self.channels(gate).mean
        return self._mean(f"gate/{gate}/sum")

    def mean_map(self, gate: str) -> NDArray[np.float64]:
        """The mean map of a spatial gate of each class, ``(K, H, W)``.

        Raises:
            InputError: there is no such gate, or it is of another kind.
        """
        self._expect_trait(gate, MAP)
        return self.mean_gate(gate)

    def tails(self, gate: str) -> Tails:
        """How many values lie near the bounds and the middle of a gate, by class.

        Raises:
            InputError: there is no such gate.
        """
        self.info(gate)
        low, middle, high = (self._total(f"gate/{gate}/{tail}").astype(np.int64) for tail in _TAILS)
        return Tails(low, middle, high)

    def mean_grad_cam(
        self, layer: str | None = None, target: str = "predicted"
    ) -> NDArray[np.float64]:
        """Mean Grad-CAM of each true class after the ReLU, ``(K, h, w)``, of the layer (the last).

        NaN for a class without images.

        Raises:
            InputError: the layer or the target was not recorded.
        """
        return self._mean(f"grad_cam/{self._expect_grad_cam(layer, target)}/{target}/sum")

    def _total(self, key: str) -> NDArray[np.float64] | NDArray[np.int64]:
        """A sum over all shards, ``(K, ...)``, in the order of the images."""
        total: NDArray[Any] | None = None
        for shard in self._shards:
            piece = self._piece(shard, key)
            if total is None:
                total = np.zeros((len(self.classes), *piece.shape[1:]), piece.dtype)
            total[self._piece(shard, "classes")] += piece
        assert total is not None  # no recording is without shards
        return total

    def _mean(self, key: str) -> NDArray[np.float64]:
        total, count = self._total(key), self.counts
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as it should be
            mean: NDArray[np.float64] = total / count.reshape(-1, *[1] * (total.ndim - 1))
        return mean

    def _spread(self, key: str) -> Spread:
        classes = len(self.classes)
        shape = (classes, *self._piece(self._shards[0], f"{key}/sum").shape[1:])
        count = np.zeros((classes, *[1] * (len(shape) - 1)), np.int64)
        origin, total, square = (np.zeros(shape) for _ in range(3))
        minimum, maximum = np.full(shape, np.inf), np.full(shape, -np.inf)
        for shard in self._shards:
            members = self._piece(shard, "classes")
            first, n, s, q = (
                self._piece(shard, name)
                for name in (f"{key}/origin", "count", f"{key}/sum", f"{key}/square")
            )
            n = n.reshape(-1, *count.shape[1:])
            origin[members] = np.where(count[members] == 0, first, origin[members])
            # Sums about the shard's origin become sums about that of the class's first shard.
            shift = first - origin[members]
            square[members] += q + 2 * shift * s + n * shift**2
            total[members] += s + n * shift
            count[members] += n
            low, high = (self._piece(shard, f"{key}/{name}") for name in ("minimum", "maximum"))
            minimum[members] = np.minimum(minimum[members], low)
            maximum[members] = np.maximum(maximum[members], high)
        with np.errstate(invalid="ignore", divide="ignore"):  # NaN where there are too few images
            mean = origin + total / count
            variance = (square - total**2 / count) / (count - 1)
            std = np.sqrt(np.where(count > 1, np.maximum(variance, 0), np.nan))
        none = np.broadcast_to(count == 0, shape)
        minimum[none] = maximum[none] = np.nan
        return Spread(count.ravel(), mean, std, minimum, maximum)

    def _verify_values(self) -> list[str]:
        found = []
        start = 0
        for shard in self._shards:
            labels = self.labels[start : start + shard.count]
            start += shard.count
            try:
                found += [f"shard {shard.name}: {line}" for line in self._wrong(shard, labels)]
            except InputError as error:
                found.append(str(error))
        return found

    def _wrong(self, shard: Shard, labels: NDArray[np.int64]) -> list[str]:
        """What is wrong with the sums of one shard."""
        found = []
        classes, count = self._piece(shard, "classes"), self._piece(shard, "count")
        known, expected = np.unique(labels, return_counts=True)
        if not (np.array_equal(classes, known) and np.array_equal(count, expected)):
            return ["its counts are not those of its rows"]
        if len(self._piece(shard, "logits")) != shard.count:
            found.append("another number of logits than of rows")
        sums = [f"grad_cam/{layer}/{t}/sum" for layer in self.grad_cam_layers for t in TARGETS]
        for gate in self.gates:
            spreads = [f"image_mean/{gate.name}"]
            spreads += [f"gate/{gate.name}"] if gate.has(PER_CHANNEL) else []
            sums += [] if gate.has(PER_CHANNEL) else [f"gate/{gate.name}/sum"]
            for key in spreads:
                sums += [f"{key}/{name}" for name in ("origin", "sum", "square")]
                low, high = (self._piece(shard, f"{key}/{name}") for name in ("minimum", "maximum"))
                margin = self._rounding(gate)
                outside = ~((gate.lo - margin <= low) & (low <= high) & (high <= gate.hi + margin))
                if outside.any():
                    found.append(f"{key}: {outside.sum()} ranges not in {gate.lo} to {gate.hi}")
            for tail in _TAILS:
                key = f"gate/{gate.name}/{tail}"
                values = self._piece(shard, key)
                if (values < 0).any():
                    found.append(f"{key}: a count below zero")
                if gate.has(PER_CHANNEL) and (values > count[:, None]).any():
                    found.append(f"{key}: more values than images")
        for key in [*sums, "logits"]:
            values = self._piece(shard, key)
            if key != "logits" and len(values) != len(classes):
                found.append(f"{key}: another number of rows than of classes")
            elif not np.isfinite(values).all():
                found.append(f"{key}: {(~np.isfinite(values)).sum()} values not finite")
        return found


def _add(sums: dict[str, Any], key: str, value: Any) -> None:
    sums[key] = sums[key] + value if key in sums else value


def _add_spread(sums: dict[str, Any], key: str, values: NDArray[np.float64]) -> None:
    origin = sums.setdefault(f"{key}/origin", np.array(values[0]))
    offset = values - origin
    _add(sums, f"{key}/sum", offset.sum(0))
    _add(sums, f"{key}/square", (offset * offset).sum(0))
    low, high = values.min(0), values.max(0)
    sums[f"{key}/minimum"] = np.minimum(sums.get(f"{key}/minimum", low), low)
    sums[f"{key}/maximum"] = np.maximum(sums.get(f"{key}/maximum", high), high)
