"""Which gates become static together, and what is told of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attnscope.data.images import LabeledImages
from attnscope.folding.report import PairedAccuracy
from attnscope.folding.search import choose_gates, right_images
from attnscope.folding.speed import images_per_second
from attnscope.statistics.inference import paired_accuracy_change
from tests.folding.networks import (
    UNIT,
    network,
    toy_images,
)


def test_the_search_is_greedy_and_keeps_to_the_tolerance() -> None:
    """Of 1,000 images each gate loses some, and two of them together three more."""
    model = network("resnet18", "se", "stage")
    names = [f"layer{i}.attention.channel" for i in (1, 2, 3, 4)]
    means = {n: torch.full((16 * 2**i,), 0.5) for i, n in enumerate(names)}
    losses = dict(zip(names, (3, 0, -1, 50), strict=True))
    asked: list[set[str]] = []

    def right(candidate: nn.Module) -> NDArray[np.bool_]:
        folded = set(candidate.attnscope_config.folded)
        asked.append(folded)
        lost = sum(losses[name] for name in folded) + 3 * ({names[1], names[2]} <= folded)
        return np.arange(1000) < 900 - lost

    trials = choose_gates(model, means, right, 0.2, progress=False)
    assert [trial.gate for trial in trials] == [names[2], names[1], names[0], names[3]]
    assert [trial.alone for trial in trials] == pytest.approx([-0.1, 0, 0.3, 5])
    assert [trial.joint for trial in trials] == pytest.approx([-0.1, 0.2, 0.5, 5.2])
    assert [trial.kept for trial in trials] == [True, True, False, False]
    assert len(asked) == 8
    assert asked[0] == set()
    trials = choose_gates(model, means, right, 0.19, progress=False)
    assert [trial.kept for trial in trials] == [True, False, False, False]
    assert [trial.joint for trial in trials] == pytest.approx([-0.1, 0.2, 0.2, 4.9])


def test_speed_is_measured_in_turns() -> None:
    calls: list[str] = []

    class Named(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            calls.append(self.name * len(x))
            return x

    found = images_per_second((Named("a"), Named("b")), [torch.zeros(2, 1), torch.zeros(1, 1)], 3)
    assert "".join(calls) == "aabb" + "aaabbb" + "bbbaaa" + "aaabbb"
    assert len(found) == 3
    assert all(first > 0 and second > 0 for first, second in found)


def test_a_loss_is_a_change_with_its_sign_turned() -> None:
    before, after = np.array([True] * 8 + [False] * 2), np.array([True] * 5 + [False] * 5)
    found = PairedAccuracy.of(before, after)
    change, low, high = paired_accuracy_change(before, after)
    assert (found.before, found.after, found.images) == (0.8, 0.5, 10)
    assert found.loss == pytest.approx(30)
    assert (found.loss, found.low, found.high) == pytest.approx(
        (-100 * change, -100 * high, -100 * low)
    )
    assert "80.00% -> 50.00% of 10 images (one is 10.00 points), loss 30.00 points" in str(found)
    assert "loss 0.00 points" in str(PairedAccuracy.of(before, before))


def test_right_images_are_those_that_are_right() -> None:
    model, images = network("resnet18", "se", "stage"), toy_images(11)
    with torch.no_grad():
        wanted = model(images.images / 255).argmax(1)
    images = LabeledImages(images.images, wanted.clone(), images.paths, images.classes)
    images.labels[3] = (images.labels[3] + 1) % 10
    found = right_images(model, images, UNIT, batch_size=4)
    assert found.tolist() == [i != 3 for i in range(11)]
