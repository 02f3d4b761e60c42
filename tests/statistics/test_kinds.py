"""Statistics treat a kind of gate that a package registered by its traits."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

from attnscope.kinds import KINDS, MAP, PER_CHANNEL, Kind
from attnscope.statistics import compare_gates, gate_state


@pytest.fixture
def renamed(monkeypatch):
    """Return a function that renames the kinds of gates, with the same traits or without traits."""
    for name, traits in (("ring", {MAP}), ("tone", {PER_CHANNEL}), ("odd", set())):
        kind = Kind(name, "a kind of a package", lambda seen: False, traits=frozenset(traits))
        monkeypatch.setitem(KINDS._known, name, kind)

    def rename(recording, names):
        recording.gates = [replace(g, kind=names.get(g.kind, g.kind)) for g in recording.gates]
        return recording

    return rename


NAMES = {"spatial": "ring", "channel": "tone"}


def test_statistics_depend_on_traits_and_not_on_the_name_of_the_kind(make_recording, renamed):
    first, second = make_recording("a"), make_recording("b", seed=1)
    for function, recordings in ((gate_state, [first]), (compare_gates, [first, second])):
        expected = function(*recordings)
        found = function(*(renamed(copy.copy(recording), NAMES) for recording in recordings))
        assert found.drop(columns="kind").equals(expected.drop(columns="kind"))
        assert found["kind"].tolist() == ["tone", "ring"] * 2


def test_gates_without_the_map_trait_are_not_treated_as_maps(write_recording, renamed):
    maps = np.tile(np.random.default_rng(0).random((6, 1, 1)), (1, 3, 3))
    maps[:, 0, 0] = 0.5  # one value for all images, in maps that are not constant
    recording = write_recording(labels=[0, 1, 2] * 2, gates={"s": maps})
    assert gate_state(recording)["constant"][0] == 0  # of images
    assert gate_state(renamed(copy.copy(recording), NAMES))["constant"][0] == 0
    assert gate_state(renamed(recording, {"spatial": "odd"}))["constant"][0] == 1 / 9  # of units
