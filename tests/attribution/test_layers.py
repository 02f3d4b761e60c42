"""The layer that is explained by default is the last feature map, and never a gate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnscope.attribution import last_map_layer
from attnscope.gates.detect import find_gates


class Gate(nn.Module):
    """Makes a gate of the features' own grid; the network multiplies."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).sigmoid()


class EndsInAGate(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = Gate(8, outputs)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.fc((x * self.gate(x)).mean((2, 3)))


IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_spatial_gate_after_the_last_layer_is_skipped() -> None:
    model = EndsInAGate(outputs=1).eval()
    assert last_map_layer(model, IMAGES) == "body"  # a map of one channel, known as a gate or not
    assert last_map_layer(model, IMAGES, find_gates(model, IMAGES)) == "body"


def test_a_known_gate_of_the_features_shape_is_skipped() -> None:
    model = EndsInAGate(outputs=8).eval()
    gates = find_gates(model, IMAGES, ["full"])
    assert [gate.made_in for gate in gates] == ["gate"]
    assert last_map_layer(model, IMAGES, gates) == "body"
