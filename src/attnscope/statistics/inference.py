"""What counts as significant: decided here, and nowhere else."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.05
"""Below it a p value, corrected for the number of tests where there are several, is significant."""


def significant(p: ArrayLike) -> NDArray[np.bool_]:
    """Whether p values are below `LEVEL`; NaN, no test, is not.

    Args:
        p: of any shape.
    """
    return np.asarray(p, np.float64) < LEVEL
