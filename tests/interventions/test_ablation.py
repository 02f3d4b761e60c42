"""Mean ablation of channels, in networks whose channel weights are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
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
from tests.interventions.toy import Toy, toy_images, toy_setup
from tests.making import refused


class Weighted(nn.Module):
    """Logit k is the sum over the channels of class k of gate times a known weight.

    There are twelve channels, four for each class. The gate of a channel and its weight increase
    with its number within the class. With ``invert``, the weight decreases.
    """

    def __init__(self, invert: bool = False) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(3, 12), nn.Sigmoid())
        strength = torch.arange(1.0, 5.0).repeat(3)
        weight = strength.flip(0) if invert else strength
        with torch.no_grad():
            of_class = torch.eye(3).repeat_interleave(4, 0)
            self.gate[0].weight.copy_(of_class * strength[:, None])
            self.gate[0].bias.fill_(-1)
        self.register_buffer("weight", of_class * weight[:, None])

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x.mean((2, 3)))[:, :, None, None]
        blank = (x * 0 + 1).mean(1, keepdim=True).repeat(1, 12, 1, 1)
        return (blank * gate).mean((2, 3)) @ self.weight


@pytest.mark.parametrize("invert", [False, True])
def test_ablation_shows_whether_the_highest_gates_matter(tmp_path: Path, invert: bool) -> None:
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
    # By hand: the channel with the highest gate is the fourth of the image's class.
    mean, values = setup.mean_gate("gate"), recording.gate("gate")
    rows = setup.sample(20)
    labels = recording.labels[rows]
    assert np.bincount(labels).min() >= 6
    expected = []
    for row, label in zip(rows, labels, strict=True):
        gate = values[row].astype(np.float64)
        edited = gate.copy()
        edited[gate.argmax()] = mean[gate.argmax()]
        both = margins(np.stack([edited, gate]) @ model.weight.numpy(), np.array([label, label]))
        expected.append(both[0] - both[1])
    assert few.loc["top gate", "margin_change"] == pytest.approx(np.mean(expected), abs=1e-5)
    assert few.loc["random", "margin_change"] == pytest.approx(few.loc["random", "null"])
    assert np.isnan(few.loc["random", "p"])
    if invert:  # the highest gates matter least
        assert few.loc["top gate", "p"] > 0.5
    else:
        assert few.loc["top gate", "p"] == pytest.approx(1 / 61)
        assert few.loc["top gate", "margin_change"] < few.loc["top gate", "null_low"]
        assert few.loc["bottom gate", "p"] > 0.9
    # All channels have the same norm, so that both rankings are equal.
    for column in ("margin_change", "p"):
        assert few.loc["top gate", column] == few.loc["top gate x norm", column]


def test_ablation_stops_drawing_where_no_order_is_special(tmp_path: Path) -> None:
    """p is that of the drawn values in their order; without an early stop it is the full one."""
    model, images = Weighted().eval(), toy_images(60)
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    setup = InterventionSetup(model, images, recording)
    some = {"shares": (1.0, 0.5), "draws": 50, "images": 20, "progress": False}
    full = ablate_channels(setup, exceedances=None, **some)
    early = ablate_channels(setup, exceedances=10, **some)
    assert set(full["draws"]) == {50}
    # All channels are ablated in every draw, so that each of them is a tie.
    every = early[early["share"] == 1]
    assert set(every["draws"]) == {20}
    assert every["p"].dropna().eq(1).all()
    assert every["p_draws"].dropna().eq(10).all()
    half, of_full = (found[found["share"] == 0.5].set_index("order") for found in (early, full))
    assert set(half["draws"]) == {50}  # the top gates matter, which takes all draws
    assert half.loc["top gate", "p"] == of_full.loc["top gate", "p"] == pytest.approx(1 / 51)
    assert half.loc["bottom gate", "p_draws"] < 50
    for column in ("change", "margin_change", "margin_low"):
        orders = early["order"] != "random"
        pd.testing.assert_series_equal(early.loc[orders, column], full.loc[orders, column])


def test_ablation_leaves_out_a_gate_with_one_value_for_all_channels(tmp_path: Path) -> None:
    class WithSingleValue(Toy):
        def __init__(self) -> None:
            super().__init__("used")
            self.one = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * self.one(x.mean((2, 3)))[:, :, None, None])

    torch.manual_seed(0)
    model, images = WithSingleValue().eval(), toy_images(30)
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    assert recording.gate("one").shape == (30,)
    setup = InterventionSetup(model, images, recording)
    found = ablate_channels(setup, shares=(0.5,), draws=5, images=9, progress=False)
    assert set(found["gate"]) == {"gate"}
    assert set(found["channels"]) == {2}


def test_ablation_ranks_by_gate_times_norm(tmp_path: Path) -> None:
    class LargeNorm(Weighted):
        def forward(self, x: Tensor) -> Tensor:
            gate = self.gate(x.mean((2, 3)))[:, :, None, None]
            blank = (x * 0 + 1).mean(1, keepdim=True).repeat(1, 12, 1, 1)
            scale = torch.where(torch.arange(12) % 4 == 0, 100.0, 1.0)[:, None, None]
            return (blank * scale * gate).mean((2, 3)) @ self.weight

    model, images = LargeNorm().eval(), toy_images(60)
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    setup = InterventionSetup(model, images, recording)
    found = ablate_channels(setup, shares=(1 / 12,), draws=40, images=20, progress=False)
    found = found.set_index("order")
    # The channel with the largest norm dominates the logit, though its gate is the lowest of its class.
    assert (
        found.loc["top gate x norm", "margin_change"] < 5 * found.loc["top gate", "margin_change"]
    )
    assert found.loc["top gate x norm", "p"] == pytest.approx(1 / 41)


def test_ablation_refuses_wrong_numbers(tmp_path: Path) -> None:
    setup = toy_setup("used", tmp_path)
    for share in (0.0, 1.5, float("nan")):
        with refused("AS816", names=(share,)):
            ablate_channels(setup, shares=(0.5, share), progress=False)
    with refused("AS816"):
        ablate_channels(setup, shares=(), progress=False)
    with refused("AS817", names=(0,)):
        ablate_channels(setup, draws=0, progress=False)
    with refused("AS716", names=(0,)):
        ablate_channels(setup, exceedances=0, progress=False)
    with refused("AS801", names=(0,)):
        ablate_channels(setup, images=0, progress=False)


def test_ablation_refuses_a_network_without_channel_gates(tmp_path: Path) -> None:
    class Spatial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Sigmoid())

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.gate(x)).mean((2, 3))

    model, images = Spatial().eval(), toy_images(30)
    recording = capture(model, images, tmp_path / "r", grad_cam_layers=(), progress=False)
    assert isinstance(recording, Recording)
    with refused("AS815", names=(recording.folder,)):
        ablate_channels(InterventionSetup(model, images, recording), progress=False)
