"""The capture command: killed, stopped, run twice, and run by several processes.

More than 400 lines, because each test starts, stops and compares the same small capture.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from attnscope import files
from attnscope.capturing.capture import capture
from attnscope.capturing.run import capture_run
from attnscope.commands.main import main
from attnscope.errors import ERRORS
from attnscope.files import read_json, write_json
from attnscope.integrity import is_json_whole, json_bytes
from attnscope.networks.build import build_model
from attnscope.networks.weights import load_model, save_model
from attnscope.recording.moments import Moments
from attnscope.recording.recording import Recording
from attnscope.statistics import class_mean_grad_cam, class_profiles, gate_profiles
from attnscope.training.processes import ProcessGroup, launched_process_group
from tests.making import refused, refused_command

SHARDS = ["--batch-size", "4", "--shard-images", "8", "--device", "cpu"]  # 24 images, 3 shards

# The command, stopped before the nth rename: each step of writing ends with a rename.
STOPPING = """
import os, signal, sys
from attnscope.commands.main import main
from attnscope.errors import ERRORS
real, place, rank = os.replace, int(sys.argv[1]), sys.argv[2]
count = 0

def replace(source, target):
    global count
    count += 1
    if count == place and os.environ.get("RANK", "0") == rank:
        os.kill(os.getpid(), signal.SIGSTOP if rank == "0" else signal.SIGKILL)
    real(source, target)

os.replace = replace
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use as many threads as the processes that are started here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an untrained network, with 24 test images."""
    root = tmp_path_factory.mktemp("scale")
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 12)):
        for name in ("dark", "light"):
            folder = root / "images" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    torch.manual_seed(0)
    run = root / "run"
    run.mkdir()
    save_model(build_model(attention="cbam", width=16, reduction=4, num_classes=2), run)
    config = {
        "data": f"folder:{root / 'images'}",
        "data_root": "data",
        "image_size": 16,
        "validation_share": 0.3,
        "seed": 0,
        "classes": ["dark", "light"],
        "normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.3, 0.3, 0.3]},
    }
    write_json(run / "config.json", config)
    return run


@pytest.fixture(scope="module")
def whole(run: Path) -> Path:
    """A capture that was not interrupted."""
    out = run.parent / "whole"
    assert main(["capture", str(run), "--out", str(out), *SHARDS]) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder.

    The manifest has the places of the images relative to its folder, and its own SHA-256. The
    SHA-256 is checked here and left out, and the relative places are taken as absolute ones.
    """
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    if "manifest.json" in found:
        assert is_json_whole(found["manifest.json"])
        manifest = read_json(folder / "manifest.json")
        for place in ((manifest["source"] or {}).get("places") or {}).values():
            place["relative"] = os.path.normpath(folder.resolve() / place["relative"])
            assert place["relative"] == place["absolute"]
        found["manifest.json"] = json_bytes(manifest)
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_resume_is_bit_exact_after_sigkill(
    run: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process is killed within a shard, before a shard gets its name, and before the last rename."""
    out = tmp_path / "out"
    command = ["capture", str(run), "--out", str(out), *SHARDS]
    # Renames: the plan; of a shard two files, their hashes and its folder; manifest and recording.
    for place, complete_shards in ((7, 1), (8, 2), (6, 3)):
        script = [sys.executable, "-c", STOPPING, str(place), "0", *command]
        child = subprocess.Popen(script, env=environment(), stderr=subprocess.DEVNULL)
        try:
            _, status = os.waitpid(child.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status), status
            if place == 7:  # it is alive, and holds the lock
                refused_command(capsys, "AS651", *command, names=(out,))
        finally:
            child.kill()
        assert child.wait() == -signal.SIGKILL
        assert not out.exists()
        shards = tmp_path / ".out.partial" / "shards"
        assert len([name for name in names(shards) if not name.startswith(".")]) == complete_shards
    assert main(command) == 0
    assert contents(out) == contents(whole)
    assert names(tmp_path) == ["out"]
    assert main(["verify", str(out)]) == 0
    capsys.readouterr()
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"{out} " in error
    assert "AS113" not in ERRORS or error.endswith("[AS113]\n")


def test_two_processes_write_the_files_of_one(
    run: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of two dies, torchrun stops the other, and the same command resumes."""
    out = tmp_path / "out"
    command = ["capture", str(run), "--out", str(out), *SHARDS]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = tmp_path / "script.py"
    script.write_text(STOPPING)
    # The second process has the second and the third shard; it dies within the third.
    dying = [sys.executable, *launch, str(script), "7", "1", *command]
    done = subprocess.run(dying, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert not out.exists()
    assert "00001" in names(tmp_path / ".out.partial" / "shards")
    assert "00002" not in names(tmp_path / ".out.partial" / "shards")
    again = [sys.executable, *launch, "-m", "attnscope", *command]
    done = subprocess.run(again, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(out)) == 1, "only the main process prints"
    assert contents(out) == contents(whole)
    script.unlink()
    assert names(tmp_path) == ["out"]


def interrupt(run: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a capture in the second shard, as Ctrl-C does."""
    add, count = files.write_bytes, 0

    def stop(file: Path, content: bytes) -> None:
        nonlocal count
        count += file.name == "rows.parquet"
        if count == 2:
            raise KeyboardInterrupt
        add(file, content)

    with monkeypatch.context() as patched:
        patched.setattr("attnscope.recording.writer.write_bytes", stop)
        assert main(["capture", str(run), "--out", str(out), *SHARDS]) == 130


def test_resume_with_other_settings_network_or_data_is_refused(
    run: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, partial = tmp_path / "out", tmp_path / ".out.partial"
    interrupt(run, out, monkeypatch)
    assert f"1 complete shard is kept in {partial}" in capsys.readouterr().err
    before = contents(partial)
    command = ["capture", str(run), "--out", str(out), *SHARDS]
    for options, difference in (
        (("--batch-size", "8"), "(batch size 4, now 8)"),
        (("--precision", "bf16"), "(precision fp32, now bf16)"),
        (("--moments",), "kind recording, now moments"),
        (("--grad-cam-layer", "layer3"), "grad cam layers"),
        (("--pooled-inputs",), "(pooled inputs)"),
        (("--split", "train"), "split test, now train"),
    ):
        refused_command(capsys, "AS653", *command, *options, names=(partial, difference))

    other = tmp_path / "other"
    shutil.copytree(run, other)
    model = load_model(run)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-6
    save_model(model, other)
    arguments = ("capture", other, "--out", out, *SHARDS)
    refused_command(capsys, "AS653", *arguments, names=(partial, "(name run, now other; weights)"))
    shutil.rmtree(other)

    picture = run.parent / "images" / "test" / "dark" / "03.png"
    content = picture.read_bytes()
    pixels = np.array(Image.open(picture))
    pixels[5, 5, 0] ^= 1
    Image.fromarray(pixels).save(picture)
    refused_command(capsys, "AS653", *command, names=(partial, "(data)"))
    picture.write_bytes(content)

    assert contents(partial) == before
    assert main(command) == 0
    assert contents(out) == contents(whole)
    assert names(tmp_path) == ["out"]


def test_resume_with_a_foreign_or_changed_shard_is_refused(
    run: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, shards = tmp_path / "out", tmp_path / ".out.partial" / "shards"
    command = ["capture", str(run), "--out", str(out), *SHARDS]
    interrupt(run, out, monkeypatch)
    foreign = capture_run(run, split="train", out=tmp_path / "foreign", progress=False)
    shutil.copytree(foreign.folder / "shards/00000", shards / "00002")
    refused_command(capsys, "AS656", *command, names=(shards / "00002",))
    shutil.rmtree(shards / "00002")
    shutil.copytree(shards / "00000", shards / "00002")
    refused_command(capsys, "AS656", *command, names=(shards / "00002",))
    shutil.rmtree(shards / "00002")
    shutil.copytree(foreign.folder / "shards/00000", shards / "00007")
    refused_command(capsys, "AS656", *command, names=(shards / "00007",))
    shutil.rmtree(shards / "00007")

    file = shards / "00000" / "arrays.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused_command(capsys, "AS654", *command, names=(file,))
    file.write_bytes(content)
    assert main(command) == 0
    assert contents(out) == contents(whole)


def test_full_disk_keeps_complete_shards(
    run: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The disk fills in the middle of the second shard."""
    real, written = os.fsync, []

    def full(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if "rows.parquet" in name:
            written.append(name)
            if len(written) == 2:
                os.truncate(name, 10)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    out, partial = tmp_path / "out", tmp_path / ".out.partial"
    command = ["capture", str(run), "--out", str(out), *SHARDS]
    monkeypatch.setattr(files.os, "fsync", full)
    assert main(command) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"attnscope: {out}: No space left on device; 1 complete shard ")
    assert str(partial) in line
    assert names(partial / "shards") == ["00000"], "no unfinished file is left"
    assert main(command) == 0
    assert contents(out) == contents(whole)


def test_moments_equal_those_of_the_recording(run: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "moments"
    assert main(["capture", str(run), "--out", str(out), "--moments", *SHARDS]) == 0
    moments, recording = Moments(out), Recording(whole)
    assert main(["verify", str(out)]) == 0
    assert [gate.name for gate in moments.gates] == [gate.name for gate in recording.gates]
    assert moments.rows.equals(recording.rows)
    np.testing.assert_array_equal(moments.logits, recording.logits)
    assert len(moments) == 24
    assert list(moments.counts) == [12, 12]
    for gate in recording.gates:
        values = recording.gate(gate.name).astype(np.float64)
        for k in range(2):
            wanted = values[recording.labels == k].mean(0)
            np.testing.assert_allclose(moments.mean_gate(gate.name)[k], wanted, rtol=0, atol=1e-12)
        if gate.kind == "channel":
            found = class_profiles(moments, gate.name)
            wanted = class_profiles(recording, gate.name)
            for column in ("mean", "std", "low", "high"):
                np.testing.assert_allclose(found[column], wanted[column], rtol=0, atol=1e-9)
    found, wanted = gate_profiles(moments), gate_profiles(recording)
    np.testing.assert_allclose(found["std"], wanted["std"], rtol=0, atol=1e-9)
    assert found["gate"].tolist() == wanted["gate"].tolist()
    for target in ("predicted", "true"):
        cams = class_mean_grad_cam(recording, target)
        assert cams.max() > 0
        np.testing.assert_allclose(
            class_mean_grad_cam(moments, target), cams, rtol=1e-12, atol=1e-12
        )


def test_process_group_is_read_from_the_environment(
    run: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank, size, named in (("2", "2", "RANK=2"), ("x", "2", "RANK=x"), ("0", "-1", "-1")):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", size)
        with refused("AS133", names=(named,)):
            launched_process_group()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert launched_process_group() == ProcessGroup(1, 3)
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert launched_process_group() == ProcessGroup()


class Squares(Dataset[tuple[Tensor, int]]):
    """A data set that is not in memory."""

    def __init__(self, last: float = 0.5) -> None:
        self.last = last
        self.read: list[int] = []

    def __len__(self) -> int:
        return 22

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        self.read.append(i)
        image = torch.full((3, 16, 16), self.last if i == 21 else i / 22)
        image[:, : 4 + i % 8, : 4 + i % 5] = 1
        return image, i % 2


def test_resume_reads_each_item_of_a_lazy_data_set_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items of complete shards are not read again."""
    model = load_model(run)
    given = {"batch_size": 4, "shard_images": 7, "progress": False}
    whole = capture(model, Squares(), tmp_path / "whole", **given)
    assert [len(x) for x in np.split(whole.labels, [8, 16])] == [8, 8, 6]
    manifest = json.loads((whole.folder / "manifest.json").read_text())
    assert [shard["count"] for shard in manifest["shards"]] == [8, 8, 6]
    out = tmp_path / "out"
    dataset = Squares()

    def fail(*_: object) -> None:
        if dataset.read[-1] == 21 and len(dataset.read) > 16:
            raise RuntimeError("in the last shard")

    handle = model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="in the last shard"):
        capture(model, dataset, out, **given)
    handle.remove()
    assert names(tmp_path / ".out.partial" / "shards") == ["00000", "00001"]
    with refused("AS653", names=(tmp_path / ".out.partial", "(data)")):
        capture(model, Squares(last=0.6), out, **given)
    other = load_model(run)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-6
    with refused("AS653", names=(tmp_path / ".out.partial", "(weights)")):
        capture(other, Squares(), out, **given)
    dataset = Squares()
    capture(model, dataset, out, **given)
    # The sample, the items that identify the data set, and those that were missing.
    assert dataset.read == [*range(4), *range(4), *range(18, 22), *range(16, 22)]
    assert contents(out) == contents(whole.folder)


def test_capture_has_one_shard_in_memory(run: Path, tmp_path: Path) -> None:
    """Arrays and files of six shards need as much memory as those of two."""
    model, peaks = load_model(run), []
    for shards in (1, 2, 6):  # the first one imports modules, and does not count
        gc.collect()
        tracemalloc.start()
        given = {"batch_size": 48, "shard_images": 96, "grad_cam_layers": [], "progress": False}
        capture(model, Noise(shards * 96), tmp_path / str(shards), **given)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    size = sum(len(content) for content in contents(tmp_path / "6").values())
    assert size > 2 * peaks[1], "six shards in memory would exceed the peak"
    assert peaks[2] < 1.2 * peaks[1]


class Noise(Dataset[tuple[Tensor, int]]):
    """Pictures of 32 pixels that are made when they are read."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(i)
        return torch.rand(3, 32, 32, generator=generator), i % 2
