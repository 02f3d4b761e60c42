"""The training loop, for every network, data source and recipe, on one device or several.

`TrainingLoop` says what happens when: at the start, at each phase, step, check and epoch, and at
the end. The modules that it imports say how. More than 400 lines, because these methods share one
state.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from attnscope import layout
from attnscope.data.fingerprints import Fingerprints, write_fingerprints
from attnscope.data.images import LabeledImages
from attnscope.data.load import Data
from attnscope.files import read_json, write_bytes, write_json
from attnscope.hashes import write_hashes
from attnscope.integrity import json_bytes
from attnscope.kinds import Gate
from attnscope.monitoring import GateMonitor
from attnscope.networks.cnn import SmallCNN
from attnscope.networks.memory import channels_last
from attnscope.networks.weights import load_weights, save_model, save_weights
from attnscope.signals import stop_signal
from attnscope.training.batches import Step, TrainingImages
from attnscope.training.checkpoint import (
    Position,
    load_checkpoint,
    position_in,
    read_state,
    save_checkpoint,
)
from attnscope.training.compiling import NOT_COMPILED, CompiledNetwork, compile_network
from attnscope.training.devices import autocast_block
from attnscope.training.evaluation import Evaluation, evaluate
from attnscope.training.freezing import train_only, training_mode
from attnscope.training.logs import (
    log_epoch,
    log_histograms,
    log_step,
    open_board,
    read_rows,
    save_training_images,
    write_rows,
)
from attnscope.training.loss import TrainingLoss
from attnscope.training.monitored import open_monitor
from attnscope.training.optimization import build_optimizer, build_schedule
from attnscope.training.processes import ProcessGroup
from attnscope.training.randomness import derive_seed
from attnscope.training.recipe import Phase, Recipe
from attnscope.training.result import TrainResult
from attnscope.unfinished import how_to_continue

_REPORT_STEPS = 20  # steps between two reads of results from the device


@dataclass(frozen=True)
class Plan:
    """The validated settings of a run."""

    recipe: Recipe
    epochs: int
    seed: int
    sizes: list[int]
    """Number of images of each step of an epoch."""
    class_weights: Tensor | None
    """float32 ``(K,)``, or None."""
    compilation: str = NOT_COMPILED
    """Whether and how the network is compiled: a mode of `attnscope.training.compiling`."""
    monitored: Sequence[Gate] = ()
    """The gates that are observed during training."""
    monitor_every: int = 0
    """Number of steps between two observations; 0 without a monitor."""


class TrainingLoop:
    """The state of a run, and what happens at each point of it."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        plan: Plan,
        out: Path,
        device: torch.device,
        autocast: bool,
        process_group: ProcessGroup,
    ) -> None:
        self.model = channels_last(model.to(device))
        self.data, self.plan, self.recipe, self.out = data, plan, plan.recipe, out
        self.steps = plan.epochs * len(plan.sizes)
        self.device, self.autocast, self.process_group = device, autocast, process_group
        # Parameters that the caller has frozen stay frozen in every phase.
        self.trained = [p for p in model.parameters() if p.requires_grad]
        regular = self.pieces(plan.sizes[0])[0][1]
        self.compiled = compile_network(
            model, plan.compilation, device, regular.stop - regular.start
        )
        self.images = TrainingImages(data, plan.recipe, plan.seed, device)
        weights = plan.class_weights
        self.loss = TrainingLoss(
            plan.recipe.label_smoothing, None if weights is None else weights.to(device)
        )
        self.position = Position()
        self.history: list[dict[str, float]] = []  # rows of steps.csv
        self.checkpoint = out / layout.CHECKPOINT
        self.saved_at, self.saved_step = time.perf_counter(), 0

    # --- start ------------------------------------------------------------------------------------

    def start(self, settings: dict[str, Any]) -> None:
        """Restore the checkpoint if there is one, else write the first files of the run folder."""
        resumed = self.checkpoint.exists()
        if resumed:
            # The optimizer depends on the phase, which is part of the state.
            state = read_state(self.checkpoint)
            self.position = position_in(state, self.checkpoint)
            self.start_phase()
            load_checkpoint(self.checkpoint, self.model, self.optimizer)
            if self.schedule is not None:
                self.schedule.load_state_dict(state["schedule"])
            self.saved_step = self.position.step
            if (self.out / layout.STEPS).exists():
                rows = read_rows(self.out / layout.STEPS)
                self.history = [row for row in rows if row["step"] <= self.position.step]
        self.process_group.barrier()  # until all have read what the main process will overwrite
        if resumed and self.process_group.is_main:
            stored = read_json(self.out / layout.CONFIG)
            if "places" in settings and stored.get("places") != settings["places"]:
                # The images are elsewhere now, and commands look for them there from now on.
                write_json(self.out / layout.CONFIG, {**stored, "places": settings["places"]})
        if not resumed:
            if self.process_group.is_main:
                write_json(self.out / layout.CONFIG, settings)
                prints = {name: Fingerprints.of(s) for name, s in self.data.splits().items()}
                write_fingerprints(self.out / layout.IMAGES, prints)
                images = self.out / layout.TRAINING_IMAGES
                save_training_images(self.data, self.recipe, self.plan.seed, images)
            self.start_phase()

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self.recipe.phases[self.position.phase]

    def start_phase(self) -> None:
        """Freeze and unfreeze modules, and build the optimizer of the current phase."""
        phases, number = self.recipe.phases, self.position.phase
        # A phase without an optimizer of its own continues that of an earlier phase.
        while number and not phases[number].starts_optimizer(phases[number - 1]):
            number -= 1
        first = phases[number]
        self.train_only(first.trains)
        rate = self.recipe.learning_rate if first.learning_rate is None else first.learning_rate
        self.optimizer = build_optimizer(self.model, self.recipe, rate)
        self.schedule = build_schedule(self.optimizer, self.recipe, self.steps)
        self.network = self.compiled
        if self.process_group.size > 1:
            self.network = DistributedDataParallel(self.compiled)

    def train_only(self, modules: tuple[str, ...]) -> None:
        """Let only some modules be trained, except parameters that the caller has frozen."""
        train_only(self.model, modules)
        allowed = set(map(id, self.trained))
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in allowed)

    def phase_number(self, step: int) -> int:
        """Return the number of the phase of a step."""
        end = 0.0
        for number, phase in enumerate(self.recipe.phases):
            end += phase.share
            if step / self.steps < end - 1e-9:
                return number
        return len(self.recipe.phases) - 1

    # --- the loop ---------------------------------------------------------------------------------

    def run(self, progress: bool, checkpoint_seconds: float) -> None:
        """Train from the current position to the last step.

        Args:
            progress: show a progress bar on stderr.
            checkpoint_seconds: the longest time between two checkpoints.

        Raises:
            FloatingPointError: the loss is not finite.
            KeyboardInterrupt: after SIGINT, SIGTERM or SIGHUP, when a checkpoint has been written.
        """
        at, sizes = self.position, self.plan.sizes
        with (
            open_board(self.out / layout.TENSORBOARD, at.step, self.process_group) as board,
            stop_signal() as stopped,
            tqdm(
                total=self.steps,
                initial=at.step,
                unit="step",
                disable=not (progress and self.process_group.is_main),
                dynamic_ncols=True,
            ) as bar,
        ):
            monitor = self.open_monitor(board)
            for epoch in range(len(at.metrics), self.plan.epochs):
                bar.set_description(f"epoch {epoch + 1}/{self.plan.epochs}")
                training_mode(self.model)
                # Sums stay on the device, since reading them after every step would stall a GPU.
                sums = torch.tensor([at.loss_sum, at.right], device=self.device)
                if not self.process_group.is_main:
                    sums.zero_()  # the sums of the checkpoint are those of all processes
                bad_steps = torch.zeros((), device=self.device)  # with a loss that is not finite
                rates: list[float] = []  # since the last check
                started = time.perf_counter()
                steps = self.images.start_epoch(epoch, sizes, at.step - epoch * len(sizes))
                self.images.expect(
                    step.rows[part] for step in steps for _, part in self.pieces(len(step))
                )
                for step in steps:
                    self.enter_phase()
                    started += self.compile()
                    rates.append(self.optimizer.param_groups[0]["lr"])
                    step_sums = self.step(step, board)
                    at.step += 1
                    if monitor is not None:
                        monitor.step(at.step)
                    at.seen += len(step)
                    sums += step_sums
                    bad_steps += ~torch.isfinite(sums[0])  # the sum remains infinite or NaN
                    bar.update()
                    ended = at.seen == len(self.data.train)
                    logs = at.step % self.recipe.log_steps == 0
                    checks = ended or logs or at.step % _REPORT_STEPS == 0
                    # Several processes stop together, at a step at which all of them check.
                    if not (checks or (stopped and self.process_group.size == 1)):
                        continue
                    flags = torch.stack([bad_steps, torch.full_like(bad_steps, bool(stopped))])
                    read = self.read(flags, sums, step_sums, len(step))
                    not_finite, stops = map(int, read[:2])
                    if not_finite:
                        raise FloatingPointError(
                            f"the loss is not finite at step {at.step - not_finite + 1} of "
                            f"{self.steps} (learning rate {rates[-not_finite]:.3g}); "
                            f"{self.describe_checkpoint()}; {self.remedy}"
                        )
                    at.loss_sum, at.right, loss, accuracy = read[2:]
                    now = time.perf_counter()
                    at.seconds, started = at.seconds + now - started, now
                    if logs:
                        row = {
                            "step": at.step,
                            "epoch": epoch + 1,
                            "loss": loss,
                            "accuracy": accuracy,
                            "learning_rate": rates[-1],
                        }
                        self.history.append(row)
                        log_step(board, row)
                    bar.set_postfix(
                        loss=f"{at.loss_sum / at.seen:.3f}", accuracy=f"{at.right / at.seen:.3f}"
                    )
                    del rates[:-1]
                    if ended:
                        self.end_epoch(epoch, board, rates[-1])
                    elif stops or now - self.saved_at >= checkpoint_seconds:
                        self.save_state()
                        started = time.perf_counter()
                    if stops:
                        raise KeyboardInterrupt(
                            f"stopped; {self.describe_checkpoint()}; {how_to_continue(self.out)}"
                        )

    def open_monitor(self, board: SummaryWriter | None) -> GateMonitor | None:
        """Observe the gates before the first step, or continue their history."""
        if not self.plan.monitor_every:
            return None
        return open_monitor(
            self.model,
            self.plan.monitored,
            self.data,
            every=self.plan.monitor_every,
            batch_size=self.plan.sizes[0],
            seed=self.plan.seed,
            out=self.out,
            board=board,
            resume=self.position.step,
        )

    def enter_phase(self) -> None:
        """Start the phase of the next step, if it is another one."""
        before, number = self.phase, self.phase_number(self.position.step)
        if number == self.position.phase:
            return
        self.position.phase = number
        if self.phase.starts_optimizer(before):
            self.start_phase()
            training_mode(self.model)

    def read(self, flags: Tensor, sums: Tensor, step_sums: Tensor, images: int) -> list[float]:
        """Read results from the device. Between two reads, the host does not wait for it.

        Args:
            flags: float32 ``(2,)``, of which the maximum over all processes is read.
            sums: float32 ``(2,)``, of which the sum over all processes is read.
            step_sums: the same of the last step, of which the mean is read.
            images: number of images of that step.

        Returns:
            The six values.
        """
        group = self.process_group
        both = group.sum(torch.cat([sums, step_sums]))
        values: list[float] = torch.cat([group.max(flags), both[:2], both[2:] / images]).tolist()
        return values

    def pieces(self, images: int) -> list[tuple[int, slice]]:
        """Return the pieces of a step that this process computes.

        Args:
            images: number of images of the step.

        Returns:
            For each piece, its number, and its part of the images of the step.
        """
        count = self.recipe.accumulate
        pieces = count * self.process_group.size
        # The first pieces have an image more than the last ones, as those of `tensor_split`.
        sizes = [images // pieces + (number < images % pieces) for number in range(pieces)]
        bounds = list(accumulate(sizes, initial=0))
        first = self.process_group.rank * count
        return [
            (number, slice(bounds[number], bounds[number + 1]))
            for number in range(first, first + count)
        ]

    def compile(self) -> float:
        """Compile the network for the current phase, and return how many seconds it took."""
        if not isinstance(self.compiled, CompiledNetwork):
            return 0.0
        side = self.images.side(self.scale)
        channels = self.data.train.shape[1]
        trained = tuple(p.requires_grad for p in self.model.parameters())
        seconds = self.compiled.warm_up(
            self.network, side, channels, self.device, self.autocast, trained
        )
        if seconds:
            self.position.compile_seconds += seconds
            if self.process_group.is_main:
                line = f"compiled for images of {side} pixels in {seconds:.0f} s"
                tqdm.write(line, file=sys.stderr)
        return seconds

    @property
    def scale(self) -> float:
        """The scale of the side of the images in the current phase."""
        # The small CNN accepts one image size only.
        return 1.0 if isinstance(self.model, SmallCNN) else self.phase.scale

    def step(self, step: Step, board: SummaryWriter | None) -> Tensor:
        """Run one optimizer step, without waiting for the device.

        Args:
            step: its images, which are the same in all processes.
            board: for histograms of weights and gradients.

        Returns:
            Sums over the images of this process, float32 ``(2,)``: loss, and correct predictions.
        """
        recipe = self.recipe
        whole = slice(0, len(step))
        step_labels = self.images.labels_of(step, whole) if self.loss.is_weighted else None
        sums = torch.zeros(2, device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        own_pieces = self.pieces(len(step))
        for number, part in own_pieces:
            x = self.images.batch(step, part, self.scale)
            y = self.images.labels_of(step, part)
            torch.manual_seed(derive_seed("dropout", self.plan.seed, step.number, number))
            network = self.network
            # Gradients are synchronized once per step, with the last piece.
            with (
                network.no_sync()
                if isinstance(network, DistributedDataParallel) and number != own_pieces[-1][0]
                else nullcontext()
            ):
                with autocast_block(self.device, self.autocast):
                    logits = network(x)
                loss = self.loss(logits.float(), y, step_labels)
                # Gradients are averaged over the images of the step in all processes.
                share = len(y) / len(step) * self.process_group.size
                torch.autograd.backward(loss * share)
            right = (logits.detach().argmax(1) == y).sum()
            sums += torch.stack([loss.detach() * len(y), right])
        every = recipe.histogram_steps
        if board is not None and every and (step.number + 1) % every == 0:
            log_histograms(board, self.model, step.number + 1)
        self.optimizer.step()
        plateau = isinstance(self.schedule, lr_scheduler.ReduceLROnPlateau)
        if self.schedule is not None and not plateau:  # a plateau schedule steps once per epoch
            self.schedule.step()
        return sums

    def end_epoch(self, epoch: int, board: SummaryWriter | None, rate: float) -> None:
        """Evaluate on the validation split, step a plateau schedule, and write the files."""
        at, count = self.position, len(self.data.train)
        self.process_group.broadcast_buffers(self.model)
        validation = self.evaluate(self.data.validation)
        if not math.isfinite(validation.loss):
            raise FloatingPointError(
                f"the validation loss is not finite after step {at.step}; "
                f"{self.describe_checkpoint()}; {self.remedy}"
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
        if self.process_group.is_main:
            if at.best_epoch == epoch + 1:
                save_weights(self.model, self.out / layout.BEST_WEIGHTS)
            write_rows(self.out / layout.METRICS, at.metrics)
        log_epoch(board, row)
        self.save_state()

    # --- end --------------------------------------------------------------------------------------

    def finish(self) -> TrainResult:
        """Evaluate the kept weights on the test split and complete the run folder."""
        at, best = self.position, self.out / layout.BEST_WEIGHTS
        kept = self.recipe.keeps
        if kept == "best":
            if self.process_group.is_main:
                save_weights(self.model, self.out / layout.LAST_WEIGHTS)
            self.process_group.barrier()
            load_weights(self.model, best)
        row = at.metrics[at.best_epoch - 1 if kept == "best" else -1]
        self.train_only(("all",))
        result = TrainResult(
            epochs=self.plan.epochs,
            steps=self.steps,
            seconds=at.seconds,
            seconds_per_step=at.seconds / self.steps,
            compile_seconds=at.compile_seconds,
            train_images=len(self.data.train),
            validation=Evaluation(row["validation_loss"], row["validation_accuracy"]),
            test=self.evaluate(self.data.test),
            weights=kept,
            best_epoch=at.best_epoch,
            device=str(self.device),
            devices=self.process_group.size,
            precision="bf16" if self.autocast else "fp32",
            parameters=sum(p.numel() for p in self.trained),
        )
        if self.process_group.is_main:
            save_model(self.model, self.out)
            content = json_bytes(asdict(result))
            going = [layout.BEST_WEIGHTS] if kept == "best" else []  # the same as model.safetensors
            write_hashes(self.out, {layout.RESULT: content}, going)
            write_bytes(self.out / layout.RESULT, content)
            self.checkpoint.unlink()
            if kept == "best":
                best.unlink()
        self.process_group.barrier()
        return result

    def evaluate(self, split: LabeledImages) -> Evaluation:
        """Evaluate on a split, by all processes together."""
        return evaluate(
            self.model,
            split,
            self.data.normalization,
            self.device,
            self.autocast,
            self.process_group,
        )

    def save_state(self) -> None:
        """Write a checkpoint. The previous one is replaced when the new one is complete."""
        if self.process_group.is_main:
            if self.history:
                write_rows(self.out / layout.STEPS, self.history)
            state = {
                "position": asdict(self.position),
                "schedule": None if self.schedule is None else self.schedule.state_dict(),
            }
            save_checkpoint(self.checkpoint, self.model, self.optimizer, state)
        self.saved_at, self.saved_step = time.perf_counter(), self.position.step

    @property
    def remedy(self) -> str:
        """What to do about a loss that is not finite."""
        if self.compiled is self.model:
            return "lower the learning rate"
        # Its gradients may be those of other operations.
        return "lower the learning rate, or train with --no-compile"

    def describe_checkpoint(self) -> str:
        """Say in words which checkpoint is the last one."""
        if not self.saved_step:
            return "no checkpoint has been written yet"
        return f"the last checkpoint {self.checkpoint} is from step {self.saved_step}"
