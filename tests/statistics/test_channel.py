"""One channel of a gate: values, histogram and extreme images, against NumPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from attnscope.statistics import reading
from attnscope.statistics.channel import (
    channel_count,
    channel_extremes,
    channel_histogram,
    channel_values,
)
from tests.making import refused

GATE = "layer1.attention.channel"


def test_values_are_those_of_the_gate_whatever_the_chunks(make_recording, monkeypatch):
    recording = make_recording()
    monkeypatch.setattr(reading, "_CHUNK", 7)
    assert channel_count(recording, GATE) == 8
    for channel in (0, 7):
        found = channel_values(recording, GATE, channel)
        np.testing.assert_array_equal(found, recording.gate(GATE)[:, channel])


@pytest.mark.parametrize("channel", [-1, 8])
def test_a_channel_that_does_not_exist_is_refused(make_recording, channel):
    with refused("AS742", names=(GATE, str(channel), "7")):
        channel_values(make_recording(), GATE, channel)


def test_extremes_are_the_largest_and_smallest_values_in_order():
    values = np.array([0.3, np.nan, 0.9, 0.1, 0.9, 0.5, 0.1], np.float32)
    table = channel_extremes(values, 2)
    assert list(table["end"]) == ["high", "high", "low", "low"]
    assert list(table["image"]) == [2, 4, 3, 6]
    np.testing.assert_array_equal(table["value"], values[[2, 4, 3, 6]])


def test_no_image_is_at_both_ends():
    table = channel_extremes(np.full(5, 0.5, np.float32), 10)
    assert sorted(table["image"]) == [0, 1, 2, 3, 4]
    assert list(table["end"]) == ["high"] * 3 + ["low"] * 2
    assert len(channel_extremes(np.array([0.5], np.float32), 3)) == 1
    assert len(channel_extremes(np.full(3, np.nan, np.float32), 3)) == 0


def test_histograms_share_their_bins_and_count_every_image():
    values = np.array([0.0, 0.25, 0.5, 1.0, 0.1, 0.9, np.nan], np.float32)
    labels = np.array([0, 0, 0, 0, 1, 1, 1])
    table = channel_histogram(values, labels, [1, 0, 2], bins=4)
    assert list(table["class"]) == [1] * 4 + [0] * 4 + [2] * 4
    assert list(table["count"]) == [1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    np.testing.assert_allclose(table["start"][:4], [0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(table["share"][:8], [0.5, 0, 0, 0.5, 0.25, 0.25, 0.25, 0.25])
    assert (table["share"][8:] == 0).all()


def test_a_constant_channel_is_in_one_bin():
    table = channel_histogram(np.full(6, 0.5, np.float32), np.zeros(6, int), [0], bins=5)
    assert list(table["count"]) == [0, 0, 6, 0, 0]
    assert len(channel_histogram(np.zeros(3, np.float32), np.zeros(3, int), [])) == 0
