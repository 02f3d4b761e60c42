"""Networks and images of the measurements: random weights, random pixels."""

from __future__ import annotations

import torch
from torch import nn

from attnscope.data.images import LabeledImages, Normalization
from attnscope.data.load import Data
from attnscope.networks.build import build_model

UNIT = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def network(attention: str, width: int = 64, size: int = 32) -> nn.Module:
    """Return resnet18 with an attention after each block and random weights, channels-last."""
    torch.manual_seed(0)
    stem = "cifar" if size <= 64 else "imagenet"
    model = build_model("resnet18", attention=attention, width=width, num_classes=10, stem=stem)
    return model.to(memory_format=torch.channels_last)


def made_images(count: int, size: int, classes: int = 10) -> LabeledImages:
    """Return images of random pixels."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return LabeledImages(
        pixels,
        torch.arange(count) % classes,
        [str(i) for i in range(count)],
        [str(k) for k in range(classes)],
    )


def made_data(count: int, size: int) -> Data:
    """Return a data set with `count` training images of random pixels."""
    images = made_images(count, size)
    return Data("made", images, images[:10], images[:10], UNIT, may_flip=True, skipped=[])
