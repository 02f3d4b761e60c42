"""`fit`: train a given network on given data and write a run folder.

`attnscope.training.run` builds the network and loads the data from settings.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attnscope import __version__, layout
from attnscope.data.load import Data
from attnscope.data.streamed import StreamedImages
from attnscope.errors import InputError, first_line
from attnscope.files import locked, make_folder, read_json, refuse_existing, remove_leftovers
from attnscope.gates.modes import eval_mode
from attnscope.run_config import expect_unchanged
from attnscope.settings import require
from attnscope.training.compiling import NOT_COMPILED, choose_compilation, measure_step
from attnscope.training.devices import choose_device, choose_precision, chosen_kernels
from attnscope.training.freezing import check_modules
from attnscope.training.loop import Plan, TrainingLoop
from attnscope.training.loss import class_weight_tensor
from attnscope.training.monitored import check_gates
from attnscope.training.optimization import step_sizes
from attnscope.training.processes import ProcessGroup, current_process_group
from attnscope.training.recipe import Recipe
from attnscope.training.result import TrainResult
from attnscope.unfinished import how_to_continue, is_interrupted

_MACHINE_SETTINGS = {
    *("attnscope", "torch", "device", "data_root", "places", "skipped", "images", "compile"),
    "command",
}
"""Keys of ``config.json`` that may change when a run is resumed, maybe on another machine."""


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
    compiled: bool | None = None,
    deterministic: bool = False,
    monitor_every: int | None = None,
    config: dict[str, Any] | None = None,
    progress: bool = True,
    resume: bool = False,
    checkpoint_seconds: float = 120,
) -> TrainResult:
    """Train a network by a recipe and write a run folder.

    All randomness is derived from the seed, the epoch and the step, so a resumed run ends like an
    uninterrupted one. On a CPU with the same number of threads, in fp32 and in bf16, it does so bit
    for bit; on a GPU with ``deterministic``.

    In a process group of torch.distributed, each process computes its share of every step and the
    main process writes. Running statistics of norms are those of the main process.

    Args:
        model: a network of `attnscope.build_model`. It is moved to the device and trained in place.
        data: the three splits. The validation split is used where the recipe needs it: for the
            learning rate on a plateau and for the best weights. The test split is evaluated once,
            with the kept weights, after the last step.
        recipe: the optimizer, schedule, augmentation and phases.
        out: the run folder, which must not exist unless ``resume`` is true.
        epochs: number of epochs. The recipe's phases and milestones scale with it. Default: set by
            the recipe.
        class_weights: class weights of the training loss: ``none``, ``balanced`` or one number per
            class. See `attnscope.training.loss.class_weight_tensor`.
        seed: seed of the order of the images, augmentation and dropout. The caller draws the
            initial weights.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32`` or ``bf16`` (autocast; the weights stay in float32).
        compiled: compile the network with torch.compile. Default: on a GPU, if there is a compiler
            and the training is expected to take longer than compiling; one line on stderr says so.
            On one GPU without accumulated batches, CUDA graphs are used.
        deterministic: use deterministic kernels only, which may be slower.
        monitor_every: observe the gates every so many steps on some validation images
            (`attnscope.GateMonitor`), which changes nothing in the training. Default: never.
        config: other settings to store in the run's ``config.json``.
        progress: show a progress bar on stderr.
        resume: continue from the last checkpoint in ``out``, or start if there is no run.
        checkpoint_seconds: write a checkpoint at least this often, and after each epoch. It is
            removed when training has finished.

    Returns:
        The losses and accuracies, which are also in the run folder.

    Raises:
        InputError: an argument cannot be used, with codes AS101 to AS134, AS503 to AS525 and
            AS552. Nothing was written, and the network is unchanged. Or AS509: an operation has no
            deterministic kernel.
        FloatingPointError: the loss is not finite. The message names the first step. The run folder
            keeps its settings, the metrics of earlier epochs and the last good checkpoint, and has
            no weights.
        KeyboardInterrupt: after SIGINT, SIGTERM or SIGHUP, when a checkpoint has been written.
        OSError: the disk is full, for example. The last checkpoint is complete.
    """
    epochs = recipe.epochs if epochs is None else epochs
    require(epochs >= 1, "epochs", epochs, "at least 1")
    require(seed >= 0, "seed", seed, "at least 0")
    every = monitor_every
    require(every is None or every >= 1, "monitor_every", every, "at least 1")
    with_both = deterministic and compiled
    require(not with_both, "deterministic", deterministic, "given without compile")
    where = choose_device(device)
    autocast = choose_precision(precision, where)
    process_group = current_process_group()
    _check_model(model, data)
    _check_colors(recipe, data)
    for phase in recipe.phases:
        check_modules(model, phase.trains)
    sizes = step_sizes(len(data.train), recipe.batch_size, recipe.accumulate * process_group.size)
    gates = [] if every is None else check_gates(model, data)
    weights = class_weight_tensor(class_weights, data.train.labels, data.classes)
    settings = {
        **(config or {}),
        "attnscope": __version__,
        "torch": torch.__version__,
        "recipe": asdict(recipe),
        "epochs": epochs,
        # Left out without class weights, so that runs of version 0.1 can be resumed.
        **({} if weights is None else {"class_weights": class_weights}),
        **({} if every is None else {"monitor_every": every}),
        "seed": seed,
        "device": str(where),
        "devices": process_group.size,
        "precision": "bf16" if autocast else "fp32",
        **({"deterministic": True} if deterministic else {}),
        "classes": data.classes,
        "normalization": asdict(data.normalization),
        "image_size": data.image_size,
        # Said where images are not in memory; the results are the same.
        **({"images": "streamed"} if isinstance(data.train, StreamedImages) else {}),
        "parts": data.fingerprints(),
    }
    piece = -(-sizes[0] // (recipe.accumulate * process_group.size))
    shape = (piece, *data.train.shape[1:2], data.image_size, data.image_size)
    batches = epochs * len(sizes) * recipe.accumulate
    with _writing(out, process_group):
        process_group.barrier()  # the main process has removed what a killed training left
        if not resume:
            refuse_existing_run(out)
        begins = not resume or not _can_resume(out, settings, data)
        compilation = choose_compilation(
            compiled,
            None if begins else read_json(out / layout.CONFIG).get("compile", NOT_COMPILED),
            lambda: batches * measure_step(model, shape, where, autocast),
            sizes=len({(phase.scale, phase.trains) for phase in recipe.phases}),
            device=where,
            deterministic=deterministic,
            accumulate=recipe.accumulate,
            process_group=process_group,
        )
        if compilation.mode != NOT_COMPILED:
            settings["compile"] = compilation.mode
        process_group.barrier()  # no process creates the folder before all have checked
        if begins and process_group.is_main and not out.exists():
            make_folder(out)
        # Nothing was changed up to here. All input has been checked.
        if compilation.note and process_group.is_main:
            print(f"The network is {compilation.note}.", file=sys.stderr)
        plan = Plan(recipe, epochs, seed, sizes, weights, compilation.mode, gates, every or 0)
        with chosen_kernels(where, deterministic):
            training = TrainingLoop(model, data, plan, out, where, autocast, process_group)
            return _train(training, settings, progress, checkpoint_seconds, deterministic)


def _train(
    training: TrainingLoop,
    settings: dict[str, Any],
    progress: bool,
    checkpoint_seconds: float,
    deterministic: bool,
) -> TrainResult:
    training.start(settings)
    try:
        training.run(progress, checkpoint_seconds)
        return training.finish()
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}; {training.describe_checkpoint()}; "
            "free some space and continue with --resume",
            error.filename or str(training.out),
        ) from error
    except RuntimeError as error:
        if deterministic and "deterministic" in str(error):
            raise InputError(
                "AS509",
                f"the training cannot be deterministic ({first_line(error):.200}); train in "
                "another folder without --deterministic",
            ) from None
        raise


@contextmanager
def _writing(out: Path, process_group: ProcessGroup) -> Iterator[None]:
    """Keep other trainings out of a run folder.

    Raises:
        InputError: AS525, another training writes to it.
    """
    if not process_group.is_main:
        yield
        return
    if not out.parent.is_dir():
        make_folder(out.parent, out)
    try:
        with locked(out.with_name(f".{out.name}{layout.LOCK_SUFFIX}")):
            remove_leftovers(out)
            yield
    except BlockingIOError as error:
        raise InputError(
            "AS525",
            f"{error.strerror} is training into {out}; wait until it has finished, or choose "
            "another folder with --out",
        ) from None


def refuse_existing_run(out: Path) -> None:
    """Refuse a run folder that exists.

    Raises:
        InputError: AS113, it exists; if its training was interrupted, the message says how to
            continue it. AS114, it cannot be created.
    """
    if is_interrupted(out):
        raise InputError(
            "AS113",
            f"{out} already exists, and its training was interrupted; {how_to_continue(out)} (or "
            "choose another folder with --out)",
        )
    refuse_existing(out)


def _is_empty(folder: Path) -> bool:
    """Return whether a folder is there and empty, as a killed training can leave it."""
    return folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())


def _can_resume(out: Path, settings: dict[str, Any], data: Data) -> bool:
    """Whether there is a run in ``out`` to resume; False if the folder does not exist or is empty.

    Raises:
        InputError: AS520, the run has finished; AS521, the folder is not a run; AS522, the run was
            started with other settings; AS538, with other images.
    """
    if not out.exists() or _is_empty(out):
        return False
    if (out / layout.RESULT).exists():
        raise InputError("AS520", f"run {out} has finished; choose another folder with --out")
    if not (out / layout.CONFIG).exists():
        raise InputError(
            "AS521", f"{out} is not an interrupted run; choose another folder with --out"
        )
    stored = read_json(out / layout.CONFIG)
    current = json.loads(json.dumps(settings))
    free = set(_MACHINE_SETTINGS)
    has_fingerprints = (out / layout.IMAGES).exists()
    if has_fingerprints:
        free.add("parts")  # they are compared image by image
        if _are_both_of(stored.get("data"), current.get("data")):
            free.add("data")  # the same images may lie elsewhere
    compared = (stored.keys() | current.keys()) - free
    of_images = {"normalization"} & compared  # it follows from the pixels of the training images
    _expect_equal(out, stored, current, compared - of_images)
    if has_fingerprints:
        expect_unchanged(out, data.source, data.splits(), allowed=None)
    _expect_equal(out, stored, current, of_images)
    return True


def _expect_equal(
    out: Path, stored: dict[str, Any], current: dict[str, Any], names: set[str]
) -> None:
    for name in sorted(names):
        if stored.get(name) != current.get(name):
            raise InputError(
                "AS522",
                f"run {out} was started with {name} = {stored.get(name)!r:.60}, not "
                f"{current.get(name)!r:.60}; resume with the settings that it was started with",
            )


def _are_both_of(a: object, b: object) -> bool:
    """Return whether two data sources have one name, and each a path of its own."""
    names = [text.partition(":")[:2] if isinstance(text, str) else ("", "") for text in (a, b)]
    return names[0] == names[1] and names[0][1] == ":"


def _check_colors(recipe: Recipe, data: Data) -> None:
    """Refuse a recipe that changes colors of images that are neither RGB nor gray.

    Raises:
        InputError: AS508.
    """
    channels, a = data.train.shape[1], recipe.augmentation
    if channels not in (1, 3) and (a.brightness or a.contrast or a.saturation or a.hue):
        raise InputError(
            "AS508",
            f"recipe {recipe.name} changes colors, and the images have {channels} channels; choose "
            "another recipe, or --channels 3 or 1",
        )


def _check_model(model: nn.Module, data: Data) -> None:
    """Check that the network accepts the images and returns one logit for each class.

    One image is passed through the network in eval mode, which does not change it.

    Raises:
        InputError: AS504, the number of outputs differs from the number of classes.
    """
    device = next(model.parameters()).device
    image = data.train[:1].center_crop(data.image_size).images.to(device)
    with eval_mode(model), torch.inference_mode():
        logits = model(data.normalization.apply(image))
    if logits.shape != (1, len(data.classes)):
        raise InputError(
            "AS504",
            f"the network has {logits.shape[-1]} outputs, but {data.source} has "
            f"{len(data.classes)} classes; build it with num_classes={len(data.classes)}",
        )
