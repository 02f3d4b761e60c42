"""Arrays whose shapes are in their types: `jaxtyping` annotations over NumPy arrays.

``Float32[Array, "images channels"]`` reads: a float32 array with an axis of images and an axis of
channels. `tests/test_shapes.py` checks the annotations of the public functions while they run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
else:
    from numpy import ndarray as Array

__all__ = ["Array"]
