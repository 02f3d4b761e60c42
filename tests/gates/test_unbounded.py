"""Multipliers without bounds: listed, and found, read and edited on request."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attnscope import Normalization, Recording, capture, statistics
from attnscope.gates import edit_gates, find_gates, inspect_gates, watch_gates
from attnscope.kinds import Gate, searched_kinds
from attnscope.plots import PLOTS
from attnscope.report import write_figures

KINDS = [*searched_kinds(), "unbounded"]


class Multipliers(nn.Module):
    """A product of every kind: without bounds, with one bound, a normalization, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.per_channel = nn.Linear(8, 8)
        self.per_position = nn.Conv2d(8, 1, 1)
        self.head = nn.Linear(8, 5)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        scale = self.per_channel(x.mean((2, 3)))
        x = x * scale[:, :, None, None]
        weight = nn.functional.softplus(self.per_position(x))
        x = x * weight
        x = x / (x.std((2, 3), keepdim=True) + 1e-3)
        x = x * torch.sigmoid(self.per_position(x))
        divisor = self.per_position(x) + 9
        self.seen = [scale, weight, divisor]
        return self.head((x / divisor).mean((2, 3)))


@pytest.fixture
def network() -> Multipliers:
    torch.manual_seed(0)
    return Multipliers().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_multipliers_without_bounds_are_listed_and_are_no_gates(
    network: Multipliers, images: Tensor
) -> None:
    found = inspect_gates(network, images)
    assert [gate.name for gate in found.gates] == ["sigmoid"]
    codes = [other.code for other in found.ungated if other.activation == "none"]
    assert codes == ["unbounded", "unbounded", "statistic", "unbounded"]


def test_multipliers_without_bounds_are_found_on_request_in_order(
    network: Multipliers, images: Tensor
) -> None:
    found = inspect_gates(network, images, KINDS)
    assert [(gate.name, gate.kind, gate.axes) for gate in found.gates] == [
        ("multiplier", "unbounded", "NC"),
        ("multiplier#2", "unbounded", "NHW"),
        ("sigmoid", "spatial", "NHW"),
        ("multiplier#3", "unbounded", "NHW"),
    ]
    assert [other.code for other in found.ungated if other.activation == "none"] == ["statistic"]


def test_multipliers_without_bounds_are_read_as_they_multiply(
    network: Multipliers, images: Tensor
) -> None:
    gates = find_gates(network, images, KINDS)
    with torch.no_grad(), watch_gates(network, gates) as values:
        network(images)
    scale, weight, divisor = network.seen
    torch.testing.assert_close(values["multiplier"], scale, rtol=0, atol=0)
    torch.testing.assert_close(values["multiplier#2"], weight[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(values["multiplier#3"], 1 / divisor[:, 0], rtol=0, atol=0)


def test_edit_of_a_multiplier_changes_its_product_alone(
    network: Multipliers, images: Tensor
) -> None:
    gates = find_gates(network, images, KINDS)
    plain = network(images)
    for gate in gates:
        with edit_gates(network, {gate.name: lambda g, x: g}, gates):
            torch.testing.assert_close(network(images), plain, rtol=0, atol=0)
    with edit_gates(network, {"multiplier#3": lambda g, x: 2 * g}, gates):
        twice = network(images)
    bias = network.head.bias
    torch.testing.assert_close(twice - bias, 2 * (plain - bias), rtol=1e-5, atol=1e-6)


def test_names_of_gates_do_not_depend_on_requested_multipliers(
    network: Multipliers, images: Tensor
) -> None:
    def bounded(gates: list[Gate]) -> list[Gate]:
        return [gate for gate in gates if gate.kind != "unbounded"]

    assert bounded(find_gates(network, images, KINDS)) == find_gates(network, images)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A recording of all multipliers of the network."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(20, 3, 8, 8, generator=generator)
    labels = torch.arange(20) % 5
    found = capture(
        Multipliers().eval(),
        TensorDataset(images, labels),
        tmp_path_factory.mktemp("unbounded") / "recording",
        classes=list("abcde"),
        normalization=Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        grad_cam_layers=(),
        kinds=KINDS,
        progress=False,
    )
    assert isinstance(found, Recording)
    return found


def test_recording_keeps_multipliers_without_bounds(recording: Recording) -> None:
    again = Recording(recording.folder)
    assert again.gates == recording.gates
    assert (again.info("multiplier").lo, again.info("multiplier").hi) == (-np.inf, np.inf)
    assert not again.verify()
    manifest = json.loads((recording.folder / "manifest.json").read_text())
    assert manifest["gates"][0]["hi"] is None
    assert again.channel("multiplier").shape == (20, 8)
    assert again.spatial("multiplier#2").shape == (20, 8, 8)


def test_states_exist_for_gates_with_bounds_only(recording: Recording) -> None:
    state = statistics.gate_state(recording).set_index("gate")
    assert (
        state.loc[["multiplier", "multiplier#2"], ["saturated_low", "stuck"]].isna().all(axis=None)
    )
    assert state.loc["sigmoid", ["saturated_low", "stuck"]].notna().all()
    assert state["constant"].notna().all()
    shown = PLOTS["gate_state"].compute(recording)
    assert list(shown.state["gate"]) == ["sigmoid"]
    assert shown.without_bounds == 3


def test_linear_probe_reads_a_multiplier_as_it_is(recording: Recording) -> None:
    values, clipped = statistics.gate_logits(recording, "multiplier")
    np.testing.assert_array_equal(values, recording.gate("multiplier"))
    assert clipped == 0


def test_every_plot_draws_multipliers_without_bounds(recording: Recording, tmp_path: Path) -> None:
    names = {file.stem for file in write_figures(recording.folder, tmp_path)}
    assert {"channel_gates", "gate_profiles", "gate_state", "spatial_maps"} <= names
