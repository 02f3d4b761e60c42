"""Titles, and names of recordings and classes, in characters that the installed fonts have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from attnscope.plots.subjects import Identity
from attnscope.plots.text import in_lines, shorten
from attnscope.plots.theme import drawable, drawable_names


def name_of(name: str) -> str:
    """Return the name of a recording, or of a configuration, for a title."""
    return shorten(drawable(name), 40)


def title_of(of: Identity) -> str:
    """Return the name, split and number of images of a recording."""
    images = f"{of.images:,} images"
    inside = f"{drawable(of.split)}, {images}" if of.split else images
    return f"{name_of(of.name)} ({inside})"


def two_names(a: str, b: str) -> tuple[str, str]:
    """Return two different names of two recordings, or of two configurations, for a title."""
    names = name_of(a), name_of(b)
    return names if names[0] != names[1] else (f"{names[0]} (first)", f"{names[1]} (second)")


def short_pair(names: tuple[str, str]) -> tuple[str, str]:
    """Return two different short names for rows and legends."""
    a, b = (shorten(name) for name in names)
    return (a, b) if a != b else ("first", "second")


def title_lines(texts: Sequence[str], width: int) -> str:
    """Wrap a title and the sentences below it to lines of at most ``width`` characters."""
    return in_lines([drawable(text) for text in texts], width)


def drawn_names(classes: Sequence[str]) -> dict[str, str]:
    """Return a dictionary: name of a class -> the name that can be drawn."""
    return dict(zip(classes, drawable_names(classes), strict=True))


def with_drawn_names(frame: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return a table whose column ``class`` has the names that can be drawn."""
    drawn = drawn_names(classes)
    rows, names = pd.factorize(frame["class"])
    shown = np.array([drawn.get(name, name) for name in names], object)
    return frame.assign(**{"class": shown[rows]})
