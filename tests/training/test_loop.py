"""The training loop: steps, phases, seeds, and losses that are not finite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from attnscope.data.images import LabeledImages
from attnscope.networks.build import build_model
from attnscope.networks.weights import load_model
from attnscope.training import evaluation, logs
from attnscope.training import loop as train_module
from attnscope.training.recipe import Phase
from tests.making import refused
from tests.training.toys import (
    FAST,
    PLAIN,
    TINY,
    Spy,
    make_data,
    rows,
    run,
    small,
    states_equal,
)


def test_phases_scale_the_images(tmp_path: Path) -> None:
    model = Spy()
    phases = (Phase(0.25, 0.5), Phase(0.5, 0.75), Phase(0.25, 1.0))
    run(tmp_path / "run", model, recipe=replace(TINY, epochs=4, phases=phases))
    assert [x.shape[-1] for x in model.seen] == [16] * 3 + [24] * 6 + [32] * 3
    model = Spy()
    run(tmp_path / "b", model, recipe=replace(TINY, phases=phases), data=make_data(size=16))
    assert {x.shape[-1] for x in model.seen} == {16}, "small images are not scaled"


def test_the_small_cnn_gets_one_size_in_every_phase(tmp_path: Path) -> None:
    cnn = build_model("cnn", num_classes=2)
    result = run(tmp_path / "run", cnn, recipe=replace(FAST, epochs=1, batch_size=10))
    assert result.steps == 2


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(20, [8, 8, 4]), (16, [8, 8]), (17, [8, 9]), (9, [9]), (8, [8]), (5, [5]), (2, [2])],
)
def test_an_epoch_has_every_image_once_and_no_batch_of_one(
    tmp_path: Path, count: int, sizes: list[int]
) -> None:
    model = Spy()
    data = make_data(count)
    result = run(tmp_path / "run", model, data=data, recipe=replace(TINY, augmentation=PLAIN))
    assert [len(x) for x in model.seen] == sizes * 2
    assert result.steps == len(sizes) * 2
    expected = {x.numpy().tobytes() for x in data.train.images}
    orders = []
    for epoch in (model.seen[: len(sizes)], model.seen[len(sizes) :]):
        images = data.normalization.undo(torch.cat(epoch)).contiguous()
        orders.append([x.numpy().tobytes() for x in images])
        assert set(orders[-1]) == expected
        assert len(orders[-1]) == count
    if count > 5:
        assert orders[0] != orders[1], "each epoch has another order"


def test_one_image_more_than_a_batch_works_with_1x1_maps(tmp_path: Path) -> None:
    """Images of 16 pixels lead to 1×1 maps, which BatchNorm rejects in a batch of one."""
    data = make_data(9, size=16)
    assert run(tmp_path / "run", data=data, recipe=replace(TINY, epochs=1)).steps == 1


def test_each_step_draws_new_augmentation(tmp_path: Path) -> None:
    model = Spy()
    data = make_data(4)
    run(tmp_path / "run", model, data=data, recipe=replace(TINY, epochs=4))
    pictures = torch.cat(model.seen).flatten(1)
    assert len(torch.unique(pictures, dim=0)) >= 14  # of 16; two may agree by chance


def test_equal_seeds_give_equal_networks(tmp_path: Path) -> None:
    models = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(hash(name) % 1000)  # the global state must not matter
        model = small(seed=9)
        torch.manual_seed(hash(name) % 999)
        run(tmp_path / name, model, seed=seed)
        models.append(model)
    assert states_equal(models[0], models[1])
    assert not states_equal(models[0], models[2])
    for file in ("training_images.safetensors", "model.safetensors"):
        contents = [(tmp_path / name / file).read_bytes() for name in "abc"]
        assert contents[0] == contents[1] != contents[2]


def test_dropout_depends_on_the_seed_only(tmp_path: Path) -> None:
    models = []
    for name in "ab":
        torch.manual_seed(4)
        model = build_model("cnn", num_classes=2)
        torch.randn(len(name) + len(models))
        run(tmp_path / name, model, recipe=replace(TINY, epochs=1))
        models.append(model)
    assert states_equal(*models)


def test_the_test_split_is_evaluated_once_and_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last step. Other test images give the same network."""
    evaluated: list[tuple[str, int]] = []
    model = Spy()
    real = train_module.evaluate

    def spy(network: nn.Module, given: LabeledImages, *rest: Any) -> Any:
        evaluated.append((given.paths[0].split("/")[0], len(model.seen)))
        return real(network, given, *rest)

    monkeypatch.setattr(train_module, "evaluate", spy)
    run(tmp_path / "a", model)
    assert evaluated == [("validation", 3), ("validation", 6), ("test", 6)]
    other = make_data()
    noise = replace(other.test, images=255 - other.test.images, labels=1 - other.test.labels)
    again = small()
    run(tmp_path / "b", again, data=replace(other, test=noise))
    reference = small()
    run(tmp_path / "c", reference)
    assert states_equal(again, reference)


def test_bf16_keeps_the_weights_in_float32(tmp_path: Path) -> None:
    model = small(attention="cbam", reduction=4)
    result = run(tmp_path / "run", model, precision="bf16", recipe=replace(TINY, epochs=1))
    assert result.precision == "bf16"
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())


class Diverging(Spy):
    """A network whose logits become infinite at one step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits * float("inf") if len(self.seen) == self.at else logits


@pytest.mark.parametrize("at", [1, 2, 5, 6])
def test_a_loss_that_is_not_finite_stops_and_names_the_step(tmp_path: Path, at: int) -> None:
    """Three steps per epoch. No row of the metrics has a value that is not finite."""
    out = tmp_path / "run"
    expected = rf"step {at} of 12 \(learning rate 0\.0"
    with pytest.raises(FloatingPointError, match=expected):
        run(out, Diverging(at), recipe=replace(TINY, epochs=4))
    left = {p.name for p in out.iterdir()}
    assert {"config.json", "training_images.safetensors", "tensorboard"} <= left
    assert not left & {"model.safetensors", "model.json", "result.json"}
    assert ("metrics.csv" in left) == (at > 3)
    if at > 3:
        assert [row["epoch"] for row in rows(out)] == ["1"]
        last_good = load_file(out / "checkpoint.safetensors")
        assert all(torch.isfinite(value).all() for value in last_good.values())
    with refused("AS340", names=(out,)):
        load_model(out)


def test_a_long_epoch_is_checked_every_few_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "_REPORT_STEPS", 2)
    model = Diverging(3)
    with pytest.raises(FloatingPointError, match="step 3 of 16"):
        run(
            tmp_path / "run",
            model,
            recipe=replace(TINY, batch_size=2, epochs=1),
            data=make_data(32),
        )
    assert len(model.seen) == 4, "it stops at the next check"


def test_a_validation_loss_that_is_not_finite_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = evaluation.Evaluation(float("nan"), 0.5)
    monkeypatch.setattr(train_module, "evaluate", lambda *_: bad)
    with pytest.raises(FloatingPointError, match="step 3"):
        run(tmp_path / "run", Spy())


def test_the_tensorboard_writer_is_closed_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    close = logs.SummaryWriter.close

    def spy(self: Any) -> None:
        closed.append(True)
        close(self)

    monkeypatch.setattr(logs.SummaryWriter, "close", spy)
    with pytest.raises(FloatingPointError):
        run(tmp_path / "run", Diverging(1))
    assert closed == [True]
