"""Gates are read by name, and rows are selected as in a NumPy array."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnscope.recording.recording import Recording, RecordingWriter
from attnscope.recording.rows import row_numbers
from tests.making import refused
from tests.recording.making import CLASSES, GATES, SIZES, make_arrays, make_rows

CHANNEL, SPATIAL = (gate.name for gate in GATES)
LABELS = np.arange(sum(SIZES)) % 3
SELECTIONS: dict[str, Any] = {
    "slice": slice(2, 6),
    "slice with a step": slice(1, None, 3),
    "reversed": slice(None, None, -1),
    "empty slice": slice(5, 2),
    "list in any order with duplicates": [3, 1, 3, 7, 0],
    "negative numbers": [-1, -8, 2],
    "array": np.array([7, 0, 4], np.uint8),
    "mask": LABELS == 2,
    "mask as a list": (LABELS == 1).tolist(),
    "mask of none": np.zeros(8, bool),
    "number": 4,
    "negative number": -2,
    "NumPy number": np.int64(7),
}


@pytest.fixture
def pooled(tmp_path: Path) -> Recording:
    """Three shards, with pooled inputs."""
    arrays = make_arrays()
    arrays |= {f"pooled/{name}": 3 * arrays[f"gate/{name}"] - 1 for name in (CHANNEL, SPATIAL)}
    rows = make_rows(arrays)
    with RecordingWriter(
        tmp_path / "pooled",
        gates=GATES,
        classes=CLASSES,
        grad_cam_layers=["layer1"],
        about={"name": "toy", "split": "test"},
        pooled_inputs=[CHANNEL, SPATIAL],
    ) as writer:
        for start, size in zip((0, 3, 7), SIZES, strict=True):
            piece = slice(start, start + size)
            writer.add_shard({key: value[piece] for key, value in arrays.items()}, rows[piece])
    return Recording(tmp_path / "pooled")


READERS: dict[str, tuple[Callable[[Recording, Any], Any], str]] = {
    "recording[name, rows]": (lambda r, rows: r[CHANNEL, rows], f"gate/{CHANNEL}"),
    "gate": (lambda r, rows: r.gate(SPATIAL, rows), f"gate/{SPATIAL}"),
    "channel": (lambda r, rows: r.channel(CHANNEL, rows), f"gate/{CHANNEL}"),
    "spatial": (lambda r, rows: r.spatial(SPATIAL, rows), f"gate/{SPATIAL}"),
    "pooled_input": (lambda r, rows: r.pooled_input(SPATIAL, rows), f"pooled/{SPATIAL}"),
    "grad_cam": (lambda r, rows: r.grad_cam(rows=rows), "grad_cam/layer1/predicted"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("selection", SELECTIONS)
def test_rows_are_selected_as_in_numpy(pooled: Recording, reader: str, selection: str) -> None:
    read, key = READERS[reader]
    rows, arrays = SELECTIONS[selection], make_arrays()
    whole = arrays[key] if key in arrays else 3 * arrays[f"gate/{SPATIAL}"] - 1
    expected = whole[rows].astype(np.float32)
    found = read(pooled, rows)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


def test_gate_is_read_by_its_name(pooled: Recording) -> None:
    np.testing.assert_array_equal(pooled[SPATIAL], make_arrays()[f"gate/{SPATIAL}"])
    assert pooled[CHANNEL, []].shape == (0, 6)
    mask = pooled.rows["label"] == 2  # a series of pandas
    np.testing.assert_array_equal(pooled[CHANNEL, mask], pooled[CHANNEL][LABELS == 2])


def test_recording_iterates_over_gates_and_knows_their_names(pooled: Recording) -> None:
    assert list(pooled) == GATES
    assert CHANNEL in pooled
    assert GATES[1] in pooled
    assert "layer9" not in pooled
    assert 0 not in pooled
    assert len(pooled) == 8  # images


@pytest.mark.parametrize("rows", [8, -9, [0, 8], [1.0], np.ones(7, bool), [[0]], "0", True, None])
def test_rows_that_do_not_exist_are_an_index_error(pooled: Recording, rows: Any) -> None:
    with pytest.raises(IndexError):
        pooled[CHANNEL, rows]


@pytest.mark.parametrize("key", [0, slice(3), (CHANNEL,), (0, CHANNEL), (CHANNEL, 0, 1), None])
def test_keys_that_are_not_names_are_a_type_error(pooled: Recording, key: Any) -> None:
    with pytest.raises(TypeError):
        pooled[key]


def test_unknown_gate_is_refused_with_the_nearest_names(
    pooled: Recording, write_recording: Callable[..., Recording]
) -> None:
    with refused("AS608", names=("layer1.attention", CHANNEL, SPATIAL)):
        pooled["layer1.attention"]
    names = [f"layer{i}.{j}.attention.channel" for i in (1, 2, 3) for j in range(4)]
    many = write_recording(labels=[0, 1], gates={name: np.zeros((2, 3)) for name in names})
    with refused("AS608", names=("layer2.1.channel", "12", "layer2.1.attention.channel")):
        many["layer2.1.channel"]


def test_short_integers_select_rows_of_long_recordings() -> None:
    assert list(row_numbers(np.array([-1, 5], np.int8), 1000)) == [999, 5]
    assert list(row_numbers(np.array([200], np.uint8), 1000)) == [200]


def test_only_shards_with_selected_rows_are_read(pooled: Recording) -> None:
    """The second shard has the rows 3 to 6."""
    file = pooled.folder / "shards/00001/arrays.safetensors"
    file.unlink()
    assert pooled[CHANNEL, [7, 0, 2]].shape == (3, 6)
    assert pooled[CHANNEL, ::7].shape == (2, 6)
    with refused("AS606", names=(file,)):
        pooled[CHANNEL, [7, 3]]


def test_split_is_none_if_the_capture_did_not_say(
    pooled: Recording, write_recording: Callable[..., Recording]
) -> None:
    assert pooled.split == "test"
    recording = write_recording(labels=[0, 1])
    assert recording.split is None
