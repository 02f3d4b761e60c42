"""Recordings are written and read again; damaged ones are refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from analysis.attack import time_limit
from attnscope.files import read_json
from attnscope.kinds import HAS_NEUTRAL, MAP
from attnscope.recording.recording import Recording, RecordingWriter
from tests.making import refused
from tests.recording.making import (
    CLASSES,
    GATES,
    found_problems,
    make_arrays,
    make_rows,
    write,
)


def test_round_trip(folder: Path) -> None:
    arrays, recording = make_arrays(), Recording(folder)
    rows = make_rows(arrays)
    assert len(recording) == 8
    assert recording.gates == GATES
    assert recording.classes == CLASSES
    assert recording.name == "toy"
    assert recording.verify() == []
    channel = recording.channel("layer1.attention.channel")
    assert channel.dtype == np.float32
    np.testing.assert_array_equal(channel, arrays["gate/layer1.attention.channel"])
    spatial = recording.spatial("layer1.attention.spatial")
    np.testing.assert_array_equal(spatial, arrays["gate/layer1.attention.spatial"])
    np.testing.assert_array_equal(recording.logits, arrays["logits"])
    for target in ("predicted", "true"):
        cam = recording.grad_cam(target=target)
        assert cam.dtype == np.float32
        np.testing.assert_array_equal(cam, arrays[f"grad_cam/layer1/{target}"])
        assert (cam < 0).any(), "the sign is kept"
    for i in range(8):
        np.testing.assert_array_equal(recording.image(i), arrays["images"][i])
    assert list(recording.rows.columns) == ["path", "label", "prediction", "loss"]
    assert recording.rows["path"].tolist() == rows["path"].tolist()
    np.testing.assert_array_equal(recording.labels, rows["label"])
    np.testing.assert_array_equal(recording.predictions, rows["prediction"])
    np.testing.assert_array_equal(recording.rows["loss"], rows["loss"])


def test_pooled_inputs_are_read_or_refused_if_not_recorded(folder: Path, tmp_path: Path) -> None:
    channel, spatial = (gate.name for gate in GATES)
    arrays = make_arrays()
    arrays[f"pooled/{spatial}"] = 100 * arrays[f"gate/{spatial}"] - 300  # no bounds
    rows = make_rows(arrays)
    given = {"gates": GATES, "classes": CLASSES, "grad_cam_layers": ["layer1"], "about": {}}
    with RecordingWriter(tmp_path / "pooled", **given, pooled_inputs=[spatial]) as writer:
        for piece in (slice(0, 5), slice(5, 8)):
            writer.add_shard({key: value[piece] for key, value in arrays.items()}, rows[piece])
    recording = Recording(tmp_path / "pooled")
    assert recording.pooled_inputs == [spatial]
    assert recording.verify() == []
    found = recording.pooled_input(spatial)
    np.testing.assert_array_equal(found, arrays[f"pooled/{spatial}"])
    np.testing.assert_array_equal(recording.pooled_input(spatial, slice(4, 6)), found[4:6])
    without = Recording(folder)
    assert without.pooled_inputs == []
    for one, name in ((recording, channel), (without, spatial)):
        with refused("AS612", names=(one.folder, name, "--pooled-inputs")):
            one.pooled_input(name)
    with refused("AS608", names=("layer9",)):
        recording.pooled_input("layer9")

    arrays[f"pooled/{spatial}"][3, 0, 0] = np.nan
    with RecordingWriter(tmp_path / "nan", **given, pooled_inputs=[spatial]) as writer:
        writer.add_shard(arrays, rows)
    found_problems(Recording(tmp_path / "nan").verify(), ("AS687", f"pooled/{spatial} has 1 "))

    with RecordingWriter(tmp_path / "short", **given, pooled_inputs=[channel]) as writer:
        with pytest.raises(ValueError, match=f"pooled/{channel}"):
            writer.add_shard(arrays, rows)
        arrays[f"pooled/{channel}"] = np.zeros((8, 6), np.float32)
        writer.add_shard(arrays, rows)


def test_probabilities_are_the_softmax(tmp_path: Path) -> None:
    arrays = make_arrays()
    arrays["logits"][0] = [1000, 999, -1000]  # exp of these overflows
    p = Recording(write(tmp_path / "r", arrays)).probabilities
    np.testing.assert_allclose(p[0], [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1)), 0], rtol=1e-12)
    z = arrays["logits"][1:].astype(float)
    np.testing.assert_allclose(p[1:], np.exp(z) / np.exp(z).sum(1)[:, None], rtol=1e-12)


@pytest.mark.parametrize("start", range(9))
@pytest.mark.parametrize("stop", range(9))
def test_slices_across_shards(tmp_path_factory: Any, start: int, stop: int) -> None:
    base = tmp_path_factory.getbasetemp() / "shared-recording"
    recording = Recording(base if base.exists() else write(base))
    expected = make_arrays()["gate/layer1.attention.spatial"][start:stop]
    found = recording.gate("layer1.attention.spatial", slice(start, stop))
    assert found.shape == expected.shape  # with no row, too
    np.testing.assert_array_equal(found, expected)


def test_slices_count_from_the_end_and_have_steps(folder: Path) -> None:
    recording = Recording(folder)
    values = make_arrays()["gate/layer1.attention.channel"]
    name = "layer1.attention.channel"
    np.testing.assert_array_equal(recording.gate(name, slice(-3, None)), values[-3:])
    np.testing.assert_array_equal(recording.gate(name, slice(6, 99)), values[6:])
    for step in (2, 3, -1, -2):
        found = recording.gate(name, slice(None, None, step))
        np.testing.assert_array_equal(found, values[::step])
    for i in (-1, 8):
        with pytest.raises(IndexError):
            recording.image(i)


def test_only_needed_shards_are_opened(folder: Path) -> None:
    recording = Recording(folder)
    (folder / "shards/00000/arrays.safetensors").unlink()
    assert len(recording.gate("layer1.attention.channel", slice(3, 8))) == 5
    with refused("AS606", names=(folder / "shards/00000/arrays.safetensors",)):
        recording.gate("layer1.attention.channel", slice(2, 8))


def test_reading_an_image_reads_only_that_image(tmp_path: Path) -> None:
    """The file has 64 MB of pictures; reading one allocates much less."""
    count, side = 64, 591
    arrays = {
        "gate/layer1.attention.channel": np.zeros((count, 6), np.float32),
        "gate/layer1.attention.spatial": np.zeros((count, 4, 5), np.float32),
        "logits": np.zeros((count, 3), np.float32),
        "images": np.zeros((count, side, side, 3), np.uint8),
    }
    arrays["images"][40] = 7
    with RecordingWriter(
        tmp_path / "r", gates=GATES, classes=CLASSES, grad_cam_layers=[], about={}
    ) as writer:
        writer.add_shard(arrays, make_rows(arrays))
    del arrays
    script = (
        "import resource, sys\n"
        "from attnscope.recording import Recording\n"
        "r = Recording(sys.argv[1]); r.image(0)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert (r.image(40) == 7).all()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "r")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16_000  # kB


def test_refusal_names_what_was_recorded_instead(folder: Path) -> None:
    recording = Recording(folder)
    with refused("AS608", names=("layer9", *(gate.name for gate in GATES))):
        recording.gate("layer9")
    with refused("AS609", names=("layer1.attention.channel", "spatial")):
        recording.spatial("layer1.attention.channel")
    with refused("AS609", names=("layer1.attention.spatial", "channel")):
        recording.channel("layer1.attention.spatial")
    with refused("AS611", names=("layer4", "layer1")):
        recording.grad_cam("layer4")
    with refused("AS610", names=("all", "predicted", "true")):
        recording.grad_cam(target="all")
    assert [g.name for g in recording.gates_of_kind("spatial")] == ["layer1.attention.spatial"]
    assert [g.name for g in recording.gates_with(MAP)] == ["layer1.attention.spatial"]
    assert recording.gates_with(HAS_NEUTRAL) == GATES
    assert recording.gates_of_kind("branch") == []


def test_folder_without_manifest_is_refused(tmp_path: Path, folder: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", folder / "manifest.json"):
        with refused("AS601", names=(path,)):
            Recording(path)
    (folder / "manifest.json").unlink()  # the file that is written last
    with refused("AS601", names=(folder,)):
        Recording(folder)


@pytest.mark.parametrize("keep", [0, 1, 100, -3])
def test_truncated_manifest_is_refused(folder: Path, keep: int) -> None:
    file = folder / "manifest.json"
    file.write_bytes(file.read_bytes()[:keep])
    with refused("AS112", names=(file,)):
        Recording(folder)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
@pytest.mark.parametrize("name", ["arrays.safetensors", "rows.parquet"])
def test_truncated_shard_is_refused(folder: Path, name: str, keep: int) -> None:
    file = folder / "shards/00001" / name
    file.write_bytes(file.read_bytes()[:keep])
    with refused("AS606", names=(file,)):
        Recording(folder).channel("layer1.attention.channel")


def test_missing_shard_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "shards/00001")
    with refused("AS606", names=(folder / "shards/00001/rows.parquet",)):
        Recording(folder)


def test_exchanged_shards_are_refused(folder: Path) -> None:
    """The total number of rows is correct, and that of each shard is wrong."""
    shards = folder / "shards"
    (shards / "00000").rename(shards / "x")
    (shards / "00001").rename(shards / "00000")
    (shards / "x").rename(shards / "00001")
    with refused("AS606", names=(folder / "shards/00000/rows.parquet", "4", "3")):
        Recording(folder)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = read_json(folder / "manifest.json")
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.pop("gates"), "gates"),
        (lambda m: m.update(gates={}), "dict"),
        (lambda m: m["gates"][0].pop("lo"), "lo"),
        (lambda m: m["gates"][0].update(surprise=1), "surprise"),
        (lambda m: m["gates"][0].update(lo="0"), "lo"),
        (lambda m: m["gates"][0].update(name=3), "3"),
        (lambda m: m["gates"][1].update(grid=5), "int"),
        (lambda m: m.update(classes="cat"), "str"),
        (lambda m: m.update(classes=[1, 2, 3]), "str"),
        (lambda m: m.update(grad_cam_layers=None), "str"),
        (lambda m: m.update(about=7), "int"),
        (lambda m: m.update(shards=[]), "have 0 images"),
        (lambda m: m.update(count=9), "count is 9"),
        (lambda m: m["shards"].pop(), "have 7 images"),
        (lambda m: m["shards"][0].update(count="3"), "'3'"),
        (lambda m: m["shards"][0].update(count=0), "0"),
        (lambda m: m["shards"][0].update(sha256={}), "arrays.safetensors"),
        (lambda m: m["shards"][0]["sha256"].update({"../../x": "0"}), "arrays.safetensors"),
    ],
)
def test_invalid_manifest_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    edit(folder, change)
    with refused("AS604", names=(folder / "manifest.json", named)):
        Recording(folder)


def test_unregistered_kind_of_gate_is_refused(folder: Path) -> None:
    edit(folder, lambda m: m["gates"][0].update(kind="wave"))
    with refused("AS605", names=(folder, "wave")):
        Recording(folder)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "{}"])
def test_json_that_is_not_a_manifest_is_refused(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with refused("AS604", names=(folder / "manifest.json",)):
        Recording(folder)


def test_other_format_is_refused(folder: Path) -> None:
    edit(folder, lambda m: m.update(format=2, gates="other"))
    with refused("AS602", names=(folder, "format 2", "format 1")):
        Recording(folder)


@pytest.mark.parametrize("relative", [True, False])
def test_a_shard_outside_the_folder_is_refused(
    tmp_path: Path, folder: Path, relative: bool
) -> None:
    """The shard is complete, but lies where a recording must not read."""
    shutil.copytree(folder / "shards/00000", tmp_path / "elsewhere")
    name = "../../elsewhere" if relative else str(tmp_path / "elsewhere")
    edit(folder, lambda m: m["shards"][0].update(name=name))
    with refused("AS604", names=(name[:40],)):
        Recording(folder)


@pytest.mark.parametrize("what", ["00000", "00000/rows.parquet", "00000/arrays.safetensors"])
def test_link_to_outside_is_refused(tmp_path: Path, folder: Path, what: str) -> None:
    inside, outside = folder / "shards" / what, tmp_path / "outside"
    inside.rename(outside)
    inside.symlink_to(outside)
    with refused("AS607", names=(folder / "shards" / what,)):
        Recording(folder).channel("layer1.attention.channel")


def test_recording_opens_after_a_move_and_through_a_link(tmp_path: Path, folder: Path) -> None:
    shutil.move(folder, tmp_path / "moved")
    (tmp_path / "link").symlink_to(tmp_path / "moved")
    for path in (tmp_path / "moved", tmp_path / "link"):
        assert Recording(path).verify() == []
        assert len(Recording(str(path)).logits) == 8


def test_recording_opens_without_torch(folder: Path) -> None:
    script = (
        "import sys\n"
        "from attnscope.recording import Recording\n"
        "r = Recording(sys.argv[1]); assert r.verify() == []; r.image(0)\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_confidence_is_that_of_all_probabilities_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording(write(tmp_path / "toy"))
    expected = recording.probabilities[np.arange(len(recording)), recording.predictions]
    monkeypatch.setattr("attnscope.recording.reader._ROWS", 3)
    np.testing.assert_array_equal(recording.confidence, expected)


def test_rows_can_be_read_later_and_their_number_is_checked_at_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy")
    recording = Recording(folder, read_rows=False)
    assert "rows" not in vars(recording)
    pd.testing.assert_frame_equal(recording.rows, Recording(folder).rows)
    file = folder / "shards/00001/rows.parquet"
    pd.read_parquet(file).iloc[1:].to_parquet(file)
    with refused("AS606", names=(file, "3 rows instead of 4")):
        Recording(folder, read_rows=False)
    file.write_bytes(b"not Parquet")
    with refused("AS606", names=(file,)):
        Recording(folder, read_rows=False)


def test_a_shard_whose_array_has_another_shape_is_refused_and_not_spread(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy")
    file = folder / "shards/00001/arrays.safetensors"
    arrays = load_file(file)
    save_file({**arrays, "logits": arrays["logits"][:, :1].copy()}, file)
    with refused("AS606", names=(file, "logits")):
        Recording(folder).logits  # noqa: B018


@pytest.mark.parametrize("name", ["arrays.safetensors", "rows.parquet"])
def test_a_pipe_in_place_of_a_shards_file_is_refused(folder: Path, name: str) -> None:
    file = folder / "shards/00000" / name
    file.unlink()
    os.mkfifo(file)
    with time_limit(20), refused("AS606", names=(file, "pipe")):
        Recording(folder).logits  # noqa: B018 - reads the file
