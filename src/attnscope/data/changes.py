"""What was changed in the images of a split when they were read. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the help of commands lists data sources, and needs no numpy
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Changes:
    """What was changed in the images of a split."""

    found: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """A sentence with ``{images}`` in place of their number -> whether it is true of each image,
    ``(N,)``."""

    def of(self, rows: NDArray[np.int64]) -> Changes:
        """Return the changes of some images of the split."""
        return Changes({text: known[rows] for text, known in self.found.items()})


def change_notes(splits: Sequence[Changes]) -> list[str]:
    """Return one line for each kind of change in some splits, with the number of images."""
    counts: dict[str, int] = {}
    for split in splits:
        for text, known in split.found.items():
            counts[text] = counts.get(text, 0) + int(known.sum())
    return [
        text.replace("{images}", "1 image" if count == 1 else f"{count} images")
        for text, count in counts.items()
        if count
    ]
