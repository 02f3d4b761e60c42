"""The values that replace gates: constants, means, and the gates of donors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.interventions.matching import MATCHED_DONORS, match_donors
from attnscope.interventions.setup import InterventionSetup
from attnscope.kinds import HAS_NEUTRAL, Gate
from attnscope.shapes import Array

REPLACEMENTS = (
    "neutral",
    "mean",
    "median",
    "constant",
    "predicted",
    "true",
    "random",
    "swap_any",
    "swap_same",
    "swap_other",
    "matched_same",
    "matched_other",
)
"""Replacements for a gate, all from donors:

- ``neutral``: the value that leaves the features unchanged;
- ``mean``, ``median``: the mean (mean ablation) or the median over all donors;
- ``constant``: the best of these constants, chosen on donors;
- ``predicted``, ``true``, ``random``: the mean over the donors of the predicted class, of the true
  class (an oracle), or of a random class;
- ``swap_any``, ``swap_same``, ``swap_other``: the gate of a random donor of any class, of the same
  class, or of another class (resample ablation);
- ``matched_same``, ``matched_other``: the gates of several donors of the same class, each in turn,
  or those of donors of another class with about the same brightness and contrast.
"""
DEFAULT_EDITS = (
    "mean",
    "constant",
    "swap_any",
    "swap_same",
    "swap_other",
    "matched_same",
    "matched_other",
)
"""The replacements that `attnscope.intervene` makes unless others are named."""
CLASS_MEANS = ("predicted", "true", "random")
"""Replacements by the mean of a class."""
DONOR_COLUMNS = ("donor", "donor_class")
"""Columns that say where a replacement comes from; -1 where it is not from one image or class."""
_SWAPS = ("swap_any", "swap_same", "swap_other")
_MATCHED = ("matched_same", "matched_other")
_LARGEST_SWAPS = 2**28
"""Bytes of the gates of donors that are held for one gate; a larger gate is read for each batch."""


@dataclass(frozen=True)
class Assignment:
    """The random class and the donors of each scored image, the same for all gates."""

    labels: Int64[Array, " images"]
    """``(n,)``, the class of each scored image."""
    random: Int64[Array, " images"]
    """``(n,)``, a class, drawn uniformly from the classes that have donors."""
    swaps: Mapping[str, Int64[Array, " images"]]
    """Run of an edit (`runs_of`) -> ``(n,)``, the row of a donor; -1 if there is none."""
    matching: Mapping[str, Any] | None = None
    """How donors were matched (`attnscope.interventions.matching.Matching.about`)."""

    @classmethod
    def draw(cls, setup: InterventionSetup, edits: Sequence[str] = ()) -> Self:
        """Draw a class and donors for each scored image.

        Args:
            setup: The network and its images.
            edits: The edits that are made. Donors are matched only if an edit needs them.
        """
        labels = setup.recording.labels
        donors = np.flatnonzero(setup.donors)
        rng = setup.rng("donors")
        own = labels[setup.scored]
        random = rng.choice(np.unique(labels[donors]), len(own))
        same, other = np.full(len(own), -1), np.full(len(own), -1)
        for k in np.unique(own):
            of_class = np.flatnonzero(own == k)
            alike, unlike = donors[labels[donors] == k], donors[labels[donors] != k]
            if len(alike):
                same[of_class] = rng.choice(alike, len(of_class))
            if len(unlike):
                other[of_class] = rng.choice(unlike, len(of_class))
        # A stream of its own, so that the other donors are those of earlier versions.
        anyone = setup.rng("any donor").choice(donors, len(own))
        swaps = dict(zip(_SWAPS, (anyone, same, other), strict=True))
        if not any(edit in _MATCHED for edit in edits):
            return cls(own, random, swaps)
        matched = match_donors(setup)
        for edit, rows in zip(_MATCHED, (matched.same, matched.other), strict=True):
            swaps |= dict(zip(runs_of(edit), rows, strict=True))
        return cls(own, random, swaps, matched.about)

    def classes(self, places: slice, predicted: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """Return the class of each image of a batch whose mean each edit takes."""
        found = (predicted, self.labels[places], self.random[places])
        return dict(zip(CLASS_MEANS, found, strict=True))

    def donors(
        self,
        run: str,
        places: slice,
        predicted: NDArray[np.int64],
        labels: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the donor and its class for each image of a batch, -1 where there is none.

        Args:
            run: `OWN`, or a run of an edit (`runs_of`).
            places: Places of the batch among the scored images.
            predicted: ``(n,)``, the classes that the unedited network predicts.
            labels: ``(N,)``, the class of each recorded image.
        """
        none = np.full(places.stop - places.start, -1)
        if run in self.swaps:
            donor = self.swaps[run][places]
            return donor, np.where(donor < 0, -1, labels[donor])
        return none, self.classes(places, predicted).get(run, none)


@dataclass(frozen=True)
class Replacements:
    """The values by which one gate is replaced."""

    setup: InterventionSetup
    gate: Gate
    mean: NDArray[np.float32]
    """Mean over the donors, such as ``(C,)``."""
    median: NDArray[np.float32] | None
    """Median over the donors, such as ``(C,)``; None if no edit needs it."""
    class_means: NDArray[np.float32] | None
    """Mean over the donors of each class, such as ``(K, C)``; None if no edit needs them."""
    assignment: Assignment
    swapped: Mapping[str, NDArray[np.float32]]
    """Run of an edit -> the gates of the donors of all scored images, such as ``(n, C)``. It is
    empty for a gate that is too large to be held for all images."""

    @classmethod
    def read(
        cls, setup: InterventionSetup, gate: Gate, edits: Sequence[str], assignment: Assignment
    ) -> Self:
        """Read what the edits of a gate need from the recording."""
        needs_classes = any(edit in CLASS_MEANS for edit in edits)
        class_means = setup.class_mean_gates(gate.name) if needs_classes else None
        mean = setup.mean_gate(gate.name)
        needs_median = "median" in edits or "constant" in edits
        median = setup.median_gate(gate.name) if needs_median else None
        runs = [run for edit in edits for run in runs_of(edit) if run in assignment.swaps]
        if len(runs) * len(setup.scored) * mean.nbytes > _LARGEST_SWAPS:
            runs = []
        swapped = {run: _of_donors(setup, gate, assignment.swaps[run]) for run in runs}
        return cls(setup, gate, mean, median, class_means, assignment, swapped)

    def constant(self, name: str) -> NDArray[np.float32]:
        """Return a constant, such as ``(1, C)``.

        Args:
            name: ``neutral`` (of a gate that has such a value), ``mean`` or ``median``.
        """
        if name == "neutral":
            return np.full((1, *self.mean.shape), self.gate.neutral, np.float32)
        found = self.mean if name == "mean" else self.median
        assert found is not None  # it was read, because an edit needs it
        return found[None]

    def values(
        self, run: str, classes: Mapping[str, NDArray[np.int64]], places: slice
    ) -> NDArray[np.float32] | None:
        """Return the replacement for each image of a batch, or one for all images.

        Args:
            run: A run of one of `REPLACEMENTS` but ``constant`` (`runs_of`).
            classes: Edit -> the class of each image of the batch.
            places: Places of the batch among the scored images.

        Returns:
            ``(n, ...)`` or ``(1, ...)``; NaN for an image without a donor. None if the gate has no
            neutral value.
        """
        if run == "neutral" and not self.gate.has(HAS_NEUTRAL):
            # A softmax over branches has no value that leaves the features unchanged.
            return None
        if run in ("neutral", "mean", "median"):
            return self.constant(run)
        if run in classes:
            assert self.class_means is not None
            return self.class_means[classes[run]]
        if run in self.swapped:
            return self.swapped[run][places]
        return _of_donors(self.setup, self.gate, self.assignment.swaps[run][places])


def runs_of(edit: str) -> list[str]:
    """Return the names of the runs of an edit: one, or one for each of several donors.

    Args:
        edit: One of `REPLACEMENTS`.
    """
    if edit in _MATCHED:
        return [f"{edit}/{donor}" for donor in range(MATCHED_DONORS)]
    return [edit]


def _of_donors(
    setup: InterventionSetup, gate: Gate, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return a gate of the donors in ``rows``; NaN where a row is -1."""
    values = setup.gates_of(gate.name, np.maximum(rows, 0))
    values[rows < 0] = np.nan
    return values


def expect_edits(edits: Sequence[str]) -> None:
    """Raise an `InputError` if a replacement is unknown."""
    unknown = [edit for edit in edits if edit not in REPLACEMENTS]
    if unknown:
        raise InputError(
            "AS823",
            f"the replacement '{unknown[0]}' is unknown; choose from {', '.join(REPLACEMENTS)}",
        )
