"""Wide tables of classes, and the names of classes that can be drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from attnscope.plots.frames import wide
from attnscope.plots.titles import with_drawn_names


def test_a_wide_table_keeps_the_order_of_the_long_one() -> None:
    frame = pd.DataFrame(
        {"class": ["owl", "owl", "ant"], "channel": [7, 2, 7], "mean": [0.1, 0.2, 0.3]}
    )
    table = wide(frame, "channel", "mean")
    assert table.index.tolist() == ["owl", "ant"]
    assert table.columns.tolist() == [7, 2]
    assert np.array_equal(table, [[0.1, 0.2], [0.3, np.nan]], equal_nan=True)
    assert wide(frame[:0], "channel", "mean").empty


def test_two_values_of_one_class_are_refused() -> None:
    frame = pd.DataFrame({"class": ["ant", "ant"], "channel": [2, 2], "mean": [0.1, 0.2]})
    with pytest.raises(ValueError, match="channel"):
        wide(frame, "channel", "mean")


def test_only_names_that_cannot_be_drawn_are_replaced() -> None:
    classes = ["ant", "\U00013000", "\U00013001"]  # hieroglyphs, which the fonts do not have
    frame = pd.DataFrame({"class": [*classes[::-1], "all"], "mean": range(4)})
    shown = with_drawn_names(frame, classes)["class"].tolist()
    assert shown[2:] == ["ant", "all"]
    assert not {*shown} & {*classes[1:]}
    assert len({*shown}) == 4
    assert frame["class"].tolist() == [*classes[::-1], "all"]
