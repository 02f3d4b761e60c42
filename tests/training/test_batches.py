"""Batches of a training: their order and augmentation, and what a device does without the host."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from analysis.gpu.counting import counting
from attnscope.data.augmentation import Augmentation
from attnscope.networks.build import build_model
from attnscope.training import batches as module
from attnscope.training.batches import TrainingImages
from attnscope.training.evaluation import evaluate
from attnscope.training.loss import TrainingLoss
from attnscope.training.recipe import Recipe
from attnscope.training.recipes import RECIPES
from tests.training.toys import CPU, TINY, Spy, make_data

META = torch.device("meta")
SIZES = [8, 8, 4]
EVERYTHING = Augmentation(
    crop_padding=4, flip=True, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1,
    rotation=15, cutout=8,
)  # fmt: skip
EXACT = Augmentation(crop_padding=4, flip=True, cutout=8)


def with_augmentation(augmentation: Augmentation) -> Recipe:
    return replace(TINY, augmentation=augmentation)


def training_images(
    augmentation: Augmentation, device: torch.device = CPU, **options: Any
) -> TrainingImages:
    return TrainingImages(make_data(**options), with_augmentation(augmentation), 3, device)


def all_batches(images: TrainingImages) -> Tensor:
    parts = []
    for epoch in range(2):
        for step in images.start_epoch(epoch, SIZES, 0):
            for part in (slice(0, 3), slice(3, len(step))):
                parts.append(images.batch(step, part, 1.0))
    return torch.cat(parts)


@pytest.mark.parametrize(("size", "expected"), [(32, "605190ac1d83046d"), (64, "b90548878daa263f")])
def test_batches_are_those_of_earlier_versions(size: int, expected: str) -> None:
    """The hashes were made before the random numbers were drawn ahead.

    Crops, flips and cutout copy pixels, so the hashes are those of every machine.
    """
    images = training_images(EXACT, size=size)
    found = all_batches(images).contiguous().numpy().tobytes()
    assert hashlib.sha256(found).hexdigest()[:16] == expected


def test_the_order_is_a_permutation_of_its_own_in_each_epoch() -> None:
    images = training_images(Augmentation())
    orders = []
    for epoch in range(2):
        steps = images.start_epoch(epoch, SIZES, 0)
        rows = torch.cat([step.rows for step in steps])
        assert sorted(rows.tolist()) == list(range(20))
        orders.append(rows.tolist())
        assert [step.number for step in steps] == [3 * epoch, 3 * epoch + 1, 3 * epoch + 2]
        labels = torch.cat([images.labels_of(step, slice(0, len(step))) for step in steps])
        assert torch.equal(labels, images.data.train.labels[rows])
        normalized = images.data.normalization.apply(images.data.train.images[rows])
        found = [images.batch(step, slice(0, len(step)), 1.0) for step in steps]
        assert torch.equal(torch.cat(found), normalized)
    assert orders[0] != orders[1]


def test_an_epoch_that_continues_has_the_steps_that_are_left() -> None:
    images = training_images(EVERYTHING)
    whole = images.start_epoch(1, SIZES, 0)
    expected = [images.batch(step, slice(0, len(step)), 1.0) for step in whole]
    for done in range(len(SIZES)):
        steps = images.start_epoch(1, SIZES, done)
        assert [step.start for step in steps] == [step.start for step in whole[done:]]
        for step, batch in zip(steps, expected[done:], strict=True):
            assert torch.equal(images.batch(step, slice(0, len(step)), 1.0), batch)


@pytest.mark.parametrize("at_once", [1, 12, 16, 1000])
@pytest.mark.parametrize(
    "augmentation", [EVERYTHING, replace(EVERYTHING, resized_crop=True), Augmentation()]
)
def test_numbers_that_are_sent_ahead_are_those_of_each_step(
    augmentation: Augmentation, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, however many steps are drawn at once."""
    monkeypatch.setattr(module, "_DRAWN_IMAGES", at_once)
    images = training_images(augmentation)
    drawn = []
    draw_ahead = images._draw_ahead
    monkeypatch.setattr(images, "_draw_ahead", lambda step: drawn.append(step) or draw_ahead(step))
    for epoch in range(2):
        for step in images.start_epoch(epoch, SIZES, 0):
            for part in (slice(0, 3), slice(3, len(step))):
                images.device = CPU
                expected = images._numbers(step, part)
                images.device = META  # the numbers themselves stay where `send` puts them
                with monkeypatch.context() as patch:
                    patch.setattr(module, "send", lambda tensor, device: tensor)
                    found = images._numbers(step, part)
                assert found.keys() == expected.keys()
                for name, values in expected.items():
                    assert torch.equal(found[name], values), name
                    assert found[name].dtype == values.dtype
    assert len(drawn) == {1: 6, 12: 4, 16: 4, 1000: 2}[at_once]


@pytest.mark.parametrize("name", RECIPES)
def test_a_batch_on_a_device_copies_nothing(name: str) -> None:
    """The first batch sends the random numbers for all batches of the epoch."""
    data = make_data()
    with counting("meta") as counter:
        images = TrainingImages(data, RECIPES[name], 3, META)
        first, *rest = images.start_epoch(0, SIZES, 0)
        images.batch(first, slice(0, 8), 0.75)
        before = counter.counts
        for step in rest:
            images.batch(step, slice(0, len(step)), 0.75)
            images.labels_of(step, slice(0, len(step)))
        found = counter.counts - before
    assert before.to_device > 0
    assert (found.to_device, found.to_host) == (0, 0), counter.copies
    assert found.operations > 0


def test_the_forward_of_a_step_reads_no_value_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors of a GPU have no values, and raise where one is read."""
    monkeypatch.setattr(module, "send", Tensor.to)
    monkeypatch.setattr(module, "place_images", Tensor.to)
    gpu, data = torch.device("cuda"), make_data()
    model = build_model("cnn", attention="cbam", num_classes=2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = model.to(gpu)
        images = TrainingImages(data, with_augmentation(EVERYTHING), 3, gpu)
        loss = TrainingLoss(0.1, torch.ones(2).to(gpu))
        for step in images.start_epoch(0, SIZES, 0)[:2]:
            whole = slice(0, len(step))
            x, y = images.batch(step, whole, 1.0), images.labels_of(step, whole)
            logits = model(x)
            sums = torch.stack([loss(logits, y, y), (logits.argmax(1) == y).sum()])
            assert (x.device.type, sums.device.type) == ("cuda", "cuda")
        with pytest.raises(DataDependentOutputException):
            sums[0].item()


def test_an_evaluation_reads_its_result_once() -> None:
    data = make_data()
    few, many = data.test, data.train
    counts = []
    for split in (few, many):
        model = Spy().to(META)
        with counting("meta") as counter:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("attnscope.training.evaluation._EVALUATION_BATCH", 4)
                patch.setattr("attnscope.training.evaluation.place_images", Tensor.to)
                evaluate(model, split, data.normalization, META)
        counts.append(counter.counts)
    assert counts[0].to_host == counts[1].to_host == 1
    assert counts[0].to_device == counts[1].to_device == 4  # images, labels, mean and deviation
    assert counts[1].operations > counts[0].operations


def test_images_beyond_the_memory_of_a_device_are_sent_batch_by_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "place_images", lambda images, device: images)
    sent: list[np.ndarray[Any, Any]] = []

    def send(tensor: Tensor, device: torch.device) -> Tensor:
        if tensor.dtype == torch.uint8:
            sent.append(tensor.numpy())
        return tensor.to(device)

    monkeypatch.setattr(module, "send", send)
    images = training_images(EXACT, META)
    for step in images.start_epoch(0, SIZES, 0):
        x = images.batch(step, slice(0, len(step)), 1.0)
        assert x.device == META
        expected = images.data.train.images[step.rows].numpy()
        np.testing.assert_array_equal(sent[-1], expected)
    assert len(sent) == len(SIZES)
