"""The one training loop, for every network, source and recipe; CPU and GPU."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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
from attnscope.checkpoints import load_checkpoint, save_checkpoint
from attnscope.data import Data, LabelledImages, Normalization, augment, batches
from attnscope.errors import InputError
from attnscope.files import read_json, refuse_existing, write_bytes, write_json
from attnscope.gates import eval_mode
from attnscope.models import SmallCNN, save_model
from attnscope.recipes import Phase, Recipe

PRECISIONS = ("auto", "fp32", "bf16")
_EVALUATION_BATCH = 256
_SHOWN_IMAGES = 32  # training images kept in the run for the figure
_REPORT_STEPS = 20  # steps between two looks at what the device computed


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


@dataclass
class _Position:
    """How far a training came: what a checkpoint holds beside the tensors, all JSON values."""

    step: int = 0
    seconds: float = 0.0
    metrics: list[dict[str, float]] = field(default_factory=list)
    """One row for each whole epoch."""
    # Of the epoch that runs, over its images so far:
    seen: int = 0
    loss_sum: float = 0.0
    right: float = 0.0


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
    resume: bool = False,
    checkpoint_seconds: float = 120,
) -> TrainResult:
    """Trains ``model`` and writes a run folder.

    All randomness derives from the seed and the place in the training, so that a resumed training
    ends where an uninterrupted one does: on a CPU in fp32, with as many threads, bit for bit.

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
        progress: a bar on the standard error.
        resume: go on from the last checkpoint in ``out``; from the start where there is none.
        checkpoint_seconds: how often ``checkpoint.safetensors`` is written, at least; it is also
            written after each epoch. It is removed when the training has ended.

    Raises:
        InputError: an argument cannot be used; nothing was written, and ``model`` is as it was.
        FloatingPointError: the loss is not finite; the message says at which step it became so. The
            run folder stays, with its settings, the metrics of the epochs before and the last good
            checkpoint, and without weights.
    """
    epochs = recipe.epochs if epochs is None else epochs
    if epochs < 1:
        raise InputError(f"epochs is {epochs}; it must be 1 or more")
    if seed < 0:
        raise InputError(f"seed is {seed}; it must be 0 or more")
    where = choose_device(device)
    autocast = choose_precision(precision, where)
    _check_model(model, data)
    settings = {
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
    }
    resume = resume and _may_resume(out, settings)
    if not resume:
        refuse_existing(out)
        try:
            out.mkdir(parents=True)
        except OSError as error:
            raise InputError(
                f"{out} cannot be made ({error.strerror}); take another folder"
            ) from None
    # Nothing was changed up to here; from here on, input is no reason to fail.
    model.to(where).to(memory_format=torch.channels_last)
    steps_per_epoch = len(_batch_sizes(len(data.train), recipe.batch_size))
    steps = epochs * steps_per_epoch
    optimizer = _build_optimizer(model, recipe)
    schedule = _build_schedule(optimizer, recipe, steps)
    position = _Position()
    checkpoint = out / "checkpoint.safetensors"
    if checkpoint.exists():
        state = load_checkpoint(checkpoint, model, optimizer)
        schedule.load_state_dict(state["schedule"])
        position = _Position(**state["position"])
    else:
        write_json(out / "config.json", settings)
        _save_training_images(data, recipe, seed, out / "training_images.safetensors")
    images_on, labels_on = data.train.images.to(where), data.train.labels.to(where)
    rates: list[float] = []  # of the steps since the last look
    saved_at = time.perf_counter()

    def save_state() -> None:
        nonlocal saved_at
        state = {"schedule": schedule.state_dict(), "position": asdict(position)}
        save_checkpoint(checkpoint, model, optimizer, state)
        saved_at = time.perf_counter()

    board = SummaryWriter(
        str(out / "tensorboard"), purge_step=position.step + 1 if position.step else None
    )
    bar = tqdm(
        total=steps,
        initial=position.step,
        unit="step",
        disable=not progress,
        dynamic_ncols=True,
    )
    with board, bar:
        for epoch in range(len(position.metrics), epochs):
            model.train()
            bar.set_description(f"epoch {epoch + 1}/{epochs}")
            # Sums stay on the device: reading them every step would make a GPU wait for us.
            loss_sum = torch.tensor(position.loss_sum, device=where)
            right = torch.tensor(position.right, device=where)
            bad_steps = torch.zeros((), device=where)  # since the loss was not finite
            order = torch.from_numpy(_generator("order", seed, epoch).permutation(len(data.train)))
            parts = torch.split(order, _batch_sizes(len(order), recipe.batch_size))
            began = time.perf_counter()
            for rows in parts[position.step - epoch * steps_per_epoch :]:
                step = position.step
                phase = _phase_at(recipe.phases, step / steps)
                torch.manual_seed(_derive("step", seed, step))  # dropout
                generator = torch.Generator().manual_seed(_derive("augment", seed, epoch, step))
                x = _prepare(
                    images_on[rows.to(where)],
                    data,
                    recipe,
                    1.0 if isinstance(model, SmallCNN) else phase.scale,
                    generator=generator,
                )
                y = labels_on[rows.to(where)]
                with _autocast(where, autocast):
                    logits = model(x)
                loss = F.cross_entropy(logits.float(), y, label_smoothing=recipe.label_smoothing)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                rates.append(float(schedule.get_last_lr()[0]))
                schedule.step()
                position.step += 1
                position.seen += len(y)
                loss_sum += loss.detach() * len(y)
                right += (logits.detach().argmax(1) == y).sum()
                bad_steps += ~torch.isfinite(loss_sum)  # a sum stays infinite or NaN
                bar.update()
                if position.step % _REPORT_STEPS == 0 or position.seen == len(order):
                    if not_finite := int(bad_steps.item()):
                        raise FloatingPointError(
                            f"the loss is not finite at step {position.step - not_finite + 1} of "
                            f"{steps} (learning rate {rates[-not_finite]:.3g})"
                        )
                    position.loss_sum, position.right = loss_sum.item(), right.item()
                    now = time.perf_counter()
                    position.seconds, began = position.seconds + now - began, now
                    value, accuracy = loss.item(), position.right / position.seen
                    board.add_scalar("batch/loss", value, position.step)
                    board.add_scalar("batch/learning_rate", rates[-1], position.step)
                    bar.set_postfix(loss=f"{value:.3f}", accuracy=f"{accuracy:.3f}")
                    if now - saved_at >= checkpoint_seconds and position.seen < len(order):
                        save_state()
                        began = time.perf_counter()
                    del rates[:-1]
            validation = evaluate(model, data.validation, data.normalization, where, autocast)
            if not math.isfinite(validation.loss):
                raise FloatingPointError(
                    f"the validation loss is not finite after step {position.step}"
                )
            before = position.metrics[-1]["seconds"] if position.metrics else 0.0
            row = {
                "epoch": epoch + 1,
                "step": position.step,
                "train_loss": position.loss_sum / len(data.train),
                "train_accuracy": position.right / len(data.train),
                "validation_loss": validation.loss,
                "validation_accuracy": validation.accuracy,
                "learning_rate": rates[-1],
                "images_per_second": len(data.train) / (position.seconds - before),
                "seconds": position.seconds,
            }
            position.metrics.append(row)
            position.seen, position.loss_sum, position.right = 0, 0.0, 0.0
            _write_metrics(out / "metrics.csv", position.metrics)
            for name in ("loss", "accuracy"):
                board.add_scalar(f"train/{name}", row[f"train_{name}"], position.step)
                board.add_scalar(f"validation/{name}", row[f"validation_{name}"], position.step)
            board.flush()
            save_state()
    last = position.metrics[-1]
    result = TrainResult(
        epochs=epochs,
        steps=steps,
        seconds=position.seconds,
        seconds_per_step=position.seconds / steps,
        train_images=len(data.train),
        validation=Evaluation(last["validation_loss"], last["validation_accuracy"]),
        test=evaluate(model, data.test, data.normalization, where, autocast),
        weights="last",
        device=str(where),
        precision="bf16" if autocast else "fp32",
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )
    save_model(model, out)
    write_json(out / "result.json", asdict(result))
    checkpoint.unlink()
    return result


def evaluate(
    model: nn.Module,
    part: LabelledImages,
    normalization: Normalization,
    device: torch.device,
    autocast: bool = False,
) -> Evaluation:
    """Loss and accuracy in eval mode over a whole part; each module gets its mode back."""
    loss = right = 0.0
    with eval_mode(model), torch.inference_mode():
        for images, labels in batches(part, _EVALUATION_BATCH):
            x, y = normalization.apply(images.to(device)), labels.to(device)
            with _autocast(device, autocast):
                logits = model(x)
            loss += F.cross_entropy(logits.float(), y, reduction="sum").item()
            right += (logits.argmax(1) == y).sum().item()
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
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device '{name}' is not known; take auto, cpu or cuda")
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
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without AMX tiles a CPU converts back and forth, and is slower than in float32.
    # The question is no public one yet, so that another torch may not know it.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type == "cpu" and bool(has_amx())


@contextmanager
def _autocast(device: torch.device, enabled: bool) -> Iterator[None]:
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
        yield


def _prepare(
    images: Tensor, data: Data, recipe: Recipe, scale: float, *, generator: torch.Generator
) -> Tensor:
    """A batch of uint8 images as the network gets it, its side multiplied by ``scale``."""
    unit = data.image_size / 32
    x = augment(
        data.normalization.apply(images),
        generator,
        crop_padding=round(recipe.augmentation.crop_padding * unit),
        flip=recipe.augmentation.flip and data.may_flip,
        cutout=round(recipe.augmentation.cutout * unit),
    )
    if scale != 1 and images.shape[-1] >= 32:
        side = round(images.shape[-1] * scale / 8) * 8  # as the strides of the network want
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
        momentum=recipe.momentum[1],
        nesterov=True,
    )


def _build_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> torch.optim.lr_scheduler.OneCycleLR:
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.learning_rate,
        total_steps=max(steps, 3),
        # OneCycleLR divides by the steps of its rise less one, so that it needs two.
        pct_start=max(recipe.warmup_share, 2 / max(steps, 3)),
        base_momentum=recipe.momentum[0],
        max_momentum=recipe.momentum[1],
    )


def _batch_sizes(count: int, batch_size: int) -> list[int]:
    """Sizes of the batches of one epoch; a last image alone joins the batch before it.

    Alone it could not pass a BatchNorm over 1×1 maps, and elsewhere would be normalised by itself.
    """
    whole, rest = divmod(count, batch_size)
    sizes = [batch_size] * whole
    if rest == 1 and whole:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


def _may_resume(out: Path, settings: dict[str, Any]) -> bool:
    """Whether there is a training in ``out`` to go on with.

    Raises:
        InputError: it has ended, is no training, or had other settings.
    """
    if not out.exists():
        return False
    if (out / "result.json").exists():
        raise InputError(f"{out} has ended; train in another folder with --out")
    if not (out / "config.json").exists():
        raise InputError(f"{out} is no training that was interrupted; take another folder")
    was = read_json(out / "config.json")
    now = json.loads(json.dumps(settings))
    # Where it goes on may be another machine.
    for name in sorted((was.keys() | now.keys()) - {"attnscope", "torch", "device", "data_root"}):
        if was.get(name) != now.get(name):
            raise InputError(
                f"{out} was started with another {name} ({was.get(name)!r:.60}, and now "
                f"{now.get(name)!r:.60}); resume with the options of its start"
            )
    return True


def _check_model(model: nn.Module, data: Data) -> None:
    """Raises an InputError unless the network takes the images and has a logit for each class.

    One image passes the network where it is; nothing of it stays.
    """
    device = next(model.parameters()).device
    image = data.train.images[:1].to(device)
    with eval_mode(model), torch.inference_mode():
        logits = model(data.normalization.apply(image))
    if logits.shape != (1, len(data.classes)):
        raise InputError(
            f"the network has {logits.shape[-1]} outputs and {data.source} has "
            f"{len(data.classes)} classes; build it with num_classes={len(data.classes)}"
        )


def _derive(purpose: str, *keys: int) -> int:
    """One 63-bit seed from several numbers, so that no two uses of a seed share a stream."""
    # Not np.random.SeedSequence, to which (seed, 0) and (seed, 0, 0) are the same.
    digest = hashlib.sha256(repr((purpose, *keys)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _generator(purpose: str, *keys: int) -> np.random.Generator:
    return np.random.default_rng(_derive(purpose, *keys))


def _save_training_images(data: Data, recipe: Recipe, seed: int, file: Path) -> None:
    """Some training images as the network gets them, un-normalised, for the figure of that name."""
    rows = np.sort(_generator("shown", seed).permutation(len(data.train))[:_SHOWN_IMAGES])
    chosen = data.train[rows]
    generator = torch.Generator().manual_seed(_derive("shown", seed))
    x = _prepare(chosen.images, data, recipe, 1.0, generator=generator)
    shown = data.normalization.undo(x).contiguous()
    write_bytes(file, save({"images": shown, "labels": chosen.labels.contiguous()}))


def _write_metrics(file: Path, rows: list[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(file, text.getvalue().encode())
