"""The most confident mistakes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from attnscope import statistics
from attnscope.recording.recording import Recording
from tests.plots.reading import draw_plot, maps, words

Make = Callable[..., Recording]


def test_misclassified_shows_the_most_confident_first(make_recording: Make) -> None:
    recording = make_recording()
    drawing = draw_plot("misclassified", recording)
    first = statistics.misclassified(recording).iloc[0]
    ax = drawing.figures[0].axes[0]
    np.testing.assert_array_equal(ax.images[0].get_array(), recording.image(first["row"]))
    assert ax.get_title("center") == (
        f"is {first['label']}\nsaid {first['prediction']}, {100 * first['confidence']:.1f} %"
    )
    cam = np.maximum(recording.grad_cam(rows=slice(first["row"], first["row"] + 1))[0], 0)
    heats = [i for i in maps(drawing.figures[0], "viridis") if i.get_array().shape == (4, 4)]
    np.testing.assert_array_equal(heats[0].get_array(), cam)
    assert len({i.get_clim() for i in heats}) == 1


def test_no_mistake_is_said(make_recording: Make) -> None:
    drawing = draw_plot("misclassified", make_recording(accuracy=2))
    assert "None of the 60 images is misclassified" in words(drawing.figures[0])
