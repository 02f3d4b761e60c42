"""Two kinds of network over seeds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from attnscope.plots import PLOTS
from attnscope.plots.subjects import SeedComparison
from attnscope.recording.recording import Recording
from tests.plots.reading import draw_plot

Make = Callable[..., Recording]


def test_seed_differences_show_the_same_disagreements(make_recording: Make) -> None:
    a, b = make_recording("a", accuracy=0.8), make_recording("b", seed=1, accuracy=0.5)
    over_seeds = PLOTS["seed_differences"].make(SeedComparison(("a", "b"), [a], [b]))
    alone = draw_plot("disagreements", a, b)
    assert over_seeds.caption.endswith(alone.caption)
    assert len(over_seeds.figures) == 2
    pairs = zip(over_seeds.figures[1].axes, alone.figures[0].axes, strict=True)
    for mine, theirs in pairs:
        assert mine.get_title("center") == theirs.get_title("center")
        for one, other in zip(mine.images, theirs.images, strict=True):
            np.testing.assert_array_equal(one.get_array(), other.get_array())
