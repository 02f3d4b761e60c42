"""Optimizers and schedules, as the training loop steps them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from attnscope.training import loop as train_module
from attnscope.training.optimization import build_optimizer, build_schedule
from tests.training.toys import (
    FAST,
    TINY,
    Spy,
    run,
    small,
)


def watch_optimizer(monkeypatch: pytest.MonkeyPatch) -> list[torch.optim.SGD]:
    """A list that will hold the optimizer of the run, with its groups noted before each step."""
    made: list[torch.optim.SGD] = []
    build = train_module.build_optimizer

    def spy(*arguments: Any) -> torch.optim.SGD:
        optimizer = build(*arguments)
        optimizer.noted = []  # type: ignore[attr-defined]
        optimizer.register_step_pre_hook(
            lambda o, *_: o.noted.append([dict(g) for g in o.param_groups])
        )
        made.append(optimizer)
        return optimizer

    monkeypatch.setattr(train_module, "build_optimizer", spy)
    return made


def test_sgd_decay_groups_and_one_cycle_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = watch_optimizer(monkeypatch)
    model = small(attention="se", reduction=4)
    recipe = replace(TINY, epochs=4)
    run(tmp_path / "run", model, recipe=recipe)
    (optimizer,) = made
    assert type(optimizer) is torch.optim.SGD
    names = {id(p): name for name, p in model.named_parameters()}
    decays = {names[id(p)]: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert set(decays) == set(names.values())
    for module_name, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            norm_or_bias = isinstance(module, nn.BatchNorm2d) or name == "bias"
            expected = 0.0 if norm_or_bias else 5e-4
            assert decays[f"{module_name}.{name}"] == expected
    noted = optimizer.noted  # type: ignore[attr-defined]
    assert len(noted) == 12
    for group in range(2):
        rates = [groups[group]["lr"] for groups in noted]
        momenta = [groups[group]["momentum"] for groups in noted]
        assert all(groups[group]["nesterov"] for groups in noted)
        # The formula of one cycle: cosine rise from 1/25 in three steps, cosine decay to almost 0.
        top = recipe.learning_rate
        for step, rate in enumerate(rates):
            if step <= 2:
                expected = top / 25 + (top - top / 25) * (1 - math.cos(math.pi * step / 2)) / 2
            else:
                low = top / 25 / 1e4
                expected = low + (top - low) * (1 + math.cos(math.pi * (step - 2) / 9)) / 2
            assert rate == pytest.approx(expected, rel=1e-6)
        assert momenta[2] == pytest.approx(0.85)
        assert momenta[0] == momenta[-1] == pytest.approx(0.95)


@pytest.mark.parametrize("steps", range(1, 14))
def test_one_cycle_of_any_length(steps: int) -> None:
    """OneCycleLR divides by zero if its rise has one step."""
    optimizer = build_optimizer(Spy(), FAST, FAST.learning_rate)
    schedule = build_schedule(optimizer, FAST, steps)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert all(0 < rate <= FAST.learning_rate * 1.000001 for rate in rates)
    assert rates[0] == pytest.approx(FAST.learning_rate / 25)
    if steps > 1:
        assert max(rates) > FAST.learning_rate / 2
