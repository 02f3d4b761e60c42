"""Speed of the networks and of a recipe."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

from analysis.benchmark.ratios import interleave
from attnscope.data.images import LabeledImages, Normalization
from attnscope.data.load import Data
from attnscope.networks.build import build_model
from attnscope.training.devices import choose_device
from attnscope.training.fitting import fit
from attnscope.training.recipes import RECIPES

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
