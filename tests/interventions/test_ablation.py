"""Mean ablation of channels, in networks whose channel weights are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attnscope import Recording, capture
from attnscope.interventions import (
    InterventionSetup,
    ablate_channels,
)
from attnscope.interventions.work import Work
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


def overlapping_images(count: int = 180) -> TensorDataset:
    """Return images of which some look like another class.

    Where the network separates the classes, the log loss at the best temperature is 0, whatever is
    ablated.
    """
    images, labels = toy_images(count).tensors
    rng = torch.Generator().manual_seed(1)
    noise = 0.25 * torch.randn(count, 3, 1, 1, generator=rng)
    return TensorDataset((images + noise).clamp(0, 1), labels)


def best_log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Compute the mean log loss at the best of many temperatures."""
    inverse = np.geomspace(0.01, 100, 20_001)
    scaled = inverse[:, None, None] * logits
    scores = scaled - scaled.max(2, keepdims=True)
    normalized = scores - np.log(np.exp(scores).sum(2, keepdims=True))
    return float(-normalized[:, np.arange(len(labels)), labels].mean(1).max())


@pytest.mark.parametrize("invert", [False, True])
def test_ablation_shows_whether_the_highest_gates_matter(tmp_path: Path, invert: bool) -> None:
    model, images = Weighted(invert).eval(), overlapping_images()
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    setup = InterventionSetup(model, images, recording)
    found = ablate_channels(setup, shares=(1 / 12, 0.5), draws=60, images=60, progress=False)
    assert len(found) == 10
    assert set(found["channels"]) == {1, 6}
    few = found[found["channels"] == 1].set_index("order")
    # By hand: the one channel with the highest gate of each image.
    mean, values = setup.mean_gate("gate"), recording.gate("gate")
    rows = setup.sample(60)
    labels = recording.labels[rows]
    assert np.bincount(labels).min() >= 6
    gates = values[rows].astype(np.float64)
    edited = gates.copy()
    edited[np.arange(60), gates.argmax(1)] = mean[gates.argmax(1)]
    before, after = (best_log_loss(each @ model.weight.numpy(), labels) for each in (gates, edited))
    assert few.loc["top gate", "log_loss_change"] == pytest.approx(after - before, abs=1e-5)
    assert few.loc["random", "log_loss_change"] == pytest.approx(few.loc["random", "null"])
    assert np.isnan(few.loc["random", "p"])
    if invert:  # the highest gates matter least
        assert few.loc["top gate", "p"] > 0.2
    else:
        assert few.loc["top gate", "p"] == pytest.approx(1 / 61)
        assert few.loc["top gate", "log_loss_change"] > few.loc["top gate", "null_high"]
        assert few.loc["bottom gate", "p"] > 0.5
    # All channels have the same norm, so that both rankings are equal.
    for column in ("log_loss_change", "p"):
        assert few.loc["top gate", column] == few.loc["top gate x norm", column]


def test_ablation_stops_drawing_where_no_order_is_special(tmp_path: Path) -> None:
    """p is that of the drawn values in their order; without an early stop it is the full one."""
    model, images = Weighted().eval(), overlapping_images()
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    setup = InterventionSetup(model, images, recording)
    some = {"shares": (1.0, 0.25), "draws": 50, "images": 60, "progress": False}
    full = ablate_channels(setup, exceedances=None, **some)
    early = ablate_channels(setup, exceedances=10, **some)
    assert set(full["draws"]) == {50}
    # All channels are ablated in every draw, so that each of them is a tie.
    every = early[early["share"] == 1]
    assert set(every["draws"]) == {20}
    assert every["p"].dropna().eq(1).all()
    assert every["p_draws"].dropna().eq(10).all()
    quarter, of_full = (found[found["share"] == 0.25].set_index("order") for found in (early, full))
    assert set(quarter["draws"]) == {50}  # the top gates matter, which takes all draws
    assert quarter.loc["top gate", "p"] == of_full.loc["top gate", "p"] == pytest.approx(1 / 51)
    assert quarter.loc["bottom gate", "p_draws"] < 50
    for column in ("change", "log_loss_change", "log_loss_low"):
        orders = early["order"] != "random"
        pd.testing.assert_series_equal(early.loc[orders, column], full.loc[orders, column])


def test_ablation_keeps_losses_of_what_it_has_finished_and_no_logits(tmp_path: Path) -> None:
    setup, work = toy_setup("used", tmp_path), Work()
    ablate_channels(setup, shares=(0.5,), draws=5, images=9, work=work)
    for what in ("orders", "draws 0"):
        assert set(work.pieces.find(f"gate/{what}")) == {"log_loss", "right"}
        assert f"gate/{what}/0" not in work.pieces


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

    model, images = LargeNorm().eval(), overlapping_images()
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    setup = InterventionSetup(model, images, recording)
    found = ablate_channels(setup, shares=(1 / 12,), draws=40, images=60, progress=False)
    found = found.set_index("order")
    # The channel with the largest norm dominates the logit, though its gate is the lowest of its class.
    assert (
        found.loc["top gate x norm", "log_loss_change"]
        > 5 * found.loc["top gate", "log_loss_change"]
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
