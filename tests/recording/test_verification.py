"""Verification finds what is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from attnscope.recording.recording import Recording
from tests.recording.making import flip, make_arrays, make_rows, write


def test_verify_finds_a_flipped_byte(folder: Path) -> None:
    file = folder / "shards/00001/arrays.safetensors"
    for at in (-1, file.stat().st_size // 2):
        flip(file, at)
        (line,) = Recording(folder).verify()
        assert line == f"{file} has changed since it was written (SHA-256)"
        flip(file, at)
    assert Recording(folder).verify() == []
    recording = Recording(folder)
    flip(folder / "shards/00002/rows.parquet", 8)
    assert ["00002/rows.parquet has changed" in line for line in recording.verify()] == [True]


def test_verify_finds_what_is_truncated_or_missing(folder: Path) -> None:
    recording = Recording(folder)
    cut, gone = (folder / f"shards/0000{i}/arrays.safetensors" for i in (0, 2))
    cut.write_bytes(cut.read_bytes()[:-10])
    gone.unlink()
    first, second = recording.verify()
    assert first == f"{cut} has changed since it was written (SHA-256)"
    assert second == f"{gone} is missing (No such file or directory)"


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("gate/layer1.attention.channel", 1.5, "2 values not finite or not in 0.0 to 1.0"),
        ("gate/layer1.attention.channel", -0.1, "2 values not finite or not in 0.0 to 1.0"),
        ("gate/layer1.attention.spatial", 2.1, "2 values not finite or not in 0.0 to 2.0"),
        ("gate/layer1.attention.spatial", np.nan, "2 values not finite or not in 0.0 to 2.0"),
        ("logits", np.inf, "2 values not finite or not in -inf to inf"),
        ("grad_cam/layer1/true", np.nan, "2 values not finite or not in -inf to inf"),
    ],
)
def test_verify_counts_values_out_of_bounds(
    tmp_path: Path, key: str, value: float, line: str
) -> None:
    arrays = make_arrays()
    arrays[key].reshape(-1)[[0, 3]] = value
    assert Recording(write(tmp_path / "r", arrays)).verify() == [f"{key}: {line}"]


def test_the_bounds_themselves_are_inside(tmp_path: Path) -> None:
    arrays = make_arrays()
    arrays["gate/layer1.attention.channel"][0, :2] = 0, 1
    # As far as single precision rounds, which bounds, computed in double precision, do not.
    arrays["gate/layer1.attention.channel"][1, 0] = np.nextafter(np.float32(1), np.float32(2))
    assert Recording(write(tmp_path / "r", arrays)).verify() == []


@pytest.mark.parametrize("column", ["label", "prediction"])
def test_verify_finds_a_class_that_is_none(tmp_path: Path, column: str) -> None:
    arrays = make_arrays()
    rows = make_rows(arrays)
    rows.loc[[0, 7], column] = -1, 3
    found = Recording(write(tmp_path / "r", arrays, rows)).verify()
    assert found == [f"2 values of the column {column} are no class"]


def rehash(folder: Path) -> None:
    """Makes the manifest agree with the files: what is left to find is what they hold."""
    import hashlib

    manifest = json.loads((folder / "manifest.json").read_text())
    for shard in manifest["shards"]:
        for name in shard["sha256"]:
            content = (folder / "shards" / shard["name"] / name).read_bytes()
            shard["sha256"][name] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_verify_finds_an_array_that_is_not_there_or_too_short(folder: Path) -> None:
    arrays = {key: value[:3] for key, value in make_arrays().items() if key != "images"}
    arrays["logits"] = arrays["logits"][:2]
    save_file(arrays, folder / "shards/00000/arrays.safetensors")
    rehash(folder)
    found = Recording(folder).verify()
    assert [line.split(":")[0] for line in found] == ["logits", "images"]
