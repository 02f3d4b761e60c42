"""The table of exported networks: what it says of a network is so, and faults are seen."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from analysis.coverage import graphs
from analysis.coverage.graphs import PAGE, RESULTS, SOURCES, check
from analysis.coverage.graphs_page import render
from analysis.coverage.networks import FAMILIES, Network, images
from analysis.coverage.running import networks_of, read
from tests.gates.case_networks import CASES


class Gated(nn.Module):
    """A channel gate after a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return (x * torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))).relu()


def network(build: Any = Gated) -> Network:
    return Network("attnscope/gated", build, images, (8,))


def test_the_page_is_made_of_the_stored_results() -> None:
    lines = list(read(RESULTS).values())
    assert render(lines) == PAGE.read_text(encoding="utf-8")
    assert not [line["network"] for line in lines if line.get("wrong")]


def test_no_network_is_left_out() -> None:
    """Networks of torchvision are those of its version, so that their names are not compared."""
    known = {line["network"] for line in read(RESULTS).values()}
    families = json.loads(FAMILIES.read_text(encoding="utf-8"))["smallest"]
    expected = {f"cases/{name}" for name in CASES} | {f"timm/{name}" for name in families}
    expected |= {each.name for each in networks_of(SOURCES, "attnscope/*")}
    assert expected - known == set()


def test_folds_of_the_stored_results_are_exact() -> None:
    for line in read(RESULTS).values():
        single = line.get("folded", 0.0)
        # Half precision rounds to 1e-3, and rounding grows in some networks of random weights.
        assert single <= graphs.EXACT or "half" in line["network"] or line["double"] < 1e-10, line


def test_a_network_is_exported_and_folded() -> None:
    line = check(network())
    assert line["gates"] == {"channel": 1}
    assert line["graph"] == 0
    assert line["forms"] == {"before": 1}
    assert line["folded"] < 1e-6
    assert line["changed"] > 1e-2
    assert line["parameters"] == [16 + 8 + 20, 16 + 8]
    assert line["multiply_adds"] == [64 * 12 + 16, 64 * 12]


def test_another_graph_and_a_wrong_fold_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    export, fold = graphs.export_gates, graphs.fold_graph

    def exported(model: nn.Module, inputs: Any, gates: Any) -> Any:
        made = export(model, inputs, gates)
        made.set_tensor("norm.bias", made.tensor("norm.bias") * (1 + 1e-5))
        return made

    monkeypatch.setattr(graphs, "export_gates", exported)
    monkeypatch.setattr(
        graphs,
        "fold_graph",
        lambda graph, constants: fold(graph, {k: v * 1.01 for k, v in constants.items()}),
    )
    line = check(network())
    assert 0 < line["graph"] < 1e-3
    assert line["folded"] > 1e-3
    assert line["double"] > 1e-3


def test_a_network_without_a_graph_has_a_code_and_a_reason() -> None:
    class ByValues(Gated):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    line = check(network(ByValues))
    assert line["refused"] == "AS416"
    assert line["gates"] == {"channel": 1}
    assert "x.sum" in line["message"]
    assert "skipped" in check(network(lambda: nn.Linear(5, 5)))


def test_cases_are_among_the_networks() -> None:
    names = [each.name for each in networks_of(SOURCES, "cases/*")]
    assert names == [f"cases/{name}" for name in CASES]
    (lazy,) = networks_of(SOURCES, "cases/lazy_layers")
    assert sum(parameter.numel() for parameter in lazy.build().parameters())


def test_numbers_are_written_with_their_units() -> None:
    line = {
        "network": "timm/a",
        "size": 64,
        "gates": {"channel": 2},
        "seconds": 1.0,
        "graph": 0,
        "folded": 3e-7,
        "changed": 0.1,
        "forms": {"after": 2},
        "parameters": [2_000_000, 1_500_000],
        "multiply_adds": [10_000, 9_900],
    }
    rows = [row for row in render([line]).splitlines() if row.startswith("| a |")]
    assert rows == [
        "| a | 64 | 2 channel | equal | 3.0e-07 | 2 after | 2.00 M → 1.50 M (-25.0%) | "
        "10.00 k → 9.90 k (-1.0%) |"
    ]
