"""``attnscope summary``"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from attnscope.commands.options import TargetArgument, expect_image_size
from attnscope.errors import InputError
from attnscope.training.config import NetworkSettings


@dataclass(frozen=True)
class Summary:
    """List the layers of a network with shapes, parameters and multiply-adds, and its gates."""

    option_groups: ClassVar[dict[str, tuple[str, ...]]] = {"Built-in network": ("network",)}

    target: TargetArgument = "resnet18"
    """Network: a run folder, timm:NAME, torchvision:NAME, folded:FOLDER,
    package.module:callable, or a built-in architecture: resnet18, resnet34, resnet50, resnet101,
    resnet152 or cnn. Default: resnet18."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    num_classes: int = 10
    """Number of classes of a built-in network."""
    image_size: int | None = None
    """Height and width of the images in pixels. Default: that of the network, else 32."""

    def __call__(self) -> None:
        from attnscope.networks.build import MODEL_NAMES, build_model
        from attnscope.networks.known import NetworkSource
        from attnscope.networks.summary import summarize

        if self.target in MODEL_NAMES and not Path(self.target).is_dir():
            network = asdict(self.network)
            if network.pop("model") is not None:
                raise InputError(
                    "AS957", f"{self.target} and --model exclude each other; leave out --model"
                )
            network["attention"] = network["attention"] or "cbam"
            network["gate_start"] = network["gate_start"] or "half"
            model = build_model(self.target, num_classes=self.num_classes, **network)
            size = self.image_size or 32
        else:
            target = NetworkSource(self.target, image_size=self.image_size).load()
            model, size = target.model, target.image_size
        expect_image_size(size)
        print(summarize(model, size))
