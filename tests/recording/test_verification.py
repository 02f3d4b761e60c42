"""Verification finds damaged files and values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from attnscope.files import read_json
from attnscope.recording.recording import Recording
from tests.recording.making import flip, found_problems, make_arrays, make_rows, write

FIRST_ARRAYS = "shards/00000/arrays.safetensors"


def test_verify_finds_a_flipped_byte(folder: Path) -> None:
    file = folder / "shards/00001/arrays.safetensors"
    for at in (-1, file.stat().st_size // 2):
        flip(file, at)
        found_problems(Recording(folder).verify(), ("AS681", file))
        flip(file, at)
    assert Recording(folder).verify() == []
    recording = Recording(folder)
    flip(folder / "shards/00002/rows.parquet", 8)
    found_problems(recording.verify(), ("AS681", folder / "shards/00002/rows.parquet"))


def test_verify_finds_truncated_and_missing_files(folder: Path) -> None:
    recording = Recording(folder)
    cut, gone = (folder / f"shards/0000{i}/arrays.safetensors" for i in (0, 2))
    cut.write_bytes(cut.read_bytes()[:-10])
    gone.unlink()
    found_problems(recording.verify(), ("AS681", cut), ("AS682", gone))


@pytest.mark.parametrize(
    ("key", "value", "bounds"),
    [
        ("gate/layer1.attention.channel", 1.5, "0.0 to 1.0"),
        ("gate/layer1.attention.channel", -0.1, "0.0 to 1.0"),
        ("gate/layer1.attention.spatial", 2.1, "0.0 to 2.0"),
        ("gate/layer1.attention.spatial", np.nan, "0.0 to 2.0"),
        ("logits", np.inf, "-inf to inf"),
        ("grad_cam/layer1/true", np.nan, "-inf to inf"),
    ],
)
def test_verify_counts_values_out_of_bounds(
    tmp_path: Path, key: str, value: float, bounds: str
) -> None:
    arrays = make_arrays()
    arrays[key].reshape(-1)[[0, 3]] = value
    found = Recording(write(tmp_path / "r", arrays)).verify()
    found_problems(found, ("AS687", f"{key} has 2 values", bounds))


def test_verify_accepts_values_at_the_bounds(tmp_path: Path) -> None:
    arrays = make_arrays()
    arrays["gate/layer1.attention.channel"][0, :2] = 0, 1
    # Gates are rounded to single precision; their bounds are computed in double precision.
    arrays["gate/layer1.attention.channel"][1, 0] = np.nextafter(np.float32(1), np.float32(2))
    assert Recording(write(tmp_path / "r", arrays)).verify() == []


@pytest.mark.parametrize("column", ["label", "prediction"])
def test_verify_finds_values_that_are_not_classes(tmp_path: Path, column: str) -> None:
    arrays = make_arrays()
    rows = make_rows(arrays)
    rows.loc[[0, 7], column] = -1, 3
    found = Recording(write(tmp_path / "r", arrays, rows)).verify()
    found_problems(found, ("AS686", f"{column} has 2 "))


def test_verify_finds_different_shapes_in_two_shards(folder: Path) -> None:
    arrays = {key: value[:3] for key, value in make_arrays().items()}
    arrays["images"] = arrays["images"][:, :4]
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / FIRST_ARRAYS)
    rehash(folder)
    found_problems(Recording(folder).verify(), ("AS688", "images"))


def rehash(folder: Path) -> None:
    """Update the hashes in the manifest, so that only the values are wrong."""
    import hashlib

    manifest = read_json(folder / "manifest.json")
    for shard in manifest["shards"]:
        for name in shard["sha256"]:
            content = (folder / "shards" / shard["name"] / name).read_bytes()
            shard["sha256"][name] = hashlib.sha256(content).hexdigest()
        file = folder / "shards" / shard["name"] / "shard.json"
        file.write_text(json.dumps({**read_json(file), "sha256": shard["sha256"]}))
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_verify_finds_missing_and_short_arrays(folder: Path) -> None:
    arrays = {key: value[:3] for key, value in make_arrays().items() if key != "images"}
    arrays["logits"] = arrays["logits"][:2]
    save_file(arrays, folder / "shards/00000/arrays.safetensors")
    rehash(folder)
    found = Recording(folder).verify()
    found_problems(found, ("AS689", "logits has 2 rows", 3), ("AS606", "images"))


@pytest.mark.parametrize(
    ("labels", "value", "code"),
    [
        ("multi-label", 2.0, "AS687"),
        ("multi-label", np.nan, "AS687"),
        ("value", 2.0, ""),
        ("value", np.nan, ""),
    ],
)
def test_verify_looks_at_the_values_of_labels_that_are_no_classes(
    tmp_path: Path, labels: str, value: float, code: str
) -> None:
    arrays = make_arrays()
    arrays["targets"] = np.eye(2, dtype=np.float32)[np.arange(len(arrays["logits"])) % 2]
    del arrays["grad_cam/layer1/true"]
    arrays["targets"][[0, 3], 1] = value
    found = Recording(write(tmp_path / "r", arrays, label_kind=labels)).verify()
    found_problems(found, *([(code, "targets has 2 values")] if code else []))


@pytest.mark.parametrize("labels", ["multi-label", "value"])
def test_verify_misses_labels_that_were_recorded(tmp_path: Path, labels: str) -> None:
    arrays = make_arrays()
    del arrays["grad_cam/layer1/true"]
    found = Recording(write(tmp_path / "r", arrays, label_kind=labels)).verify()
    found_problems(found, ("AS606", "targets"))
