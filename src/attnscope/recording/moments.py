"""Moments: sums over the images of each class, for data sets that are too large to record whole.

Each shard has the sums over its own images, for the classes that occur in it. When moments are
read, the sums of all shards are combined in the order of the images, one gate at a time.

Sums of squares are relative to an origin that is stored beside them: the first value of the class
in the shard. Relative to the middle of the bounds, the standard deviation of a channel that is
nearly always closed would be lost to the rounding of float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from attnscope import layout
from attnscope.errors import InputError
from attnscope.hashes import problem
from attnscope.kinds import MAP, PER_CHANNEL, Gate
from attnscope.recording.format import TARGETS, Shard
from attnscope.recording.reader import ShardReader
from attnscope.recording.verification import verify_predictions
from attnscope.recording.writer import ShardWriter
from attnscope.shapes import Array

NEAR = 0.02
"""Distance, in units of the gate, within which a value counts as near a bound or the middle."""
_TAILS = ("low", "middle", "high")
_CHANNELS = "channels"
"""Prefix of the sums over the channels of a gate that is averaged over positions."""


class ClassSums:
    """The sums of one shard of moments, accumulated batch by batch."""

    def __init__(self, gates: Sequence[Gate]) -> None:
        self._gates = gates
        self._classes: dict[int, dict[str, Any]] = {}
        self._logits: list[NDArray[Any]] = []

    def add(self, arrays: Mapping[str, NDArray[Any]], labels: NDArray[np.int64]) -> None:
        """Add images.

        Args:
            arrays: ``gate/NAME``, ``(n, ...)``, ``grad_cam/LAYER/TARGET``, ``(n, h, w)``, signed,
                and ``logits``, ``(n, K)``. Others are ignored.
            labels: The true classes, ``(n,)``.
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
                    if view := gate.view(PER_CHANNEL):
                        # In single precision, as a recording has them.
                        units = view.reduce(arrays[key][members]).astype(np.float64)
                        _add_spread(sums, f"{_CHANNELS}/{gate.name}", units)
                # Count by channel if there is one value per channel, else over all values.
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
        """Return ``classes`` ``(k,)``, each sum with one row per class, and the logits."""
        classes = sorted(self._classes)
        arrays: dict[str, NDArray[Any]] = {
            "classes": np.array(classes, np.int64),
            "logits": np.concatenate(self._logits),
        }
        for key in self._classes[classes[0]]:
            arrays[key] = np.stack([self._classes[k][key] for k in classes])
        return arrays


class MomentsWriter(ShardWriter):
    """Writes moments. The arrays of a shard are those of `ClassSums`."""

    kind = "moments"

    def _check(self, arrays: Mapping[str, NDArray[Any]], rows: pd.DataFrame) -> None:
        counted, logits = int(arrays["count"].sum()), len(arrays["logits"])
        if not len(rows) == counted == logits > 0:
            raise ValueError(
                f"a shard has {len(rows)} rows, sums of {counted} images and logits of {logits}; "
                "the three numbers must be equal"
            )


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation and range of values within each class.

    NaN for a class without images.
    """

    count: Int64[Array, " classes"]
    """Number of images."""
    mean: Float64[Array, "classes ..."]
    std: Float64[Array, "classes ..."]
    """Sample standard deviation, with n - 1 in the denominator; NaN for a class of one image."""
    minimum: Float64[Array, "classes ..."]
    maximum: Float64[Array, "classes ..."]


@dataclass(frozen=True)
class Tails:
    """Numbers of values near the bounds and the middle of a gate, for each class.

    ``(K, C)`` for a channel gate. ``(K,)``, over all values of an image, for any other kind.
    """

    low: Int64[Array, "classes ..."]
    """At most 0.02 above the lower bound."""
    middle: Int64[Array, "classes ..."]
    """At most 0.02 from the middle of the bounds, where an untrained sigmoid starts."""
    high: Int64[Array, "classes ..."]
    """At most 0.02 below the upper bound."""


class Moments(ShardReader):
    """What one network did on one data set, as sums over the images of each class.

    Rows and logits exist for each image, as in a recording.
    """

    kind = "moments"
    _place = layout.MOMENTS

    @property
    def counts(self) -> Int64[Array, " classes"]:
        """Number of images of each class."""
        return self._total("count").astype(np.int64)

    def channels(self, gate: str) -> Spread:
        """Return the statistics of the channels of a gate, ``(K, C)``.

        Args:
            gate: Name of a channel gate, or of a gate with channels and more axes, which is
                averaged over positions in each image (`Gate.view`). Moments of earlier versions
                have the channels of channel gates only.

        Raises:
            InputError: There is no gate of that name, or it has no channels.
        """
        self._expect_trait(gate, PER_CHANNEL)
        return self._spread(f"{'gate' if self.info(gate).has(PER_CHANNEL) else _CHANNELS}/{gate}")

    def image_means(self, gate: str) -> Spread:
        """Return the statistics of the image's mean gate (`Gate.image_means`), ``(K,)``.

        Args:
            gate: Name of the gate.

        Raises:
            InputError: There is no gate of that name.
        """
        self.info(gate)
        return self._spread(f"image_mean/{gate}")

    def mean_gate(self, gate: str) -> Float64[Array, "classes ..."]:
        """Return the mean gate of each class.

        Args:
            gate: Name of the gate.

        Returns:
            ``(K, C)`` for a channel gate, ``(K, H, W)`` for a spatial gate, or as the kind of the
            gate has it. NaN for a class without images.

        Raises:
            InputError: There is no gate of that name.
        """
        if self.info(gate).has(PER_CHANNEL):
            return self.channels(gate).mean
        return self._mean(f"gate/{gate}/sum")

    def mean_map(self, gate: str) -> Float64[Array, "classes height width"]:
        """Return the mean map of a gate for each class; NaN for a class without images.

        Args:
            gate: Name of a spatial gate, or of a gate with positions and more axes, as for
                `Recording.spatial`.

        Raises:
            InputError: There is no gate of that name, or it has no positions.
        """
        self._expect_trait(gate, MAP)
        view, mean = self.info(gate).view(MAP), self.mean_gate(gate)
        return mean if view is None else view.reduce(mean)  # the mean of a map is linear

    def tails(self, gate: str) -> Tails:
        """Return how many values lie near the bounds and the middle of a gate, for each class.

        Args:
            gate: Name of the gate.

        Raises:
            InputError: There is no gate of that name.
        """
        self.info(gate)
        low, middle, high = (self._total(f"gate/{gate}/{tail}").astype(np.int64) for tail in _TAILS)
        return Tails(low, middle, high)

    def mean_grad_cam(
        self, layer: str | None = None, target: str = "predicted"
    ) -> Float64[Array, "classes height width"]:
        """Return the mean Grad-CAM, after the ReLU, of the images of each true class.

        Args:
            layer: Path of the module; default the last one that was recorded.
            target: The class that is explained: ``predicted`` or ``true``.

        Returns:
            The maps; NaN for a class without images.

        Raises:
            InputError: The layer or the target was not recorded.
        """
        return self._mean(f"grad_cam/{self._expect_grad_cam(layer, target)}/{target}/sum")

    def _offers(self, gate: Gate, trait: str) -> bool:
        if trait == PER_CHANNEL and gate.view(trait):
            return self._has(f"{_CHANNELS}/{gate.name}/sum")
        return super()._offers(gate, trait)

    def _total(self, key: str) -> NDArray[np.float64] | NDArray[np.int64]:
        """Return a sum over all shards, ``(K, ...)``, added in the order of the images."""
        total: NDArray[Any] | None = None
        for shard in self._shards:
            piece = self._piece(shard, key)
            if total is None:
                total = np.zeros((len(self.classes), *piece.shape[1:]), piece.dtype)
            total[self._piece(shard, "classes")] += piece
        assert total is not None  # the reader refuses a manifest without shards
        return total

    def _mean(self, key: str) -> NDArray[np.float64]:
        total, count = self._total(key), self.counts
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as intended
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
            # Convert from the origin of this shard to that of the first shard with this class.
            shift = first - origin[members]
            square[members] += q + 2 * shift * s + n * shift**2
            total[members] += s + n * shift
            count[members] += n
            low, high = (self._piece(shard, f"{key}/{name}") for name in ("minimum", "maximum"))
            minimum[members] = np.minimum(minimum[members], low)
            maximum[members] = np.maximum(maximum[members], high)
        with np.errstate(invalid="ignore", divide="ignore"):  # NaN if there are too few images
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
                found += [
                    problem(code, f"shard {shard.name}: {text}")
                    for code, text in self._verify_shard(shard, labels)
                ]
            except InputError as error:
                found.append(str(error))
        return found or verify_predictions(self.rows, self._shards, self._piece)

    def _verify_shard(self, shard: Shard, labels: NDArray[np.int64]) -> list[tuple[str, str]]:
        """Check the sums of one shard; return the problems, each with its code."""
        found = []
        classes, count = self._piece(shard, "classes"), self._piece(shard, "count")
        if {str(classes.dtype), str(count.dtype)} != {"int64"}:
            return [("AS646", f"the counts have the types {classes.dtype} and {count.dtype}")]
        known, expected = np.unique(labels, return_counts=True)
        if not (np.array_equal(classes, known) and np.array_equal(count, expected)):
            return [("AS690", "the counts of images differ from those of the rows")]
        sums = [f"grad_cam/{layer}/{t}/sum" for layer in self.grad_cam_layers for t in TARGETS]
        for gate in self.gates:
            spreads = [f"image_mean/{gate.name}"]
            spreads += [f"gate/{gate.name}"] if gate.has(PER_CHANNEL) else []
            sums += [] if gate.has(PER_CHANNEL) else [f"gate/{gate.name}/sum"]
            if gate.view(PER_CHANNEL) and self._offers(gate, PER_CHANNEL):
                spreads.append(f"{_CHANNELS}/{gate.name}")
            for key in spreads:
                sums += [f"{key}/{name}" for name in ("origin", "sum", "square")]
                low, high = (self._piece(shard, f"{key}/{name}") for name in ("minimum", "maximum"))
                margin = self._rounding(gate)
                outside = ~((gate.lo - margin <= low) & (low <= high) & (high <= gate.hi + margin))
                if outside.any():
                    text = f"{key} has {outside.sum()} ranges not in {gate.lo} to {gate.hi}"
                    found.append(("AS687", text))
            for tail in _TAILS:
                key = f"gate/{gate.name}/{tail}"
                values = self._piece(shard, key)
                if (values < 0).any():
                    found.append(("AS691", f"{key} has a count below 0"))
                if gate.has(PER_CHANNEL) and (values > count[:, None]).any():
                    found.append(("AS691", f"{key} has a count above the number of images"))
        for key in [*sums, "logits"]:
            values = self._piece(shard, key)
            rows = shard.count if key == "logits" else len(classes)
            dtype = "float32" if key == "logits" else "float64"
            if values.dtype != dtype:
                found.append(("AS646", f"{key} has the type {values.dtype}, not {dtype}"))
            if len(values) != rows:
                found.append(("AS689", f"{key} has {len(values)} rows, not {rows}"))
            elif not np.isfinite(values).all():
                number = (~np.isfinite(values)).sum()
                found.append(("AS687", f"{key} has {number} values that are not finite"))
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
