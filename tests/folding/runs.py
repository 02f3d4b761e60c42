"""Runs of small networks on digits, written without training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from attnscope.data.load import load_data
from attnscope.networks.build import build_model
from attnscope.networks.weights import save_model


def write_digits(root: Path, *, deep: bool = False) -> Path:
    """For each of ten classes, write 16 training, 6 validation and 8 test images.

    They are RGB of 8 bits per channel, or gray of 12 bits in 16 if they are ``deep``.
    """
    source = load_digits()
    for k in range(10):
        rows = np.flatnonzero(source.target == k)
        for split, start, stop in (("train", 0, 16), ("val", 16, 22), ("test", 22, 30)):
            folder = root / split / str(k)
            folder.mkdir(parents=True)
            for row in rows[start:stop]:
                pixels = source.images[row] * (255 / 16)
                if deep:
                    image = Image.fromarray((16 * pixels).astype(np.uint16))
                else:
                    image = Image.fromarray(pixels.astype(np.uint8)).convert("RGB")
                image.save(folder / f"{row}.png")
    return root


def make_run(folder: Path, digits: Path, model: nn.Module, strong: str, size: int = 16) -> Path:
    """Write a run without training: only the last layer is fitted, by ridge regression.

    Channel gates whose name begins with ``strong`` vary strongly between images, and the last layer
    relies on them. Other channel gates are one half for every image, so that nothing is lost if
    they are folded.
    """
    data = load_data(f"folder:{digits}", image_size=size)
    x = data.normalization.apply(data.train.images)
    features: list[Tensor] = []
    with torch.no_grad():
        for path, gate in model.eval().named_modules():
            if path.endswith("attention.channel"):
                gate.expand.weight.mul_(path.startswith(strong))
                out: list[Tensor] = []
                handle = gate.expand.register_forward_hook(lambda m, a, o, out=out: out.append(o))
                model(x)
                handle.remove()
                if path.startswith(strong) and gate.expand.bias is not None:
                    scale = 4 / out[0].std(0).clamp_min(1e-6)
                    gate.expand.weight.mul_(scale[:, None])
                    gate.expand.bias.sub_(out[0].mean(0)).mul_(scale)
        handle = model.fc.register_forward_pre_hook(lambda m, a: features.append(a[0]))
        model(x)
        handle.remove()
        a = torch.cat([features[0], torch.ones(len(x), 1)], 1).double()
        scale = (a.T @ a).trace() / len(a.T)
        wanted = torch.eye(10, dtype=torch.float64)[data.train.labels]
        fitted = torch.linalg.solve(a.T @ a + 1e-3 * scale * torch.eye(len(a.T)), a.T @ wanted)
        model.fc.weight.copy_(fitted[:-1].T)
        model.fc.bias.copy_(fitted[-1])
    folder.mkdir(parents=True)
    save_model(model, folder)
    config = {
        "data": f"folder:{digits}",
        "data_root": "data",
        "image_size": size,
        "validation_share": 0.1,
        "seed": 0,
        "classes": data.classes,
        "normalization": asdict(data.normalization),
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def untrained(attention: str, placement: str = "block") -> nn.Module:
    torch.manual_seed(0)
    return build_model(attention=attention, placement=placement, width=16, reduction=4)
