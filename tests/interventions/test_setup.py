"""The scored images, the donors, and recordings that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attnscope import Recording, capture, interventions
from attnscope.interventions import (
    InterventionSetup,
    replace_gates,
    run_experiments,
    run_experiments_in,
)
from attnscope.statistics import between_class_variance, reading, splits
from tests.interventions.toy import Toy, toy_images, toy_setup
from tests.making import refused


def test_means_come_from_donors_only(tmp_path: Path) -> None:
    setup = toy_setup("used", tmp_path, images=30)
    assert len(setup.scored) == 30
    assert np.bincount(setup.recording.labels[setup.scored]).tolist() == [10, 10, 10]
    values = setup.recording.gate("gate")
    donors = np.setdiff1d(np.arange(90), setup.scored)
    np.testing.assert_allclose(setup.mean_gate("gate"), values[donors].mean(0), rtol=1e-5)
    labels = setup.recording.labels
    for k in range(3):
        wanted = values[donors[labels[donors] == k]].mean(0)
        np.testing.assert_allclose(setup.class_mean_gates("gate")[k], wanted, rtol=1e-5)
    rows = np.array([80, 3, 3, 41])
    np.testing.assert_array_equal(setup.gates_of("gate", rows), values[rows])


def test_setup_refuses_images_and_networks_that_are_not_the_recorded_ones(tmp_path: Path) -> None:
    setup = toy_setup("used", tmp_path)
    images, labels = toy_images().tensors
    folder = setup.recording.folder
    with refused("AS804", names=(50, 90, folder)):
        InterventionSetup(setup.model, TensorDataset(images[:50], labels[:50]), setup.recording)
    with refused("AS805", names=(folder,)):
        InterventionSetup(setup.model, TensorDataset(images, labels.roll(1)), setup.recording)
    with refused("AS809", names=(folder,)):
        InterventionSetup(Toy("ignored").eval(), toy_images(), setup.recording)
    setup.recording.about["precision"] = "bf16"
    with refused("AS807", names=(folder, "bf16", "--precision fp32")):
        InterventionSetup(setup.model, toy_images(), setup.recording)


def test_setup_refuses_wrong_numbers(tmp_path: Path) -> None:
    setup = toy_setup("used", tmp_path)
    for code, options in (
        ("AS801", {"images": 0}),
        ("AS802", {"batch_size": 0}),
        ("AS803", {"seed": -1}),
    ):
        with refused(code, names=tuple(options.values())):
            InterventionSetup(setup.model, toy_images(), setup.recording, **options)
    with refused("AS823", names=("men",)):
        replace_gates(setup, edits=["men"])


def test_setup_refuses_a_recording_without_gates_or_without_donors(tmp_path: Path) -> None:
    class Gateless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    images = toy_images(30)
    recording = capture(Gateless(), images, tmp_path / "r", grad_cam_layers=(), progress=False)
    assert isinstance(recording, Recording)
    with refused("AS806", names=(recording.folder,)):
        InterventionSetup(Gateless(), images, recording)
    few, model = toy_images(3), Toy("used").eval()  # one image of each class
    recording = capture(model, few, tmp_path / "few", grad_cam_layers=(), progress=False)
    assert isinstance(recording, Recording)
    with refused("AS808", names=(recording.folder,)):
        InterventionSetup(model, few, recording)


def test_names_of_version_0_1_warn(tmp_path: Path) -> None:
    setup = toy_setup("used", tmp_path)
    with pytest.warns(DeprecationWarning, match="donors"):
        assert setup.others is setup.donors
    with pytest.warns(DeprecationWarning, match="eval_without_gradients"), setup.quiet():
        assert not torch.is_grad_enabled()
    with pytest.warns(DeprecationWarning, match="run_experiments"):
        assert interventions.intervene is run_experiments
    with pytest.warns(DeprecationWarning, match="run_experiments_in"):
        assert interventions.intervene_in is run_experiments_in
    with pytest.raises(AttributeError):
        setup.nothing  # noqa: B018


def test_the_repr_of_a_setup_names_its_recording_and_its_counts(tmp_path: Path) -> None:
    setup = toy_setup("used", tmp_path, images=30, seed=4)
    for value in (setup.recording.folder, 30, 60, "1 gate", "cpu", "seed 4"):
        assert str(value) in repr(setup)
    assert "\n" not in repr(setup)


def test_gates_are_read_in_the_order_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = toy_setup("used", tmp_path)
    monkeypatch.setattr(reading, "_CHUNK", 16)
    rows = np.random.default_rng(0).permutation(90)[:40]
    whole = setup.recording.gate("gate")
    np.testing.assert_array_equal(setup.gates_of("gate", rows), whole[rows])
    np.testing.assert_allclose(setup.mean_gate("gate"), whole[setup.donors].mean(0), rtol=1e-6)


def test_never_more_than_half_of_a_class_is_scored() -> None:
    labels = np.repeat([0, 1, 2], [3, 7, 1])
    rows = splits.stratified_sample(labels, 100, np.random.default_rng(0))
    assert np.bincount(labels[rows], minlength=3).tolist() == [1, 3, 0]


def test_a_sample_is_stratified(tmp_path: Path) -> None:
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


def test_copies_are_scored_once_and_are_no_donors_of_one_another(tmp_path: Path) -> None:
    images, labels = toy_images().tensors
    dataset = TensorDataset(images.repeat(3, 1, 1, 1), labels.repeat(3))
    model = Toy("used").eval()
    recording = capture(
        model, dataset, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    setup = InterventionSetup(model, dataset, recording, images=30)
    original = np.arange(270) % 90
    assert setup.copies is not None
    assert len(np.unique(setup.copies)) == 90
    assert len(setup.scored) == 30
    assert len(np.unique(original[setup.scored])) == 30
    assert np.bincount(recording.labels[setup.scored]).tolist() == [10, 10, 10]
    assert not np.intersect1d(original[setup.scored], original[setup.donors]).size
    assert setup.donors.sum() == 180
    found = run_experiments(setup, experiments=["decode"], progress=False).table("decoding")
    column = "omega_null_high"
    once, thrice = (
        between_class_variance(recording, groups=groups)["null_high"].tolist()
        for groups in (original, None)
    )
    assert found[column].tolist() == once != thrice


def test_without_copies_the_images_are_those_of_earlier_versions(tmp_path: Path) -> None:
    setup = toy_setup("used", tmp_path, images=30)
    labels = setup.recording.labels
    rng = np.random.default_rng([0, *b"images"])
    assert setup.copies is None
    np.testing.assert_array_equal(setup.scored, splits.stratified_sample(labels, 30, rng))
    assert setup.donors.sum() == 60
