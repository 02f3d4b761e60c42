"""The norms of channels by which `ablate_channels` orders them, for features in any layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from attnscope.interventions.ablation import _norms
from attnscope.kinds import Gate


@pytest.mark.parametrize(
    ("layout", "order"),
    [("NCHW", (0, 1, 2)), ("NC(HW)", (0, 1, 2)), ("N(HW)C", (0, 2, 1)), ("(HW)NC", (2, 0, 1))],
)
def test_norms_are_over_all_positions(layout: str, order: tuple[int, ...]) -> None:
    features = torch.randn(3, 4, 6)
    own = (
        features.permute(order).reshape(3, 4, 2, 3) if layout == "NCHW" else features.permute(order)
    )

    class Cache:
        def rerun(self, edits: Mapping[str, Callable[[Tensor, Tensor], Tensor]]) -> None:
            edits["gate"](torch.ones(1), own)

    gate = Gate("gate", "channel", 4, None, "sigmoid", 0, 1, 1, layout=layout)
    torch.testing.assert_close(_norms(Cache(), gate), features.norm(dim=2))
