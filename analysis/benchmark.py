"""Ratios of speed, interleaved: python analysis/benchmark.py {train,capture}.

Machines drift, so that a time alone says little: every round times each variant once, and what is
reported is the median over rounds of the ratio to the first variant of the same round.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import tyro
from torch import nn
from torch.nn import functional as F

from attnscope.capturing import capture
from attnscope.data import LabelledImages
from attnscope.models import build_model
from attnscope.train import choose_device


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

    kinds = ("none", "se", "eca", "cbam")
    variants = {kind: stepper(build_model(attention=kind, width=width)) for kind in kinds}
    print(f"training, batch {batch_size}, width {width}, {precision}, {device}")
    interleave(variants, batch_size, rounds)


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


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"train": train, "capture": record})
