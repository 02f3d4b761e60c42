"""Small data sets, networks and recipes that train within a second."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attnscope.data.augmentation import Augmentation
from attnscope.data.images import LabeledImages, Normalization
from attnscope.data.load import Data
from attnscope.networks.build import build_model
from attnscope.training.fitting import fit
from attnscope.training.recipe import Phase
from attnscope.training.recipes import RECIPES
from attnscope.training.result import TrainResult

CPU = torch.device("cpu")
FAST = RECIPES["fast"]
PLAIN = Augmentation()
TINY = replace(FAST, epochs=2, batch_size=8, learning_rate=0.05, phases=(Phase(1.0, 1.0),))


def make_split(name: str, count: int, size: int = 32, seed: int = 0) -> LabeledImages:
    """Return images of two classes that a network can learn: one half is brighter."""
    rng = np.random.default_rng([seed, *name.encode()])
    labels = torch.arange(count) % 2
    images = rng.integers(0, 120, (count, 3, size, size), dtype=np.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        half = slice(0, size // 2) if label else slice(size // 2, None)
        image[:, half] += 100
    paths = [f"{name}/{i}" for i in range(count)]
    return LabeledImages(torch.from_numpy(images), labels, paths, ["low", "high"])


def make_data(count: int = 20, size: int = 32, **changes: Any) -> Data:
    data = Data(
        source="made by the test",
        train=make_split("train", count, size),
        validation=make_split("validation", 6, size),
        test=make_split("test", 7, size),
        normalization=Normalization((0.4, 0.4, 0.4), (0.2, 0.2, 0.2)),
        may_flip=True,
        skipped=[],
    )
    return replace(data, **changes)


def small(seed: int = 0, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    options = {"name": "resnet18", "width": 16, "num_classes": 2, "stem": "imagenet", **options}
    return build_model(**options)


def run(out: Path, model: nn.Module | None = None, **options: Any) -> TrainResult:
    options = {"data": make_data(), "recipe": TINY, "progress": False, **options}
    options = {"device": "cpu", "precision": "fp32", **options}
    return fit(small() if model is None else model, out=out, **options)


def states_equal(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


class Spy(nn.Module):
    """A fast linear network with a norm and biases that stores its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 2)
        self.seen: list[Tensor] = []
        self.attnscope_config = build_model("cnn").attnscope_config

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(x.detach().clone())
        logits: Tensor = self.fc(self.norm(x).mean((2, 3)))
        return logits
