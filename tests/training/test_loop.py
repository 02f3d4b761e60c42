"""The training loop: what it does at each step, and losses that are not finite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from attnscope.data.images import LabeledImages
from attnscope.errors import InputError
from attnscope.networks.build import build_model
from attnscope.networks.weights import load_model
from attnscope.training import evaluation, logs
from attnscope.training import loop as train_module
from attnscope.training.recipe import Phase
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


def test_phases_change_the_size_of_the_images(tmp_path: Path) -> None:
    model = Spy()
    phases = (Phase(0.25, 0.5), Phase(0.5, 0.75), Phase(0.25, 1.0))
    run(tmp_path / "run", model, recipe=replace(TINY, epochs=4, phases=phases))
    assert [x.shape[-1] for x in model.seen] == [16] * 3 + [24] * 6 + [32] * 3
    model = Spy()
    run(tmp_path / "b", model, recipe=replace(TINY, phases=phases), data=make_data(size=16))
    assert {x.shape[-1] for x in model.seen} == {16}, "small images stay as they are"


def test_a_network_of_one_size_keeps_it_in_every_phase(tmp_path: Path) -> None:
    cnn = build_model("cnn", num_classes=2)
    result = run(tmp_path / "run", cnn, recipe=replace(FAST, epochs=1, batch_size=10))
    assert result.steps == 2


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(20, [8, 8, 4]), (16, [8, 8]), (17, [8, 9]), (9, [9]), (8, [8]), (5, [5]), (2, [2])],
)
def test_every_image_once_an_epoch_and_none_alone(
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
        assert orders[0] != orders[1], "each epoch has its own order"


def test_one_image_more_than_a_batch_passes_norms_over_single_pixels(tmp_path: Path) -> None:
    """Images of 16 pixels leave 1×1 maps, which BatchNorm refuses for a batch of one."""
    data = make_data(9, size=16)
    assert run(tmp_path / "run", data=data, recipe=replace(TINY, epochs=1)).steps == 1


def test_each_step_augments_anew(tmp_path: Path) -> None:
    model = Spy()
    data = make_data(4)
    run(tmp_path / "run", model, data=data, recipe=replace(TINY, epochs=4))
    pictures = torch.cat(model.seen).flatten(1)
    assert len(torch.unique(pictures, dim=0)) >= 14  # of 16; two may agree by chance


def test_one_seed_gives_one_network(tmp_path: Path) -> None:
    models = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(hash(name) % 1000)  # what happened before must not matter
        model = small(seed=9)
        torch.manual_seed(hash(name) % 999)
        run(tmp_path / name, model, seed=seed)
        models.append(model)
    assert states_equal(models[0], models[1])
    assert not states_equal(models[0], models[2])
    for file in ("training_images.safetensors", "model.safetensors"):
        contents = [(tmp_path / name / file).read_bytes() for name in "abc"]
        assert contents[0] == contents[1] != contents[2]


def test_dropout_follows_the_seed(tmp_path: Path) -> None:
    models = []
    for name in "ab":
        torch.manual_seed(4)
        model = build_model("cnn", num_classes=2)
        torch.randn(len(name) + len(models))
        run(tmp_path / name, model, recipe=replace(TINY, epochs=1))
        models.append(model)
    assert states_equal(*models)


def test_the_test_part_chooses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read once, after the last step; and with other test images all else is the same."""
    looked: list[tuple[str, int]] = []
    model = Spy()
    real = train_module.evaluate

    def spy(network: nn.Module, given: LabeledImages, *rest: Any) -> Any:
        looked.append((given.paths[0].split("/")[0], len(model.seen)))
        return real(network, given, *rest)

    monkeypatch.setattr(train_module, "evaluate", spy)
    run(tmp_path / "a", model)
    assert looked == [("validation", 3), ("validation", 6), ("test", 6)]
    other = make_data()
    noise = replace(other.test, images=255 - other.test.images, labels=1 - other.test.labels)
    again = small()
    run(tmp_path / "b", again, data=replace(other, test=noise))
    reference = small()
    run(tmp_path / "c", reference)
    assert states_equal(again, reference)


def test_bfloat16(tmp_path: Path) -> None:
    model = small(attention="cbam", reduction=4)
    result = run(tmp_path / "run", model, precision="bf16", recipe=replace(TINY, epochs=1))
    assert result.precision == "bf16"
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())


class Diverging(Spy):
    """Its logits become infinite at one step of the training."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits * float("inf") if len(self.seen) == self.at else logits


@pytest.mark.parametrize("at", [1, 2, 5, 6])
def test_a_loss_that_is_not_finite_names_its_step(tmp_path: Path, at: int) -> None:
    """Three steps an epoch: whichever it is, no row of metrics has a value that is not finite."""
    out = tmp_path / "run"
    expected = rf"^the loss is not finite at step {at} of 12 \(learning rate 0\.0"
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
    with pytest.raises(InputError, match="is it a run whose training ended"):
        load_model(out)


def test_a_long_epoch_is_looked_at_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "_REPORT_STEPS", 2)
    model = Diverging(3)
    with pytest.raises(FloatingPointError, match="at step 3 of 16"):
        run(
            tmp_path / "run",
            model,
            recipe=replace(TINY, batch_size=2, epochs=1),
            data=make_data(32),
        )
    assert len(model.seen) == 4, "it stops at the next look"


def test_a_validation_loss_that_is_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = evaluation.Evaluation(float("nan"), 0.5)
    monkeypatch.setattr(train_module, "evaluate", lambda *_: bad)
    with pytest.raises(FloatingPointError, match="validation loss is not finite after step 3"):
        run(tmp_path / "run", Spy())


def test_the_board_is_closed_after_an_error(
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
