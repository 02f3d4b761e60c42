"""Statistics of gates that have channels and maps by a mean, compared with the means by hand."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from attnscope import statistics
from attnscope.kinds import MAP, PER_CHANNEL, Gate
from attnscope.recording.recording import Recording
from attnscope.statistics import STATISTICS, logits, projection, rotation
from attnscope.statistics import reading as gate_reading
from attnscope.statistics.maps import comparable_gates
from tests.kinds_making import AXES, record_kind
from tests.making import refused

Write = Callable[..., Recording]
FEW = {"permutations": 9, "resamples": 9}
OF_MASKS = {"localization", "attribution_localization", "localization_summary"}
"""Statistics of recordings that have masks."""


def few(function: Callable) -> dict[str, int]:
    known = inspect.signature(function).parameters
    return {name: count for name, count in FEW.items() if name in known}


@pytest.mark.parametrize("kind", AXES)
def test_every_statistic_of_one_recording_applies_without_a_warning(
    tmp_path: Path, kind: str
) -> None:
    recording = record_kind(tmp_path / "r", kind, count=30)
    applied, unconcerned = set(), set()
    for name, found in STATISTICS.items():
        if not set(found.takes) <= {"recording", "gate"}:
            continue
        if not found.concerns(recording):
            unconcerned.add(name)
            continue
        both = [recording] * (2 if "b" in inspect.signature(found.function).parameters else 1)
        if both[1:] and not recording.gates_with(PER_CHANNEL) and "compare" in name:
            continue  # two networks are compared by their channels
        gates = (
            [[gate.name] for gate in found.gates_of(recording)] if "gate" in found.takes else [[]]
        )
        for gate in gates:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                if name == "map_agreement" and recording.info(gate[0]) not in comparable_gates(
                    recording
                ):
                    continue
                found.function(*both, *gate, **few(found.function))
            applied.add(name)
    assert {"gate_profiles", "gate_state", "state_sweep", "between_class_variance"} <= applied
    assert {"linear_probe", "image_states", "error_positions"} <= applied
    assert unconcerned == OF_MASKS  # the recording has none
    letters = set("".join(AXES[kind]))
    assert ("channel_effects" in applied) == bool(letters & set("BGC"))
    assert ("class_mean_maps" in applied) == bool(letters & set("DHWL"))


@pytest.mark.parametrize("kind", ["full", "strip", "grouped"])
def test_channel_statistics_are_those_of_the_mean_over_positions(
    tmp_path: Path, write_recording: Write, kind: str
) -> None:
    recording = record_kind(tmp_path / "r", kind)
    for gate in recording.gates_with(PER_CHANNEL):
        values = recording[gate.name]
        first = next((i for i, x in enumerate(gate.axes) if x in "DHWL"), values.ndim)
        means = values.reshape(*values.shape[:first], -1).mean(-1, dtype=np.float64)
        plain = write_recording(
            gate.name + kind, labels=recording.labels,
            gates={gate.name: means.reshape(len(values), -1)},
        )  # fmt: skip
        for function in (
            statistics.class_profiles, statistics.channel_effects, statistics.class_distances,
            statistics.permuted_channel_effects, statistics.class_selectivity,
            statistics.channel_states,
        ):  # fmt: skip
            found, wanted = (function(r, gate.name, **few(function)) for r in (recording, plain))
            pd.testing.assert_frame_equal(found, wanted, rtol=1e-4)
        geometry = [
            statistics.compare_geometry(r, r, permutations=9, resamples=9)
            for r in (recording, plain)
        ]
        assert geometry[0]["gate"].tolist().count(gate.name) == 1
        assert geometry[1]["spearman"].to_numpy() == pytest.approx(1)


def test_map_statistics_are_those_of_the_mean_over_channels(
    tmp_path: Path, write_recording: Write
) -> None:
    recording = record_kind(tmp_path / "r", "full")
    for gate, over in (("block1.gate", 1), ("block3.gate", (1, 2))):
        maps = recording[gate].mean(over, dtype=np.float64)
        plain = write_recording(
            gate, labels=recording.labels, gates={gate: maps}, grad_cam=recording.grad_cam()
        )
        np.testing.assert_allclose(
            statistics.class_mean_maps(recording, gate), statistics.class_mean_maps(plain, gate),
            rtol=1e-6,
        )  # fmt: skip
        found, wanted = (statistics.map_agreement(r, gate) for r in (recording, plain))
        pd.testing.assert_frame_equal(found, wanted, rtol=1e-6)
        summary = statistics.agreement_summary(recording, resamples=9)
        row = summary[(summary["gate"] == gate) & (summary["class"] == "all")].iloc[0]
        assert row["spearman"] == pytest.approx(wanted["spearman"].mean())


def test_rows_are_compared_with_the_rows_of_grad_cam(
    tmp_path: Path, write_recording: Write
) -> None:
    recording = record_kind(tmp_path / "r", "strip")
    rows = recording["block3.gate"]  # (N, H)
    cam = np.maximum(recording.grad_cam(), 0).mean(2)
    found = statistics.map_agreement(recording, "block3.gate")
    from scipy.stats import spearmanr

    by_hand = [spearmanr(a, b).statistic for a, b in zip(rows, cam, strict=True)]
    np.testing.assert_allclose(found["spearman"], by_hand, atol=1e-6)


def test_a_sequence_is_not_compared_with_the_grad_cam_of_an_image(tmp_path: Path) -> None:
    recording = record_kind(tmp_path / "r", "sequence")
    assert comparable_gates(recording) == []
    with refused("AS714", names=("block1.gate", "grad_cam")):
        statistics.map_agreement(recording, "block1.gate")
    assert len(statistics.agreement_summary(recording)) == 0
    full = record_kind(tmp_path / "f", "full")
    assert [gate.axes for gate in comparable_gates(full)] == ["NCHW", "NCDHW"]
    assert statistics.agreement_summary(full, resamples=9)["gate"].unique().tolist() == [
        "block1.gate", "block3.gate",
    ]  # fmt: skip


def test_a_sequence_is_compared_with_the_grad_cam_of_a_sequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = record_kind(tmp_path / "r", "sequence")
    cam = recording["block1.gate"][:, None, ::2]
    monkeypatch.setattr(
        Recording, "grad_cam", lambda self, layer=None, target="", rows=slice(None): cam[rows]
    )
    assert [gate.name for gate in comparable_gates(recording)] == ["block1.gate"]
    assert statistics.map_agreement(recording, "block1.gate")["spearman"].mean() > 0.8


def test_frames_have_no_positions_in_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AXES, "strip", ("ND", "NCW"))
    recording = record_kind(tmp_path / "r", "strip")
    assert [gate.axes for gate in recording.gates_with(MAP)] == ["ND", "NCW"]
    assert [gate.axes for gate in comparable_gates(recording)] == ["NCW"]


def test_chunks_of_a_large_gate_give_the_same_states_and_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = record_kind(tmp_path / "r", "full", count=30)
    functions = (
        statistics.gate_state, statistics.gate_profiles, statistics.state_sweep,
        lambda r: statistics.linear_probe(r, permutations=9),
    )  # fmt: skip
    before = [function(recording) for function in functions]
    values = recording["block1.gate"]
    monkeypatch.setattr(gate_reading, "_CHUNK_VALUES", 3 * values[0].size)
    assert [c.stop - c.start for c in gate_reading.gate_chunks(recording, "block1.gate")] == [
        3
    ] * 10
    for function, wanted in zip(functions, before, strict=True):
        pd.testing.assert_frame_equal(function(recording), wanted, check_exact=True)
    state = statistics.gate_state(recording).set_index("gate").loc["block1.gate"]
    assert state["stuck"] == (np.abs(values - 0.5) <= 0.02).mean()
    assert state["saturated_low"] == (values <= 0.01).mean()


def test_a_gate_larger_than_memory_gives_the_same_probe_and_error_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = record_kind(tmp_path / "r", "full", count=30)
    gate = "block1.gate"
    values = recording[gate]
    functions = (
        lambda: statistics.linear_probe(recording, permutations=9),
        lambda: statistics.error_positions(recording, gate),
        lambda: statistics.error_position_summary(recording, resamples=9),
    )
    before = [function() for function in functions]
    sizes: dict[str, list[int]] = {"probe": [], "positions": []}
    rotate, read = logits.rotate_blocks, projection.read_units

    def rotate_and_note(blocks: Iterable[np.ndarray], *others: Any) -> list[Any]:
        noted = (sizes["probe"].append(block.size) or block for block in blocks)
        return rotate(noted, *others)

    def read_and_note(*arguments: Any) -> np.ndarray:
        found = read(*arguments)
        sizes["positions"].append(found.size)
        return found

    monkeypatch.setattr(logits, "rotate_blocks", rotate_and_note)
    monkeypatch.setattr(projection, "read_units", read_and_note)
    monkeypatch.setattr(logits, "_MANY_UNITS", 1)
    limit = values[0].size // 3 * len(values)
    monkeypatch.setattr(gate_reading, "_CHUNK_VALUES", limit)
    for function, wanted in zip(functions, before, strict=True):
        # Sums over ranges of units differ by rounding from sums over all of them.
        pd.testing.assert_frame_equal(function(), wanted, rtol=1e-9, atol=1e-12)
    for found in sizes.values():
        assert max(found) == limit
        assert sum(found) >= values.size


def test_a_probe_of_a_large_gate_on_many_images_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = record_kind(tmp_path / "r", "full", count=30)
    monkeypatch.setattr(logits, "_MANY_UNITS", 1)
    monkeypatch.setattr(gate_reading, "_CHUNK_VALUES", 30)
    monkeypatch.setattr(rotation, "_LARGEST_PRODUCTS", 10)
    with refused("AS715", names=(recording.gates[0].name, 10)):
        statistics.linear_probe(recording, permutations=9)


def test_a_gate_of_unknown_axes_has_no_view(tmp_path: Path) -> None:
    recording = record_kind(tmp_path / "r", "full")
    recording.gates = [Gate("block1.gate", "full", 6, None, "sigmoid", 0.0, 1.0, 1.0)]
    for trait in (PER_CHANNEL, MAP):
        assert recording.gates_with(trait) == []
