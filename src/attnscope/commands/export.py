"""``attnscope export``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnscope.commands.options import TargetArgument
from attnscope.errors import InputError, first_line


@dataclass(frozen=True)
class Export:
    """Write a network as a file for other programs: .pt2 of torch.export, or ONNX."""

    target: TargetArgument
    """Network: a run folder, timm:NAME, torchvision:NAME, folded:FOLDER or
    package.module:callable."""
    out: Path
    """New file. Its suffix is the format: .pt2 or .onnx. ONNX needs attnscope[onnx] and is compared
    with the network in onnxruntime."""
    weights: Path | None = None
    """Weights of the network: a safetensors file or a PyTorch state dict. Default: the weights that
    the network is built with."""
    image_size: int | None = None
    """Height and width of the images in pixels, which the file requires. Default: that of the
    network."""
    channels: int = 3
    """Channels of the images."""
    with_gates: bool = False
    """Add the gates as outputs gate/NAME, in the shapes in which they multiply."""

    def __call__(self) -> None:
        import torch

        from attnscope.gates.graph import export_gates
        from attnscope.gates.graph_network import GraphNetwork
        from attnscope.networks.channels import expect_channels
        from attnscope.networks.exporting import export_file
        from attnscope.networks.known import NetworkSource
        from attnscope.networks.number_types import number_type

        if self.channels < 1:
            raise InputError("AS960", f"channels is {self.channels}; it must be at least 1")
        source = NetworkSource(self.target, self.weights, image_size=self.image_size)
        source.expect_weights()
        found = source.load()
        network = found.model
        if not isinstance(network, GraphNetwork):
            shape = (4, self.channels, found.image_size, found.image_size)
            noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            noise = noise.to(number_type(network))
            try:
                network = export_gates(network, noise)
            except InputError:
                raise
            except Exception as error:  # a network can raise anything
                expect_channels(network, noise)
                size = found.image_size
                raise InputError(
                    "AS961",
                    f"{self.target} does not run on images of {self.channels}×{size}×{size} "
                    f"({type(error).__name__}: {first_line(error)}); try another --image-size",
                ) from None
        written = export_file(network, self.out, gates=self.with_gates)
        print(f"Outputs: {', '.join(written.outputs)}")
        if written.difference is not None:
            print(f"Largest relative difference in onnxruntime: {written.difference:.1e}")
        print(written.file)
