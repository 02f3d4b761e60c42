"""Moments of a class are equal to statistics computed in two passes over its images."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from attnscope.files import read_json
from attnscope.kinds import Gate
from attnscope.recording.moments import ClassSums, Moments, MomentsWriter
from attnscope.recording.recording import Recording
from attnscope.statistics import (
    class_distances,
    class_mean_grad_cam,
    class_mean_maps,
    class_profiles,
    gate_profiles,
)
from tests.making import refused
from tests.recording.making import found_problems

GATES = [
    Gate("a", "channel", 9, None, "sigmoid", 0.0, 1.0, 1.0),
    Gate("b", "spatial", 9, (4, 3), "sigmoid", 0.0, 2.0, 1.0),
    Gate("c", "strip", 5, None, "sigmoid", 0.0, 1.0, 1.0),
    Gate("d", "branch", 6, None, "softmax", 0.0, 1.0, 1.0, axes="NBC"),
    Gate("e", "channel", 3, None, "tanh", -1.0, 1.0, 1.0),
]
COUNT, CLASSES = 240, ["no image", "one image", "half", "rest"]


def test_image_mean_of_a_branch_gate_is_that_of_its_first_path() -> None:
    """Over all paths of a softmax the mean would be equal for every image."""
    shares = np.random.default_rng(0).random((5, 2, 6))
    shares /= shares.sum(1, keepdims=True)
    branch = GATES[3]
    np.testing.assert_allclose(branch.image_means(shares), [row[0].mean() for row in shares])
    beside = Gate("f", "branch", 6, None, "softmax", 0.0, 1.0, 1.0, axes="NC")
    np.testing.assert_allclose(beside.image_means(shares[:, 1]), [row[1].mean() for row in shares])


def make() -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """Gates of every kind; the channels of ``a`` are hard cases for sums of squares."""
    rng = np.random.default_rng(3)
    labels = rng.choice([2, 3], COUNT)
    labels[77] = 1
    a = rng.random((COUNT, 9), np.float32)
    a[:, 1] = 0.3  # constant, and not a power of two
    a[:, 2] = rng.random(COUNT) * 1e-12  # always closed
    a[:, 3] = 1 - rng.integers(0, 2, COUNT) * np.float32(2**-24)  # always open
    a[:, 4] = np.where(rng.random(COUNT) < 0.02, np.float32(0.3), np.nextafter(np.float32(0.3), 1))
    a[:, 5] = np.where(labels == 2, 1e-20, 0.9)  # closed for one class, open for the other
    a[:, 6] = 0.5 + (rng.random(COUNT) - 0.5) * 1e-6  # stuck
    a[:, 7], a[:, 8] = 0, 1
    arrays: dict[str, NDArray[Any]] = {
        "gate/a": a,
        "gate/b": rng.random((COUNT, 4, 3), np.float32) * 2,
        "gate/c": rng.random((COUNT, 5, 4, 1), np.float32),
        "gate/d": rng.random((COUNT, 2, 6), np.float32),
        "gate/e": rng.random((COUNT, 3), np.float32) * 2 - 1,
        "logits": rng.normal(size=(COUNT, 4)).astype(np.float32),
    }
    for target in ("predicted", "true"):
        arrays[f"grad_cam/last/{target}"] = rng.normal(size=(COUNT, 2, 3)).astype(np.float16)
    return arrays, labels


def write(folder: Path, ends: tuple[int, ...], order: tuple[int, ...], batch: int = 16) -> Moments:
    arrays, labels = make()
    starts = [0, *ends]
    with MomentsWriter(
        folder, gates=GATES, classes=CLASSES, grad_cam_layers=["last"], about={"name": "toy"}
    ) as to:
        for index in order:
            sums, last = ClassSums(GATES), [*ends, COUNT][index]
            for start in range(starts[index], last, batch):
                rows = slice(start, min(start + batch, last))
                sums.add({key: value[rows] for key, value in arrays.items()}, labels[rows])
            rows = slice(starts[index], last)
            table = pd.DataFrame(
                {
                    "path": [str(i) for i in range(rows.start, rows.stop)],
                    "label": labels[rows],
                    "prediction": arrays["logits"][rows].argmax(1),
                    "loss": 0.5,
                }
            )
            to.add_shard(sums.arrays(), table, index)
    return Moments(folder)


@pytest.fixture(
    params=[((), (0,)), ((50, 128), (0, 1, 2)), ((78, 79, 239), (3, 1, 0, 2))],
    ids=["one shard", "three shards", "four shards out of order"],
)
def moments(request: pytest.FixtureRequest, tmp_path: Path) -> Moments:
    return write(tmp_path / "moments", *request.param)


def two_pass(values: NDArray[Any], labels: NDArray[np.int64], k: int) -> dict[str, NDArray[Any]]:
    values = values[labels == k].astype(np.float64)
    mean = values.sum(0) / len(values)
    return {
        "mean": mean,
        "std": np.sqrt(((values - mean) ** 2).sum(0) / (len(values) - 1)),
        "minimum": values.min(0),
        "maximum": values.max(0),
    }


def test_channel_statistics_equal_those_of_two_passes(moments: Moments) -> None:
    arrays, labels = make()
    assert list(moments.counts) == [(labels == k).sum() for k in range(4)]
    for name in ("a", "e"):
        found = moments.channels(name)
        for k in (2, 3):
            for part, wanted in two_pass(arrays[f"gate/{name}"], labels, k).items():
                np.testing.assert_allclose(
                    getattr(found, part)[k], wanted, rtol=0, atol=1e-9, err_msg=part
                )
    # Tiny values have a small relative error, too.
    closed = two_pass(arrays["gate/a"][:, 2], labels, 3)
    assert moments.channels("a").std[3, 2] == pytest.approx(closed["std"], rel=1e-9)
    assert (moments.channels("a").std[2:, [1, 5, 7, 8]] == 0).all()


def test_classes_of_no_image_and_of_one_image_have_nan(moments: Moments) -> None:
    arrays, _ = make()
    for spread in (moments.channels("a"), moments.image_means("b")):
        for part in (spread.mean, spread.std, spread.minimum, spread.maximum):
            assert np.isnan(part[0]).all()
        assert np.isnan(spread.std[1]).all()
    np.testing.assert_array_equal(moments.channels("a").mean[1], arrays["gate/a"][77])
    assert np.isnan(moments.mean_gate("b")[0]).all()
    assert np.isnan(moments.mean_grad_cam()[0]).all()
    assert moments.tails("a").low[0].sum() == 0


def test_image_means_and_mean_gates_equal_those_of_two_passes(moments: Moments) -> None:
    arrays, labels = make()
    for gate in GATES:
        values = arrays[f"gate/{gate.name}"].astype(np.float64)
        # Gate d has two paths; its mean is that of the first.
        means = np.array([(image[0] if gate.name == "d" else image).mean() for image in values])
        found = moments.image_means(gate.name)
        assert found.mean.shape == (4,)
        for k in (2, 3):
            for part, wanted in two_pass(means, labels, k).items():
                assert getattr(found, part)[k] == pytest.approx(wanted, abs=1e-12)
            np.testing.assert_allclose(
                moments.mean_gate(gate.name)[k], values[labels == k].mean(0), rtol=0, atol=1e-12
            )


def test_tails_count_values_near_bounds_and_middle(moments: Moments) -> None:
    arrays, labels = make()
    for gate in GATES:
        values = arrays[f"gate/{gate.name}"]
        found = moments.tails(gate.name)
        for k in range(4):
            low, middle, high = 0, 0, 0
            for image in values[labels == k].astype(np.float64):
                if gate.kind != "channel":
                    image = image.reshape(-1)
                a = image - gate.lo <= 0.02
                b = abs(image - (gate.lo + gate.hi) / 2) <= 0.02
                c = gate.hi - image <= 0.02
                low = low + (a if gate.kind == "channel" else a.sum())
                middle = middle + (b if gate.kind == "channel" else b.sum())
                high = high + (c if gate.kind == "channel" else c.sum())
            for part, wanted in ((found.low, low), (found.middle, middle), (found.high, high)):
                assert part.dtype == np.int64
                np.testing.assert_array_equal(part[k], wanted)
    assert moments.tails("b").high.sum() > 0
    assert moments.tails("e").middle.shape == (4, 3)


def test_mean_grad_cam_is_computed_after_the_relu(moments: Moments) -> None:
    arrays, labels = make()
    for target in ("predicted", "true"):
        cams = arrays[f"grad_cam/last/{target}"].astype(np.float64)
        found = moments.mean_grad_cam("last", target)
        for k in (1, 2, 3):
            wanted = [np.where(cam > 0, cam, 0) for cam in cams[labels == k]]
            np.testing.assert_allclose(found[k], sum(wanted) / len(wanted), rtol=1e-12)
        np.testing.assert_array_equal(class_mean_grad_cam(moments, target), found)
    with refused("AS611", names=("first", "last")):
        moments.mean_grad_cam("first")


def test_order_in_which_shards_arrive_changes_no_bit(tmp_path: Path) -> None:
    a = write(tmp_path / "a", (50, 128), (0, 1, 2))
    b = write(tmp_path / "b", (50, 128), (2, 0, 1))
    for gate in GATES:
        for part in ("mean", "std"):
            x, y = (getattr(m.image_means(gate.name), part) for m in (a, b))
            np.testing.assert_array_equal(x, y)
    assert (a.folder / "manifest.json").read_bytes() == (b.folder / "manifest.json").read_bytes()


def test_rows_and_logits_of_every_image_are_stored(moments: Moments) -> None:
    arrays, labels = make()
    np.testing.assert_array_equal(moments.logits, arrays["logits"])
    np.testing.assert_array_equal(moments.labels, labels)
    np.testing.assert_array_equal(moments.predictions, arrays["logits"].argmax(1))
    assert moments.rows["path"].tolist() == [str(i) for i in range(COUNT)]
    assert (len(moments), moments.name) == (COUNT, "toy")


def test_statistics_of_moments_equal_those_of_a_recording(
    moments: Moments, write_recording: Callable[..., Recording]
) -> None:
    arrays, labels = make()
    # Intervals depend on the bounds of a gate.
    first, second = (
        write_recording(
            gate.name,
            labels=labels,
            gates={gate.name: arrays[f"gate/{gate.name}"]},
            names=CLASSES,
            bounds=(gate.lo, gate.hi),
        )
        for gate in GATES[:2]
    )
    pd.testing.assert_frame_equal(
        class_profiles(moments, "a"), class_profiles(first, "a"), rtol=0, atol=1e-9
    )
    pd.testing.assert_frame_equal(
        class_distances(moments, "a"), class_distances(first, "a"), rtol=0, atol=1e-9
    )
    found = gate_profiles(moments)
    for recording in (first, second):
        (gate,) = recording.gates
        pd.testing.assert_frame_equal(
            found[found["gate"] == gate.name].drop(columns="depth").reset_index(drop=True),
            gate_profiles(recording).drop(columns="depth"),
            rtol=0,
            atol=1e-9,
        )
    np.testing.assert_allclose(
        class_mean_maps(moments, "b"), class_mean_maps(second, "b"), rtol=0, atol=1e-9
    )
    for function, gate in ((class_profiles, "b"), (class_mean_maps, "a")):
        with refused("AS609", names=(f"'{gate}'", moments.info(gate).kind)):
            function(moments, gate)


def test_moments_and_recordings_refuse_each_other(
    moments: Moments, make_recording: Callable[..., Recording]
) -> None:
    with refused("AS603", names=(moments.folder, "attnscope.Moments")):
        Recording(moments.folder)
    recording = make_recording()
    with refused("AS603", names=(recording.folder, "attnscope.Recording")):
        Moments(recording.folder)
    with refused("AS601", names=(recording.folder.parents[1], "--moments")):
        Moments(recording.folder.parents[1])


def test_moments_open_from_their_run_folder(moments: Moments, tmp_path: Path) -> None:
    shutil.copytree(moments.folder, tmp_path / "run" / "moments" / "test")
    assert len(Moments(tmp_path / "run")) == COUNT


def damage(folder: Path, key: str, change: Callable[[NDArray[Any]], Any]) -> Moments:
    """Change one array, and update all hashes."""
    import hashlib

    file = folder / "shards/00000/arrays.safetensors"
    arrays = load_file(file)
    arrays[key] = np.ascontiguousarray(change(arrays[key]))
    save_file(arrays, file)
    manifest = read_json(folder / "manifest.json")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest["shards"][0]["sha256"]["arrays.safetensors"] = digest
    (folder / "manifest.json").write_text(json.dumps(manifest))
    copy = read_json(file.with_name("shard.json"))
    copy["sha256"]["arrays.safetensors"] = digest
    file.with_name("shard.json").write_text(json.dumps(copy))
    return Moments(folder)


def planted(value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(array: NDArray[Any]) -> NDArray[Any]:
        array.reshape(-1)[0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("key", "change", "code", "names"),
    [
        ("gate/a/maximum", planted(1.5), "AS687", ("gate/a ", 1, "0.0 to 1.0")),
        ("gate/a/minimum", planted(-0.5), "AS687", ("gate/a ", 1, "0.0 to 1.0")),
        ("image_mean/b/maximum", planted(2.5), "AS687", ("image_mean/b ", 1, "0.0 to 2.0")),
        ("gate/a/square", planted(np.nan), "AS687", ("gate/a/square has 1 ",)),
        ("gate/b/sum", planted(np.inf), "AS687", ("gate/b/sum has 1 ",)),
        ("grad_cam/last/true/sum", planted(np.nan), "AS687", ("grad_cam/last/true/sum has 1 ",)),
        ("logits", planted(np.nan), "AS687", ("logits has 1 ",)),
        ("gate/a/low", planted(999), "AS691", ("gate/a/low", "above")),
        ("gate/b/low", planted(-1), "AS691", ("gate/b/low", "below 0")),
        ("count", planted(3), "AS690", ()),
        ("classes", planted(0), "AS690", ()),
        ("gate/b/sum", lambda a: a[:1], "AS689", ("gate/b/sum has 1 rows, not 2",)),
        ("logits", lambda a: a[:1], "AS689", ("logits has 1 rows, not 50",)),
    ],
)
def test_verify_checks_counts_and_ranges(
    tmp_path: Path,
    key: str,
    change: Callable[[NDArray[Any]], Any],
    code: str,
    names: tuple[object, ...],
) -> None:
    folder = write(tmp_path / "m", (50, 128), (0, 1, 2)).folder
    assert Moments(folder).verify() == []
    found_problems(damage(folder, key, change).verify(), (code, "shard 00000: ", *names))


def test_verify_finds_a_flipped_byte_and_an_additional_shard(tmp_path: Path) -> None:
    moments = write(tmp_path / "m", (50, 128), (0, 1, 2))
    file = moments.folder / "shards/00001/arrays.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    found_problems(moments.verify(), ("AS681", file))
    extra = moments.folder / "shards/00003"
    shutil.copytree(moments.folder / "shards/00000", extra)
    found_problems(moments.verify(), ("AS683", extra), ("AS681", file))


def test_writer_refuses_sums_of_other_images(tmp_path: Path) -> None:
    arrays, labels = make()
    sums = ClassSums(GATES)
    sums.add({key: value[:5] for key, value in arrays.items()}, labels[:5])
    table = pd.DataFrame({"path": ["0"] * 4, "label": 2, "prediction": 0, "loss": 0.0})
    with pytest.raises(ValueError, match=r"4 .* 5 .* 5"):
        with MomentsWriter(
            tmp_path / "m", gates=GATES, classes=CLASSES, grad_cam_layers=["last"], about={}
        ) as to:
            to.add_shard(sums.arrays(), table)
    assert list(tmp_path.iterdir()) == []


def test_moments_open_without_torch(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", (), (0,)).folder
    script = (
        "import sys\n"
        "from attnscope import Moments\n"
        "m = Moments(sys.argv[1]); assert m.verify() == []; m.channels('a')\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
