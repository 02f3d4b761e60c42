"""Images with their maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from attnscope.plots import PLOTS
from attnscope.recording.recording import Recording
from tests.plots.reading import draw_plot, numbers

Make = Callable[..., Recording]


def test_attention_grid_is_raw_seeded_and_of_right_answers(make_recording: Make) -> None:
    recording = make_recording()
    figure = draw_plot("attention_grid", recording).figures[0]
    again = draw_plot("attention_grid", recording).figures[0]
    grid = figure.axes[: 3 * 5]
    for row in range(3):
        image, first, second, cam, overlay = (ax.images[-1] for ax in grid[5 * row : 5 * row + 5])
        pixels = image.get_array()
        found = [i for i in range(60) if np.array_equal(recording.image(i), pixels)]
        assert len(found) == 1
        i = found[0]
        assert recording.labels[i] == recording.predictions[i] == row
        one = slice(i, i + 1)
        np.testing.assert_array_equal(
            first.get_array(), recording.spatial("layer1.attention.spatial", one)[0]
        )
        np.testing.assert_array_equal(
            second.get_array(), recording.spatial("layer2.attention.spatial", one)[0]
        )
        np.testing.assert_array_equal(
            cam.get_array(), np.maximum(recording.grad_cam(rows=one)[0], 0)
        )
        np.testing.assert_array_equal(overlay.get_array(), cam.get_array())
        np.testing.assert_array_equal(pixels, again.axes[5 * row].images[0].get_array())
    assert len({ax.images[-1].get_clim() for k, ax in enumerate(grid) if k % 5 in (1, 2)}) == 1
    assert len({ax.images[-1].get_clim() for k, ax in enumerate(grid) if k % 5 in (3, 4)}) == 1


def test_each_grad_cam_without_positive_values_is_marked_and_counted(
    make_recording: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def negative(self: Recording, rows: list[int]) -> np.ndarray:
        return np.full((len(rows), 4, 4), -1, np.float32)

    monkeypatch.setattr(Recording, "grad_cam", negative)
    drawing = draw_plot("attention_grid", make_recording())
    cams = drawing.figures[0].axes[3 : 3 * 5 : 5]
    assert [len(ax.texts) for ax in cams] == [1, 1, 1]
    result = PLOTS["attention_grid"].result(make_recording("positive"))
    assert not result.grad_cam.any()
    assert numbers(drawing.caption).count("3") == 3  # classes, maps without values, of 3
