"""Memory and speed with images that are decoded as they are needed."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from attnscope.capturing.capture import capture
from attnscope.data.load import load_data
from attnscope.networks.build import build_model
from attnscope.training.fitting import fit
from attnscope.training.recipes import RECIPES


def stream(
    images: int = 20_000,
    size: int = 224,
    distinct: int = 300,
    batch_size: int = 64,
    way: Literal["both", "memory", "streamed"] = "both",
) -> None:
    """Measure memory and speed of a training and a capture, with images in memory and streamed.

    A folder of hard links to some JPEG files is made. For each way, a process of its own loads it,
    trains resnet18 (SE, 7×7 stem, 16 channels) for one epoch, and captures the training split. The
    memory is that of the process and all its workers, of which what they share is counted once
    (PSS), beyond what it is when torch and attnscope are imported.

    Args:
        images: number of training images.
        size: height and width of the images, in pixels.
        distinct: number of different files.
        batch_size: batch size.
        way: which way to measure.
    """
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        _link_images(root / "photos", images, size, distinct)
        for name in ("memory", "streamed") if way == "both" else (way,):
            limit = "0" if name == "streamed" else "100000"
            command = [
                sys.executable,
                "-m",
                "analysis.benchmark",
                "stream-once",
                "--folder",
                str(root / "photos"),
            ]
            command += ["--out", str(root / name), "--size", str(size)]
            print(f"{name}: {images} images of {size} pixels, batch {batch_size}")
            with subprocess.Popen(
                [*command, "--batch-size", str(batch_size)],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "ATTNSCOPE_IMAGE_MEMORY": limit},
            ) as process:
                _follow(process)
            if process.returncode:
                sys.exit(process.returncode)


def stream_once(folder: Path, out: Path, size: int = 224, batch_size: int = 64) -> None:
    """Load, train and capture in this process, and print each phase; `stream` calls it.

    Args:
        folder: image folder.
        out: where the run and the recording are written.
        size: height and width of the images, in pixels.
        batch_size: batch size.
    """

    def phase(name: str, run: Callable[[], Any], count: int) -> Any:
        print(f"{name}-starts", flush=True)
        time.sleep(0.5)  # until the memory is sampled
        began = time.perf_counter()
        found = run()
        print(name, count, time.perf_counter() - began, flush=True)
        time.sleep(0.5)
        return found

    print("imported", flush=True)
    time.sleep(1)
    files = sum(1 for _ in folder.rglob("*.jpg"))
    data = phase("load", lambda: load_data(f"folder:{folder}", image_size=size), files)
    model = build_model(attention="se", width=16, stem="imagenet")
    how = replace(RECIPES["fast"], batch_size=batch_size)
    train = partial(fit, model, data, how, out / "run", epochs=1, progress=False, device="cpu")
    phase("train", train, len(data.train))
    record = partial(
        capture, model, data.train, out / "recording", normalization=data.normalization,
        progress=False,
    )  # fmt: skip
    phase("capture", record, len(data.train))


def _follow(process: subprocess.Popen[str]) -> None:
    """Print the memory of a process in the quarters of each of its phases, which it prints."""
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_forward, args=(process.stdout, lines), daemon=True).start()
    samples: list[tuple[float, float]] = []
    imported = 0.0
    while True:
        ended = process.poll() is not None
        used = sum(map(_own_memory, _descendants(process.pid)))
        samples.append((time.perf_counter(), used))
        while not lines.empty():
            phase, *facts = lines.get().split()
            if phase == "imported":
                imported = used
                print(f"  torch and attnscope imported: {imported / 2**20:.0f} MiB")
            elif facts:
                peaks = _quarters([sample for sample in samples if sample[1]])
                more = ", ".join(f"{(peak - imported) / 2**20:5.0f}" for peak in peaks)
                count, seconds = int(facts[0]), float(facts[1])
                print(
                    f"  {phase:8} {count / seconds:8.1f} images/s   beyond the imports: "
                    f"{more} MiB (peaks of the quarters)",
                    flush=True,
                )
            samples = []
        if ended:
            return
        time.sleep(0.5)


def _forward(lines: Iterable[str], into: queue.Queue[str]) -> None:
    for line in lines:
        into.put(line)


def _quarters(samples: list[tuple[float, float]]) -> list[float]:
    """Return the largest value in each quarter of the time."""
    if not samples:
        return []
    start, length = samples[0][0], max(samples[-1][0] - samples[0][0], 1e-9)
    of_quarter: dict[int, float] = {}
    for moment, value in samples:
        quarter = min(int(4 * (moment - start) / length), 3)
        of_quarter[quarter] = max(value, of_quarter.get(quarter, 0.0))
    return [of_quarter[quarter] for quarter in sorted(of_quarter)]


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            found += _descendants(int(child))
    return found


def _own_memory(pid: int) -> float:
    """Return the proportional share of the memory of a process, in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _link_images(root: Path, images: int, size: int, distinct: int) -> None:
    """Write JPEG files of patterns that compress like photographs, and link them many times."""
    rng = np.random.default_rng(0)
    files = root.parent / "files"
    files.mkdir()
    axis = np.linspace(0, 1, size + 32)
    for i in range(distinct):
        waves = rng.normal(0, 1, (3, 12, 4))
        pixels = sum(
            a * np.sin(30 * (b * axis[:, None, None] + c * axis[None, :, None]) + d)
            for a, b, c, d in waves.transpose(1, 2, 0)
        )
        pixels = 128 + 30 * pixels + rng.normal(0, 8, (size + 32, size + 32, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(files / f"{i}.jpg", quality=90)
    for split, count in (("train", images), ("test", max(images // 100, 20))):
        for k in range(10):
            (root / split / str(k)).mkdir(parents=True)
        for i in range(count):
            os.link(files / f"{i % distinct}.jpg", root / split / str(i % 10) / f"{i}.jpg")
