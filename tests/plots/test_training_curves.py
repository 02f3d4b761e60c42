"""Training curves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from attnscope.plots import Unavailable
from attnscope.plots.builtin import training_curves
from attnscope.recording.recording import Recording
from tests.making import refused
from tests.plots.reading import add_run_files, draw_plot, numbers

Make = Callable[..., Recording]


def test_training_curves(ax: Axes) -> None:
    metrics = pd.DataFrame(
        {"epoch": [1, 2], "train_loss": [2.0, 1.0], "validation_loss": [2.5, 1.5]}
    )
    training_curves.draw(ax, metrics, "loss")
    lines = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert lines == {"training": [2.0, 1.0], "validation": [2.5, 1.5]}
    assert list(ax.lines[0].get_xdata()) == [1, 2]


def test_training_curves_with_single_batches(ax: Axes) -> None:
    metrics = pd.DataFrame(
        {
            "epoch": [1, 2],
            "step": [50, 100],
            "train_loss": [2.0, 1.0],
            "validation_loss": [2.5, 1.5],
            "learning_rate": [0.2, 0.1],
        }
    )
    steps = pd.DataFrame(
        {"step": [25, 50, 75], "loss": [2.5, 2.0, 1.5], "learning_rate": [0.1, 0.2, 0.15]}
    )
    training_curves.draw(ax, metrics, "loss", steps)
    lines = {line.get_label(): line for line in ax.lines}
    assert set(lines) == {"training (single batches)", "training", "validation"}
    batches = lines["training (single batches)"]
    assert list(batches.get_xdata()) == [0.5, 1, 1.5], "in epochs"
    assert list(batches.get_ydata()) == [2.5, 2.0, 1.5]
    ax.clear()
    training_curves.draw(ax, metrics, "learning_rate", steps)
    (line,) = ax.lines
    assert list(line.get_ydata()) == [0.1, 0.2, 0.15]
    assert ax.get_title("left") == "learning rate"


def test_the_caption_has_the_last_and_the_best_epoch(make_recording: Make) -> None:
    recording = make_recording(count=12)
    add_run_files(recording)
    drawing = draw_plot("training_curves", recording)
    loss, accuracy, rate = drawing.figures[0].axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [2, 1, 2 / 3])
    np.testing.assert_allclose(accuracy.lines[1].get_ydata(), [0.5, 0.8, 0.7])
    np.testing.assert_allclose(rate.lines[0].get_ydata(), 0.1)
    said = numbers(drawing.caption)
    assert said == ["3", "30", "3.0", "100", "70.0%", "2", "80.0%", "90.0%"]


@pytest.mark.parametrize("content", [b"", b"epoch\n1\n", b"\xff\xfe"])
def test_damaged_metrics_are_named(make_recording: Make, content: bytes) -> None:
    recording = make_recording(count=12)
    (add_run_files(recording) / "metrics.csv").write_bytes(content)
    with refused("AS912", names=("metrics.csv",)):
        draw_plot("training_curves", recording)


def test_a_log_without_an_epoch_makes_the_plot_unavailable(make_recording: Make) -> None:
    recording = make_recording(count=12)
    file = add_run_files(recording) / "metrics.csv"
    file.write_text(file.read_text().splitlines()[0] + "\n")
    with pytest.raises(Unavailable) as caught:
        draw_plot("training_curves", recording)
    assert caught.value.code == "AS911"
