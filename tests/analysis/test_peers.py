"""The comparison with other tools does the same work with each of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analysis.peers.__main__ import MODULES, lines_of
from analysis.peers.families import count_readable
from analysis.peers.tools import TOOLS
from attnscope import Recording, build_model

INSTALLED = [
    tool
    for tool in TOOLS
    if tool not in MODULES or importlib.util.find_spec(MODULES[tool]) is not None
]


class Inside(nn.Module):
    """Gates computed between two modules, returned by a sigmoid, and returned by another module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Conv2d(4, 4, 1)
        self.act = nn.Sigmoid()
        self.cap = nn.Softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x * self.act(self.fc(x.mean((2, 3), keepdim=True)))
        x = x * self.cap(x.mean((2, 3), keepdim=True))
        return (x * torch.sigmoid(x.mean(1, keepdim=True))).mean((2, 3))


def test_every_tool_records_the_same_gates_logits_and_maps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(6, 3, 32, 32), torch.arange(6) % 10
    model = build_model(attention="cbam", width=16).eval()
    state = model.state_dict()
    for tool in INSTALLED:
        fresh = build_model(attention="cbam", width=16).eval()  # without the hooks of the others
        fresh.load_state_dict(state)
        (tmp_path / tool).mkdir()
        TOOLS[tool](fresh, images, labels, tmp_path / tool)
    recording = Recording(tmp_path / "attnscope" / "recording")
    assert len(recording.gates) == 16
    for tool in INSTALLED[1:]:
        found = np.load(tmp_path / tool / "record.npz")
        np.testing.assert_allclose(found["logits"], recording.logits, rtol=1e-5, atol=1e-6)
        for gate in recording.gates:
            wanted = recording.gate(gate.name)
            np.testing.assert_allclose(found[gate.name].reshape(wanted.shape), wanted, rtol=1e-5)
        if tool != "pytorch-grad-cam":  # which scales each map to 0 to 1, and to the image's size
            wanted = recording.grad_cam().clip(0)
            maps = found["grad_cam"].reshape(wanted.shape)
            np.testing.assert_allclose(maps, wanted, rtol=1e-2, atol=1e-4)


def test_a_gate_that_no_module_returns_is_not_counted_as_readable() -> None:
    torch.manual_seed(0)
    assert count_readable(Inside().eval(), 16) == (3, 2, 1)


@pytest.mark.parametrize("tool", TOOLS)
def test_lines_are_those_of_the_body(tool: str) -> None:
    assert 0 < lines_of(tool) < 40
    assert lines_of("attnscope") == 3
