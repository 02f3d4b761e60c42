"""Which classes a plot shows if there are more than a figure can hold. No matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST_CLASSES = 100
"""Up to this number of classes a plot shows all of them."""
MOST_ROWS = 40
"""Number of classes that a plot with a row for each class shows if there are more."""
FARTHEST = "whose correlation is farthest from that of all images"
"""What classes have in common that were chosen by a correlation."""


def most_different(means: Iterable[NDArray[np.float64]], count: int, at_most: int) -> list[int]:
    """Choose the classes whose means lie farthest from the mean over all classes.

    The distance of a class is the root of the mean squared difference over the values of a gate;
    the squares of several gates are added, so that each gate has the same weight.

    Args:
        means: for each gate the means of all classes, ``(count, ...)``; NaN for a class without
            images, which is not chosen.
        count: number of classes.
        at_most: number of classes to choose if there are more than `MOST_CLASSES`.

    Returns:
        Class numbers, ascending; all of them if there are no more than `MOST_CLASSES`, or if no
        class has images.
    """
    if count <= MOST_CLASSES:
        return list(range(count))
    total = np.zeros(count)
    for values in means:
        flat = np.asarray(values, np.float64).reshape(count, -1)
        empty = np.isnan(flat).any(1)
        middle = flat[~empty].mean(0) if not empty.all() else np.zeros(flat.shape[1])
        total += ((flat - middle) ** 2).mean(1)
    return _largest(total, at_most)


def most_confused(counts: NDArray[np.int64], at_most: int) -> list[int]:
    """Choose the classes of the most frequent errors.

    Pairs of a true and another predicted class are taken from the most frequent down, until they
    name ``at_most`` classes.

    Args:
        counts: images by true and predicted class, ``(K, K)``.
        at_most: number of classes to choose if there are more than `MOST_CLASSES`.

    Returns:
        Class numbers, ascending; all of them if there are no more than `MOST_CLASSES`. Without
        errors, those with the most images.
    """
    classes = len(counts)
    if classes <= MOST_CLASSES:
        return list(range(classes))
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    found: dict[int, None] = {}
    for place in np.argsort(-wrong, axis=None, kind="stable")[: at_most * classes]:
        true, predicted = divmod(int(place), classes)
        pair = dict.fromkeys((true, predicted))
        if not wrong[true, predicted] or len(found | pair) > at_most:
            break
        found |= pair
    return sorted(found) or _largest(counts.sum(1).astype(np.float64), at_most)


def largest_rows(values: ArrayLike) -> list[int]:
    """Choose rows of a table whose first row is all classes together, and each other one a class.

    Args:
        values: by what the classes are chosen, ``(1 + K,)``, such as absolute differences; NaN for
            a class without a value.

    Returns:
        Rows, ascending: the first one, and the `MOST_ROWS` classes with the largest values; all
        rows if there are no more than `MOST_CLASSES` classes.
    """
    of_rows = np.asarray(values, np.float64)
    if len(of_rows) - 1 <= MOST_CLASSES:
        return list(range(len(of_rows)))
    return [0, *(1 + place for place in _largest(of_rows[1:], MOST_ROWS))]


def row_note(classes: Sequence[str], rows: Sequence[int], which: str) -> str:
    """Return `choice_note` for `largest_rows`."""
    return choice_note(classes, rows[1:], which)


def choice_note(classes: Sequence[str], chosen: Sequence[int], which: str) -> str:
    """Return a sentence that says which classes are shown; empty if all of them are.

    Args:
        classes: names of all classes.
        chosen: numbers of those that are shown.
        which: what they have in common, such as ``whose means differ most``.
    """
    if len(chosen) == len(classes):
        return ""
    return f"Of {len(classes):,} classes, the figure shows the {len(chosen)} {which}."


def _largest(values: NDArray[np.float64], at_most: int) -> list[int]:
    """Return the places of the largest values, ascending; NaN is no value."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return list(range(len(values)))[:at_most]
    order = known[np.argsort(-values[known], kind="stable")]
    return sorted(int(place) for place in order[:at_most])
