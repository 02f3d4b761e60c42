"""Pairs of donors, of the same class and of another, with about equal brightness and contrast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from attnscope.interventions.setup import InterventionSetup
from attnscope.shapes import Array

MATCHED_DONORS = 2
"""Number of pairs of donors of each image."""
NUISANCES = ("brightness", "contrast")
"""What donors are matched on: mean and standard deviation of an image as the network sees it."""
CALIPER = 0.25
"""Largest distance of the donors of a pair, in standard deviations of the candidates."""
_POOL = 2000
"""About how many donors are candidates; they are spread evenly over the classes."""


@dataclass(frozen=True)
class Matching:
    """Pairs of donors, one of the same class and one of another class, for each scored image."""

    same: Int64[Array, "donors images"]
    """``(D, n)``, rows of the recording; -1 where there is none."""
    other: Int64[Array, "donors images"]
    """``(D, n)``, the donor of another class that is most similar to the one of the same class."""
    about: Mapping[str, Any]
    """How the donors were matched: ``on``, ``donors`` (D), ``candidates``, ``caliper``, the mean
    distance of the donors of a pair and of random pairs, ``distance`` and ``random_distance``, in
    standard deviations of the candidates, and the number of images without a pair,
    ``images_without``."""


def match_donors(setup: InterventionSetup) -> Matching:
    """Match donors of another class to donors of the same class by brightness and contrast.

    What the two edits differ in is then the class of the donor, and hardly its brightness and its
    contrast. The distance is the Euclidean one of mean and standard deviation of the images, each
    divided by its standard deviation over the candidates. Pairs that differ by more than a quarter
    of a standard deviation are not used (a caliper, Rosenbaum and Rubin 1985, The American
    Statistician 39). An image gets random pairs of those of its class.

    Args:
        setup: The network and its images.
    """
    labels, scored = setup.recording.labels, setup.scored
    rng = setup.rng("matching")
    donors = np.flatnonzero(setup.donors)
    classes = np.unique(labels[donors])
    most = max(MATCHED_DONORS, _POOL // len(classes))
    drawn = [rng.permutation(donors[labels[donors] == k])[:most] for k in classes]
    pool = np.sort(np.concatenate(drawn))
    values = nuisances_of(setup, pool)
    spread = values.std(0)
    values /= np.where(spread > 0, spread, 1.0)
    same, other = (np.full((MATCHED_DONORS, len(scored)), -1) for _ in range(2))
    near, far = [], []
    for k in np.unique(labels[scored]):
        images = np.flatnonzero(labels[scored] == k)
        alike, unlike = (
            np.flatnonzero((labels[pool] == k) == is_same) for is_same in (True, False)
        )
        if not (len(alike) and len(unlike)):
            continue
        unlike = rng.permutation(unlike)  # of equally similar donors, a random one is taken
        distance = np.sqrt(((values[alike][:, None] - values[unlike]) ** 2).sum(2))
        closest = distance.argmin(1)
        least = distance[np.arange(len(alike)), closest]
        far.append(distance.mean())
        usable = np.flatnonzero(least <= CALIPER)
        for image in images:
            pairs = rng.permutation(usable)[:MATCHED_DONORS]
            same[: len(pairs), image] = pool[alike[pairs]]
            other[: len(pairs), image] = pool[unlike[closest[pairs]]]
            near += least[pairs].tolist()
    about = {
        "on": list(NUISANCES),
        "donors": MATCHED_DONORS,
        "candidates": len(pool),
        "caliper": CALIPER,
        "distance": float(np.mean(near)) if near else None,
        "random_distance": float(np.mean(far)) if far else None,
        "images_without": int((same[0] < 0).sum()),
    }
    return Matching(same, other, about)


def nuisances_of(
    setup: InterventionSetup, rows: NDArray[np.int64]
) -> Float64[Array, "rows nuisances"]:
    """Return brightness and contrast of images: mean and standard deviation of their values.

    Args:
        setup: The network and its images.
        rows: Rows of the recording.
    """
    found = []
    for batch in setup.batches(rows):
        flat = batch.x.reshape(len(batch.x), -1).double()
        found.append(np.stack([flat.mean(1).cpu().numpy(), flat.std(1).cpu().numpy()], 1))
    return np.concatenate(found)
