"""The training loop: what it does, asserted from live objects, and what it leaves behind."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.data.augmentation import Augmentation
from attnscope.data.images import LabelledImages, Normalization
from attnscope.data.load import Data
from attnscope.errors import InputError
from attnscope.networks.build import build_model
from attnscope.networks.weights import load_model
from attnscope.training import evaluation, logs
from attnscope.training import loop as train_module
from attnscope.training.devices import choose_device, choose_precision
from attnscope.training.evaluation import evaluate
from attnscope.training.recipes import RECIPES, Phase, get_recipe
from attnscope.training.train import train

CPU = torch.device("cpu")
FAST = get_recipe("fast")
PLAIN = Augmentation()
TINY = replace(FAST, epochs=2, batch_size=8, learning_rate=0.05, phases=(Phase(1.0, 1.0),))


def part(name: str, count: int, size: int = 32, seed: int = 0) -> LabelledImages:
    """Two classes that a network can tell apart: the upper or the lower half is brighter."""
    rng = np.random.default_rng([seed, *name.encode()])
    labels = torch.arange(count) % 2
    images = rng.integers(0, 120, (count, 3, size, size), dtype=np.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        half = slice(0, size // 2) if label else slice(size // 2, None)
        image[:, half] += 100
    paths = [f"{name}/{i}" for i in range(count)]
    return LabelledImages(torch.from_numpy(images), labels, paths, ["low", "high"])


def make_data(count: int = 20, size: int = 32, **changes: Any) -> Data:
    data = Data(
        source="made by the test",
        train=part("train", count, size),
        validation=part("validation", 6, size),
        test=part("test", 7, size),
        normalization=Normalization((0.4, 0.4, 0.4), (0.2, 0.2, 0.2)),
        may_flip=True,
        skipped=[],
    )
    return replace(data, **changes)


def small(seed: int = 0, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    options = {"name": "resnet18", "width": 16, "num_classes": 2, "stem": "imagenet", **options}
    return build_model(**options)


def run(out: Path, model: nn.Module | None = None, **options: Any) -> train_module.TrainResult:
    options = {"data": make_data(), "recipe": TINY, "progress": False, **options}
    options = {"device": "cpu", "precision": "fp32", **options}
    return train(small() if model is None else model, out=out, **options)


def states_equal(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


# --- what it writes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module, Any]:
    out = tmp_path_factory.mktemp("runs") / "deep" / "run"
    model = small(attention="cbam", reduction=4)
    recipe = replace(TINY, epochs=5)
    result = run(out, model, recipe=recipe, data=make_data(40), seed=3, config={"name": "toy"})
    return out, model, result


def test_it_learns(done: tuple[Path, nn.Module, Any]) -> None:
    out, _, result = done
    losses = [float(row["train_loss"]) for row in rows(out)]
    assert losses[-1] < 0.7 * losses[0]
    assert result.test.accuracy >= 6 / 7


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_run_folder(done: tuple[Path, nn.Module, Any]) -> None:
    out, model, result = done
    assert sorted(p.name for p in out.iterdir()) == [
        "best.safetensors",
        "config.json",
        "metrics.csv",
        "model.json",
        "model.safetensors",
        "result.json",
        "steps.csv",
        "tensorboard",
        "training_images.safetensors",
    ]
    assert states_equal(load_model(out), model)
    config = json.loads((out / "config.json").read_text())
    assert config["name"] == "toy"
    assert config["classes"] == ["low", "high"]
    assert config["seed"] == 3
    assert config["epochs"] == 5
    assert config["image_size"] == 32
    assert config["device"] == "cpu"
    assert config["precision"] == "fp32"
    assert config["normalization"] == {"mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2]}
    assert config["recipe"]["phases"] == [
        {"share": 1.0, "scale": 1.0, "trains": ["all"], "learning_rate": None}
    ]
    written = json.loads((out / "result.json").read_text())
    assert written == json.loads(json.dumps(asdict(result)))
    assert written["weights"] == "last"
    assert written["steps"] == 25
    assert written["train_images"] == 40
    assert written["parameters"] == sum(p.numel() for p in model.parameters())
    assert written["seconds_per_step"] == pytest.approx(written["seconds"] / 25)


def test_metrics(done: tuple[Path, nn.Module, Any]) -> None:
    out, _, result = done
    table = rows(out)
    assert [row["epoch"] for row in table] == ["1", "2", "3", "4", "5"]
    assert [row["step"] for row in table] == ["5", "10", "15", "20", "25"]
    assert float(table[-1]["validation_loss"]) == result.validation.loss
    assert float(table[-1]["validation_accuracy"]) == result.validation.accuracy
    rates = [float(row["learning_rate"]) for row in table]
    assert max(rates) <= TINY.learning_rate
    assert rates[-1] < 1e-5, "the rate of the last step, at the end of the cycle"


def test_tensorboard(done: tuple[Path, nn.Module, Any]) -> None:
    out, _, _ = done
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        *("batch/loss", "batch/accuracy", "batch/learning_rate"),
        *("train/loss", "train/accuracy", "validation/loss", "validation/accuracy"),
    }
    assert [e.step for e in events.Scalars("validation/loss")] == [5, 10, 15, 20, 25]
    for event, row in zip(events.Scalars("train/loss"), rows(out), strict=True):
        assert event.value == pytest.approx(float(row["train_loss"]), rel=1e-6)


def test_the_network_that_is_left_is_the_one_that_was_tested(
    done: tuple[Path, nn.Module, Any],
) -> None:
    out, _, result = done
    data = make_data()
    found = evaluate(load_model(out), data.test, data.normalization, CPU)
    assert found.accuracy == result.test.accuracy
    assert found.loss == pytest.approx(result.test.loss, rel=1e-5)


def test_training_images_are_as_the_network_gets_them(tmp_path: Path) -> None:
    """Without augmentation they are the images themselves; with it, mirrored or cropped ones."""
    data = make_data()
    run(tmp_path / "a", data=data, recipe=replace(TINY, epochs=1, augmentation=PLAIN))
    shown = load_file(tmp_path / "a" / "training_images.safetensors")
    assert torch.equal(shown["images"], data.train.images)
    assert torch.equal(shown["labels"], data.train.labels)
    flip = replace(TINY, epochs=1, augmentation=replace(PLAIN, flip=True))
    run(tmp_path / "b", data=data, recipe=flip)
    images = load_file(tmp_path / "b" / "training_images.safetensors")["images"]
    flipped = [torch.equal(x, y.flip(2)) for x, y in zip(images, data.train.images, strict=True)]
    kept = [torch.equal(x, y) for x, y in zip(images, data.train.images, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert any(flipped)
    assert any(kept)
    run(tmp_path / "c", data=replace(data, may_flip=False), recipe=flip)
    images = load_file(tmp_path / "c" / "training_images.safetensors")["images"]
    assert torch.equal(images, data.train.images), "digits are never mirrored"


# --- what it does ---------------------------------------------------------------------------------


class Spy(nn.Module):
    """A linear network that notes what passes; quick, and with a norm and biases."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 2)
        self.seen: list[Tensor] = []
        self.attnscope_config = build_model("cnn").attnscope_config

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(x.detach().clone())
        logits: Tensor = self.fc(self.norm(x).mean((2, 3)))
        return logits


def watch_optimizer(monkeypatch: pytest.MonkeyPatch) -> list[torch.optim.SGD]:
    """The optimizer of the run, once it is made; its groups are noted at each of its steps."""
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


def test_optimizer_and_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        # One cycle by its formula: cosines up from a 25th in three steps, down to almost nothing.
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
def test_a_cycle_of_any_length(steps: int) -> None:
    """OneCycleLR divides by zero where its rise has one step."""
    optimizer = train_module.build_optimizer(Spy(), FAST, FAST.learning_rate)
    schedule = train_module.build_schedule(optimizer, FAST, steps)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert all(0 < rate <= FAST.learning_rate * 1.000001 for rate in rates)
    assert rates[0] == pytest.approx(FAST.learning_rate / 25)
    if steps > 1:
        assert max(rates) > FAST.learning_rate / 2


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


def test_no_two_uses_of_a_seed_share_a_stream() -> None:
    keys = [
        (p, *k) for p in ("order", "augment") for k in ((0,), (0, 0), (0, 0, 0), (2**32,), (0, 1))
    ]
    assert len({train_module.derive_seed(*k) for k in keys}) == len(keys)
    assert all(0 <= train_module.derive_seed(*k) < 2**63 for k in keys)


def test_the_test_part_chooses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read once, after the last step; and with other test images all else is the same."""
    looked: list[tuple[str, int]] = []
    model = Spy()
    real = train_module.evaluate

    def spy(network: nn.Module, given: LabelledImages, *rest: Any) -> Any:
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


def test_evaluate_equals_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_EVALUATION_BATCH", 3)
    model = small(attention="cbam", reduction=4)
    data = make_data()
    model(data.normalization.apply(data.train.images))  # running statistics that are no longer 0, 1
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
    with pytest.raises(InputError, match="32×32 only"):
        evaluate(model, data.test, data.normalization, CPU)
    assert all(module.training for module in model.modules())


def test_bfloat16(tmp_path: Path) -> None:
    model = small(attention="cbam", reduction=4)
    result = run(tmp_path / "run", model, precision="bf16", recipe=replace(TINY, epochs=1))
    assert result.precision == "bf16"
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())


# --- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 0}, "epochs is 0; it must be 1 or more"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
        ({"device": "gpu"}, "device 'gpu' is not known; take auto, cpu or cuda"),
        ({"device": "meta"}, "device 'meta' is not known; take auto, cpu or cuda"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not there; take auto or cpu"),
        ({"precision": "fp8"}, "precision 'fp8' is not known; take one of auto, fp32, bf16"),
        ({"model": "three"}, "the network has 3 outputs and made by the test has 2 classes"),
        ({"model": "cnn", "size": 40}, "takes images of 32×32 only; set --image-size 32"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    networks: dict[str | None, Callable[[], nn.Module]] = {
        None: small,
        "three": lambda: small(num_classes=3),
        "cnn": lambda: build_model("cnn", num_classes=2),
    }
    model = networks[options.pop("model", None)]()
    before = {n: (v.clone(), v.stride()) for n, v in model.state_dict().items()}
    data = make_data(size=options.pop("size", 32))
    with pytest.raises(InputError) as caught:
        run(tmp_path / "runs" / "run", model, data=data, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name][0])
        assert value.stride() == before[name][1], "the layout changes only when all is checked"
    assert all(module.training for module in model.modules())


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "file").touch()
    for name, said in (("run", "exists already; take another"), ("file/run", "cannot be made")):
        with pytest.raises(InputError, match=said):
            run(tmp_path / name, Spy())
    assert list((tmp_path / "run").iterdir()) == []


def test_unknown_recipe() -> None:
    assert get_recipe("fast") is RECIPES["fast"]
    with pytest.raises(
        InputError, match=r"^recipe 'slow' is not known; take one of fast, staged, cnn, "
    ):
        get_recipe("slow")


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_the_phases_of_a_recipe_are_a_whole(recipe: Any) -> None:
    assert sum(phase.share for phase in recipe.phases) == pytest.approx(1)
    assert recipe.phases[-1].scale == 1


def test_devices_and_precisions() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_precision("bf16", CPU)
    assert not choose_precision("fp32", CPU)
    assert choose_precision("auto", CPU) in (True, False)


# --- a loss that is not finite --------------------------------------------------------------------


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
