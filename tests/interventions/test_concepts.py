"""Concept erasure, against a plain computation and networks in which the answer is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from attnscope import edit_gates
from attnscope.interventions import run_experiments_in
from attnscope.interventions.concepts import _Erased, _outcomes, _table, erase_class
from attnscope.interventions.leace import Eraser
from attnscope.kinds import Gate
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
    assert used["spanned"] == 12
    assert used["probe_before"] > 0.9
    assert used["probe_low"] < used["probe_chance"] < used["probe_high"]
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


@dataclass
class Planted:
    """What `_Erased` needs of an `InterventionSetup`: planted logits, and no network."""

    gate: Gate
    logits: np.ndarray
    labels: np.ndarray
    seed: int = 0
    copies: None = None

    @property
    def donors(self) -> np.ndarray:
        return np.arange(len(self.labels)) % 3 > 0

    @property
    def recording(self) -> Planted:
        return self

    def gates_of(self, name: str, rows: np.ndarray) -> np.ndarray:
        share = {
            "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
            "hardsigmoid": lambda z: np.clip(z + 0.5, 0, 1),
        }[self.gate.activation](self.logits[rows])
        return share.astype(np.float32)

    def rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(0)


def planted(activation: str, scale: float) -> Planted:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 3000)
    logits = (rng.normal(size=(5, 20))[labels] + rng.normal(size=(3000, 20))) * scale
    return Planted(Gate("g", "channel", 20, None, activation, 0, 1, 1), logits, labels)


@pytest.mark.parametrize(
    ("activation", "scale", "restores"),
    [("sigmoid", 1.0, False), ("hardsigmoid", 0.05, False), ("hardsigmoid", 0.5, True)],
)
def test_a_probe_says_whether_clipping_restores_the_class(
    activation: str, scale: float, restores: bool
) -> None:
    setup = planted(activation, scale)
    rows = np.flatnonzero(~setup.donors)
    erased = _Erased.of(setup, setup.gate, rows, 1)
    # The same by hand: a plain LEACE, and the discriminant analysis of scikit-learn.
    values = setup.gates_of("g", np.arange(3000)).astype(np.float64)
    logits = np.log(values / (1 - values)) if activation == "sigmoid" else values
    eraser = Eraser.fit(logits[setup.donors], setup.labels[setup.donors])
    new = logits + eraser.change(logits)
    new = new if activation == "sigmoid" else np.clip(new, 0, 1)
    np.testing.assert_allclose(
        logits_of_values(erased.edited[0], setup.gate)[0], new[rows], atol=1e-4
    )
    for name, each in (("probe_before", logits), ("probe_after", new)):
        lda = LinearDiscriminantAnalysis().fit(each[setup.donors], setup.labels[setup.donors])
        theirs = balanced_accuracy_score(setup.labels[rows], lda.predict(each[rows]))
        assert erased.facts[name] == pytest.approx(theirs, abs=0.03)
    facts = erased.facts
    assert facts["probe_before"] > 0.7
    assert facts["probe_chance"] == pytest.approx(1 / 5, abs=0.01)
    assert (facts["probe_low"] > facts["probe_chance"]) == restores
    assert facts["probe_low"] < facts["probe_after"] < facts["probe_high"]


def test_a_gate_with_constant_channels_is_removed_if_all_that_varies_is_erased() -> None:
    setup = planted("sigmoid", 1.0)
    setup.logits[:, 4:] = 0.3  # four channels vary, and four directions tell five classes apart
    rows = np.flatnonzero(~setup.donors)
    erased = _Erased.of(setup, setup.gate, rows, 1)
    facts = erased.facts
    own = np.log(1 / (1 / setup.gates_of("g", np.flatnonzero(setup.donors)) - 1.0))
    assert facts["spanned"] == np.linalg.matrix_rank(np.cov(own.T), tol=1e-6) == 4
    assert (facts["rank"], facts["units"]) == (4, 20)
    np.testing.assert_allclose(erased.edited[0], erased.edited[0][:1].repeat(len(rows), 0))
    logits = np.random.default_rng(1).normal(size=(3, len(rows), 5)).astype(np.float32)
    base = _outcomes("", rows, setup.labels[rows], logits[:1])
    found = _outcomes("g", rows, setup.labels[rows], logits[1:])
    assert _table(base, [found], {"g": facts}, 9, 0, 1)["is_removal"].tolist() == [True]
    # Nothing is left that a probe could read; rounding errors are no information.
    assert facts["probe_after"] == pytest.approx(1 / 5)
    assert facts["probe_before"] > 0.4


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
