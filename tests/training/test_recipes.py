"""Short runs of each recipe on real images, observed at every step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnscope.data.load import Data, load_data
from attnscope.networks.build import build_model
from attnscope.training import loop as train_module
from attnscope.training.evaluation import Evaluation
from attnscope.training.fitting import fit
from attnscope.training.recipe import SGD, OneCycle, Phase, Plateau, Recipe
from attnscope.training.recipes import RECIPES
from attnscope.training.result import TrainResult
from tests.making import refused
from tests.training.toys import make_data, small

EPOCHS = 10
IMAGES = 60


@dataclass(frozen=True)
class Seen:
    """The state at one step."""

    optimizer: torch.optim.Optimizer
    groups: list[dict[str, Any]]
    owned: set[str]
    """Names of the parameters of the optimizer."""
    trained: set[str]
    """Names of the parameters that require a gradient."""
    moving: set[str]
    """Names of the BatchNorm layers in training mode."""
    sizes: list[tuple[int, ...]]
    """Shapes of the batches."""
    state: dict[str, Tensor]
    """State dict before the step."""


@pytest.fixture(scope="module")
def digits() -> dict[tuple[int, int], Data]:
    return {
        (size, resize): load_data("digits", image_size=size, resize=resize)
        for size, resize in ((32, 32), (64, 72))
    }


def watched(
    recipe: Recipe,
    out: Path,
    digits: dict[tuple[int, int], Data],
    monkeypatch: pytest.MonkeyPatch,
    *,
    size: tuple[int, int] = (32, 32),
    epochs: int = EPOCHS,
    losses: list[float] | None = None,
) -> tuple[list[Seen], TrainResult]:
    """Train briefly and return the state at each step. Validation losses can be prescribed."""
    data = digits[size]
    data = replace(data, train=data.train[:IMAGES], validation=data.validation[:20])
    data = replace(data, test=data.test[:20])
    network = recipe.network
    # Width 16, because oneDNN corrupts memory in strided 1×1 convolutions with 8 channels.
    options = {"placement": network.placement, "stem": network.stem, "width": 16}
    torch.manual_seed(0)
    model = build_model(
        network.model,
        attention=network.attention,
        reduction=4,
        **({} if network.model == "cnn" else options),  # type: ignore[arg-type]
    )
    names = {id(p): name for name, p in model.named_parameters()}
    seen: list[Seen] = []
    shapes: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda m, x: shapes.append(tuple(x[0].shape)))
    step = train_module.TrainingLoop.step

    def note(training: Any, *arguments: Any) -> Tensor:
        optimizer = training.optimizer
        state = {name: value.clone() for name, value in model.state_dict().items()}
        groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        owned = {names[id(p)] for g in optimizer.param_groups for p in g["params"]}
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        moving = {
            name
            for name, m in model.named_modules()
            if isinstance(m, nn.BatchNorm2d) and m.training
        }
        shapes.clear()
        sums = step(training, *arguments)
        seen.append(Seen(optimizer, groups, owned, trained, moving, list(shapes), state))
        return sums

    monkeypatch.setattr(train_module.TrainingLoop, "step", note)
    if losses is not None:
        given = iter([*losses, 1.0])
        monkeypatch.setattr(train_module, "evaluate", lambda *_: Evaluation(next(given), 0.5))
    result = fit(
        model, data, recipe, out, epochs=epochs, device="cpu", precision="fp32", progress=False
    )
    seen.append(  # the state at the end
        Seen(
            seen[-1].optimizer,
            [],
            set(),
            {name for name, p in model.named_parameters() if p.requires_grad},
            set(),
            [],
            model.state_dict(),
        )
    )
    return seen, result


def changed(before: Seen, after: Seen) -> set[str]:
    return {n for n, v in before.state.items() if not torch.equal(v, after.state[n])}


def test_staged_unfreezes_in_three_phases(
    tmp_path: Path, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES["staged"]
    assert (recipe.epochs, recipe.batch_size, recipe.accumulate) == (50, 64, 1)
    assert recipe.network.weights == "imagenet"
    assert recipe.network.attention == "cbam"
    seen, result = watched(recipe, tmp_path / "run", digits, monkeypatch)
    assert len(seen) - 1 == result.steps == EPOCHS
    # Epochs 1 to 5, 6 to 20 and 21 to 50 of 50, in proportion: 1, 2 to 4 and 5 to 10 of 10.
    phases = [seen[:1], seen[1:4], seen[4:10]]
    every = set(seen[0].state)
    parameters = seen[4].trained
    attention = {n for n in parameters if ".attention." in n}
    assert {n.split(".attention.")[0] for n in attention} == {
        "layer1",
        "layer2",
        "layer3",
        "layer4",
    }
    head = attention | {"fc.weight", "fc.bias"}
    deep = head | {n for n in parameters if n.startswith(("layer3.", "layer4."))}
    assert len(parameters) == 62 + 4 * 3, "all parameters"
    for steps, trained, rate in zip(
        phases, (head, deep, parameters), (1e-3, 1e-4, 1e-5), strict=True
    ):
        for now in steps:
            assert type(now.optimizer) is torch.optim.Adam
            assert now.trained == now.owned == trained
            assert {g["lr"] for g in now.groups} == {rate}
            assert {g["weight_decay"] for g in now.groups} == {0}
            assert now.sizes == [(IMAGES, 3, 32, 32)]
            norms = {n.rpartition(".")[0] for n in every if n.endswith("running_mean")}
            assert now.moving == {n for n in norms if f"{n}.weight" in trained}
    assert len({id(now.optimizer) for now in seen[:-1]}) == 3, "a new optimizer in each phase"
    # Frozen modules keep their values and running statistics, bit for bit.
    assert changed(seen[0], seen[1]) == head
    moved = changed(seen[1], seen[4])
    assert moved >= deep
    assert all(n in head or n.startswith(("layer3.", "layer4.")) for n in moved)
    assert changed(seen[4], seen[10]) == every
    assert seen[-1].trained == parameters


def test_cnn_halves_the_learning_rate_on_a_plateau(
    tmp_path: Path, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES["cnn"]
    assert (recipe.epochs, recipe.log_steps, recipe.histogram_steps) == (50, 100, 500)
    assert recipe.schedule == Plateau(patience=3, factor=0.5)
    assert recipe.augmentation == RECIPES["staged"].augmentation
    # Better twice, then four epochs not better: halved. Then better, then four epochs worse.
    losses = [1.0, 0.9, 0.9, 0.95, 0.9, 0.9, 0.8, 0.85, 0.85, 0.85, 0.85, 0.85]
    seen, _ = watched(recipe, tmp_path / "run", digits, monkeypatch, epochs=12, losses=losses)
    rates = [now.groups[0]["lr"] for now in seen[:-1]]
    assert rates == [1e-3] * 6 + [5e-4] * 5 + [2.5e-4]
    assert type(seen[0].optimizer) is torch.optim.Adam
    assert seen[0].trained == seen[0].owned
    assert len({id(now.optimizer) for now in seen}) == 1


@pytest.mark.parametrize("name", ["finetune", "features"])
def test_recipes_for_photographs(
    name: str, tmp_path: Path, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES[name]
    assert (recipe.batch_size, recipe.epochs, recipe.keeps) == (6, 10, "best")
    assert (recipe.network.image_size, recipe.network.resize) == (224, 256)
    assert recipe.augmentation.resized_crop
    recipe = replace(recipe, network=replace(recipe.network, attention="se"))
    seen, result = watched(recipe, tmp_path / "run", digits, monkeypatch, size=(64, 72), epochs=2)
    assert result.steps == 2 * IMAGES // 6
    expected = {"fc.weight", "fc.bias"} if name == "features" else seen[-1].trained
    for now in seen[:-1]:
        assert type(now.optimizer) is torch.optim.Adam
        assert now.groups[0]["lr"] == 1e-4
        assert now.trained == now.owned == expected
        assert bool(now.moving) == (name == "finetune")
        assert now.sizes == [(6, 3, 64, 64)], "crops of images of 72 pixels"
    if name == "features":
        assert changed(seen[0], seen[-1]) == expected
    assert result.weights == "best"


def test_se_sgd_accumulates_and_has_milestones(
    tmp_path: Path, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES["se-sgd"]
    assert (recipe.epochs, recipe.batch_size, recipe.accumulate) == (90, 32, 4)
    recipe = replace(recipe, batch_size=8)
    seen, result = watched(recipe, tmp_path / "run", digits, monkeypatch, epochs=6)
    assert result.steps == 12
    for number, now in enumerate(seen[:-1]):
        assert type(now.optimizer) is torch.optim.SGD
        (group,) = now.groups
        assert group["lr"] == pytest.approx(0.1 * 0.1 ** (number // 4))
        assert (group["momentum"], group["weight_decay"]) == (0.9, 1e-4)
        assert not group["nesterov"]
        assert now.owned == now.trained
        assert [shape[0] for shape in now.sizes] == [[8] * 4, [7] * 4][number % 2]


def test_fast_scales_images_in_its_first_phase(
    tmp_path: Path, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its learning rates are tested in test_optimization.py."""
    recipe = RECIPES["fast"]
    assert recipe.optimizer == SGD(nesterov=True, weight_decay=5e-4, decays_all=False)
    assert recipe.schedule == OneCycle()
    seen, _ = watched(recipe, tmp_path / "run", digits, monkeypatch)
    assert [now.sizes[0][-1] for now in seen[:-1]] == [24] * 6 + [32] * 4
    assert len({id(now.optimizer) for now in seen}) == 1, "one cycle over both phases"


def test_fast_gpu_is_fast_with_larger_batches_of_one_size() -> None:
    recipe, fast = RECIPES["fast-gpu"], RECIPES["fast"]
    for name in (
        "optimizer",
        "schedule",
        "label_smoothing",
        "network",
        "accumulate",
    ):
        assert getattr(recipe, name) == getattr(fast, name), name
    assert recipe.augmentation == replace(fast.augmentation, cutout=8)
    assert recipe.phases == (Phase(),), "each size of images is compiled anew"
    # The linear scaling rule, Goyal et al. 2017.
    assert recipe.batch_size == 512
    ratio = recipe.batch_size / fast.batch_size
    assert recipe.learning_rate / fast.learning_rate == pytest.approx(ratio)


def test_fast_gpu_learns_from_few_steps(tmp_path: Path) -> None:
    data = make_data(48)
    result = fit(
        small(attention="cbam"), data, RECIPES["fast-gpu"], tmp_path / "run",
        device="cpu", precision="fp32", progress=False,
    )  # fmt: skip
    assert result.steps == RECIPES["fast-gpu"].epochs == 30
    assert result.validation.accuracy == result.test.accuracy == 1


def test_keeps_the_best_or_the_last_weights(
    tmp_path: Path, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = [0.2, 0.7, 0.7, 0.4]
    tested: list[dict[str, Tensor]] = []

    for keeps in ("best", "last"):
        given = iter(accuracies)
        tested.clear()

        def evaluate(model: nn.Module, *_: Any, given: Any = given) -> Evaluation:
            tested.append({name: value.clone() for name, value in model.state_dict().items()})
            return Evaluation(1.0, next(given, 0.0))

        with monkeypatch.context() as patch:
            patch.setattr(train_module, "evaluate", evaluate)
            recipe = replace(RECIPES["fast"], keeps=keeps)
            out = tmp_path / keeps
            _, result = watched(recipe, out, digits, patch, epochs=4)
        assert (result.weights, result.best_epoch) == (keeps, 2)
        assert result.validation.accuracy == (0.7 if keeps == "best" else 0.4)
        kept, other = (1, 3) if keeps == "best" else (3, 1)
        for name, value in tested[kept].items():
            assert torch.equal(tested[4][name], value), "the kept weights are tested"
        from safetensors.torch import load_file

        other_file = "last.safetensors" if keeps == "best" else "best.safetensors"
        for file, number in (("model.safetensors", kept), (other_file, other)):
            state = load_file(out / file)
            assert all(torch.equal(state[name], v) for name, v in tested[number].items())
        assert sorted(p.name for p in out.glob("*.safetensors")) == sorted(
            ["model.safetensors", other_file, "training_images.safetensors"]
        )


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_recipe_ends_with_images_of_full_size_and_is_registered(recipe: Recipe) -> None:
    assert recipe.phases[-1].scale == 1
    assert RECIPES.find(recipe.name) is recipe


def test_a_recipe_that_trains_a_missing_module_is_refused(tmp_path: Path, digits: Any) -> None:
    model = build_model("cnn", attention="cbam")
    model.block1.requires_grad_(False)
    with refused("AS503", names=("'layer3'",)):
        fit(model, digits[32, 32], RECIPES["staged"], tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    assert not any(p.requires_grad for p in model.block1.parameters())
    assert all(p.requires_grad for p in model.block2.parameters())


def test_parameters_frozen_by_the_caller_stay_frozen(tmp_path: Path, digits: Any) -> None:
    data = digits[32, 32]
    data = replace(data, train=data.train[:40], validation=data.validation[:20])
    model = build_model("cnn", attention="cbam")
    model.block1.requires_grad_(False)
    before = {name: value.clone() for name, value in model.block1.state_dict().items()}
    fit(model, data, RECIPES["cnn"], tmp_path / "run", epochs=1, device="cpu", progress=False)
    assert not any(p.requires_grad for p in model.block1.parameters())
    assert all(p.requires_grad for p in model.block2.parameters())
    after = model.block1.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_accumulated_gradients_equal_those_of_one_batch(tmp_path: Path, digits: Any) -> None:
    """Four pieces of unequal size, in a network without BatchNorm."""

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.fc = nn.Linear(3 * 32 * 32, 10)
            self.attnscope_config = build_model("cnn").attnscope_config

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(x.flatten(1))
            return logits

    data = digits[32, 32]
    data = replace(data, train=data.train[:23], validation=data.validation[:10])
    states = []
    for batch, accumulate in ((24, 1), (6, 4)):
        recipe = replace(
            RECIPES["fast"], batch_size=batch, accumulate=accumulate, phases=(Phase(),)
        )
        model = Linear()
        out = tmp_path / str(batch)
        fit(model, data, recipe, out, epochs=5, device="cpu", precision="fp32", progress=False)
        states.append(model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-6)
    assert (states[0]["fc.weight"] - Linear().fc.weight).abs().max() > 1e-3


def test_cnn_logs_steps_epochs_and_histograms(
    tmp_path: Path, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = replace(RECIPES["cnn"], batch_size=4, log_steps=10, histogram_steps=25)
    watched(recipe, tmp_path / "run", digits, monkeypatch, epochs=4)  # 15 steps an epoch
    events = EventAccumulator(
        str(tmp_path / "run" / "tensorboard"), size_guidance={"scalars": 0, "histograms": 0}
    )
    events.Reload()
    for name in ("loss", "accuracy", "learning_rate"):
        assert [e.step for e in events.Scalars(f"batch/{name}")] == [10, 20, 30, 40, 50, 60]
    for split in ("train", "validation"):
        for name in ("loss", "accuracy"):
            assert [e.step for e in events.Scalars(f"{split}/{name}")] == [15, 30, 45, 60]
    tags = set(events.Tags()["histograms"])
    parameters = {name for name, _ in build_model("cnn", attention="cbam").named_parameters()}
    assert tags == {f"{kind}/{n}" for kind in ("weights", "gradients") for n in parameters}
    assert [e.step for e in events.Histograms("gradients/fc.weight")] == [25, 50]
    assert events.Histograms("gradients/fc.weight")[0].histogram_value.max > 0
