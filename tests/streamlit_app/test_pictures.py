"""Pictures reach the browser as they were encoded."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from streamlit.runtime.memory_media_file_storage import _calculate_file_id
from streamlit.testing.v1 import AppTest

from attnscope.report import render

sys.path.insert(0, str(Path(__file__).parents[2] / "streamlit_app"))
from cached import pictures  # type: ignore[import-not-found]


def show(png: bytes, width: int | None) -> None:
    """What a page does."""
    import widgets

    widgets.show_picture(png, width)


@pytest.mark.parametrize("width", [None, 40])
def test_a_picture_without_transparency_is_sent_as_it_is(width: int | None) -> None:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(file, "png")
    app = AppTest.from_function(show, args=(file.getvalue(), width)).run()
    assert not app.exception
    (image,) = app.image
    sent = _calculate_file_id(file.getvalue(), "image/png")
    assert [Path(url).name for url in image.value] == [f"{sent}.png"]


@pytest.mark.parametrize("inches", [5, 9.5, 11, 30])
def test_a_figure_on_a_page_is_at_most_as_wide_as_what_is_sent_as_it_is(inches: float) -> None:
    figure = Figure((inches, 2))
    dpi = pictures.screen_dpi(figure)
    with Image.open(io.BytesIO(render(figure, "png", dpi))) as image:
        assert image.width <= pictures.layouts.WIDEST
        assert image.width >= min(144 * inches, pictures.layouts.WIDEST - inches) - 1
