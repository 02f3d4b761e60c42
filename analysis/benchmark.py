"""Measure ratios of speed: python analysis/benchmark.py NAME; --help lists the names.

The speed of a machine varies, so single times are not reliable. Every round times each variant
once, and the script prints the median over rounds of the ratio to the first variant of the round.

It has more than 400 lines because all measurements of speed and memory are in one place.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import queue
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import tyro
from PIL import Image
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

from attnscope.attribution import last_map_layer
from attnscope.capturing.capture import capture
from attnscope.data.images import LabeledImages, Normalization
from attnscope.data.load import Data, load_data
from attnscope.interventions import (
    DEFAULT_EDITS,
    REPLACEMENTS,
    InterventionSetup,
    plan_experiments,
    run_experiments_in,
)
from attnscope.interventions.plan import images_within, time_network
from attnscope.interventions.run import DEFAULT_IMAGES, DEFAULT_MINUTES
from attnscope.kinds import Gate
from attnscope.networks.build import build_model
from attnscope.networks.targets import load_target
from attnscope.recording.recording import Recording, RecordingWriter
from attnscope.statistics import (
    between_class_variance,
    class_selectivity,
    error_position_summary,
    linear_probe,
    permuted_channel_effects,
    state_sweep,
)
from attnscope.training.devices import choose_device
from attnscope.training.fitting import fit
from attnscope.training.recipes import RECIPES


def interleave(
    variants: Mapping[str, Callable[[], None]], images: int, rounds: int, warm_up: bool = True
) -> None:
    """Print images per second and the ratio to the first variant, as medians over the rounds.

    Each variant runs right after the first one, and right before it in every other round, because
    the speed of a machine varies within seconds.

    Args:
        variants: What to run, by name.
        images: Number of images that each of them takes.
        rounds: Number of rounds.
        warm_up: Whether each variant runs once before, for memory, kernels and caches.
    """
    for run in variants.values() if warm_up else ():
        run()
    first, *others = variants
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    ratios: dict[str, list[float]] = {name: [] for name in others}
    for number in range(rounds):
        for name in others:
            pair = (first, name) if number % 2 == 0 else (name, first)
            taken = {each: _seconds_of(variants[each]) for each in pair}
            for each in pair:
                seconds[each].append(taken[each])
            ratios[name].append(taken[first] / taken[name])
    print(f"{first:28} {images / statistics.median(seconds[first]):8.1f} images/s   ratio 1")
    for name, found in ratios.items():
        print(
            f"{name:28} {images / statistics.median(seconds[name]):8.1f} images/s   "
            f"ratio {statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})"
        )


def _seconds_of(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


_KINDS = ("none", "se", "eca", "cbam")


def train(batch_size: int = 128, rounds: int = 9, width: int = 64, precision: str = "bf16") -> None:
    """Measure training steps of resnet18/cifar without attention and with SE, ECA and CBAM."""
    device = choose_device("auto")
    x = torch.randn(batch_size, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch_size,), device=device)

    def stepper(model: nn.Module) -> Callable[[], None]:
        model = model.to(device).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

        def step() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = model(x)
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return step

    variants = {kind: stepper(build_model(attention=kind, width=width)) for kind in _KINDS}
    print(f"training, batch {batch_size}, width {width}, {precision}, {device}")
    interleave(variants, batch_size, rounds)


def infer(batch_size: int = 128, rounds: int = 9, width: int = 64, precision: str = "bf16") -> None:
    """Measure inference of the same networks."""
    device = choose_device("auto")
    x = torch.randn(batch_size, 3, 32, 32, device=device).to(memory_format=torch.channels_last)

    def runner(model: nn.Module) -> Callable[[], None]:
        model = model.to(device).to(memory_format=torch.channels_last).eval()

        def run() -> None:
            enabled = precision == "bf16"
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled):
                model(x).cpu()

        return run

    variants = {kind: runner(build_model(attention=kind, width=width)) for kind in _KINDS}
    print(f"inference, batch {batch_size}, width {width}, {precision}, {device}")
    interleave(variants, batch_size, rounds)


def recipe(images: int = 1280, rounds: int = 3, width: int = 64) -> None:
    """Compare the recipe ``fast`` with the usual script, both with CBAM after each stage.

    The usual script uses float32, NCHW, PIL transforms image by image in two workers, Adam and the
    batch size 64.
    """
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    labeled = LabeledImages(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.arange(images) % 10,
        [str(i) for i in range(images)],
        [str(k) for k in range(10)],
    )
    unit = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    data = Data("made", labeled, labeled[:10], labeled[:10], unit, may_flip=True, skipped=[])
    device = choose_device("auto")
    networks = [build_model(attention="cbam", placement="stage", width=width) for _ in range(2)]

    def fast() -> None:
        with tempfile.TemporaryDirectory() as folder:
            how, out = RECIPES["fast"], Path(folder) / "run"
            fit(networks[0], data, how, out, epochs=1, progress=False)

    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(unit.mean, unit.std),
        ]
    )
    pictures = [(Image.fromarray(x), i % 10) for i, x in enumerate(pixels)]
    usual_network = networks[1].to(device)
    optimizer = torch.optim.Adam(usual_network.parameters(), lr=1e-3)

    def usual() -> None:
        usual_network.train()
        loader: DataLoader[Any] = DataLoader(
            pictures,  # type: ignore[arg-type]
            batch_size=64,
            shuffle=True,
            num_workers=2,
            collate_fn=lambda batch: (
                torch.stack([transform(image) for image, _ in batch]),
                torch.tensor([label for _, label in batch]),
            ),
        )
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(usual_network(x.to(device)), y.to(device)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    print(f"one epoch of {images} images, width {width}, {device}")
    interleave({"the usual script": usual, "fast": fast}, images, rounds)


def record(
    network: str = "cbam",
    images: int = 512,
    batch_size: int = 128,
    rounds: int = 5,
    others: bool = True,
    stages: bool = True,
    warm_up: bool = True,
) -> None:
    """Compare capture with bare inference of the same network, in fp32.

    Args:
        network: ``cbam`` or ``se`` (resnet18/cifar at 32 pixels), or a target such as
            ``timm:seresnet50``, at its own image size.
        images: number of images, of random pixels.
        batch_size: batch size.
        rounds: number of rounds.
        others: also measure Grad-CAM of both classes by pytorch-grad-cam and torchcam, if they are
            installed (``pip install grad-cam torchcam``). They record nothing else.
        stages: also measure Grad-CAM of the last two stages.
        warm_up: run everything once before.
    """
    device = choose_device("auto")
    if ":" in network:
        target = load_target(network)
        model, size = target.model, target.image_size
    else:
        model, size = build_model(attention=network), 32
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        classes = model(torch.zeros(1, 3, size, size, device=device)).shape[1]
    labeled = LabeledImages(
        pixels,
        torch.arange(images) % classes,
        [str(i) for i in range(images)],
        [str(k) for k in range(classes)],
    )
    unit = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    last = last_map_layer(model, torch.zeros(1, 3, size, size, device=device))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, images, batch_size):
            rows = slice(start, start + batch_size)
            yield unit.apply(pixels[rows].to(device)), labeled.labels[rows].to(device)

    def bare() -> None:
        with torch.inference_mode():
            for x, _ in batches():
                model(x).cpu()

    def captured(layers: list[str]) -> Callable[[], None]:
        def run() -> None:
            with tempfile.TemporaryDirectory() as folder:
                capture(
                    model,
                    labeled,
                    Path(folder) / "recording",
                    grad_cam_layers=layers,
                    batch_size=batch_size,
                    progress=False,
                )

        return run

    variants = {
        "bare inference": bare,
        "gates and maps": captured([]),
        "and Grad-CAM of both classes": captured([last]),
    }
    if stages:
        names = [name for name, _ in model.named_children() if name in ("layer3", "layer4")]
        variants[f"and of {len(names)} layers"] = captured(names)
    if others:
        variants |= _other_grad_cams(model, model.get_submodule(last), batches)
    print(f"capture of {network}, {images} images of {size}, batch {batch_size}, fp32, {device}")
    interleave(variants, images, rounds, warm_up)


def _other_grad_cams(
    model: nn.Module, layer: nn.Module, batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]
) -> dict[str, Callable[[], None]]:
    """Return functions that compute Grad-CAM of both classes with other tools, batch by batch."""
    found: dict[str, Callable[[], None]] = {}
    if importlib.util.find_spec("pytorch_grad_cam"):
        theirs = importlib.import_module("pytorch_grad_cam")
        output = importlib.import_module("pytorch_grad_cam.utils.model_targets")

        def with_pytorch_grad_cam() -> None:
            with theirs.GradCAM(model=model, target_layers=[layer]) as cam:
                for x, labels in batches():
                    cam(x, None)  # for the predicted class
                    cam(x, [output.ClassifierOutputTarget(int(label)) for label in labels])

        found["pytorch-grad-cam, both classes"] = with_pytorch_grad_cam
    if importlib.util.find_spec("torchcam"):
        methods = importlib.import_module("torchcam.methods")

        def with_torchcam() -> None:
            with methods.GradCAM(model, layer) as cam:
                for x, labels in batches():
                    scores = model(x)
                    cam(scores.argmax(1).tolist(), scores, retain_graph=True)
                    cam(labels.tolist(), scores)

        found["torchcam, both classes"] = with_torchcam
    return found


def memory(images: tuple[int, ...] = (10_000, 50_000), moments: bool = False) -> None:
    """Measure the peak resident memory of a capture, without the data set's own array, in MiB.

    The network is resnet18 with SE, the 7×7 stem and 16 channels, on random images of 32 pixels.
    Each number of images is measured in a process of its own, since the peak never decreases.

    Args:
        images: numbers of images.
        moments: whether to capture moments.
    """
    if len(images) > 1:
        for count in images:
            command = [sys.executable, __file__, "memory", "--images", str(count)]
            subprocess.run([*command, *(["--moments"] if moments else [])], check=True)
        return
    pixels = torch.randint(0, 256, (images[0], 3, 32, 32), dtype=torch.uint8)
    paths, classes = [str(i) for i in range(images[0])], [str(k) for k in range(10)]
    labeled = LabeledImages(pixels, torch.arange(images[0]) % 10, paths, classes)
    model = build_model(attention="se", width=16, stem="imagenet")
    with tempfile.TemporaryDirectory() as folder:
        capture(model, labeled, Path(folder) / "recording", moments=moments, progress=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{images[0]:7} images: {(peak - pixels.nbytes) / 2**20:.1f} MiB", flush=True)


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
            command = [sys.executable, __file__, "stream-once", "--folder", str(root / "photos")]
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


def interventions(
    images: int = 1000, width: int = 64, batch_size: int = 64, earlier: bool = True
) -> None:
    """Measure ``replace`` as it was by default, and what is now the default, with their plans.

    The network is a ResNet18 with CBAM at 32 pixels, with random weights, which cost the same. As
    it was: seven edits on ``images`` images. Now: ``decode``, and four edits on 250 images or as
    many as three minutes hold.

    Args:
        images: number of images that are scored as it was; twice as many are recorded.
        width: channels of the first stage.
        batch_size: batch size.
        earlier: also measure how it was.
    """
    device = choose_device("auto")
    torch.manual_seed(0)
    model = build_model(attention="cbam", width=width).to(device)
    model = model.to(memory_format=torch.channels_last).eval()
    rng = torch.Generator().manual_seed(0)
    count = 2 * images
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=rng)
    labels = torch.arange(count) % 10
    names = [str(k) for k in range(10)]
    labeled = LabeledImages(pixels, labels, [str(i) for i in range(count)], names)
    print(f"resnet18 of width {width} with CBAM, {count} recorded images of 32 pixels, {device}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "recording"
        capture(model, labeled, place, grad_cam_layers=[], progress=False)
        recording = Recording(place)

        def measure(what: str, experiments: list[str], edits: tuple[str, ...], n: int) -> None:
            began = time.perf_counter()
            setup = InterventionSetup(model, labeled, recording, images=n, batch_size=batch_size)
            timing = time_network(setup)
            if what == "now":
                held = images_within(setup, timing, edits, 60 * DEFAULT_MINUTES)
                setup = InterventionSetup(
                    model, labeled, recording, images=held, batch_size=batch_size
                )
            plan = plan_experiments(setup, experiments, edits=edits, timing=timing)
            planned = time.perf_counter() - began
            print(plan)
            run_experiments_in(
                Path(folder) / what, setup, experiments=experiments, edits=edits, progress=False
            )
            taken = time.perf_counter() - began
            print(
                f"{what}: {len(setup.scored)} images, {len(edits)} edits: {taken / 60:.2f} minutes "
                f"({planned:.1f} seconds of them to plan); planned were {plan.seconds / 60:.2f}",
                flush=True,
            )

        measure("now", ["decode", "replace"], DEFAULT_EDITS, DEFAULT_IMAGES)
        if earlier:
            seven = tuple(edit for edit in REPLACEMENTS if edit != "swap_any")
            measure("as it was", ["replace"], seven, images)


def statistics_of_a_recording(
    images: int = 10_000,
    channels: tuple[int, ...] = (64, 64, 128, 128, 256, 256, 512, 512),
    permutations: int = 1000,
    timed_channels: int = 4,
    probe: bool = False,
    classes: int = 10,
    errors: float = 0.0,
) -> None:
    """Compare statistics with permutations with a loop of SciPy calls per channel.

    Args:
        images: number of images with random gates.
        channels: number of channels of each gate.
        permutations: number of permutations of the labels, for both.
        timed_channels: number of channels on which the loop is timed, with a fiftieth of the
            permutations. The time of the whole loop is extrapolated. 0: no loop.
        probe: also measure the linear probe, which has no counterpart in the loop.
        classes: number of classes.
        errors: share of misclassified images, whose positions are measured, too, if it is not 0.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(images) % classes
    predictions = np.where(np.arange(images) < errors * images, (labels + 1) % classes, labels)
    gates = [
        Gate(f"layer{i}.channel", "channel", width, None, "sigmoid", 0, 1, 1)
        for i, width in enumerate(channels)
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "recording"
        with RecordingWriter(
            place,
            gates=gates,
            classes=[f"class {k}" for k in range(classes)],
            grad_cam_layers=[],
            about={},
        ) as writer:
            for start in range(0, images, 2048):
                own, said = (each[start : start + 2048] for each in (labels, predictions))
                arrays = {
                    f"gate/{gate.name}": rng.random((len(own), gate.channels), np.float32)
                    for gate in gates
                }
                arrays["logits"] = np.eye(classes, dtype=np.float32)[said]
                rows = {"path": own.astype(str), "label": own, "prediction": said, "loss": 0.0}
                writer.add_shard(arrays, pd.DataFrame(rows))
        recording = Recording(place)
        names = [gate.name for gate in gates]

        def each(function: Callable[..., pd.DataFrame]) -> Callable[[], object]:
            return lambda: [function(recording, name, permutations) for name in names]

        variants: dict[str, Callable[[], object]] = {
            "class_selectivity": each(class_selectivity),
            "permuted_channel_effects": each(permuted_channel_effects),
            "state_sweep": lambda: state_sweep(recording),
            "between_class_variance": lambda: between_class_variance(recording, permutations),
        }
        if probe:
            variants["linear_probe"] = lambda: linear_probe(recording, permutations)
        if errors:
            variants["error_position_summary"] = lambda: error_position_summary(recording)
        seconds, busy = {}, {}
        for name, run in variants.items():
            began, used = time.perf_counter(), time.process_time()
            run()
            seconds[name] = time.perf_counter() - began
            busy[name] = time.process_time() - used
        values = recording.gate(names[-1])[:, :timed_channels].astype(np.float64)
    print(
        f"{images} images, {sum(channels)} channels, {classes} classes, {permutations} permutations"
    )
    # On a machine with other work, CPU time is more reliable than wall-clock time.
    for name, taken in seconds.items():
        print(f"{name:36} {taken:9.1f} s, CPU time {busy[name]:9.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"peak resident memory, including torch and all imports: {peak:.0f} MB")
    if not timed_channels:
        return
    tried = max(permutations // 50, 1)
    began, used = time.perf_counter(), time.process_time()
    for _ in range(tried):
        order = rng.permutation(labels)
        for channel in values.T:
            stats.f_oneway(*(channel[order == k] for k in range(classes)))
    times = permutations * sum(channels) / (tried * timed_channels)
    loop = f"a loop over f_oneway, times {times:.0f}"
    seconds[loop] = (time.perf_counter() - began) * times
    busy[loop] = (time.process_time() - used) * times
    print(f"{loop:36} {seconds[loop]:9.1f} s, CPU time {busy[loop]:9.1f} s")
    ratios = [found[loop] / found["permuted_channel_effects"] for found in (seconds, busy)]
    print(
        f"the loop takes {ratios[0]:.0f} times as long as permuted_channel_effects, or "
        f"{ratios[1]:.0f} times by CPU time"
    )


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {
            "train": train,
            "infer": infer,
            "recipe": recipe,
            "capture": record,
            "memory": memory,
            "stream": stream,
            "stream-once": stream_once,
            "interventions": interventions,
            "statistics": statistics_of_a_recording,
        }
    )
