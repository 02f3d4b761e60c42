"""Gates over flattened positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnscope.gates import as_factor, edit_gates, find_gates, watch_gates


def test_a_full_gate_over_tokens_has_the_grid_of_the_image() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.patch, self.mix = nn.Conv2d(3, 6, 2, 2), nn.Conv1d(6, 6, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patch(x).flatten(2).transpose(1, 2)
            self.gate = torch.sigmoid(self.mix(tokens.transpose(1, 2))).transpose(1, 2)
            return (tokens * self.gate).mean(1)

    # 16 positions are no 4 × 4 here, and 8 positions have no square at all.
    for height, width in ((4, 16), (16, 4), (4, 8)):
        model = Tokens().eval()
        x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
        (gate,) = find_gates(model, x)
        assert (gate.kind, gate.axes, gate.size) == ("full", "NCHW", "6 channels")
        assert gate.grid == (height // 2, width // 2)
        with torch.no_grad(), watch_gates(model, [gate]) as read:
            plain = model(x)
        by_hand = model.gate.transpose(1, 2).unflatten(2, (height // 2, width // 2))
        assert torch.equal(read[gate.name], by_hand)
        own = as_factor(read[gate.name], gate)
        with torch.no_grad(), edit_gates(model, {gate.name: lambda g, f, own=own: own}, [gate]):
            assert torch.equal(model(x), plain)
