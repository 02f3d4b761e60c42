"""Images and maps: values, scales and color bars are what was given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes

from attnscope.plots import images
from tests.plots.reading import labels, shown


def test_map_is_drawn_raw_on_the_given_scale(ax: Axes) -> None:
    values = np.array([[0.2, 0.4], [0.6, np.nan]])
    assert images.draw_map(ax, values, low=0.1, high=0.9) is ax
    np.testing.assert_array_equal(shown(ax), values)
    assert ax.images[0].get_clim() == (0.1, 0.9)
    assert ax.images[0].get_interpolation() == "nearest"
    missing = ax.images[0].cmap(np.ma.masked)
    assert missing[:3] not in [tuple(c[:3]) for c in ax.images[0].cmap(np.linspace(0, 1, 256))]


def test_overlay_lies_on_the_whole_picture_and_hides_it_where_it_is_high(ax: Axes) -> None:
    image = np.zeros((8, 6, 3), np.uint8)
    image[..., 1] = 100
    heat = np.array([[0.0, 1.0], [2.0, 4.0]])
    images.draw_overlay(ax, image, heat, low=0, high=2)
    below, above = ax.images
    np.testing.assert_allclose(below.get_array(), 58.7)  # green weighs 0.587 in gray
    np.testing.assert_array_equal(above.get_array(), heat)
    assert above.get_clim() == (0, 2)
    assert list(above.get_extent()) == list(below.get_extent()) == [-0.5, 5.5, 7.5, -0.5]
    alpha = above.get_alpha()
    assert alpha[0, 0] < alpha[0, 1] < alpha[1, 0] == alpha[1, 1] <= 1


def test_image_keeps_its_pixels(ax: Axes) -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    images.draw_image(ax, image, "owl")
    np.testing.assert_array_equal(ax.images[0].get_array(), image)
    assert ax.get_title("center") == "owl"


def test_colorbar_states_both_ends_also_of_an_overlay(ax: Axes) -> None:
    images.draw_overlay(ax, np.zeros((4, 4, 3), np.uint8), np.eye(2), low=0, high=0.123)
    bar = images.draw_colorbar(ax, "Grad-CAM", [ax])
    ends = labels(bar.ax.get_yticklabels())
    assert (ends[0], ends[-1]) == ("0", "0.123")
    assert bar.ax.get_ylabel() == "Grad-CAM"
    assert bar.mappable.get_alpha() in (None, 1)


def test_note_is_text_without_axes(ax: Axes) -> None:
    images.draw_note(ax, "SE has no spatial gates")
    assert labels(ax.texts) == ["SE has no spatial gates"]
    assert not ax.axison


@pytest.mark.parametrize(
    ("low", "high", "ends"),
    [
        (4.43e-06, 0.51, ("0", "0.51")),
        (0.00791, 0.87, ("0.008", "0.87")),
        (0.0, 1.0, ("0", "1")),
        (-2.0, 20.0, ("−2", "20")),
        (0.49901, 0.50101, ("0.49901", "0.50101")),
        (0.0, 1200.0, ("0", "1200")),
        (0.0, 6.68e-06, ("0", "6.68e−06")),
    ],
)
def test_ticks_of_a_color_bar_are_rounded_to_its_width(
    ax: Axes, low: float, high: float, ends: tuple[str, str]
) -> None:
    images.show(ax, np.array([[low, high]]), low, high, "viridis")
    bar = images.draw_colorbar(ax, "", [ax])
    shown = [label.get_text() for label in bar.ax.get_yticklabels()]
    assert (shown[0], shown[-1]) == ends
    values = [float(text.replace("−", "-")) for text in shown]
    np.testing.assert_allclose(values, bar.get_ticks(), rtol=0, atol=0.006 * (high - low))
    assert all(len(text) <= 8 for text in shown)
