"""The most confident mistakes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from attnscope import statistics
from attnscope.recording.recording import Recording
from tests.plots.reading import draw_plot, maps, numbers, words

Make = Callable[..., Recording]


def test_misclassified_shows_the_most_confident_first(make_recording: Make) -> None:
    recording = make_recording()
    drawing = draw_plot("misclassified", recording)
    first = statistics.misclassified(recording).iloc[0]
    ax = drawing.figures[0].axes[0]
    np.testing.assert_array_equal(ax.images[0].get_array(), recording.image(first["row"]))
    true, predicted = (line.split(": ")[1] for line in ax.get_title("center").split("\n"))
    assert true == first["label"]
    assert predicted == f"{first['prediction']} ({100 * first['confidence']:.1f}%)"
    cam = np.maximum(recording.grad_cam(rows=slice(first["row"], first["row"] + 1))[0], 0)
    heats = [i for i in maps(drawing.figures[0], "viridis") if i.get_array().shape == (4, 4)]
    np.testing.assert_array_equal(heats[0].get_array(), cam)
    assert len({i.get_clim() for i in heats}) == 1


def test_the_caption_counts_the_errors_with_their_interval(make_recording: Make) -> None:
    recording = make_recording()
    wrong = int((~recording.right).sum())
    low, high = proportion_confint(wrong, 60, method="wilson")
    shares = [f"{100 * share:.1f}%" for share in (wrong / 60, low, high)]
    found = numbers(draw_plot("misclassified", recording).caption)
    assert found[:6] == [str(wrong), "60", shares[0], "95%", *shares[1:]]


def test_without_errors_the_figure_is_a_note(make_recording: Make) -> None:
    drawing = draw_plot("misclassified", make_recording(accuracy=2))
    assert drawing.caption in words(drawing.figures[0])
    assert numbers(drawing.caption) == ["60"]
