"""The position of images on the line between two class means, by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from attnscope.recording.recording import Recording
from attnscope.statistics.between import class_line
from tests.making import refused

Maker = Callable[..., Recording]
GATE = [[0.0, 0.1], [0.2, 0.1], [0.8, 0.1], [1.0, 0.1], [0.5, 0.1], [0.5, 0.9]]


def test_positions_leave_the_image_itself_out_of_its_mean(write_recording: Maker) -> None:
    recording = write_recording(labels=[0, 0, 1, 1, 2, 2], gates={"a": GATE}, bounds=(0, 1))
    line = class_line(recording, "a", 0, 1)
    assert line.rows.tolist() == [0, 1, 2, 3]
    # Image 0: its class without it is at 0.2, the other class at 0.9: (0 - 0.2) / 0.7.
    # Image 1: (0.2 - 0) / 0.9. Image 2: from 0.1 to 1.0. Image 3: from 0.1 to 0.8.
    wanted = [-0.2 / 0.7, 0.2 / 0.9, 0.7 / 0.9, 0.9 / 0.7]
    np.testing.assert_allclose(line.positions, wanted, rtol=1e-5)
    for row, position in enumerate(wanted):
        assert line.position(row, np.array(GATE[row])) == pytest.approx(position, rel=1e-5)
    # Of another class: from 0.1 to 0.9, and the second channel is at a right angle to the line.
    for row in (4, 5):
        assert line.position(row, np.array(GATE[row])) == pytest.approx(0.5, rel=1e-5)
    assert line.position(None, np.array([0.9, 0.3])) == pytest.approx(1.0, rel=1e-5)
    found = line.quantiles().set_index("side")
    assert found.loc["first", "median"] == pytest.approx(np.median(wanted[:2]), rel=1e-5)
    assert found.loc["second", "p95"] == pytest.approx(np.quantile(wanted[2:], 0.95), rel=1e-5)
    back = class_line(recording, "a", 1, 0)
    np.testing.assert_allclose(back.positions, 1 - line.positions[[2, 3, 0, 1]], rtol=1e-5)


def test_classes_that_do_not_differ_do_not_look_separated(write_recording: Maker) -> None:
    """With more channels than images, images lie near the mean that they made themselves."""
    values = np.random.default_rng(0).random((40, 200))
    labels = np.arange(40) % 2
    line = class_line(write_recording(labels=labels, gates={"a": values}), "a", 0, 1)
    first, second = line.positions[:20], line.positions[20:]
    naive = [(values[labels == k].mean(0)) for k in (0, 1)]
    direction = naive[1] - naive[0]
    apparent = (values - naive[0]) @ direction / (direction @ direction)
    assert apparent[labels == 1].mean() - apparent[labels == 0].mean() == pytest.approx(1)
    assert abs(second.mean() - first.mean()) < 0.4


def test_equal_means_have_no_line(write_recording: Maker) -> None:
    recording = write_recording(labels=[0, 0, 1, 1], gates={"a": [[0.3, 0.1]] * 4})
    line = class_line(recording, "a", 0, 1)
    assert np.isnan(line.positions).all()
    assert np.isnan(line.position(None, np.array([0.5, 0.1])))


def test_spatial_gates_and_many_images(make_recording: Maker) -> None:
    recording = make_recording()
    line = class_line(recording, "layer1.attention.spatial", 0, 2, most=5)
    assert line.firsts == 5
    assert len(line.rows) == 10
    assert set(recording.labels[line.rows[:5]]) == {0}
    assert line.means.shape == (2, 64)


def test_a_class_of_one_image_is_refused(write_recording: Maker) -> None:
    recording = write_recording(labels=[0, 0, 1], gates={"a": [[0.1], [0.2], [0.3]]})
    with refused("AS761", names=("dog", 1)):
        class_line(recording, "a", 0, 1)
    with pytest.raises(ValueError, match="same"):
        class_line(recording, "a", 1, 1)
