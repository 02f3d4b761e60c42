"""The stages about whole trainings: their speed in each mode, and resumed trainings."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn

from analysis.gpu.measures import Row
from analysis.gpu.networks import made_data, network
from analysis.gpu.stage import Setting, stage
from attnscope import layout
from attnscope.data.load import load_data
from attnscope.training.config import DEFAULT_RECIPE
from attnscope.training.fitting import fit
from attnscope.training.logs import read_rows
from attnscope.training.loop import TrainingLoop
from attnscope.training.processes import ProcessGroup
from attnscope.training.recipe import Recipe
from attnscope.training.recipes import RECIPES
from attnscope.training.result import TrainResult
from attnscope.training.run import GPU_RECIPE, suits_gpu_recipe

_EAGER, _DETERMINISTIC, _COMPILED = "eager", "deterministic", "compiled"
_MODES: dict[str, dict[str, bool]] = {
    _EAGER: {"compiled": False},
    _DETERMINISTIC: {"compiled": False, "deterministic": True},
    _COMPILED: {"compiled": True},
}


def _modes(setting: Setting) -> dict[str, dict[str, bool]]:
    # A trial on a CPU does not wait for a compiler.
    return {
        name: {} if setting.tiny and name == _COMPILED else mode for name, mode in _MODES.items()
    }


def _fit(out: Path, setting: Setting, epochs: int, **options: Any) -> tuple[nn.Module, TrainResult]:
    recipe: Recipe = replace(RECIPES["fast-gpu"], batch_size=setting.pick(512, 4))
    model = network("cbam", setting.pick(64, 16))
    data = made_data(setting.pick(25_600, 8), 32)
    options = {"device": str(setting.device), "precision": "bf16", "progress": False, **options}
    return model, fit(model, data, recipe, out, epochs=epochs, **options)


@stage(
    "fast-gpu",
    "A training as a whole by the recipe `fast-gpu`: CBAM, batch 512, relative to eager",
    150,
    {
        "attnscope.fit, eager": "",
        "attnscope.fit, deterministic": "",
        "attnscope.fit, compiled": "25,000 images/s",
        "seconds of compiling": "",
    },
)
def fast_gpu(setting: Setting) -> Iterator[Row]:
    """Compare the modes of a training, epoch by epoch, without the first epoch."""
    rates: dict[str, float] = {}
    for name, mode in _modes(setting).items():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            _, result = _fit(out, setting, setting.pick(4, 2), **mode)
            rows = read_rows(out / layout.METRICS)
        speeds = [row["images_per_second"] for row in rows[1:]]
        rates[name] = statistics.median(speeds)
        ratios = [rates[name], min(speeds), max(speeds)]
        ratio, low, high = (speed / rates[_EAGER] for speed in ratios)
        work, note = f"attnscope.fit, {name}", f"training loss {rows[-1]['train_loss']:.4f}"
        if name == _EAGER:
            yield Row(work, rates[name], "images/s", note=note)
        else:
            yield Row(work, rates[name], "images/s", ratio, low, high, note)
        if name == _COMPILED:
            yield Row("seconds of compiling", result.compile_seconds, "s")


@stage(
    "training",
    "A training to the end: ResNet18-CBAM",
    180,
    {
        "test accuracy": "93% on CIFAR-10",
        "seconds of training": "60",
        "seconds of compiling": "",
        "accuracy over epochs": "",
    },
)
def training(setting: Setting) -> Iterator[Row]:
    """Train by a recipe to the end. A stopped training continues where its checkpoint is."""
    out = setting.out / "training"
    data = load_data(setting.data)
    model = network("cbam", setting.pick(64, 16), data.image_size)
    if len(data.classes) != 10:
        raise ValueError(f"{setting.data} has {len(data.classes)} classes, and 10 are expected")
    on_gpu = suits_gpu_recipe(setting.device, data, ProcessGroup())
    recipe = setting.recipe or (GPU_RECIPE if on_gpu else DEFAULT_RECIPE)
    result = fit(
        model,
        data,
        RECIPES.find(recipe),
        out,
        epochs=setting.epochs,
        device=str(setting.device),
        precision="bf16",
        compiled=setting.device.type == "cuda",
        progress=False,
        resume=True,
        checkpoint_seconds=20,
    )
    what = f"{setting.data}, recipe {recipe}, {result.epochs} epochs"
    yield Row("test accuracy", 100 * result.test.accuracy, "%", note=what)
    rate = result.train_images * result.epochs / result.seconds
    yield Row("seconds of training", result.seconds, "s", note=f"{rate:,.0f} images/s")
    yield Row("seconds of compiling", result.compile_seconds, "s")
    rows = read_rows(out / layout.METRICS)
    curve = [f"{100 * row['validation_accuracy']:.1f}" for row in rows]
    yield Row("accuracy over epochs", note=f"validation, in percent: {', '.join(curve)}")


@stage(
    "resume",
    "Resumed trainings: the largest difference of a weight after 100 steps",
    120,
    {
        "two uninterrupted runs, eager": "",
        "resumed and uninterrupted, eager": "as above",
        "resumed and uninterrupted, deterministic": "0",
        "two uninterrupted runs, compiled": "",
        "resumed and uninterrupted, compiled": "as above",
    },
)
def resume(setting: Setting) -> Iterator[Row]:
    """Compare runs that were stopped in the middle with runs that were not."""
    options: dict[str, Any] = {"epochs": 2, "checkpoint_seconds": 0}
    for name, mode in _modes(setting).items():
        with tempfile.TemporaryDirectory() as folder:
            first, _ = _fit(Path(folder) / "a", setting, **options, **mode)
            if name != _DETERMINISTIC:
                again, _ = _fit(Path(folder) / "b", setting, **options, **mode)
                work = f"two uninterrupted runs, {name}"
                yield Row(work, _largest_difference(first, again))
            with suppress(_StopError), _stopped_before(setting.pick(70, 4)):
                _fit(Path(folder) / "c", setting, **options, **mode)
            resumed, _ = _fit(Path(folder) / "c", setting, **options, **mode, resume=True)
            work = f"resumed and uninterrupted, {name}"
            yield Row(work, _largest_difference(first, resumed))


class _StopError(Exception):
    pass


def _stopped_before(number: int) -> Any:
    """Raise before a step. The last checkpoint is that of the report or epoch before."""
    step = TrainingLoop.step

    def stopping(loop: TrainingLoop, *arguments: Any) -> Tensor:
        if loop.position.step + 1 == number:
            raise _StopError
        return step(loop, *arguments)

    return patch.object(TrainingLoop, "step", stopping)


def _largest_difference(a: nn.Module, b: nn.Module) -> float:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return max(float((x.double() - y.double()).abs().max()) for x, y in pairs)
