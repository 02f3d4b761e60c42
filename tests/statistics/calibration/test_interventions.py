"""Interventions on networks in which the order of channels and pixels is uninformative."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from attnscope import capture
from attnscope.interventions import InterventionSetup, ablate_channels, erase
from tests.statistics.calibration.rates import TEN, TIMES, expect_coverage, expect_false_positives


def noise(count, size):
    rng = torch.Generator().manual_seed(5)
    return TensorDataset(torch.rand(count, 3, *size, generator=rng), torch.arange(count) % 3)


class Unrelated(nn.Module):
    """Twelve channels whose weights in the logits are independent of their gates.

    The ranking of the channels is the same for all images, and their gates change together. With
    different rankings the null would not hold: the mean lowers the highest gates of an image.
    """

    def __init__(self):
        super().__init__()
        self.squash = nn.Hardsigmoid()
        self.register_buffer("base", torch.linspace(-1.5, 1.5, 12))
        self.register_buffer("part", torch.ones(12, 3))

    def forward(self, x):
        channels = x.reshape(len(x), 12, 2, 2)
        own = channels.mean((2, 3))
        gate = self.squash(self.base + own[:, :1])
        return ((channels * 0 + 1) * gate[:, :, None, None]).mean((2, 3)) @ self.part


def test_ablation_with_an_uninformative_ranking(tmp_path):
    model, images = Unrelated().eval(), noise(120, (4, 4))
    names = dict(classes=TEN[:3], grad_cam_layers=(), progress=False)
    recording = capture(model, images, tmp_path / "r", **names)
    p = {"top gate": [], "bottom gate": []}
    for i in range(200 * TIMES):
        model.part.fill_(1)
        setup = InterventionSetup(model, images, recording, images=30, seed=i)
        model.part.copy_(torch.randn(12, 3, generator=torch.Generator().manual_seed(i)))
        settings = dict(shares=(0.25,), draws=19, images=9, resamples=1, progress=False)
        found = ablate_channels(setup, **settings).set_index("order")
        for order, values in p.items():
            values.append(found.loc[order, "p"])
    for order, values in p.items():
        expect_false_positives(values, of=f"p, {order}")


def test_the_interval_of_the_area_above_random_orders(tmp_path):
    """If only the mean over pixels counts, every order of noise pixels is a random order."""

    class Brightness(nn.Module):
        def __init__(self):
            super().__init__()
            self.squash = nn.Sigmoid()

        def forward(self, x):
            gated = x * self.squash(x.mean((2, 3), keepdim=True))
            bright = 40 * (x.mean((1, 2, 3)) - 0.5) + 0 * gated.mean((1, 2, 3))
            return torch.stack([-bright, bright, bright * 0 - 9], 1)

    model, images = Brightness().eval(), noise(6000, (6, 6))
    names = dict(classes=TEN[:3], grad_cam_layers=(), progress=False)
    recording = capture(model, images, tmp_path / "r", **names)
    ends = {"deletion": [], "insertion": []}
    for i in range(200 * TIMES):
        setup = InterventionSetup(model, images, recording, images=150, seed=i)
        areas = erase(setup, steps=3, images=150, resamples=200, progress=False).areas
        areas = areas[(areas["fill"] == "mean") & (areas["order"] == "center")].set_index("mode")
        for mode in ends:
            ends[mode].append(tuple(areas.loc[mode, ["over_random_low", "over_random_high"]]))
    for mode, each in ends.items():
        expect_coverage(*np.array(each).T, 0, f"over_random, {mode}")
