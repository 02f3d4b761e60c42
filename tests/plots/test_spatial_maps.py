"""Class means of spatial gates and Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from attnscope import statistics
from attnscope.recording.recording import Recording
from tests.plots.reading import draw_plot, maps, numbers

Make = Callable[..., Recording]


def test_spatial_maps_are_class_means_on_one_scale(make_recording: Make) -> None:
    recording = make_recording()
    drawing = draw_plot("spatial_maps", recording)
    drawn = maps(drawing.figures[0], "cividis")
    assert len(drawn) == 6
    assert len({i.get_clim() for i in drawn}) == 1
    expected = statistics.class_mean_maps(recording, "layer2.attention.spatial")
    np.testing.assert_allclose(drawn[3].get_array(), expected[1])
    cams = maps(drawing.figures[0], "viridis")
    np.testing.assert_allclose(
        cams[2].get_array(), statistics.class_mean_grad_cam(recording, "predicted")[2]
    )
    low, high = drawn[0].get_clim()
    top = max(np.nanmax(image.get_array()) for image in cams if image.get_array().ndim == 2)
    assert numbers(drawing.caption)[:4] == [f"{low:.3g}", f"{high:.3g}", "0", "1"]
    assert numbers(drawing.caption)[4:] == ["0", f"{top:.3g}"]


@pytest.mark.parametrize("classes", [2, 6, 10, 23])
def test_grad_cam_alone_fills_the_figure(make_recording: Make, classes: int) -> None:
    names = [f"class {k}" for k in range(classes)]
    recording = make_recording(count=2 * classes, spatial=False, names=names)
    (figure,) = draw_plot("spatial_maps", recording).figures
    figure.draw_without_rendering()
    drawn = [ax for ax in figure.axes if ax.images and ax.get_title()]
    empty = [ax for ax in figure.axes if not ax.axison and not ax.images]
    assert len(drawn) == classes
    assert len(empty) <= classes // 10, "no row is mostly empty"
    bottom = min(ax.get_position().y0 for ax in drawn)
    top = max(ax.get_position().y1 for ax in drawn)
    height = figure.get_size_inches()[1]
    assert bottom * height < 0.4
    assert (1 - top) * height < 1.0
