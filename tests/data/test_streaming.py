"""Images that are decoded as they are needed: the same as in memory, in processes that end.

More than 400 lines, because all tests share the folder and the processes that are made here.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attnscope.data import folder_images, tasks, workers
from attnscope.data import streamed as streamed_module
from attnscope.data.images import LabeledImages, batches
from attnscope.data.load import Data, DataSettings
from attnscope.data.streamed import StreamedImages
from attnscope.data.tasks import FileDecoder
from attnscope.data.workers import DecodingPool
from tests.data.making import load, save
from tests.making import refused

RNG = np.random.default_rng(0)


def noise(*shape: int, high: int = 256, dtype: Any = np.uint8) -> Any:
    return RNG.integers(0, high, shape, dtype=dtype)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of images of all kinds in three splits, 87 of them for training."""
    root = tmp_path / "set"
    for split, count in (("train", 40), ("val", 5), ("test", 12)):
        for name in ("2", "10"):
            for i in range(count):
                save(root / split / name / f"{i}.jpg", noise(20 + i % 5, 24, 3))
            place = root / split / name
            save(place / "alpha.png", noise(14, 14, 4))
            save(place / "gray.png", noise(13, 17))
            deep = noise(15, 15, high=4096, dtype=np.uint16)
            Image.fromarray(deep).save(place / "deep.png")
    turned = Image.fromarray(noise(20, 30, 3))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(root / "train" / "2" / "turned.jpg", exif=exif)
    return root


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Stream images from the call on, in two processes for however few images."""

    def start() -> None:
        monkeypatch.setenv("ATTNSCOPE_IMAGE_MEMORY", "0")
        monkeypatch.setenv("ATTNSCOPE_IMAGE_WORKERS", "2")
        monkeypatch.setattr(workers, "_FEW", 0)
        monkeypatch.setattr(tasks, "_TASK_IMAGES", 7)

    return start


def assert_same(a: LabeledImages, b: LabeledImages) -> None:
    assert (a.paths, a.classes, a.shape) == (b.paths, b.classes, b.shape)
    assert torch.equal(a.labels, b.labels)
    assert b.images.is_contiguous()
    assert torch.equal(a.images, b.images)
    assert a.sha256() == b.sha256()
    assert a.pixel_hashes().tolist() == b.pixel_hashes().tolist()


def test_many_images_are_read_into_memory_by_processes_that_end(
    folder: Path, stream: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "train" / "2" / "broken.jpg").write_bytes(b"no image")
    by_threads = load(folder, skip_unreadable=True)
    stream()
    monkeypatch.delenv("ATTNSCOPE_IMAGE_MEMORY")
    monkeypatch.setattr(folder_images, "_MANY", 2)
    started: list[int] = []
    monkeypatch.setattr(
        folder_images, "DecodingPool", lambda count: started.append(count) or DecodingPool(count)
    )
    by_processes = load(folder, skip_unreadable=True)
    for split in ("train", "validation", "test"):
        assert type(getattr(by_processes, split)) is LabeledImages
        assert_same(getattr(by_threads, split), getattr(by_processes, split))
    assert by_processes.notes == by_threads.notes
    assert by_processes.skipped == by_threads.skipped
    assert len(by_threads.skipped) == 1
    assert set(started) == {2}
    gc.collect()
    assert not multiprocessing.active_children()


def assert_same_data(a: Data, b: Data) -> None:
    for split in ("train", "validation", "test"):
        assert type(getattr(a, split)) is LabeledImages
        assert type(getattr(b, split)) is StreamedImages
        assert_same(getattr(a, split), getattr(b, split))
    assert a.normalization == b.normalization
    assert (a.notes, a.skipped, a.fingerprints()) == (b.notes, b.skipped, b.fingerprints())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_size": 12, "resize": 16},
        {"image_size": 12, "channels": 1, "class_order": "natural"},
        {"image_size": 12, "classes": ["extra", "10", "2"]},
    ],
    ids=str,
)
def test_streamed_images_are_those_in_memory(
    folder: Path, stream: Callable[[], None], options: dict[str, Any]
) -> None:
    in_memory = load(folder, **options)
    assert any("16 bits per channel" in note for note in in_memory.notes)
    alone = DataSettings(f"folder:{folder}", **options).load_test()
    stream()
    assert_same_data(in_memory, load(folder, **options))
    found = DataSettings(f"folder:{folder}", **options).load_test()
    assert_same(alone.splits[0], found.splits[0])
    assert found.notes == alone.notes


def test_unreadable_files_are_refused_or_skipped_as_in_memory(
    folder: Path, stream: Callable[[], None]
) -> None:
    whole = (folder / "train/2/0.jpg").read_bytes()
    (folder / "train/2/1.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "test/10/3.jpg").write_bytes(b"")
    Image.fromarray(noise(9, 9).astype(np.float32)).save(folder / "val/2/floats.tiff")
    in_memory = load(folder, image_size=12, skip_unreadable=True)
    stream()
    named = ("3 of 134", "train/2/1.jpg", "val/2/floats.tiff", "test/10/3.jpg")
    with refused("AS212", names=named):
        load(folder, image_size=12)
    assert_same_data(in_memory, load(folder, image_size=12, skip_unreadable=True))
    assert len(in_memory.skipped) == 3


def test_a_flat_folder_is_split_as_in_memory(folder: Path, stream: Callable[[], None]) -> None:
    in_memory = load(folder / "train", image_size=12)
    stream()
    assert_same_data(in_memory, load(folder / "train", image_size=12))


def test_the_line_that_says_it_names_the_limit(
    folder: Path, stream: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    load(folder, image_size=12)
    assert not caplog.records
    stream()
    load(folder, image_size=12)
    (record,) = caplog.records
    assert "ATTNSCOPE_IMAGE_MEMORY" in record.getMessage()
    assert "133 images" in record.getMessage()


def test_a_folder_that_fits_is_held_in_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 133 * 3 * 12 * 12
    monkeypatch.setenv("ATTNSCOPE_IMAGE_MEMORY", str(size / 2**30))
    assert type(load(folder, image_size=12).train) is LabeledImages
    monkeypatch.setenv("ATTNSCOPE_IMAGE_MEMORY", str((size - 1) / 2**30))
    assert type(load(folder, image_size=12).train) is StreamedImages


def test_selections_and_conversions_are_those_in_memory(
    folder: Path, stream: Callable[[], None]
) -> None:
    a = load(folder, image_size=16).train
    stream()
    b = load(folder, image_size=16).train
    rows = RNG.permutation(len(a))[:30]
    for change in (
        lambda x: x[rows],
        lambda x: x[5:60:7][1:3],
        lambda x: x.center_crop(9),
        lambda x: x[rows].with_channels(1).center_crop(11),
        lambda x: x.with_classes(["2", "0", "10"])[::2],
        lambda x: x[:0],
    ):
        assert_same(change(a), change(b))
    assert repr(b) == f"<StreamedImages: {len(a)} images of 16×16 pixels, 2 classes>"
    for change in (lambda x: x, lambda x: x[rows], lambda x: x.center_crop(8)[3:]):
        assert change(a).sum_values() == change(b).sum_values()
    parts: list[Any] = [range(3), [9, 2, 9], slice(70, 87), rows, [], range(20, 60)]
    read = list(zip(a.read(parts), b.read(parts), strict=True))
    assert len(read) == len(parts)
    assert all(torch.equal(x, y) for x, y in read)
    for (x, y), (z, w) in zip(batches(a, 25), batches(b, 25), strict=True):
        assert torch.equal(x, z)
        assert torch.equal(y, w)
    for change in (lambda x: x, lambda x: x[rows].with_channels(1)):
        for (x, k), (y, m) in zip(change(a), change(b), strict=True):
            assert torch.equal(x, y)
            assert k == m
        assert torch.equal(change(a)[-4][0], change(b)[-4][0])
        assert change(a)[-4][1] == change(b)[-4][1]


def test_reading_leaves_the_random_state_alone(folder: Path, stream: Callable[[], None]) -> None:
    stream()
    before = torch.get_rng_state()
    images = load(folder, image_size=12).train
    assert len(images.images) == 87
    assert torch.equal(torch.get_rng_state(), before)


def test_normalization_is_that_of_the_pixels(folder: Path, stream: Callable[[], None]) -> None:
    """The formula of version 0.1, over the pixels of the training split."""
    stream()
    data = load(folder, image_size=12)
    pixels = data.train.images
    values = torch.arange(256, dtype=torch.float64) / 255
    for channel in range(3):
        counts = torch.bincount(pixels[:, channel].flatten(), minlength=256).double()
        mean = (counts * values).sum() / counts.sum()
        variance = (counts * (values - mean) ** 2).sum() / counts.sum()
        assert data.normalization.mean[channel] == round(mean.item(), 4)
        assert data.normalization.std[channel] == round(variance.sqrt().item(), 4)


def test_each_image_is_decoded_once_when_it_is_read(
    folder: Path, stream: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream()
    monkeypatch.setenv("ATTNSCOPE_IMAGE_WORKERS", "0")
    decoded: list[Path] = []
    decode = tasks.decode

    def counted(file: Path, *arguments: Any, **options: Any) -> Any:
        decoded.append(file)
        return decode(file, *arguments, **options)

    monkeypatch.setattr(tasks, "decode", counted)
    data = DataSettings(f"folder:{folder}", image_size=12).load()
    deep = 6  # 16 bits per channel: read again when the white of the folder is known
    assert len(decoded) == 133 + deep
    decoded.clear()
    order = RNG.permutation(len(data.train))
    for _ in data.train.read(np.array_split(order, 9)):
        pass
    assert [file.relative_to(folder).as_posix() for file in decoded] == [
        data.train.paths[row] for row in order
    ]
    decoded.clear()
    assert len(data.validation[:2].center_crop(8).shape) == 4
    data.train[5:].sum_values()
    assert not decoded


def test_the_number_of_tasks_ahead_is_bounded(folder: Path, stream: Callable[[], None]) -> None:
    stream()
    images = load(folder, image_size=12).train
    taken = 0

    def rows() -> Iterator[list[int]]:
        nonlocal taken
        for _ in range(200):
            taken += 1
            yield [0, 1]

    reader = images.read(rows())
    next(reader)
    time.sleep(0.3)
    assert 1 < taken <= 2 + workers._AHEAD_TASKS


@pytest.mark.parametrize("change", ["other", "cut", "gone"])
def test_a_file_that_changes_after_loading_is_refused(
    folder: Path, stream: Callable[[], None], change: str
) -> None:
    stream()
    images = load(folder, image_size=12).test
    file = folder / images.paths[3]
    if change == "gone":
        file.unlink()
    elif change == "cut":
        file.write_bytes(file.read_bytes()[:100])
    else:
        save(file, noise(20, 24, 3))
    with refused("AS243", names=(images.paths[3],)):
        images.sha256() if images.files.sha256 is None else images.images


def test_images_that_do_not_fit_are_not_decoded_at_once(
    folder: Path, stream: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream()
    images = load(folder, image_size=12).train
    monkeypatch.setattr(streamed_module, "available_memory", lambda: 10 * 3 * 12 * 12)
    with refused("AS217", names=("87 images", "read()")):
        _ = images.images
    assert len(images[:10].images) == 10


def living(processes: list[int]) -> list[int]:
    """Return those of some processes that have not ended, also not as zombies."""
    found = []
    for pid in processes:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


def children() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


def test_processes_are_used_again_and_end_with_the_images(
    folder: Path, stream: Callable[[], None]
) -> None:
    gc.collect()
    before = set(children())
    stream()
    data = load(folder, image_size=12)
    own = set(children()) - before
    assert len(own) == 2
    for split in (data.train, data.validation.center_crop(8), data.train):
        for pixels in split.read([range(2), range(2, 5)]):
            assert len(pixels)
    assert set(children()) - before == own
    nested = data.train.read([range(8), range(8)])
    next(nested)  # has not ended
    assert len(data.test.images) == 30
    assert len(set(children()) - before) == 4
    nested.close()
    del split, nested
    cycle: list[Any] = [data]
    cycle.append(cycle)
    started = time.perf_counter()
    del data, cycle
    gc.collect()
    assert not set(children()) - before
    assert time.perf_counter() - started < 4, "they end when asked, not after a timeout"


def test_ctrl_c_does_not_end_the_processes(folder: Path, stream: Callable[[], None]) -> None:
    """A training that is interrupted first completes its step, for which it needs images."""
    gc.collect()
    before = set(children())
    stream()
    images = load(folder, image_size=12).train
    for pid in set(children()) - before:
        os.kill(pid, signal.SIGINT)
    time.sleep(0.2)
    assert len(images.images) == 87


def test_a_process_that_is_killed_is_an_error(folder: Path, stream: Callable[[], None]) -> None:
    gc.collect()
    before = set(children())
    stream()
    images = load(folder, image_size=12).train
    for pid in set(children()) - before:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    with refused("AS242", names=("ATTNSCOPE_IMAGE_WORKERS",)):
        _ = images.images


SCRIPT = """
import multiprocessing, os, sys, time
from attnscope.data import workers
from attnscope.data.load import load_data
workers._FEW = 0
if __name__ == "__main__":
    data = load_data(f"folder:{sys.argv[1]}", image_size=12)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    while True:
        for pixels in data.train.read([[row] for row in range(len(data.train))]):
            pass
"""


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_no_process_is_left_when_the_main_process_ends(folder: Path, how: str) -> None:
    environment = {
        **os.environ,
        **{"ATTNSCOPE_IMAGE_MEMORY": "0", "ATTNSCOPE_IMAGE_WORKERS": "2", "OMP_NUM_THREADS": "1"},
    }
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(living(pids)) == 2
        if how == "killed":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
        try:
            _, printed = process.communicate(timeout=30)
        finally:
            process.kill()  # else the block would wait for it
    if how == "interrupted":
        assert printed.count("Traceback") == 1, "only the main process says that it was interrupted"
    end = time.monotonic() + 15
    while living(pids) and time.monotonic() < end:
        time.sleep(0.1)
    assert not living(pids)


def test_processes_can_be_started_without_a_copy_of_this_one() -> None:
    """With spawn, what a worker needs is pickled."""
    task = next(FileDecoder(Path("x"), 8, 3, crop=4).tasks(["a", "b"]))
    assert pickle.loads(pickle.dumps(task)) == task
    for needed in (workers._Decoding(), workers._prepare, workers._unchanged):
        pickle.loads(pickle.dumps(needed))


def test_a_pool_without_processes_decodes_in_this_one(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", noise(6, 6, 3))
    decoder = FileDecoder(tmp_path, 6, 3)
    (found,) = DecodingPool(0).run(decoder.tasks(["0.png", "1.png", "gone.png"]))
    assert found.facts["readable"].tolist() == [True, True, False]
    assert len(found.problems) == 1
    expected = np.array(Image.open(tmp_path / "1.png")).transpose(2, 0, 1)
    assert (found.pixels[1] == expected).all()
