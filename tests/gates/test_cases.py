"""Networks whose gates are known: each must be read and edited exactly, or refused by name."""

from __future__ import annotations

import warnings

import pytest
import torch

from tests.gates.case_networks import CASES, Case, verdict


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_the_gates_of_a_case_are_right(build: type[Case]) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        what, text = verdict(build)
    assert what == "right", text
