"""Train a network that is there: check everything, then run the loop and write a run folder.

`attnscope.training.run` is for a run from its settings alone, which builds the network, too.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attnscope import __version__, layout
from attnscope.data.load import Data
from attnscope.errors import InputError
from attnscope.files import read_json, refuse_existing
from attnscope.gates.modes import eval_mode
from attnscope.settings import require
from attnscope.training.devices import choose_device, choose_precision
from attnscope.training.freezing import check_parts
from attnscope.training.loop import Plan, TrainingLoop
from attnscope.training.loss import class_weight_tensor
from attnscope.training.optimization import step_sizes
from attnscope.training.processes import current_process_group
from attnscope.training.recipe import Recipe
from attnscope.training.result import TrainResult

_OF_THE_MACHINE = {"attnscope", "torch", "device", "data_root"}
"""Keys of ``config.json`` that may differ where a training goes on: it may be another machine."""


def fit(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    out: Path,
    *,
    epochs: int | None = None,
    class_weights: str | tuple[float, ...] = "none",
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    compiled: bool = False,
    config: dict[str, Any] | None = None,
    progress: bool = True,
    resume: bool = False,
    checkpoint_seconds: float = 120,
) -> TrainResult:
    """Train ``model`` and write a run folder.

    All randomness derives from the seed and the place in the training, so that a resumed training
    ends where an uninterrupted one does: on a CPU in fp32, with as many threads, bit for bit.

    In a process group of torch.distributed each process takes its part of every step; the first
    writes. Running statistics of norms are those of the first.

    Args:
        model: of `attnscope.build_model`; moved to the device, trained in place.
        data: the three splits. Validation chooses what the recipe lets it choose (the learning rate
            on a plateau, the best weights); the test split is evaluated once, after the last step,
            with the weights that are kept.
        recipe: what is done.
        out: the run folder, which must not exist.
        epochs: instead of the recipe's; its phases and milestones scale in proportion.
        class_weights: ``none``, ``balanced`` or one weight for each class, for the training loss
            alone; see `attnscope.training.loss`.
        seed: of order, augmentation and dropout. (The initial weights are the caller's.)
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32`` or ``bf16`` (autocast; the weights stay float32).
        compiled: train with torch.compile.
        config: what else belongs into the run's ``config.json``.
        progress: show a bar on the standard error.
        resume: go on from the last checkpoint in ``out``; from the start where there is none.
        checkpoint_seconds: how often ``checkpoint.safetensors`` is written, at least; it is also
            written after each epoch. It is removed when the training has ended.

    Raises:
        InputError: an argument cannot be used; nothing was written, and ``model`` is as it was.
        FloatingPointError: the loss is not finite; the message says at which step it became so. The
            run folder stays, with its settings, the metrics of the epochs before and the last good
            checkpoint, and without weights.
        KeyboardInterrupt: after SIGINT or SIGTERM, and after a checkpoint was written.
        OSError: the disk is full, or the like; the last checkpoint is whole.
    """
    epochs = recipe.epochs if epochs is None else epochs
    require(epochs >= 1, "epochs", epochs, "1 or more")
    require(seed >= 0, "seed", seed, "0 or more")
    where = choose_device(device)
    autocast = choose_precision(precision, where)
    process_group = current_process_group()
    _check_model(model, data)
    for phase in recipe.phases:
        check_parts(model, phase.trains)
    sizes = step_sizes(len(data.train), recipe.batch_size, recipe.accumulate * process_group.size)
    weights = class_weight_tensor(class_weights, data.train.labels, data.classes)
    settings = {
        **(config or {}),
        "attnscope": __version__,
        "torch": torch.__version__,
        "recipe": asdict(recipe),
        "epochs": epochs,
        # Only where there are some, so that runs of earlier versions can be resumed.
        **({} if weights is None else {"class_weights": class_weights}),
        "seed": seed,
        "device": str(where),
        "devices": process_group.size,
        "precision": "bf16" if autocast else "fp32",
        "classes": data.classes,
        "normalization": asdict(data.normalization),
        "image_size": data.image_size,
        "parts": data.fingerprints(),
    }
    resume = resume and _may_resume(out, settings)
    process_group.wait()  # nobody makes the folder before all have looked
    if not resume:
        refuse_existing(out)
    process_group.wait()
    if not resume and process_group.is_main:
        try:
            out.mkdir(parents=True)
        except OSError as error:
            raise InputError(
                f"{out} cannot be made ({error.strerror}); take another folder"
            ) from None
    # Nothing was changed up to here; from here on, input is no reason to fail.
    plan = Plan(recipe, epochs, seed, sizes, weights, compiled)
    training = TrainingLoop(model, data, plan, out, where, autocast, process_group)
    training.begin(settings)
    try:
        training.run(progress, checkpoint_seconds)
        return training.finish()
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}; {training.last_checkpoint()}: make room and go on with --resume",
            error.filename or str(out),
        ) from error


def _may_resume(out: Path, settings: dict[str, Any]) -> bool:
    """Whether there is a training in ``out`` to go on with.

    Raises:
        InputError: it has ended, is no training, or had other settings.
    """
    if not out.exists():
        return False
    if (out / layout.RESULT).exists():
        raise InputError(f"{out} has ended; train in another folder with --out")
    if not (out / layout.CONFIG).exists():
        raise InputError(f"{out} is no training that was interrupted; take another folder")
    was = read_json(out / layout.CONFIG)
    now = json.loads(json.dumps(settings))
    for name in sorted((was.keys() | now.keys()) - _OF_THE_MACHINE):
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
    image = data.train[:1].center_crop(data.image_size).images.to(device)
    with eval_mode(model), torch.inference_mode():
        logits = model(data.normalization.apply(image))
    if logits.shape != (1, len(data.classes)):
        raise InputError(
            f"the network has {logits.shape[-1]} outputs and {data.source} has "
            f"{len(data.classes)} classes; build it with num_classes={len(data.classes)}"
        )
