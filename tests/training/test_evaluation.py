"""Loss and accuracy of a split, against a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from attnscope.networks.build import build_model
from attnscope.training import evaluation
from attnscope.training.evaluation import evaluate
from tests.making import refused
from tests.training.toys import CPU, make_data, small


def test_evaluate_equals_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_EVALUATION_BATCH", 3)
    model = small(attention="cbam", reduction=4)
    data = make_data()
    model(
        data.normalization.apply(data.train.images)
    )  # changes the running statistics from 0 and 1
    model.train()
    frozen = model.get_submodule("layer1.0.bn1").eval()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    found = evaluate(model, data.test, data.normalization, CPU)
    assert not frozen.training, "each module gets its own mode back"
    assert model.training
    assert model.get_submodule("layer1.0.bn2").training
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    model.eval()
    loss = right = 0.0
    with torch.no_grad():
        for image, label in zip(data.test.images, data.test.labels, strict=True):
            logits = model((image[None] / 255 - 0.4) / 0.2)
            loss += F.cross_entropy(logits, label[None]).item() / 7
            right += (logits.argmax() == label).item() / 7
    assert found.loss == pytest.approx(loss, rel=1e-4)
    assert found.accuracy == pytest.approx(right)
    evaluate(model, data.test, data.normalization, CPU)
    assert not model.training


def test_evaluate_restores_modes_after_an_error() -> None:
    model = build_model("cnn", num_classes=2)
    data = make_data(size=16)
    with refused("AS313", names=("32×32", "16×16")):
        evaluate(model, data.test, data.normalization, CPU)
    assert all(module.training for module in model.modules())
