"""Networks whose gates are known: each must be read and edited exactly, or refused by name."""

from __future__ import annotations

import warnings

import pytest
import torch

from attnscope.gates import find_gates, watch_gates
from tests.gates.case_networks import CASES, Case, verdict
from tests.making import refused


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_the_gates_of_a_case_are_right(build: type[Case]) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        what, text = verdict(build)
    assert what == "right", text


def test_a_module_that_runs_twice_in_a_forward_cannot_be_called_alone() -> None:
    torch.manual_seed(0)
    model = CASES["shared_module"]().eval()
    x = model.inputs(2)
    gates = find_gates(model, x)
    assert [gate.entry for gate in gates] == [0, 1]
    features = model.stem(x).relu()
    with watch_gates(model, gates), refused("AS413", names=("se",)):
        model.se(features)
    once = CASES["calls_backbone"]().eval()
    with watch_gates(once, find_gates(once, x)) as seen:
        once.backbone(x)
        first = {name: value.clone() for name, value in seen.items()}
        once.backbone(x + 1)
        assert list(seen) == list(first)
        assert not any(torch.equal(seen[name], first[name]) for name in first)
