"""A network with one gate whose use is known, and its images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attnscope import Recording, capture
from attnscope.interventions import (
    InterventionSetup,
    replace_gates,
)
from attnscope.statistics.effects import (
    replacement_effects,
)

CLASSES = 3


class Toy(nn.Module):
    """A network for images whose channel k is bright if the class is k.

    ``used``: the logits are the gated features, which depend on the class only through the gate.
    ``ignored``: the gate is applied, but the logits come from the image alone. ``constant``: the
    gate is the same for all images, and multiplies the features from which the logits come.
    """

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.gate = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid())
        with torch.no_grad():
            self.gate[0].weight.copy_(8 * torch.eye(3) * (mode != "constant"))
            self.gate[0].bias.fill_(-4 if mode != "constant" else 0.7)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3))
        gate = self.gate(pooled)[:, :, None, None]
        blank = x * 0 + 1
        if self.mode == "used":
            return 5 * (blank * gate).mean((2, 3))
        if self.mode == "ignored":
            return 5 * pooled + 0 * (blank * gate).mean((2, 3))
        return 5 * (x * gate).mean((2, 3))


def toy_images(count: int = 90) -> TensorDataset:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    images = 0.2 * torch.rand(count, 3, 6, 6, generator=rng)
    images[torch.arange(count), labels] += 0.7
    return TensorDataset(images, labels)


def toy_setup(mode: str, folder: Path, **options: int) -> InterventionSetup:
    model, images = Toy(mode).eval(), toy_images()
    recording = capture(
        model,
        images,
        folder / mode,
        classes=list("abc"),
        grad_cam_layers=(),
        progress=False,
    )
    assert isinstance(recording, Recording)
    return InterventionSetup(model, images, recording, **options)


def effects(setup: InterventionSetup) -> pd.DataFrame:
    found = replacement_effects(replace_gates(setup, progress=False))
    return found.set_index(["target", "edit"])
