"""Recordings, written and read again; damaged ones are refused in one line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnscope.errors import InputError
from attnscope.kinds import HAS_NEUTRAL, MAP
from attnscope.recording.recording import Recording, RecordingWriter
from tests.recording.making import (
    CLASSES,
    GATES,
    make_arrays,
    make_rows,
    one_line,
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


def test_pooled_inputs_come_back_or_say_that_they_were_not_recorded(
    folder: Path, tmp_path: Path
) -> None:
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
        with pytest.raises(InputError, match=f"of '{name}'; capture with --pooled-inputs"):
            one.pooled_input(name)
    with pytest.raises(InputError, match="has no gate 'layer9'"):
        recording.pooled_input("layer9")

    arrays[f"pooled/{spatial}"][3, 0, 0] = np.nan
    with RecordingWriter(tmp_path / "nan", **given, pooled_inputs=[spatial]) as writer:
        writer.add_shard(arrays, rows)
    (line,) = Recording(tmp_path / "nan").verify()
    assert line.startswith(f"pooled/{spatial}: 1 values not finite")

    with RecordingWriter(tmp_path / "short", **given, pooled_inputs=[channel]) as writer:
        with pytest.raises(ValueError, match=f"needs pooled/{channel} in float32"):
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


def test_slices_count_from_the_end_and_take_no_step(folder: Path) -> None:
    recording = Recording(folder)
    values = make_arrays()["gate/layer1.attention.channel"]
    name = "layer1.attention.channel"
    np.testing.assert_array_equal(recording.gate(name, slice(-3, None)), values[-3:])
    np.testing.assert_array_equal(recording.gate(name, slice(6, 99)), values[6:])
    with pytest.raises(ValueError, match="steps of 1"):
        recording.gate(name, slice(None, None, 2))
    for i in (-1, 8):
        with pytest.raises(IndexError, match=f"image {i} of 8"):
            recording.image(i)


def test_only_the_shards_asked_for_are_opened(folder: Path) -> None:
    recording = Recording(folder)
    (folder / "shards/00000/arrays.safetensors").unlink()
    assert len(recording.gate("layer1.attention.channel", slice(3, 8))) == 5
    with pytest.raises(InputError, match=r"00000/arrays\.safetensors cannot be read"):
        recording.gate("layer1.attention.channel", slice(2, 8))


def test_reading_an_image_reads_no_more(tmp_path: Path) -> None:
    """64 MB of pictures lie in the file; reading one allocates no more than a few."""
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


def test_what_was_not_recorded_is_named(folder: Path) -> None:
    recording = Recording(folder)
    known = r"it has layer1\.attention\.channel, layer1\.attention\.spatial"
    with pytest.raises(InputError, match=f"no gate 'layer9'; {known}"):
        recording.gate("layer9")
    with pytest.raises(InputError, match="is of kind channel, not spatial"):
        recording.spatial("layer1.attention.channel")
    with pytest.raises(InputError, match="is of kind spatial, not channel"):
        recording.channel("layer1.attention.spatial")
    with pytest.raises(InputError, match="no Grad-CAM of 'layer4'; it has layer1"):
        recording.grad_cam("layer4")
    with pytest.raises(InputError, match="target 'all' is not known; take predicted or true"):
        recording.grad_cam(target="all")
    assert [g.name for g in recording.gates_of_kind("spatial")] == ["layer1.attention.spatial"]
    assert [g.name for g in recording.gates_with(MAP)] == ["layer1.attention.spatial"]
    assert recording.gates_with(HAS_NEUTRAL) == GATES
    assert recording.gates_of_kind("branch") == []


def test_no_recording_is_one_line(tmp_path: Path, folder: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", folder / "manifest.json"):
        with pytest.raises(InputError, match=r"holds no recording .*attnscope capture") as caught:
            Recording(path)
        one_line(caught)
    (folder / "manifest.json").unlink()  # what is written last
    with pytest.raises(InputError, match="holds no recording"):
        Recording(folder)


@pytest.mark.parametrize("keep", [0, 1, 100, -3])
def test_a_manifest_that_is_cut_off(folder: Path, keep: int) -> None:
    file = folder / "manifest.json"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"manifest\.json is not JSON") as caught:
        Recording(folder)
    one_line(caught)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
@pytest.mark.parametrize("name", ["arrays.safetensors", "rows.parquet"])
def test_a_shard_that_is_cut_off(folder: Path, name: str, keep: int) -> None:
    file = folder / "shards/00001" / name
    file.write_bytes(file.read_bytes()[:keep])
    expected = rf"00001/{re.escape(name)} cannot be read .*; capture again"
    with pytest.raises(InputError, match=expected) as caught:
        Recording(folder).channel("layer1.attention.channel")
    one_line(caught)


def test_a_shard_that_is_missing(folder: Path) -> None:
    shutil.rmtree(folder / "shards/00001")
    with pytest.raises(InputError, match=r"00001/rows\.parquet cannot be read"):
        Recording(folder)


def test_a_shard_of_another_recording(folder: Path) -> None:
    """The sum of the rows is right, and each shard is wrong."""
    shards = folder / "shards"
    (shards / "00000").rename(shards / "x")
    (shards / "00001").rename(shards / "00000")
    (shards / "x").rename(shards / "00001")
    with pytest.raises(InputError, match="4 rows instead of 3"):
        Recording(folder)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.pop("gates"), "gates"),
        (lambda m: m.update(gates={}), "no list of dict"),
        (lambda m: m["gates"][0].pop("lo"), "lo"),
        (lambda m: m["gates"][0].update(surprise=1), "surprise"),
        (lambda m: m["gates"][0].update(lo="0"), "lo of a gate is '0'"),
        (lambda m: m["gates"][0].update(name=3), "name of a gate is 3"),
        (lambda m: m["gates"][1].update(grid=5), "int"),
        (lambda m: m.update(classes="cat"), "no list of str"),
        (lambda m: m.update(classes=[1, 2, 3]), "no list of str"),
        (lambda m: m.update(grad_cam_layers=None), "no list of str"),
        (lambda m: m.update(about=7), "int"),
        (lambda m: m.update(shards=[]), "do not add up"),
        (lambda m: m.update(count=9), "do not add up"),
        (lambda m: m["shards"].pop(), "do not add up"),
        (lambda m: m["shards"][0].update(count="3"), "counts '3' images"),
        (lambda m: m["shards"][0].update(count=0), "counts 0 images"),
        (lambda m: m["shards"][0].update(sha256={}), "no hashes"),
        (lambda m: m["shards"][0]["sha256"].update({"../../x": "0"}), "no hashes"),
    ],
)
def test_a_manifest_that_is_none(
    folder: Path, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    edit(folder, change)
    with pytest.raises(InputError, match=r"is no manifest of a recording .*capture again") as found:
        Recording(folder)
    assert named in one_line(found)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "{}"])
def test_json_that_is_no_manifest(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="is no manifest of a recording"):
        Recording(folder)


def test_another_format_is_named(folder: Path) -> None:
    edit(folder, lambda m: m.update(format=2, gates="of another make"))
    with pytest.raises(InputError, match="is of format 2, this attnscope reads 1"):
        Recording(folder)


@pytest.mark.parametrize("relative", [True, False])
def test_a_shard_outside_the_folder_is_refused(
    tmp_path: Path, folder: Path, relative: bool
) -> None:
    """The shard is there and whole; it lies where a recording must not reach."""
    shutil.copytree(folder / "shards/00000", tmp_path / "elsewhere")
    name = "../../elsewhere" if relative else str(tmp_path / "elsewhere")
    edit(folder, lambda m: m["shards"][0].update(name=name))
    with pytest.raises(InputError, match="is no name of a shard"):
        Recording(folder)


@pytest.mark.parametrize("what", ["00000", "00000/rows.parquet", "00000/arrays.safetensors"])
def test_a_link_that_leads_outside_is_refused(tmp_path: Path, folder: Path, what: str) -> None:
    inside, outside = folder / "shards" / what, tmp_path / "outside"
    inside.rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(InputError, match="leads outside the recording"):
        Recording(folder).channel("layer1.attention.channel")


def test_a_recording_moves_and_is_reached_through_a_link(tmp_path: Path, folder: Path) -> None:
    shutil.move(folder, tmp_path / "moved")
    (tmp_path / "link").symlink_to(tmp_path / "moved")
    for path in (tmp_path / "moved", tmp_path / "link"):
        assert Recording(path).verify() == []
        assert len(Recording(str(path)).logits) == 8


def test_opening_needs_no_torch(folder: Path) -> None:
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
