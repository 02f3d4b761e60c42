"""A kind of gate that a package registered is treated by its traits, whatever it is called."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from attnscope.kinds import KINDS, MAP, PER_CHANNEL, Kind
from attnscope.statistics import compare_gates, gate_state


@pytest.fixture
def renamed(monkeypatch):
    """The same recording with gates of kinds of other names and with the same traits, or none."""
    for name, traits in (("ring", {MAP}), ("tone", {PER_CHANNEL}), ("odd", set())):
        kind = Kind(name, "a kind of a package", lambda seen: False, traits=frozenset(traits))
        monkeypatch.setitem(KINDS._known, name, kind)

    def rename(recording, names):
        recording.gates = [replace(g, kind=names.get(g.kind, g.kind)) for g in recording.gates]
        return recording

    return rename


@pytest.mark.parametrize(
    "function", [gate_state, lambda recording: compare_gates(recording, recording)]
)
def test_only_traits_count(make_recording, renamed, function):
    expected = function(make_recording())
    found = function(renamed(make_recording("b"), {"spatial": "ring", "channel": "tone"}))
    assert found.drop(columns="kind").equals(expected.drop(columns="kind"))
    assert found["kind"].tolist() == ["tone", "ring"] * 2


def test_without_a_trait_maps_are_no_maps(write_recording, renamed):
    maps = np.tile(np.random.default_rng(0).random((6, 1, 1)), (1, 3, 3))
    maps[:, 0, 0] = 0.5  # one value for all images, in maps that are not constant
    recording = write_recording(labels=[0, 1, 2] * 2, gates={"s": maps})
    assert gate_state(recording)["constant"][0] == 0  # of images
    assert gate_state(renamed(recording, {"spatial": "odd"}))["constant"][0] == 1 / 9  # of units
