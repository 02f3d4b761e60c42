"""The one training loop, for every network, source and recipe; CPU and GPU, one device or many."""

from __future__ import annotations

import bisect
import csv
import hashlib
import io
import json
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from attnscope import __version__
from attnscope.augmentation import augment
from attnscope.checkpoints import load_checkpoint, read_state, save_checkpoint
from attnscope.data import Data, LabelledImages, Normalization, batches
from attnscope.distributed import Team, current_team
from attnscope.errors import InputError
from attnscope.files import read_json, refuse_existing, write_bytes, write_json
from attnscope.models import (
    SmallCNN,
    check_parts,
    save_model,
    save_weights,
    train_only,
    training_mode,
)
from attnscope.recipes import Adam, Milestones, OneCycle, Phase, Plateau, Recipe
from attnscope.tracing import eval_mode

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
    """Of the weights that were kept. The test part chose nothing."""
    weights: str
    """Which weights these are: of the ``last`` step, or the ``best`` on validation."""
    best_epoch: int
    """After which validation accuracy was highest; the first of several."""
    device: str
    devices: int
    precision: str
    parameters: int


@dataclass
class _Position:
    """How far a training came: what a checkpoint holds beside the tensors, all JSON values."""

    step: int = 0
    phase: int = 0
    """The phase of the last step; the next may begin another."""
    seconds: float = 0.0
    metrics: list[dict[str, float]] = field(default_factory=list)
    """One row for each whole epoch."""
    # Of the epoch that runs, over its images so far:
    seen: int = 0
    loss_sum: float = 0.0
    right: float = 0.0

    @property
    def best_epoch(self) -> int:
        """Counted from 1; 0 before the first has ended."""
        accuracies = [row["validation_accuracy"] for row in self.metrics]
        return accuracies.index(max(accuracies)) + 1 if accuracies else 0


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
    compiled: bool = False,
    config: dict[str, Any] | None = None,
    progress: bool = True,
    resume: bool = False,
    checkpoint_seconds: float = 120,
) -> TrainResult:
    """Trains ``model`` and writes a run folder.

    All randomness derives from the seed and the place in the training, so that a resumed training
    ends where an uninterrupted one does: on a CPU in fp32, with as many threads, bit for bit.

    In a process group of torch.distributed each process takes its part of every step; the first
    writes. Running statistics of norms are those of the first.

    Args:
        model: of `attnscope.models.build_model`; moved to the device, trained in place.
        data: train, validation and test part. Validation chooses what the recipe lets it choose
            (the learning rate on a plateau, the best weights); the test part is evaluated once,
            after the last step, with the weights that are kept.
        recipe: what is done.
        out: the run folder, which must not exist.
        epochs: instead of the recipe's; its phases and milestones scale in proportion.
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
    if epochs < 1:
        raise InputError(f"epochs is {epochs}; it must be 1 or more")
    if seed < 0:
        raise InputError(f"seed is {seed}; it must be 0 or more")
    where = choose_device(device)
    autocast = choose_precision(precision, where)
    team = current_team()
    _check_model(model, data)
    for phase in recipe.phases:
        check_parts(model, phase.trains)
    sizes = _step_sizes(len(data.train), recipe.batch_size, recipe.accumulate * team.size)
    settings = {
        **(config or {}),
        "attnscope": __version__,
        "torch": torch.__version__,
        "recipe": asdict(recipe),
        "epochs": epochs,
        "seed": seed,
        "device": str(where),
        "devices": team.size,
        "precision": "bf16" if autocast else "fp32",
        "classes": data.classes,
        "normalization": asdict(data.normalization),
        "image_size": data.image_size,
        "parts": data.fingerprints(),
    }
    resume = resume and _may_resume(out, settings)
    team.wait()  # nobody makes the folder before all have looked
    if not resume:
        refuse_existing(out)
    team.wait()
    if not resume and team.leads:
        try:
            out.mkdir(parents=True)
        except OSError as error:
            raise InputError(
                f"{out} cannot be made ({error.strerror}); take another folder"
            ) from None
    # Nothing was changed up to here; from here on, input is no reason to fail.
    training = _Training(
        model, data, recipe, out, seed, sizes, epochs, where, autocast, compiled, team
    )
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


class _Training:
    """The state of one training, and what is done at each of its turns."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        recipe: Recipe,
        out: Path,
        seed: int,
        sizes: list[int],
        epochs: int,
        device: torch.device,
        autocast: bool,
        compiled: bool,
        team: Team,
    ) -> None:
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.data, self.recipe, self.out, self.seed = data, recipe, out, seed
        self.sizes, self.epochs = sizes, epochs
        self.steps = epochs * len(sizes)
        self.device, self.autocast, self.team = device, autocast, team
        # What the caller has frozen stays so in every phase.
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.callable: nn.Module = torch.compile(model) if compiled else model  # type: ignore[assignment]
        self.images = _place(data.train.images, device)
        self.labels = data.train.labels.to(device)
        self.position = _Position()
        self.history: list[dict[str, float]] = []  # rows of steps.csv
        self.checkpoint = out / "checkpoint.safetensors"
        self.saved_at, self.saved_step = time.perf_counter(), 0

    # --- beginnings -------------------------------------------------------------------------------

    def begin(self, settings: dict[str, Any]) -> None:
        """At the start, or where the checkpoint says."""
        found = self.checkpoint.exists()
        if found:
            # The optimizer is built for the phase, and the phase is known from the state.
            state = read_state(self.checkpoint)
            self.position = _Position(**state["position"])
            self.begin_phase()
            load_checkpoint(self.checkpoint, self.model, self.optimizer)
            if self.schedule is not None:
                self.schedule.load_state_dict(state["schedule"])
            self.saved_step = self.position.step
            if (self.out / "steps.csv").exists():
                rows = _read_rows(self.out / "steps.csv")
                self.history = [row for row in rows if row["step"] <= self.position.step]
        self.team.wait()  # until all have read what the first will write anew
        if not found:
            if self.team.leads:
                write_json(self.out / "config.json", settings)
                images = self.out / "training_images.safetensors"
                _save_training_images(self.data, self.recipe, self.seed, images)
            self.begin_phase()

    @property
    def phase(self) -> Phase:
        """The phase that holds."""
        return self.recipe.phases[self.position.phase]

    def begin_phase(self) -> None:
        """Freezes, thaws, and builds the optimizer of the phase that holds."""
        phases, number = self.recipe.phases, self.position.phase
        # A phase that changes neither goes on with the optimizer of one before it.
        while number and not _begins_anew(phases[number - 1], phases[number]):
            number -= 1
        first = phases[number]
        self.train_only(first.trains)
        rate = self.recipe.learning_rate if first.learning_rate is None else first.learning_rate
        self.optimizer = _build_optimizer(self.model, self.recipe, rate)
        self.schedule = _build_schedule(self.optimizer, self.recipe, self.steps)
        self.network = self.callable
        if self.team.size > 1:
            self.network = DistributedDataParallel(self.callable)

    def train_only(self, parts: tuple[str, ...]) -> None:
        """Of what the caller lets be trained."""
        train_only(self.model, parts)
        wanted = set(map(id, self.trained))
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in wanted)

    def phase_number(self, step: int) -> int:
        """Of the phase that holds at a step."""
        end = 0.0
        for number, phase in enumerate(self.recipe.phases):
            end += phase.share
            if step / self.steps < end - 1e-9:
                return number
        return len(self.recipe.phases) - 1

    # --- the loop ---------------------------------------------------------------------------------

    def run(self, progress: bool, checkpoint_seconds: float) -> None:
        """From the position to the last step."""
        at = self.position
        with (
            _board(self.out / "tensorboard", at.step, self.team) as board,
            _stop_signal() as stopped,
            tqdm(
                total=self.steps,
                initial=at.step,
                unit="step",
                disable=not (progress and self.team.leads),
                dynamic_ncols=True,
            ) as bar,
        ):
            for epoch in range(len(at.metrics), self.epochs):
                bar.set_description(f"epoch {epoch + 1}/{self.epochs}")
                training_mode(self.model)
                # Sums stay on the device: reading them every step would make a GPU wait for us.
                sums = torch.tensor([at.loss_sum, at.right], device=self.device)
                if not self.team.leads:
                    sums.zero_()  # what was before is counted once
                bad_steps = torch.zeros((), device=self.device)  # since the loss was not finite
                order = torch.from_numpy(
                    _generator("order", self.seed, epoch).permutation(len(self.data.train))
                )
                rates: list[float] = []  # since the last look
                began = time.perf_counter()
                for rows in torch.split(order, self.sizes)[at.step - epoch * len(self.sizes) :]:
                    self.turn_phase()
                    rates.append(self.optimizer.param_groups[0]["lr"])
                    of_step = self.step(rows, epoch, board)
                    at.step += 1
                    at.seen += len(rows)
                    sums += of_step
                    bad_steps += ~torch.isfinite(sums[0])  # a sum stays infinite or NaN
                    bar.update()
                    ended = at.seen == len(order)
                    logs = at.step % self.recipe.log_steps == 0
                    looks = ended or logs or at.step % _REPORT_STEPS == 0
                    # In a team all stop together, at a step at which all look.
                    if not (looks or (stopped and self.team.size == 1)):
                        continue
                    flags = torch.stack([bad_steps, bad_steps.new_tensor(float(bool(stopped)))])
                    not_finite, stops = map(int, self.team.largest(flags).tolist())
                    if not_finite:
                        raise FloatingPointError(
                            f"the loss is not finite at step {at.step - not_finite + 1} of "
                            f"{self.steps} (learning rate {rates[-not_finite]:.3g}); "
                            f"{self.last_checkpoint()}"
                        )
                    at.loss_sum, at.right = self.team.total(sums).tolist()
                    now = time.perf_counter()
                    at.seconds, began = at.seconds + now - began, now
                    if logs:
                        self.log(board, epoch, len(rows), of_step, rates[-1])
                    bar.set_postfix(
                        loss=f"{at.loss_sum / at.seen:.3f}", accuracy=f"{at.right / at.seen:.3f}"
                    )
                    del rates[:-1]
                    if ended:
                        self.end_epoch(epoch, board, rates[-1])
                    elif stops or now - self.saved_at >= checkpoint_seconds:
                        self.save_state()
                        began = time.perf_counter()
                    if stops:
                        raise KeyboardInterrupt(
                            f"stopped; {self.last_checkpoint()}: the same command with --resume "
                            "goes on"
                        )

    def turn_phase(self) -> None:
        """To the phase of the step that comes."""
        before, number = self.phase, self.phase_number(self.position.step)
        if number == self.position.phase:
            return
        self.position.phase = number
        if _begins_anew(before, self.phase):
            self.begin_phase()
            training_mode(self.model)

    def step(self, rows: Tensor, epoch: int, board: SummaryWriter | None) -> Tensor:
        """One step of the optimizer on images ``rows``; sums of loss and of right predictions."""
        step, recipe = self.position.step, self.recipe
        pieces = torch.tensor_split(rows, recipe.accumulate * self.team.size)
        first = self.team.rank * recipe.accumulate
        mine = range(first, first + recipe.accumulate)
        sums = torch.zeros(2, device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        for number in mine:
            piece = pieces[number]
            start = sum(map(len, pieces[:number]))
            x = self.prepare(piece, epoch, step, len(rows), slice(start, start + len(piece)))
            y = self.labels[piece.to(self.device)]
            torch.manual_seed(_derive("dropout", self.seed, step, number))
            network = self.network
            # Gradients travel once a step, with the last piece.
            with (
                network.no_sync()
                if isinstance(network, DistributedDataParallel) and number != mine[-1]
                else nullcontext()
            ):
                with _autocast(self.device, self.autocast):
                    logits = network(x)
                loss = F.cross_entropy(logits.float(), y, label_smoothing=recipe.label_smoothing)
                # Gradients are averaged over the images of the step, whoever saw them.
                share = len(piece) / len(rows) * self.team.size
                torch.autograd.backward(loss * share)
            right = (logits.detach().argmax(1) == y).sum()
            sums += torch.stack([loss.detach() * len(piece), right])
        every = recipe.histogram_steps
        if board is not None and every and (step + 1) % every == 0:
            for name, parameter in self.model.named_parameters():
                board.add_histogram(f"weights/{name}", parameter, step + 1)
                if parameter.grad is not None:
                    board.add_histogram(f"gradients/{name}", parameter.grad, step + 1)
        self.optimizer.step()
        plateau = isinstance(self.schedule, lr_scheduler.ReduceLROnPlateau)
        if self.schedule is not None and not plateau:  # that one asks for a loss, once an epoch
            self.schedule.step()
        return sums

    def prepare(self, rows: Tensor, epoch: int, step: int, total: int, part: slice) -> Tensor:
        """Images as the network gets them at a step: ``part`` of its ``total`` images."""
        images = self.images[rows.to(self.images.device)].to(self.device)
        generator = torch.Generator().manual_seed(_derive("augment", self.seed, epoch, step))
        x = augment(
            images,
            self.data.normalization,
            self.recipe.augmentation,
            generator,
            size=self.data.image_size,
            may_flip=self.data.may_flip,
            total=total,
            rows=part,
        )
        # Smaller images first; not for those that are small, nor where the network takes one size.
        if self.phase.scale != 1 and x.shape[-1] >= 32 and not isinstance(self.model, SmallCNN):
            side = round(x.shape[-1] * self.phase.scale / 8) * 8  # as the network's strides want
            x = F.interpolate(x, size=side, mode="bilinear", antialias=True)
            x = x.contiguous(memory_format=torch.channels_last)
        return x

    def log(
        self,
        board: SummaryWriter | None,
        epoch: int,
        images: int,
        sums: Tensor,
        rate: float,
    ) -> None:
        """One row of ``steps.csv``, and the same for TensorBoard."""
        loss, accuracy = (self.team.total(sums) / images).tolist()
        row = {
            "step": self.position.step,
            "epoch": epoch + 1,
            "loss": loss,
            "accuracy": accuracy,
            "learning_rate": rate,
        }
        self.history.append(row)
        if board is not None:
            for name in ("loss", "accuracy", "learning_rate"):
                board.add_scalar(f"batch/{name}", row[name], self.position.step)

    def end_epoch(self, epoch: int, board: SummaryWriter | None, rate: float) -> None:
        """Validation, what follows from it, and what is written."""
        at, count = self.position, len(self.data.train)
        self.team.follow_buffers(self.model)
        validation = self.evaluate(self.data.validation)
        if not math.isfinite(validation.loss):
            raise FloatingPointError(
                f"the validation loss is not finite after step {at.step}; {self.last_checkpoint()}"
            )
        before = at.metrics[-1]["seconds"] if at.metrics else 0.0
        row = {
            "epoch": epoch + 1,
            "step": at.step,
            "train_loss": at.loss_sum / count,
            "train_accuracy": at.right / count,
            "validation_loss": validation.loss,
            "validation_accuracy": validation.accuracy,
            "learning_rate": rate,
            "images_per_second": count / (at.seconds - before),
            "seconds": at.seconds,
        }
        at.metrics.append(row)
        at.seen, at.loss_sum, at.right = 0, 0.0, 0.0
        if isinstance(self.schedule, lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(validation.loss)
        if self.team.leads:
            if at.best_epoch == epoch + 1:
                save_weights(self.model, self.out / "best.safetensors")
            _write_rows(self.out / "metrics.csv", at.metrics)
        if board is not None:
            for name in ("loss", "accuracy"):
                board.add_scalar(f"train/{name}", row[f"train_{name}"], at.step)
                board.add_scalar(f"validation/{name}", row[f"validation_{name}"], at.step)
            board.flush()
        self.save_state()

    # --- endings ----------------------------------------------------------------------------------

    def finish(self) -> TrainResult:
        """The weights that are kept, tested; and the run folder as it stays."""
        at, best = self.position, self.out / "best.safetensors"
        kept = self.recipe.keeps
        if kept == "best":
            if self.team.leads:
                save_weights(self.model, self.out / "last.safetensors")
            self.team.wait()
            self.model.load_state_dict(load_file(best, device=str(self.device)))
        row = at.metrics[at.best_epoch - 1 if kept == "best" else -1]
        self.train_only(("all",))
        result = TrainResult(
            epochs=self.epochs,
            steps=self.steps,
            seconds=at.seconds,
            seconds_per_step=at.seconds / self.steps,
            train_images=len(self.data.train),
            validation=Evaluation(row["validation_loss"], row["validation_accuracy"]),
            test=self.evaluate(self.data.test),
            weights=kept,
            best_epoch=at.best_epoch,
            device=str(self.device),
            devices=self.team.size,
            precision="bf16" if self.autocast else "fp32",
            parameters=sum(p.numel() for p in self.trained),
        )
        if self.team.leads:
            save_model(self.model, self.out)
            write_json(self.out / "result.json", asdict(result))
            self.checkpoint.unlink()
            if kept == "best":
                best.unlink()  # it is model.safetensors now
        self.team.wait()
        return result

    def evaluate(self, part: LabelledImages) -> Evaluation:
        """By all processes together."""
        return evaluate(
            self.model, part, self.data.normalization, self.device, self.autocast, self.team
        )

    def save_state(self) -> None:
        """The checkpoint; the one before stays until this one is whole."""
        if self.team.leads:
            if self.history:
                _write_rows(self.out / "steps.csv", self.history)
            state = {
                "position": asdict(self.position),
                "schedule": None if self.schedule is None else self.schedule.state_dict(),
            }
            save_checkpoint(self.checkpoint, self.model, self.optimizer, state)
        self.saved_at, self.saved_step = time.perf_counter(), self.position.step

    def last_checkpoint(self) -> str:
        """In words."""
        if not self.saved_step:
            return "there is no checkpoint yet"
        return f"the last checkpoint, {self.checkpoint}, is of step {self.saved_step}"


def evaluate(
    model: nn.Module,
    part: LabelledImages,
    normalization: Normalization,
    device: torch.device,
    autocast: bool = False,
    team: Team | None = None,
) -> Evaluation:
    """Loss and accuracy in eval mode over a whole part; each module gets its mode back.

    In a team each process looks at its own images, so that each is counted once.
    """
    loss = right = 0.0
    team = team or Team()
    mine = team.share(len(part))
    with eval_mode(model), torch.inference_mode():
        # A part of one process is not cut out: that would copy every image.
        own = part if len(mine) == len(part) else part[mine.start : mine.stop]
        for images, labels in batches(own, _EVALUATION_BATCH):
            x, y = normalization.apply(images.to(device)), labels.to(device)
            with _autocast(device, autocast):
                logits = model(x)
            loss += F.cross_entropy(logits.float(), y, reduction="sum").item()
            right += (logits.argmax(1) == y).sum().item()
    sums = torch.tensor([loss, right], dtype=torch.float64, device=device)
    loss, right = team.total(sums).tolist()
    return Evaluation(loss / len(part), right / len(part))


def choose_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one; under torchrun, each process has its own GPU.

    Raises:
        InputError: the device is not known or not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
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


def _begins_anew(before: Phase, phase: Phase) -> bool:
    """Whether a phase has an optimizer of its own."""
    return phase.learning_rate is not None or phase.trains != before.trains


def _build_optimizer(model: nn.Module, recipe: Recipe, rate: float) -> torch.optim.Optimizer:
    """Over what is trained at the moment."""
    trained = [p for p in model.parameters() if p.requires_grad]
    kind = recipe.optimizer
    if isinstance(kind, Adam):
        return torch.optim.Adam(trained, lr=rate)
    decayed = [p for p in trained if kind.decays_all or p.ndim > 1]
    norms_and_biases = [p for p in trained if not kind.decays_all and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": kind.weight_decay}]
    if norms_and_biases:
        groups.append({"params": norms_and_biases, "weight_decay": 0.0})
    return torch.optim.SGD(groups, lr=rate, momentum=kind.momentum, nesterov=kind.nesterov)


def _build_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> lr_scheduler.LRScheduler | None:
    kind = recipe.schedule
    if isinstance(kind, OneCycle):
        return lr_scheduler.OneCycleLR(
            optimizer,
            recipe.learning_rate,
            total_steps=max(steps, 3),
            # OneCycleLR divides by the steps of its rise less one, so that it needs two.
            pct_start=max(kind.rise, 2 / max(steps, 3)),
            base_momentum=kind.momentum[0],
            max_momentum=kind.momentum[1],
        )
    if isinstance(kind, Milestones):
        at = [round(share * steps) for share in kind.at]
        return lr_scheduler.LambdaLR(
            optimizer, lambda step: kind.factor ** bisect.bisect_right(at, step)
        )
    if isinstance(kind, Plateau):
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=kind.factor, patience=kind.patience)
    return None


def _step_sizes(count: int, batch_size: int, parts: int) -> list[int]:
    """Images of each step of one epoch, each step being split into ``parts`` batches.

    What would leave a batch of one image joins the step before: alone it could not pass a BatchNorm
    over 1×1 maps, and elsewhere would be normalised by itself.

    Raises:
        InputError: there are too few images to split.
    """
    whole, rest = divmod(count, batch_size * parts)
    sizes = [batch_size * parts] * whole
    if whole and rest < 2 * parts:
        sizes[-1] += rest
    elif rest:
        sizes.append(rest)
    if parts > 1 and sizes[0] < 2 * parts:
        raise InputError(
            f"{count} training images are too few for {parts} batches a step; take fewer devices, "
            "or a smaller --accumulate"
        )
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
    image = data.train[:1].center_crop(data.image_size).images.to(device)
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
    x = augment(
        chosen.images,
        data.normalization,
        recipe.augmentation,
        torch.Generator().manual_seed(_derive("shown", seed)),
        size=data.image_size,
        may_flip=data.may_flip,
    )
    shown = data.normalization.undo(x).contiguous()
    write_bytes(file, save({"images": shown, "labels": chosen.labels.contiguous()}))


def _place(images: Tensor, device: torch.device) -> Tensor:
    """On a GPU that has room for them twice; else where they are, to be brought batch by batch."""
    if device.type == "cuda" and 2 * images.nbytes > torch.cuda.mem_get_info(device)[0]:
        return images.pin_memory()
    return images.to(device)


@contextmanager
def _board(folder: Path, step: int, team: Team) -> Iterator[SummaryWriter | None]:
    """TensorBoard's writer, of the process that leads; what lies behind ``step`` is dropped."""
    if not team.leads:
        yield None
        return
    with SummaryWriter(str(folder), purge_step=step + 1 if step else None) as board:
        yield board


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """A list that fills when SIGINT or SIGTERM comes; a second one acts at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread hears of signals
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hear(number: int, _: object) -> None:
        received.append(number)
        restore()

    for number in before:
        signal.signal(number, hear)
    try:
        yield received
    finally:
        restore()


def _read_rows(file: Path) -> list[dict[str, float]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            {name: int(v) if name in ("step", "epoch") else float(v) for name, v in row.items()}
            for row in csv.DictReader(stream)
        ]


def _write_rows(file: Path, rows: list[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(file, text.getvalue().encode())
