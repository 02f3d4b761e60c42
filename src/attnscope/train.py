"""The one training loop, for every network, source and recipe; CPU and GPU."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from attnscope import __version__
from attnscope.data import Data, LabelledImages, Normalization, augment, batches
from attnscope.errors import InputError
from attnscope.files import write_bytes, write_json
from attnscope.models import save_model
from attnscope.recipes import Phase, Recipe

PRECISIONS = ("auto", "fp32", "bf16")
_EVALUATION_BATCH = 256
_SHOWN_IMAGES = 32  # training images kept in the run for the figure


@dataclass(frozen=True)
class Evaluation:
    """What a network does on a part, over all its images."""

    loss: float
    """Mean cross-entropy, in nats, without label smoothing."""
    accuracy: float
    """Share of right predictions, 0 to 1."""


@dataclass(frozen=True)
class TrainResult:
    """What a training ended with; written to the run folder as ``result.json``."""

    epochs: int
    steps: int
    seconds: float
    """Of the training steps alone: neither evaluation nor loading."""
    seconds_per_step: float
    train_images: int
    validation: Evaluation
    test: Evaluation
    """Of the last weights. The test part chose nothing."""
    weights: str
    """Which weights these are: ``last``."""
    device: str
    precision: str
    parameters: int


def train(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    out: Path,
    *,
    epochs: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    config: dict[str, Any] | None = None,
    progress: bool = True,
) -> TrainResult:
    """Trains ``model`` and writes a run folder.

    Args:
        model: of `attnscope.models.build_model`; moved to the device, trained in place.
        data: train, validation and test part. Validation is only looked at, and the test part is
            evaluated once, after the last step.
        recipe: what is done.
        out: the run folder, which must not exist.
        epochs: instead of the recipe's; its phases scale in proportion.
        seed: of order, augmentation and dropout. (The initial weights are the caller's.)
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32`` or ``bf16`` (autocast; the weights stay float32).
        config: what else belongs into the run's ``config.json``.
        progress: show a bar on the standard error.

    Raises:
        InputError: an argument cannot be used.
        FloatingPointError: the loss is not finite; the message says at which step.
    """
    epochs = recipe.epochs if epochs is None else epochs
    if epochs < 1:
        raise InputError(f"epochs is {epochs}; it must be 1 or more")
    if out.exists():
        raise InputError(f"{out} exists already; take another folder for the run or remove it")
    where = choose_device(device)
    autocast = choose_precision(precision, where)
    steps_per_epoch = math.ceil(len(data.train) / recipe.batch_size)
    steps = epochs * steps_per_epoch
    torch.manual_seed(seed)  # dropout; order and augmentation have generators of their own
    model.to(where, memory_format=torch.channels_last)
    optimizer = _build_optimizer(model, recipe)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps, pct_start=recipe.warmup_share
    )
    out.mkdir(parents=True)
    write_json(
        out / "config.json",
        {
            **(config or {}),
            "attnscope": __version__,
            "torch": torch.__version__,
            "recipe": asdict(recipe),
            "epochs": epochs,
            "seed": seed,
            "device": str(where),
            "precision": "bf16" if autocast else "fp32",
            "classes": data.classes,
            "normalization": asdict(data.normalization),
            "image_size": data.image_size,
        },
    )
    _save_training_images(data, recipe, seed, out / "training_images.safetensors")
    metrics: list[dict[str, float]] = []
    images_on, labels_on = data.train.images.to(where), data.train.labels.to(where)
    step, seconds = 0, 0.0
    board = SummaryWriter(str(out / "tensorboard"))
    bar = tqdm(total=steps, unit="step", disable=not progress, dynamic_ncols=True)
    with board, bar:
        for epoch in range(epochs):
            model.train()
            # Sums stay on the device: reading them every step would make a GPU wait for us.
            loss_sum = torch.zeros((), device=where)
            right = torch.zeros((), device=where)
            began = time.perf_counter()
            order = torch.from_numpy(_generator(seed, epoch).permutation(len(data.train)))
            for rows in order.split(recipe.batch_size):
                phase = _phase_at(recipe.phases, step / steps)
                generator = torch.Generator().manual_seed(_derive(seed, epoch, step))
                x = _prepare(
                    images_on[rows.to(where)], data, recipe, phase, generator=generator
                )
                y = labels_on[rows.to(where)]
                with _autocast(where, autocast):
                    logits = model(x)
                loss = F.cross_entropy(logits.float(), y, label_smoothing=recipe.label_smoothing)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                step += 1
                loss_sum += loss.detach() * len(y)
                right += (logits.detach().argmax(1) == y).sum()
                bar.update()
                if step % 20 == 0 or step == steps:
                    value = loss.item()
                    if not math.isfinite(value):
                        rate = schedule.get_last_lr()[0]
                        raise FloatingPointError(
                            f"the loss is {value} at step {step} (learning rate {rate:.3g})"
                        )
                    board.add_scalar("batch/loss", value, step)
                    board.add_scalar("batch/learning_rate", schedule.get_last_lr()[0], step)
                    seen = (step - epoch * steps_per_epoch) * recipe.batch_size
                    bar.set_description(f"epoch {epoch + 1}/{epochs}")
                    bar.set_postfix(
                        loss=f"{value:.3f}",
                        accuracy=f"{right.item() / min(seen, len(data.train)):.3f}",
                    )
            train_loss = loss_sum.item() / len(data.train)
            took = time.perf_counter() - began
            seconds += took
            validation = evaluate(model, data.validation, data.normalization, where, autocast)
            metrics.append(
                {
                    "epoch": epoch + 1,
                    "step": step,
                    "train_loss": train_loss,
                    "train_accuracy": right.item() / len(data.train),
                    "validation_loss": validation.loss,
                    "validation_accuracy": validation.accuracy,
                    "learning_rate": schedule.get_last_lr()[0],
                    "images_per_second": len(data.train) / took,
                    "seconds": seconds,
                }
            )
            _write_metrics(out / "metrics.csv", metrics)
            for name in ("loss", "accuracy"):
                board.add_scalar(f"train/{name}", metrics[-1][f"train_{name}"], step)
                board.add_scalar(f"validation/{name}", metrics[-1][f"validation_{name}"], step)
            board.flush()
    result = TrainResult(
        epochs=epochs,
        steps=steps,
        seconds=seconds,
        seconds_per_step=seconds / steps,
        train_images=len(data.train),
        validation=validation,
        test=evaluate(model, data.test, data.normalization, where, autocast),
        weights="last",
        device=str(where),
        precision="bf16" if autocast else "fp32",
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )
    save_model(model, out)
    write_json(out / "result.json", asdict(result))
    return result


def evaluate(
    model: nn.Module,
    part: LabelledImages,
    normalization: Normalization,
    device: torch.device,
    autocast: bool = False,
) -> Evaluation:
    """Loss and accuracy in eval mode over a whole part; the training mode is put back."""
    was_training = model.training
    model.eval()
    loss = right = 0.0
    try:
        with torch.inference_mode():
            for images, labels in batches(part, _EVALUATION_BATCH):
                x, y = normalization.apply(images.to(device)), labels.to(device)
                with _autocast(device, autocast):
                    logits = model(x)
                loss += F.cross_entropy(logits.float(), y, reduction="sum").item()
                right += (logits.argmax(1) == y).sum().item()
    finally:
        model.train(was_training)
    return Evaluation(loss / len(part), right / len(part))


def choose_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one.

    Raises:
        InputError: the device is not known or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device '{name}' is not known; take auto, cpu or cuda") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device '{name}' is not there; take auto or cpu")
    return device


def choose_precision(name: str, device: torch.device) -> bool:
    """Whether to run under bfloat16 autocast; ``auto`` says yes where the hardware multiplies it.

    Raises:
        InputError: the precision is not known.
    """
    if name not in PRECISIONS:
        raise InputError(f"precision '{name}' is not known; take one of {', '.join(PRECISIONS)}")
    if name != "auto":
        return name == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Without AMX tiles a CPU converts back and forth, and is slower than in float32.
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


@contextmanager
def _autocast(device: torch.device, enabled: bool) -> Iterator[None]:
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
        yield


def _prepare(
    images: Tensor, data: Data, recipe: Recipe, phase: Phase, *, generator: torch.Generator
) -> Tensor:
    """A batch of uint8 images as the network gets it."""
    unit = data.image_size / 32
    x = augment(
        data.normalization.apply(images),
        generator,
        crop_padding=round(recipe.augmentation.crop_padding * unit),
        flip=recipe.augmentation.flip and data.may_flip,
        cutout=round(recipe.augmentation.cutout * unit),
    )
    if phase.scale != 1 and images.shape[-1] >= 32:
        side = round(images.shape[-1] * phase.scale / 8) * 8  # as the strides of the network want
        x = F.interpolate(x, size=side, mode="bilinear", antialias=True)
    return x.contiguous(memory_format=torch.channels_last)


def _phase_at(phases: tuple[Phase, ...], progress: float) -> Phase:
    end = 0.0
    for phase in phases:
        end += phase.share
        if progress < end - 1e-9:
            return phase
    return phases[-1]


def _build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    norms_and_biases = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return torch.optim.SGD(
        [
            {"params": weights, "weight_decay": recipe.weight_decay},
            {"params": norms_and_biases, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=True,
    )


def _derive(*keys: int) -> int:
    """One 63-bit seed from several numbers, so that no two uses of a seed share a stream."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 1)


def _generator(*keys: int) -> np.random.Generator:
    return np.random.default_rng(_derive(*keys))


def _save_training_images(data: Data, recipe: Recipe, seed: int, file: Path) -> None:
    """Some training images as the network gets them, un-normalised, for the figure of that name."""
    rows = np.sort(_generator(seed, 0).permutation(len(data.train))[:_SHOWN_IMAGES])
    chosen = data.train[rows]
    generator = torch.Generator().manual_seed(_derive(seed, 0, 0))
    x = _prepare(chosen.images, data, recipe, recipe.phases[-1], generator=generator)
    shown = data.normalization.undo(x).contiguous()
    write_bytes(file, save({"images": shown, "labels": chosen.labels.contiguous()}))


def _write_metrics(file: Path, rows: list[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(file, text.getvalue().encode())
