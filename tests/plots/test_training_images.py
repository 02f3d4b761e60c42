"""Training images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from attnscope.recording.recording import Recording
from tests.making import refused
from tests.plots.reading import add_run_files, draw_plot

Make = Callable[..., Recording]


def test_training_images_are_those_of_the_file(make_recording: Make) -> None:
    recording = make_recording(count=12)
    add_run_files(recording)
    axes = [ax for ax in draw_plot("training_images", recording).figures[0].axes if ax.images]
    expected = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 8), dtype=np.uint8)
    assert len(axes) == 10
    np.testing.assert_array_equal(axes[4].images[0].get_array(), expected[4].transpose(1, 2, 0))
    assert axes[4].get_title("center") == "dog"


def test_damaged_training_images_are_named(make_recording: Make) -> None:
    recording = make_recording(count=12)
    (add_run_files(recording) / "training_images.safetensors").write_bytes(b"no")
    with refused("AS913", names=("training_images",)):
        draw_plot("training_images", recording)
