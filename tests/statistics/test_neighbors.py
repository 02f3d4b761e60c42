"""Nearest images in gate space, against scipy and by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from attnscope.recording.recording import Recording
from attnscope.statistics import reading
from attnscope.statistics.neighbors import gate_space, nearest_images
from tests.making import refused

Maker = Callable[..., Recording]


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("gate", ["layer1.attention.channel", "layer2.attention.spatial"])
def test_distances_are_those_of_scipy_between_standardized_values(
    gate: str, distance: str, make_recording: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_CHUNK", 7)
    recording = make_recording()
    values = recording.gate(gate).reshape(60, -1).astype(float)
    values = values[:, values.std(0) > 0]
    z = (values - values.mean(0)) / values.std(0)
    wanted = cdist(z[[5]], z, distance)[0]
    if distance == "euclidean":
        wanted /= np.sqrt(z.shape[1])
    others = np.delete(np.arange(60), 5)
    order = others[np.argsort(wanted[others], kind="stable")][:4]
    space = gate_space(recording, gate)
    found = nearest_images(
        recording, space, recording.gate(gate, 5), count=4, distance=distance, without=5
    )
    assert found["image"].tolist() == order.tolist()
    np.testing.assert_allclose(found["distance"], wanted[order], rtol=1e-6)
    itself = nearest_images(recording, space, recording.gate(gate, 5), distance=distance)
    assert itself["image"][0] == 5
    assert itself["distance"][0] == pytest.approx(0, abs=1e-7)


def test_each_channel_counts_equally_whatever_its_scale(write_recording: Maker) -> None:
    gate = np.array([[0.1, 0.0], [0.1, 0.9], [0.2, 0.0], [0.2, 0.9]])
    recording = write_recording(labels=[0, 0, 1, 1], gates={"a": gate})
    space = gate_space(recording, "a")
    found = nearest_images(recording, space, gate[0], count=9, distance="euclidean", without=0)
    # Each differs from image 0 by two standard deviations in one channel, or in both.
    np.testing.assert_allclose(found["distance"], [np.sqrt(2), np.sqrt(2), 2], rtol=1e-5)
    assert found["image"].tolist()[2] == 3


def test_a_constant_gate_has_no_neighbors_and_a_constant_channel_counts_for_none(
    write_recording: Maker,
) -> None:
    gates = {"same": [[0.3, 0.7]] * 4, "one": [[0.3, 0.1], [0.3, 0.2], [0.3, 0.4], [0.3, 0.9]]}
    recording = write_recording(labels=[0, 0, 1, 1], gates=gates)
    with refused("AS760", names=("same",)):
        nearest_images(recording, gate_space(recording, "same"), np.array([0.3, 0.7]))
    space = gate_space(recording, "one")
    assert space.std[0] == 0
    found = nearest_images(recording, space, np.array([99, 0.21]), distance="euclidean", count=1)
    assert found["image"].tolist() == [1]


def test_of_many_images_evenly_spaced_ones_are_searched(make_recording: Maker) -> None:
    recording = make_recording()
    space = gate_space(recording, "layer1.attention.channel", most=7)
    assert space.rows.tolist() == [0, 10, 20, 30, 39, 49, 59]
    values = recording.gate("layer1.attention.channel")[space.rows]
    np.testing.assert_allclose(space.mean, values.mean(0), rtol=1e-6)
    found = nearest_images(recording, space, values[2], count=99)
    assert sorted(found["image"]) == space.rows.tolist()


def test_values_that_are_not_finite_are_refused(write_recording: Maker) -> None:
    recording = write_recording(labels=[0, 1], gates={"a": [[0.1], [np.nan]]})
    with refused("AS704"):
        gate_space(recording, "a")
