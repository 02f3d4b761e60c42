"""``attnscope summary``"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import tyro

from attnscope.commands.options import NameArgument
from attnscope.errors import InputError
from attnscope.training.config import NetworkSettings


@dataclass(frozen=True)
class Summary:
    """Layers, shapes, parameters and multiply-adds of a network, and the shapes at its gates."""

    target: NameArgument = "resnet18"
    """A run folder; resnet18, resnet34, resnet50, resnet101, resnet152 or cnn; timm:NAME,
    torchvision:NAME, or package.module:callable of your own."""
    network: tyro.conf.OmitArgPrefixes[NetworkSettings] = field(default_factory=NetworkSettings)
    num_classes: int = 10
    """Of a network that is built here."""
    image_size: int | None = None
    """Pixels. Default: the network's own, or else 32."""

    def __call__(self) -> None:
        from attnscope.networks.build import MODEL_NAMES, build_model
        from attnscope.networks.source import NetworkSource
        from attnscope.networks.summary import summarize

        if self.target in MODEL_NAMES and not Path(self.target).is_dir():
            network = asdict(self.network)
            if network.pop("model") is not None:
                raise InputError(f"two networks are named; leave --model out, or {self.target}")
            network["attention"] = network["attention"] or "cbam"
            network["gate_start"] = network["gate_start"] or "half"
            model = build_model(self.target, num_classes=self.num_classes, **network)
            size = self.image_size or 32
        else:
            target = NetworkSource(self.target, image_size=self.image_size).load()
            model, size = target.model, target.image_size
        if size < 8:
            raise InputError(f"image size is {size}; it must be 8 or more")
        print(summarize(model, size))
