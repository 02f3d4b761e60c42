"""Concept erasure, against a plain computation and networks in which the answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from attnscope import edit_gates
from attnscope.interventions import run_experiments_in
from attnscope.interventions.concepts import _Erased, erase_class
from attnscope.interventions.leace import Eraser
from attnscope.statistics.logits import logits_of_values
from tests.interventions.known import best_losses, known_setup


def values_of_classes(units: int = 6, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(240) % classes
    mixing = rng.normal(size=(units, units))
    return (
        rng.normal(size=(240, units)) + rng.normal(size=(classes, units))[labels]
    ) @ mixing, labels


def test_erased_values_have_equal_class_means_and_no_linear_probe_reads_them() -> None:
    values, labels = values_of_classes()
    eraser = Eraser.fit(values, labels)
    erased = values + eraser.change(values)
    assert eraser.rank == 2
    means = np.stack([erased[labels == k].mean(0) for k in range(3)])
    np.testing.assert_allclose(means, np.repeat(means[:1], 3, 0), atol=1e-9)
    before, after = (
        LogisticRegression(max_iter=500).fit(x, labels).score(x, labels) for x in (values, erased)
    )
    assert before > 0.7
    assert after == pytest.approx(1 / 3, abs=0.02)
    # Erasing twice changes nothing more.
    np.testing.assert_allclose(eraser.change(erased), 0, atol=1e-9)


def test_a_random_subspace_leaves_the_class_readable() -> None:
    values, labels = values_of_classes()
    eraser = Eraser.fit(values, labels)
    basis = eraser.random_basis(np.random.default_rng(1))
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-12)
    kept = values + eraser.change(values, basis)
    assert LogisticRegression(max_iter=500).fit(kept, labels).score(kept, labels) > 0.5


def test_as_many_directions_as_values_are_all_that_there_is() -> None:
    values, labels = values_of_classes(units=2)
    eraser = Eraser.fit(values, labels)
    erased = values + eraser.change(values)
    np.testing.assert_allclose(erased, np.repeat(eraser.mean[None], 240, 0), atol=1e-8)


def test_erasing_the_class_costs_only_where_it_is_used(tmp_path: Path) -> None:
    found = {
        of: erase_class(known_setup(of, tmp_path), draws=19, progress=False).iloc[0]
        for of in ("wide", "ignored", "class")
    }
    used, ignored = found["wide"], found["ignored"]
    assert (used["rank"], used["units"], used["is_removal"]) == (2, 12, False)
    assert found["class"]["units"] == 3
    assert found["class"]["change"] < -0.4
    assert used["change"] < -0.4
    assert max(used["p"], used["p_log_loss"]) < 0.01
    assert used["p_random"] == pytest.approx(1 / 20)
    assert used["log_loss_change"] > used["null_high"]
    assert ignored["change"] == ignored["log_loss_change"] == 0
    assert ignored["p"] == ignored["p_random"] == 1
    assert used["moved"] > 0


def test_erased_gates_are_those_that_the_network_is_run_with(tmp_path: Path) -> None:
    setup = known_setup("class", tmp_path)
    gate = setup.gates[0]
    erased = _Erased.of(setup, gate, setup.scored, 3)
    donors = np.flatnonzero(setup.donors)
    own = setup.recording.gate(gate.name).astype(np.float64)
    logits = np.log(own / (1 - own))
    eraser = Eraser.fit(logits[donors], setup.recording.labels[donors])
    new = 1 / (1 + np.exp(-(logits + eraser.change(logits))[setup.scored]))
    np.testing.assert_allclose(erased.edited[0], new, atol=1e-5)
    assert ((erased.edited > 0) & (erased.edited < 1)).all()
    sizes = [
        ((logits_of_values(values, gate)[0] - logits[setup.scored]) ** 2).mean()
        for values in erased.edited
    ]
    np.testing.assert_allclose(sizes, sizes[0], rtol=1e-3)
    x = torch.stack([setup._dataset[int(row)][0] for row in setup.scored])
    value = torch.from_numpy(new.astype(np.float32))[:, :, None, None]
    with torch.no_grad(), edit_gates(setup.model, {gate.name: lambda g, f: value}):
        wanted = setup.model(x).numpy()
        own_logits = setup.recording.logits[setup.scored]
    labels = setup.recording.labels[setup.scored]
    found = erase_class(setup, draws=1, progress=False).iloc[0]
    shift = best_losses(wanted, labels) - best_losses(own_logits, labels)
    assert found["log_loss_change"] == pytest.approx(shift.mean(), abs=1e-3)


def test_an_interrupted_erasure_continues_with_the_same_results(tmp_path: Path) -> None:
    setup = known_setup("backup", tmp_path)
    whole = run_experiments_in(tmp_path / "whole", setup, experiments=["concept"], progress=False)

    class Stop(Exception):
        pass

    calls = 0
    rerun = type(setup.model).forward

    def stopping(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 60:
            raise Stop
        return rerun(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(setup.model), "forward", stopping)
        with pytest.raises(Stop):
            run_experiments_in(tmp_path / "out", setup, experiments=["concept"], progress=False)
    found = run_experiments_in(tmp_path / "out", setup, experiments=["concept"], progress=False)
    assert found.tables["concept"].equals(whole.tables["concept"])
    assert found.about["concept_left_out"] == {}
