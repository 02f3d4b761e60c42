"""Measure what large recordings, many recordings and many images cost: CPU time and memory.

    python analysis/scale.py make FOLDER         # 1,000 classes × 50 images, 16 gates
    python analysis/scale.py figures FOLDER      # attnscope figures
    python analysis/scale.py report FOLDER       # attnscope report, and the size of its file
    python analysis/scale.py dashboard FOLDER    # the first page of the dashboard, three times
    python analysis/scale.py make-many FOLDER    # 200 recordings, for the dashboard
    python analysis/scale.py stream FOLDER       # synthetic images through capture, and read again

CPU time is measured beside time on the clock, so that other work on the machine matters less.
Memory is the peak resident memory of the process that did the work. Every value is drawn from
numbered seeds, so each machine measures the same recordings.

It has more than 400 lines because the recordings and all measurements on them are in one place.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from numpy.typing import NDArray
from tyro.conf import Positional

from attnscope.kinds import Gate
from attnscope.recording.moments import Moments
from attnscope.recording.recording import Recording, RecordingWriter

_STAGES = ((64, 32), (128, 16), (256, 8), (512, 4))  # channels and side of the maps
_BLOCKS = 2  # per stage
_PIXELS = 32
_SHARD = 2_000  # images
_SEED = 0


def _gates() -> list[Gate]:
    """A channel gate and a spatial gate in each of eight blocks, as in ResNet18 with CBAM."""
    return [
        Gate(f"layer{stage}.{block}.attention.{kind}", kind, channels, grid, "sigmoid", 0.0, 1.0, 1)
        for stage, (channels, side) in enumerate(_STAGES, start=1)
        for block in range(_BLOCKS)
        for kind, grid in (("channel", None), ("spatial", (side, side)))
    ]


def write_recording(
    folder: Path,
    classes: int,
    each: int,
    name: str = "scale",
    gates: Sequence[Gate] | None = None,
) -> Recording:
    """Write a synthetic recording in which each class has its own gates, and 70% is right.

    Args:
        folder: Where it is written; an existing recording there is opened instead.
        classes: Number of classes.
        each: Number of images of each class.
        name: Name of the network.
        gates: Its gates. Default: those of a ResNet18 with CBAM.
    """
    if folder.exists():
        return Recording(folder)
    random = np.random.default_rng(_SEED)
    gates = _gates() if gates is None else gates
    means = {gate.name: random.normal(0, 0.5, (classes, *_shape(gate))) for gate in gates}
    confused = np.roll(np.arange(classes), 1)
    with RecordingWriter(
        folder,
        gates=gates,
        classes=[f"class {k}" for k in range(classes)],
        grad_cam_layers=["layer4"],
        about={"name": name, "split": "test", "model": "synthetic"},
    ) as writer:
        labels = np.arange(classes * each) % classes
        for start in range(0, len(labels), _SHARD):
            writer.add_shard(
                *_shard(random, labels[start : start + _SHARD], means, confused, start)
            )
    return Recording(folder)


def _shape(gate: Gate) -> tuple[int, ...]:
    return gate.grid if gate.grid is not None else (gate.channels,)


def _shard(
    random: np.random.Generator,
    labels: NDArray[np.int64],
    means: dict[str, NDArray[np.float64]],
    confused: NDArray[np.int64],
    start: int,
) -> tuple[dict[str, NDArray[Any]], pd.DataFrame]:
    count, classes = len(labels), len(confused)
    arrays: dict[str, NDArray[Any]] = {}
    for name, mean in means.items():
        logits = random.standard_normal((count, *mean.shape[1:]), np.float32)
        logits += mean[labels].astype(np.float32)
        arrays[f"gate/{name}"] = 1 / (1 + np.exp(-logits))
    side = _STAGES[-1][1]
    for target in ("predicted", "true"):
        maps = random.standard_normal((count, side, side), np.float32)
        arrays[f"grad_cam/layer4/{target}"] = maps.astype(np.float16)
    logits = random.standard_normal((count, classes), np.float32)
    logits[np.arange(count), labels] += 5
    wrong = random.random(count) < 0.25
    logits[wrong, confused[labels[wrong]]] += 8
    arrays["logits"] = logits
    # Repeated patches: pictures that compress as photographs do.
    small = random.integers(0, 256, (count, 8, 8, 3), np.uint8)
    arrays["images"] = small.repeat(_PIXELS // 8, 1).repeat(_PIXELS // 8, 2)
    highest = logits.max(1, keepdims=True)
    total = highest[:, 0] + np.log(np.exp(logits - highest).sum(1))
    rows = pd.DataFrame(
        {
            "path": [f"test/{k}/{start + i}.png" for i, k in enumerate(labels)],
            "label": labels,
            "prediction": logits.argmax(1),
            "loss": total - logits[np.arange(count), labels],
        }
    )
    return arrays, rows


@dataclass(frozen=True)
class Cost:
    """What a piece of work cost."""

    cpu: float
    """Seconds of CPU time, of the process and those it waited for."""
    clock: float
    """Seconds."""
    memory: float
    """Peak resident memory in MiB."""

    def __str__(self) -> str:
        return f"{self.cpu:.1f} CPU s, {self.clock:.1f} s, {self.memory:,.0f} MiB"


def cost_of(work: Callable[..., None], *arguments: Any) -> Cost:
    """Run work in a fresh process, so that its peak memory is its own.

    Args:
        work: A function of a module.
        arguments: Its arguments.

    Raises:
        SystemExit: The work failed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, work, arguments))
    process.start()
    sender.close()
    try:
        cost: Cost = receiver.recv()
    except EOFError:
        sys.exit("the measured work failed")
    process.join()
    return cost


def _measured(sender: Any, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    began = time.perf_counter()
    work(*arguments)
    own, others = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    cpu = sum(used.ru_utime + used.ru_stime for used in (own, others))
    sender.send(Cost(cpu, time.perf_counter() - began, own.ru_maxrss / 1024))


def command(*arguments: str) -> None:
    """Run a command of attnscope in this process."""
    from attnscope.commands.main import main

    if main(list(arguments)) != 0:
        raise SystemExit(f"attnscope {' '.join(arguments)} failed")


def make(folder: Positional[Path], classes: int = 1_000, each: int = 50) -> None:
    """Write the large recording."""
    print(write_recording(folder, classes, each))


def figures(folder: Positional[Path]) -> None:
    """Measure ``attnscope figures``."""
    print("figures:", cost_of(command, "figures", str(folder)))


def report(folder: Positional[Path]) -> None:
    """Measure ``attnscope report``."""
    out = folder / "report.html"
    print("report:", cost_of(command, "report", str(folder), "--out", str(out)))
    print(f"{out.stat().st_size / 1e6:.1f} MB")


def dashboard(folder: Positional[Path], pages: int = 3) -> None:
    """Measure the first page of the dashboard, through its server, and the same page again.

    Args:
        folder: What the dashboard shows.
        pages: How many visitors open it, one after the other.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "import sys; from attnscope.commands.main import main; sys.exit(main())"
    arguments = ["dashboard", str(folder), "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        print(server.stdout.readline().strip())
        for number in range(1, pages + 1):
            before, began = _cpu_of(server.pid), time.perf_counter()
            elements = _open_page(port)
            seconds = time.perf_counter() - began
            cpu = _cpu_of(server.pid) - before
            print(f"visit {number}: {cpu:.2f} CPU s, {seconds:.2f} s, {elements} elements")
        peak = Path(f"/proc/{server.pid}/status").read_text().split("VmHWM:")[1].split()[0]
        print(f"{int(peak) / 1024:,.0f} MiB")
    finally:
        server.terminate()
        server.wait()


def _open_page(port: int) -> int:
    """Open the first page as a browser does; return the number of elements it is made of."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.sync.client import connect
    from websockets.typing import Origin

    place = f"127.0.0.1:{port}"
    for _ in range(600):  # until the server has started
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
    elements = 0
    with connect(
        f"ws://{place}/_stcore/stream", origin=Origin(f"http://{place}"), max_size=None
    ) as page:
        message = BackMsg()
        message.rerun_script.query_string = ""
        page.send(message.SerializeToString())
        while True:
            answer = ForwardMsg.FromString(page.recv(timeout=600))
            kind = answer.WhichOneof("type")
            elements += int(kind == "delta")
            if kind == "script_finished":
                return elements


def _cpu_of(process: int) -> float:
    """Return the seconds of CPU time that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_many(folder: Positional[Path], recordings: int = 200, images: int = 10_000) -> None:
    """Write many recordings of ten classes with one small gate.

    Args:
        folder: Where they are written.
        recordings: How many.
        images: Of each; five shards hold them.
    """
    gate = Gate("layer1.0.attention.channel", "channel", 4, None, "sigmoid", 0.0, 1.0, 1.0)
    first = folder / "run000/recordings/test"
    random = np.random.default_rng(_SEED)
    with RecordingWriter(
        first,
        gates=[gate],
        classes=[f"class {k}" for k in range(10)],
        grad_cam_layers=[],
        about={"name": "small", "split": "test"},
    ) as writer:
        for start in range(0, images, max(1, images // 5)):
            labels = np.arange(start, min(start + max(1, images // 5), images)) % 10
            logits = random.standard_normal((len(labels), 10), np.float32)
            logits[np.arange(len(labels)), labels] += 2
            writer.add_shard(
                {
                    f"gate/{gate.name}": random.random((len(labels), 4), np.float32),
                    "logits": logits,
                    "images": np.zeros((len(labels), 2, 2, 3), np.uint8),
                },
                pd.DataFrame(
                    {
                        "path": [f"test/{k}/{start + i}.png" for i, k in enumerate(labels)],
                        "label": labels,
                        "prediction": logits.argmax(1),
                        "loss": 0.0,
                    }
                ),
            )
    for number in range(1, recordings):
        shutil.copytree(first, folder / f"run{number:03d}/recordings/test")
    print(f"{recordings} recordings in {folder}")


def stream(
    folder: Positional[Path], images: int = 100_000, moments: bool = False, keep: bool = False
) -> None:
    """Capture synthetic images, and read what was written: time and memory of each tenth.

    Images of 16 pixels and a network of one block, so that the work around the network is measured:
    reading, checking, writing, and what is kept of each image.

    Args:
        folder: Where the recording is written.
        images: How many.
        moments: Record sums over the classes instead of values of each image.
        keep: Do not remove the recording afterwards.
    """
    print("capture:", cost_of(_capture, folder, images, moments))
    print("open:", cost_of(_open, folder, moments))
    print("read:", cost_of(_read, folder, moments))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{size / 1e6:,.0f} MB")
    if not keep:
        shutil.rmtree(folder)


def _capture(folder: Path, images: int, moments: bool) -> None:
    import torch
    from torch import nn

    from attnscope.capturing.capture import capture
    from attnscope.networks.attention.se import SEAttention

    class Synthetic(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
        """Images that are made when they are needed."""

        classes = tuple(f"class {k}" for k in range(100))

        def __init__(self) -> None:
            generator = torch.Generator().manual_seed(_SEED)
            self._pixels = torch.rand(257, 3, 16, 16, generator=generator)
            self._asked = 0
            self._before = (time.process_time(), time.perf_counter())

        def __len__(self) -> int:
            return images

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            self._asked += 1
            if self._asked % (images // 10) == 0:
                now = (time.process_time(), time.perf_counter())
                cpu, clock = (
                    1e6 * (after - before) / (images // 10)
                    for after, before in zip(now, self._before, strict=True)
                )
                self._before = now
                print(f"{self._asked:9,}: {cpu:6.0f} CPU µs/image, {clock:6.0f} µs, {_memory()}")
            return self._pixels[index % len(self._pixels)], index % len(self.classes)

    torch.manual_seed(_SEED)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=4), nn.ReLU(), SEAttention(32, 4),
        nn.Conv2d(32, 32, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 100),
    )  # fmt: skip
    capture(network.eval(), Synthetic(), folder, moments=moments, progress=False, batch_size=512)


def _memory() -> str:
    """Return the resident memory of this process."""
    now = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]
    return f"{int(now) / 1024:,.0f} MiB"


def _open(folder: Path, moments: bool) -> None:
    (Moments if moments else Recording)(folder)


def _read(folder: Path, moments: bool) -> None:
    from attnscope import statistics

    found: Moments | Recording = (Moments if moments else Recording)(folder)
    statistics.class_profiles(found, found.gates[0].name)
    statistics.gate_profiles(found)
    if isinstance(found, Recording):
        statistics.gate_state(found)
        statistics.misclassified(found)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {
            "make": make,
            "make-many": make_many,
            "figures": figures,
            "report": report,
            "dashboard": dashboard,
            "stream": stream,
        }
    )
