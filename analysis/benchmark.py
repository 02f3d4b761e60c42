"""Ratios of speed, interleaved: python analysis/benchmark.py {train,infer,recipe,capture,memory}.

Machines drift, so that a time alone says little: every round times each variant once, and what is
reported is the median over rounds of the ratio to the first variant of the same round.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

from attnscope.capturing import capture
from attnscope.data import Data, LabelledImages, Normalization
from attnscope.models import build_model
from attnscope.recipes import get_recipe
from attnscope.train import choose_device
from attnscope.train import train as run_training


def interleave(variants: Mapping[str, Callable[[], None]], images: int, rounds: int) -> None:
    """Prints images per second and the ratio to the first variant, medians over the rounds."""
    for run in variants.values():
        run()  # memory, kernels and caches settle in a round that does not count
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    first = next(iter(seconds.values()))
    for name, taken in seconds.items():
        ratios = sorted(a / b for a, b in zip(first, taken, strict=True))
        print(
            f"{name:28} {images / statistics.median(taken):8.1f} images/s   "
            f"ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )


_KINDS = ("none", "se", "eca", "cbam")


def train(batch_size: int = 128, rounds: int = 9, width: int = 64, precision: str = "bf16") -> None:
    """Training steps of resnet18/cifar: no attention, SE, ECA and CBAM in every block."""
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
    """Inference of the same networks."""
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
    """The recipe ``fast`` against the usual script, both with CBAM after each stage.

    The usual script: float32, NCHW, PIL transforms image by image in two workers, Adam, batch 64.
    """
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    part = LabelledImages(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.arange(images) % 10,
        [str(i) for i in range(images)],
        [str(k) for k in range(10)],
    )
    unit = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    data = Data("made", part, part[:10], part[:10], unit, may_flip=True, skipped=[])
    device = choose_device("auto")
    networks = [build_model(attention="cbam", placement="stage", width=width) for _ in range(2)]

    def fast() -> None:
        with tempfile.TemporaryDirectory() as folder:
            how, out = get_recipe("fast"), Path(folder) / "run"
            run_training(networks[0], data, how, out, epochs=1, progress=False)

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


def record(images: int = 512, batch_size: int = 128, rounds: int = 5, width: int = 64) -> None:
    """Capture of resnet18/cifar with CBAM against bare inference, fp32."""
    device = choose_device("auto")
    model = build_model(attention="cbam", width=width).to(device).eval()
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8)
    part = LabelledImages(
        pixels,
        torch.arange(images) % 10,
        [str(i) for i in range(images)],
        [str(k) for k in range(10)],
    )

    def bare() -> None:
        with torch.inference_mode():
            for batch in torch.split(pixels, batch_size):
                model((batch.to(device) / 255).to(memory_format=torch.channels_last)).cpu()

    def captured(layers: list[str] | None) -> Callable[[], None]:
        def run() -> None:
            with tempfile.TemporaryDirectory() as folder:
                capture(
                    model,
                    part,
                    Path(folder) / "recording",
                    grad_cam_layers=layers,
                    batch_size=batch_size,
                    progress=False,
                )

        return run

    print(f"capture, {images} images, batch {batch_size}, width {width}, fp32, {device}")
    variants = {
        "bare inference": bare,
        "gates and maps": captured([]),
        "and Grad-CAM of both classes": captured(None),
    }
    interleave(variants, images, rounds)


def memory(images: tuple[int, ...] = (10_000, 50_000), moments: bool = False) -> None:
    """Peak resident memory of a capture beyond the data set's own array, in MB.

    Each number of images gets a process of its own, since a peak is never forgotten: resnet18 with
    SE, the 7×7 stem and 16 channels, on random pictures of 32 pixels.
    """
    if len(images) > 1:
        for count in images:
            command = [sys.executable, __file__, "memory", "--images", str(count)]
            subprocess.run([*command, *(["--moments"] if moments else [])], check=True)
        return
    pixels = torch.randint(0, 256, (images[0], 3, 32, 32), dtype=torch.uint8)
    paths, classes = [str(i) for i in range(images[0])], [str(k) for k in range(10)]
    part = LabelledImages(pixels, torch.arange(images[0]) % 10, paths, classes)
    model = build_model(attention="se", width=16, stem="imagenet")
    with tempfile.TemporaryDirectory() as folder:
        capture(model, part, Path(folder) / "recording", moments=moments, progress=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{images[0]:7} images: {(peak - pixels.nbytes) / 2**20:.1f} MB", flush=True)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"train": train, "infer": infer, "recipe": recipe, "capture": record, "memory": memory}
    )
