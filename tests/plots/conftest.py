"""An Axes to draw on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope.plots.theme import style


@pytest.fixture
def ax() -> Iterator[Axes]:
    with style():
        yield Figure(figsize=(6, 6), dpi=50).subplots()
