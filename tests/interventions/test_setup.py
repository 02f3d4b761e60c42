"""Which images are scored, which only lend their gates, and what does not belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from attnscope import InputError, Recording, capture
from attnscope.interventions import (
    InterventionSetup,
    replace_gates,
)
from attnscope.statistics import reading, resampling
from tests.interventions.toy import Toy, toy_images, toy_setup


def test_means_and_donors_are_not_of_scored_images(tmp_path: Path) -> None:
    setup = toy_setup("used", tmp_path, images=30)
    assert len(setup.scored) == 30
    assert np.bincount(setup.recording.labels[setup.scored]).tolist() == [10, 10, 10]
    values = setup.recording.gate("gate")
    others = np.setdiff1d(np.arange(90), setup.scored)
    np.testing.assert_allclose(setup.mean_gate("gate"), values[others].mean(0), rtol=1e-5)
    labels = setup.recording.labels
    for k in range(3):
        wanted = values[others[labels[others] == k]].mean(0)
        np.testing.assert_allclose(setup.class_mean_gates("gate")[k], wanted, rtol=1e-5)
    rows = np.array([80, 3, 3, 41])
    np.testing.assert_array_equal(setup.gates_of("gate", rows), values[rows])


def test_bench_refuses_what_does_not_belong_together(tmp_path: Path) -> None:
    setup = toy_setup("used", tmp_path)
    images, labels = toy_images().tensors
    with pytest.raises(InputError, match="is of 90 images"):
        InterventionSetup(setup.model, TensorDataset(images[:50], labels[:50]), setup.recording)
    with pytest.raises(InputError, match="other images"):
        InterventionSetup(setup.model, TensorDataset(images, labels.roll(1)), setup.recording)
    with pytest.raises(InputError, match="another network"):
        InterventionSetup(Toy("ignored").eval(), toy_images(), setup.recording)
    setup.recording.about["precision"] = "bf16"
    with pytest.raises(InputError, match="was captured in bf16; capture with --precision fp32"):
        InterventionSetup(setup.model, toy_images(), setup.recording)
    with pytest.raises(InputError, match="edit 'men' is not known"):
        replace_gates(setup, edits=["men"])
    with pytest.raises(InputError, match="0 images"):
        toy_setup("constant", tmp_path, images=0)


def test_gates_of_rows_in_any_order_over_many_stretches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = toy_setup("used", tmp_path)
    monkeypatch.setattr(reading, "_CHUNK", 16)
    rows = np.random.default_rng(0).permutation(90)[:40]
    whole = setup.recording.gate("gate")
    np.testing.assert_array_equal(setup.gates_of("gate", rows), whole[rows])
    np.testing.assert_allclose(setup.mean_gate("gate"), whole[setup.others].mean(0), rtol=1e-6)


def test_never_more_than_half_of_a_class_is_scored() -> None:
    labels = np.repeat([0, 1, 2], [3, 7, 1])
    rows = resampling.stratified_sample(labels, 100, np.random.default_rng(0))
    assert np.bincount(labels[rows], minlength=3).tolist() == [1, 3, 0]


def test_a_sample_has_of_each_class_its_share(tmp_path: Path) -> None:
    images, labels = toy_images(400).tensors
    labels = torch.where(torch.arange(400) < 320, 0, 1 + torch.arange(400) % 2)
    model, data = Toy("used").eval(), TensorDataset(images, labels)
    recording = capture(
        model, data, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    setup = InterventionSetup(model, data, recording, images=200)
    assert np.bincount(recording.labels[setup.scored]).tolist() == [160, 20, 20]
    for count in (10, 50):
        rows = setup.sample(count)
        assert len(set(rows)) == count
        assert set(rows) <= set(setup.scored)
        found = np.bincount(recording.labels[rows], minlength=3)
        np.testing.assert_allclose(found, np.array([0.8, 0.1, 0.1]) * count, atol=1)
