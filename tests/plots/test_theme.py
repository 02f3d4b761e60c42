"""Colors, fonts and settings."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from attnscope.plots import theme
from attnscope.plots.builtin import confusion_matrix


def test_class_colors_are_distinct() -> None:
    for count in (3, 10, 100):
        assert len(set(theme.class_colors(count))) == count


def test_names_without_a_font_are_numbered_boxes_and_warn_of_nothing() -> None:
    # U+10FFFF is no character, and no font ever has it.
    names = ["cat", "\U0010ffff\U0010ffff", "dog \U0010ffff"]
    drawn = theme.drawable_names(names)
    assert drawn == ["cat", "1 □□", "2 dog □"]
    assert theme.missing_characters(names) == "\U0010ffff"
    with theme.style():
        figure = Figure(dpi=30)
        confusion_matrix.draw(
            figure.subplots(), pd.DataFrame(np.eye(3), index=drawn, columns=drawn)
        )
        figure.draw_without_rendering()  # a missing glyph would warn, and a warning is an error


def test_style_embeds_text_and_leaves_settings_as_they_were() -> None:

    before = dict(matplotlib.rcParams)
    with theme.style():
        assert matplotlib.rcParams["pdf.fonttype"] == 42
        assert matplotlib.rcParams["font.family"][0] == "DejaVu Sans"
    assert dict(matplotlib.rcParams) == before
