"""What a linear probe reads: the values before the activation of a gate, or its pooled input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float, Float32, Float64
from numpy.typing import NDArray
from scipy import special

from attnscope.errors import InputError
from attnscope.kinds import Gate
from attnscope.recording.recording import Recording
from attnscope.shapes import Array
from attnscope.statistics.reading import (
    expect_finite,
    gate_chunks,
    read_units,
    unit_blocks,
    units_of,
)
from attnscope.statistics.registry import statistic
from attnscope.statistics.rotation import Rotated, Rows, rotate_blocks

_EDGE = 2.0**-24
"""Half the distance between 1 and the next smaller float32. The logit of a sigmoid here is -16.6.
"""
_MANY_UNITS = 4096
"""Up to this number of units, values are held in memory, whatever the number of images."""

_Inverse = Callable[[NDArray[np.float64]], NDArray[np.float64]]
_LOGIT: _Inverse = special.logit


def _identity(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return share


# Maps the gate's relative position between its bounds (0 to 1) to the input of the activation, up
# to a scale and a constant, which a linear probe ignores. A tanh is a sigmoid of twice the logit.
# The logarithm of a softmax is its input up to a constant for each image.
_INVERSES: Mapping[str, _Inverse] = {
    "sigmoid": _LOGIT,
    "tanh": _LOGIT,
    "softmax": np.log,
    "softsign": lambda u: (2 * u - 1) / (1 - np.abs(2 * u - 1)),
    "erf": lambda u: special.erfinv(2 * u - 1),
    "hardsigmoid": _identity,
    "relu6": _identity,
    "clamp": _identity,
    "hardtanh": _identity,
    "none": _identity,
}
INVERTIBLE = tuple(_INVERSES)
"""Activations of which the inverse is known."""


@statistic("Values before the activation of a gate.", takes=("recording", "gate"))
def gate_logits(recording: Recording, gate: str) -> tuple[Float32[Array, "images units"], int]:
    """Invert the activation of a gate, to recover the values before it.

    With the bounds lo and hi of the gate, ``u = (g - lo) / (hi - lo)`` is mapped by the inverse of
    the activation: the logit for a sigmoid, the identity for a hard sigmoid, the logarithm for a
    softmax. The result equals the input of the activation up to a scale and a constant, which a
    linear probe ignores; for a softmax, up to a constant per image. Values within 2⁻²⁴ of a bound,
    the resolution of float32 near 1, have no finite inverse and are clipped to that distance. The
    values of a multiplier without bounds are returned as they are.

    Args:
        recording: recording of one network.
        gate: name of a gate of any kind.

    Returns:
        The values before the activation, where the units are the channels of a channel gate or the
        positions of another kind of gate; and the number of clipped values.

    Raises:
        InputError: the gate does not exist, its activation has no inverse here, or a value is not
            finite.
    """
    return _read_logits(recording, gate, slice(0, units_of(recording, gate)))


def _read_logits(recording: Recording, gate: str, units: slice) -> tuple[NDArray[np.float32], int]:
    """Return the `gate_logits` of some units, ``(N, n)``, and the number of clipped values."""
    about = recording.info(gate)
    if about.activation not in INVERTIBLE:
        raise InputError(
            "AS705",
            f"gate '{gate}' has the activation {about.activation}, whose inverse is unknown; the "
            f"activation must be one of {', '.join(_INVERSES)}; for a linear probe of such a "
            'network use of="pooled_input"',
        )
    logits = np.empty((len(recording), units.stop - units.start), np.float32)
    clipped = 0
    for rows in gate_chunks(recording, gate):
        recorded = recording.gate(gate, rows)
        values = recorded.reshape(len(recorded), -1)[:, units].astype(np.float64)
        expect_finite(values, f"gate '{gate}'", recording)
        logits[rows], count = logits_of_values(values, about)
        clipped += count
    return logits, clipped


def logits_of_values(
    values: Float[Array, "images *gate"], gate: Gate
) -> tuple[Float64[Array, "images units"], int]:
    """Invert the activation of a gate for given values, as `gate_logits` does.

    Args:
        values: ``(n, ...)``, finite values of the gate.
        gate: the gate, whose activation is one of `INVERTIBLE`.

    Returns:
        The logits, ``(n, U)``, and the number of clipped values.
    """
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    if not gate.bounded:  # there was no activation
        return flat, 0
    share = (flat - gate.lo) / (gate.hi - gate.lo)
    clipped = int(((share < _EDGE) | (share > 1 - _EDGE)).sum())
    return _INVERSES[gate.activation](np.clip(share, _EDGE, 1 - _EDGE)), clipped


def _read_inputs(recording: Recording, gate: str, units: slice) -> tuple[NDArray[np.float32], int]:
    """Return the pooled input of a gate for some units, ``(N, n)``; no value is clipped."""
    inputs = read_units(partial(recording.pooled_input, gate), len(recording), units)
    # Gates are bounded, but the features that they multiply may overflow.
    expect_finite(inputs, f"the pooled input of gate '{gate}'", recording)
    return inputs, 0


READERS = {"gate": _read_logits, "pooled_input": _read_inputs}
"""What is decoded from -> how it is read."""


class ProbedValues:
    """What is decoded from one gate: all values at once, or some units at a time."""

    def __init__(self, recording: Recording, gate: str, of: str) -> None:
        """Find out how much there is to read.

        Args:
            recording: recording of one network.
            gate: name of the gate.
            of: a key of `READERS`.
        """
        self.clipped = 0
        """Number of values without a finite logit, once they have been read."""
        self.varies = False
        """Whether a unit has different values for different images, once they have been read."""
        self._gate, self._images = gate, len(recording)
        self._read = partial(READERS[of], recording, gate)
        empty = (recording.gate if of == "gate" else recording.pooled_input)(gate, slice(0, 0))
        self._units = int(np.prod(empty.shape[1:]))
        self._blocks = list(unit_blocks(self._images, self._units))
        self._is_large = len(self._blocks) > 1 and self._units > _MANY_UNITS

    def rotate(self, pairs: Sequence[tuple[Rows, Rows]]) -> list[Rotated]:
        """Return the images to fit on and those to score, in principal axes, for each pair."""
        self.clipped = 0
        if self._is_large:
            return rotate_blocks(map(self._block, self._blocks), pairs, self._gate)
        values = self._block(slice(0, self._units))
        return [Rotated.of(values[fit], values[score]) for fit, score in pairs]

    def _block(self, units: slice) -> NDArray[np.float32]:
        values, clipped = self._read(units)
        self.clipped += clipped
        self.varies |= bool((values.max(0) > values.min(0)).any())
        return values


class HeldValues:
    """What is decoded from if it is in memory, as `ProbedValues` for a recording."""

    def __init__(self, values: Float[Array, "images units"]) -> None:
        """Keep values.

        Args:
            values: ``(N, U)``, finite.
        """
        self._values = np.asarray(values, np.float32)
        self.varies = bool((self._values.max(0) > self._values.min(0)).any())
        """Whether a unit has different values for different images."""

    def rotate(self, pairs: Sequence[tuple[Rows, Rows]]) -> list[Rotated]:
        """Return the images to fit on and those to score, in principal axes, for each pair."""
        return [Rotated.of(self._values[fit], self._values[score]) for fit, score in pairs]
