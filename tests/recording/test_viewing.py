"""Channels and maps of gates of other kinds, read from recordings and moments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attnscope.kinds import MAP, PER_CHANNEL
from attnscope.recording import viewing
from attnscope.recording.recording import Recording
from tests.kinds_making import AXES, SIZES, record_kind
from tests.making import refused


def expected(values: np.ndarray, axes: str, trait: str) -> np.ndarray:
    """Return a view by hand: average the letters of the other group, axis by axis."""
    drop = "DHWL" if trait == PER_CHANNEL else "GC"
    for letter in reversed(axes):
        if letter in drop or (trait == MAP and letter == "D" and "H" in axes):
            values = values.mean(axes.index(letter), dtype=np.float64, keepdims=True)
        elif letter == "B" and trait == MAP:
            values = values.take([0], axes.index("B"))
    return values


@pytest.mark.parametrize("kind", AXES)
@pytest.mark.parametrize("piece", [1, 2**26], ids=["image by image", "at once"])
def test_every_kind_has_the_channels_and_maps_of_its_axes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, piece: int
) -> None:
    monkeypatch.setattr(viewing, "_PIECE_BYTES", piece)
    recording = record_kind(tmp_path / "r", kind)
    assert recording.verify() == []
    for gate in recording:
        for trait, read, letters in (
            (PER_CHANNEL, recording.channel, "BGC"),
            (MAP, recording.spatial, "DHWL"),
        ):
            if not set(gate.axes) & set(letters):
                assert gate not in recording.gates_with(trait)
                with refused("AS609", names=(gate.name, kind)):
                    read(gate.name)
                continue
            assert gate in recording.gates_with(trait)
            wanted = expected(recording[gate.name], gate.axes, trait)
            for rows in (slice(None), [3, 13, 3], slice(20, 4, -5), recording.labels == 1):
                found = read(gate.name, rows)
                assert found.ndim == (2 if trait == PER_CHANNEL else 3)
                np.testing.assert_allclose(found.ravel(), wanted[rows].ravel(), rtol=1e-6)
            np.testing.assert_array_equal(read(gate.name, 13), read(gate.name)[13])
            assert read(gate.name, []).shape == (0, *read(gate.name).shape[1:])


@pytest.mark.parametrize("kind", AXES)
def test_moments_have_the_class_means_of_the_recording(tmp_path: Path, kind: str) -> None:
    recording = record_kind(tmp_path / "r", kind)
    moments = record_kind(tmp_path / "m", kind, moments=True)
    assert moments.verify() == []
    assert [g.name for g in moments.gates_with(MAP)] == [g.name for g in recording.gates_with(MAP)]
    for gate in recording.gates_with(PER_CHANNEL):
        values, found = recording.channel(gate.name), moments.channels(gate.name)
        for k in range(3):
            members = values[recording.labels == k].astype(np.float64)
            np.testing.assert_allclose(found.mean[k], members.mean(0), rtol=1e-6)
            np.testing.assert_allclose(found.std[k], members.std(0, ddof=1), rtol=1e-4)
            np.testing.assert_allclose(found.maximum[k], members.max(0), rtol=1e-6)
    for gate in recording.gates_with(MAP):
        values, means = recording.spatial(gate.name), moments.mean_map(gate.name)
        for k in range(3):
            wanted = values[recording.labels == k].mean(0, dtype=np.float64)
            np.testing.assert_allclose(means[k], wanted, rtol=1e-6)


def test_moments_without_the_channels_of_a_gate_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # as earlier versions wrote them
        patch.setattr("attnscope.kinds.Gate.view", lambda self, trait: None)
        record_kind(tmp_path / "m", "full", moments=True)
    from attnscope.recording.moments import Moments

    moments = Moments(tmp_path / "m")
    assert moments.gates_with(PER_CHANNEL) == []
    assert len(moments.gates_with(MAP)) == len(AXES["full"])
    assert moments.verify() == []
    with refused("AS609", names=("block1.gate",)):
        moments.channels("block1.gate")


def test_a_large_gate_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = record_kind(tmp_path / "r", "full")
    image = 4 * SIZES["C"] * SIZES["H"] * SIZES["W"]
    monkeypatch.setattr(viewing, "_PIECE_BYTES", 5 * image)
    whole = recording.channel("block1.gate")
    read: list[int] = []
    gate = Recording.gate

    def counted(self: Recording, name: str, rows: object = slice(None)) -> np.ndarray:
        values = gate(self, name, rows)
        read.append(len(values))
        return values

    monkeypatch.setattr(Recording, "gate", counted)
    np.testing.assert_array_equal(recording.channel("block1.gate"), whole)
    assert max(read) == 5
    assert sum(read) == len(recording) + 1
