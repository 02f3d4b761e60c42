"""What `fit` writes, and what it refuses before it writes anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from attnscope.data.augmentation import Augmentation
from attnscope.data.normalization import Normalization
from attnscope.networks.build import build_model
from attnscope.networks.weights import load_model
from attnscope.training.evaluation import evaluate
from tests.making import refused
from tests.training.toys import (
    CPU,
    PLAIN,
    TINY,
    Spy,
    make_data,
    rows,
    run,
    small,
    states_equal,
)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module, Any]:
    out = tmp_path_factory.mktemp("runs") / "deep" / "run"
    model = small(attention="cbam", reduction=4)
    recipe = replace(TINY, epochs=5)
    result = run(out, model, recipe=recipe, data=make_data(40), seed=3, config={"name": "toy"})
    return out, model, result


def test_the_training_loss_falls(done: tuple[Path, nn.Module, Any]) -> None:
    out, _, result = done
    losses = [float(row["train_loss"]) for row in rows(out)]
    assert losses[-1] < 0.7 * losses[0]
    assert result.test.accuracy >= 6 / 7


def test_files_and_settings_of_a_run_folder(done: tuple[Path, nn.Module, Any]) -> None:
    out, model, result = done
    assert sorted(p.name for p in out.iterdir()) == [
        "best.safetensors",
        "config.json",
        "hashes.json",
        "images.parquet",
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


def test_metrics_have_a_row_per_epoch(done: tuple[Path, nn.Module, Any]) -> None:
    out, _, result = done
    table = rows(out)
    assert [row["epoch"] for row in table] == ["1", "2", "3", "4", "5"]
    assert [row["step"] for row in table] == ["5", "10", "15", "20", "25"]
    assert float(table[-1]["validation_loss"]) == result.validation.loss
    assert float(table[-1]["validation_accuracy"]) == result.validation.accuracy
    rates = [float(row["learning_rate"]) for row in table]
    assert max(rates) <= TINY.learning_rate
    assert rates[-1] < 1e-5, "the rate of the last step, at the end of the cycle"


def test_tensorboard_has_steps_and_epochs(done: tuple[Path, nn.Module, Any]) -> None:
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


def test_the_saved_network_is_the_tested_one(
    done: tuple[Path, nn.Module, Any],
) -> None:
    out, _, result = done
    data = make_data()
    found = evaluate(load_model(out), data.test, data.normalization, CPU)
    assert found.accuracy == result.test.accuracy
    assert found.loss == pytest.approx(result.test.loss, rel=1e-5)


def test_training_images_are_augmented_like_the_input(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("options", "code", "names"),
    [
        ({"epochs": 0}, "AS102", ("epochs", 0)),
        ({"seed": -1}, "AS102", ("seed", -1)),
        ({"device": "gpu"}, "AS130", ("'gpu'",)),
        ({"device": "meta"}, "AS130", ("'meta'",)),
        ({"device": "cuda:99"}, "AS131", ("'cuda:99'",)),
        ({"precision": "fp8"}, "AS132", ("'fp8'", "auto, fp32, bf16")),
        ({"model": "three"}, "AS504", (3, "made by the test", "num_classes=2")),
        ({"model": "cnn", "size": 40}, "AS313", ("'cnn'", "32×32")),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(
    tmp_path: Path, options: dict[str, Any], code: str, names: tuple[object, ...]
) -> None:
    networks: dict[str | None, Callable[[], nn.Module]] = {
        None: small,
        "three": lambda: small(num_classes=3),
        "cnn": lambda: build_model("cnn", num_classes=2),
    }
    model = networks[options.pop("model", None)]()
    before = {n: (v.clone(), v.stride()) for n, v in model.state_dict().items()}
    data = make_data(size=options.pop("size", 32))
    with refused(code, names):
        run(tmp_path / "runs" / "run", model, data=data, **options)
    assert list(tmp_path.iterdir()) == []
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name][0])
        assert value.stride() == before[name][1], "the layout changes after all checks"
    assert all(module.training for module in model.modules())


def test_repr_of_the_result_is_one_line_with_the_accuracies(
    done: tuple[Path, nn.Module, Any],
) -> None:
    result = done[2]
    shown = repr(result)
    assert "\n" not in shown
    for value in ("5 epochs", "25 steps", "cpu", "fp32", f"{result.test.accuracy:.1%}"):
        assert value in shown


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "file").touch()
    for name, code in (("run", "AS113"), ("file/run", "AS114")):
        with refused(code, names=(tmp_path / name,)):
            run(tmp_path / name, Spy())
    assert list((tmp_path / "run").iterdir()) == []


def test_colors_of_images_without_colors_cannot_be_changed(tmp_path: Path) -> None:
    data = make_data()
    bands = replace(data.train, images=data.train.images[:, [0, 1, 2, 0]])
    data = replace(data, train=bands, normalization=Normalization((0.4,) * 4, (0.2,) * 4))
    recipe = replace(TINY, augmentation=Augmentation(hue=0.1))
    model = build_model(width=16, num_classes=2, channels=4)
    with refused("AS508", names=("4 channels", "--channels")):
        run(tmp_path / "run", model, data=data, recipe=recipe)
    assert not (tmp_path / "run").exists()
