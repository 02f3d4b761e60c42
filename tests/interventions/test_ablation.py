"""Channels set to their mean, in networks whose channels weigh what is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnscope import Recording, capture
from attnscope.interventions import (
    InterventionSetup,
    ablate_channels,
)
from attnscope.statistics.effects import (
    margins,
)
from tests.interventions.toy import Toy, toy_images


class Weighted(nn.Module):
    """Logit k is the sum over the channels of class k of gate times a weight known by hand.

    Twelve channels, four a class; the gate of a channel grows with its number within the class, and
    so does its part in the logit.
    """

    def __init__(self, invert: bool = False) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(3, 12), nn.Sigmoid())
        strength = torch.arange(1.0, 5.0).repeat(3)
        part = strength.flip(0) if invert else strength
        with torch.no_grad():
            of_class = torch.eye(3).repeat_interleave(4, 0)
            self.gate[0].weight.copy_(of_class * strength[:, None])
            self.gate[0].bias.fill_(-1)
        self.register_buffer("part", of_class * part[:, None])

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x.mean((2, 3)))[:, :, None, None]
        blank = (x * 0 + 1).mean(1, keepdim=True).repeat(1, 12, 1, 1)
        return (blank * gate).mean((2, 3)) @ self.part


@pytest.mark.parametrize("invert", [False, True])
def test_ablation_tells_whether_the_highest_gates_matter(tmp_path: Path, invert: bool) -> None:
    model, images = Weighted(invert).eval(), toy_images(60)
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    setup = InterventionSetup(model, images, recording)
    found = ablate_channels(setup, shares=(1 / 12, 0.5), draws=60, images=20, progress=False)
    assert len(found) == 10
    assert set(found["channels"]) == {1, 6}
    few = found[found["channels"] == 1].set_index("order")
    # By hand: of each image the channel with the highest gate is the fourth of its class.
    mean, values = setup.mean_gate("gate"), recording.gate("gate")
    rows = setup.sample(20)
    labels = recording.labels[rows]
    assert np.bincount(labels).min() >= 6
    wanted = []
    for row, label in zip(rows, labels, strict=True):
        gate = values[row].astype(np.float64)
        edited = gate.copy()
        edited[gate.argmax()] = mean[gate.argmax()]
        part = model.part.numpy()
        both = margins(np.stack([edited, gate]) @ part, np.array([label, label]))
        wanted.append(both[0] - both[1])
    assert few.loc["top gate", "margin_change"] == pytest.approx(np.mean(wanted), abs=1e-5)
    assert few.loc["random", "margin_change"] == pytest.approx(few.loc["random", "null"])
    assert np.isnan(few.loc["random", "p"])
    if invert:  # the highest gates are worth least
        assert few.loc["top gate", "p"] > 0.5
    else:
        assert few.loc["top gate", "p"] == pytest.approx(1 / 61)
        assert few.loc["top gate", "margin_change"] < few.loc["top gate", "null_low"]
        assert few.loc["bottom gate", "p"] > 0.9
    # All channels are equally large, so that both rankings are one.
    for column in ("margin_change", "p"):
        assert few.loc["top gate", column] == few.loc["top gate x norm", column]


def test_ablation_of_one_number_for_all_channels(tmp_path: Path) -> None:
    class One(Toy):
        def __init__(self) -> None:
            super().__init__("used")
            self.one = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * self.one(x.mean((2, 3)))[:, :, None, None])

    torch.manual_seed(0)
    model, images = One().eval(), toy_images(30)
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    assert recording.gate("one").shape == (30, 1)
    setup = InterventionSetup(model, images, recording)
    found = ablate_channels(setup, shares=(0.5,), draws=5, images=9, progress=False)
    assert set(found["gate"]) == {"gate"}
    assert set(found["channels"]) == {2}


def test_ablation_by_gate_and_norm(tmp_path: Path) -> None:
    class Loud(Weighted):
        def forward(self, x: Tensor) -> Tensor:
            gate = self.gate(x.mean((2, 3)))[:, :, None, None]
            blank = (x * 0 + 1).mean(1, keepdim=True).repeat(1, 12, 1, 1)
            loud = torch.where(torch.arange(12) % 4 == 0, 100.0, 1.0)[:, None, None]
            return (blank * loud * gate).mean((2, 3)) @ self.part

    model, images = Loud().eval(), toy_images(60)
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    setup = InterventionSetup(model, images, recording)
    found = ablate_channels(setup, shares=(1 / 12,), draws=40, images=20, progress=False)
    found = found.set_index("order")
    # The loudest channel makes the logit, though its gate is the lowest of its class.
    assert (
        found.loc["top gate x norm", "margin_change"] < 5 * found.loc["top gate", "margin_change"]
    )
    assert found.loc["top gate x norm", "p"] == pytest.approx(1 / 41)
