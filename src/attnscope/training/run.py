"""`train_run`: load the data, build the network, train it and write a run folder, from settings.

`attnscope.training.fitting` trains a network that already exists.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from attnscope import layout
from attnscope.data.classes import read_class_names
from attnscope.data.load import Data, load_data
from attnscope.data.places import find_data, places_of
from attnscope.errors import printable
from attnscope.networks.build import build_model
from attnscope.networks.pretrained import Pretrained, read_pretrained, start_from
from attnscope.run_config import image_settings, read_config
from attnscope.training.config import (
    DEFAULT_RECIPE,
    MONITOR_EVERY,
    ResolvedConfig,
    TrainConfig,
)
from attnscope.training.devices import choose_device
from attnscope.training.fitting import fit, refuse_existing_run
from attnscope.training.processes import ProcessGroup, join_process_group
from attnscope.training.recipes import RECIPES

_SMALL = 96  # pixels; for larger images the cifar stem is slow
GPU_RECIPE = "fast-gpu"
_SMALL_FOR_GPU = 64  # pixels
_FEWEST_STEPS = 20  # in an epoch of the recipe for GPUs


def train_run(config: TrainConfig, progress: bool = True) -> Path:
    """Train a network and write a run folder, as ``attnscope train`` does with the same options.

    Under torchrun, each process computes its share of every step, and the main process writes.

    Args:
        config: the settings.
        progress: show a progress bar on stderr. Notes are printed there in any case: skipped
            images, and weights that were not loaded.

    Returns:
        The run folder.

    Raises:
        InputError: a setting cannot be used. Nothing was written.
        FloatingPointError: the loss is not finite; see `attnscope.training.fit`.
        KeyboardInterrupt: after SIGINT, SIGTERM or SIGHUP, when a checkpoint has been written.
        OSError: the disk is full, for example. The last checkpoint is complete.
    """
    with join_process_group(choose_device(config.device)) as process_group:
        return _train(config, config.resolve(), process_group, progress)


def _train(
    config: TrainConfig, settings: ResolvedConfig, process_group: ProcessGroup, progress: bool
) -> Path:
    network = settings.network
    if not config.resume:
        refuse_existing_run(settings.out)
    elif process_group.is_main and not settings.out.exists():
        _print_note(f"there is no run {settings.out} to resume, so its training starts now")
    # Reports wrong names before images and weights are read, which may take a while.
    channels = config.channels or 3
    build_model(
        settings.model, **network, gate_start=config.gate_start or "half", channels=channels
    )
    classes = config.classes
    names = read_class_names(classes) if isinstance(classes, Path) else classes
    weights = None
    gate_start: str | None = config.gate_start
    if settings.weights != "none":
        weights = _read_weights(settings, process_group)
        gate_start = gate_start or weights.gate_start or "identity"
    data = load_data(
        _find_data(config, settings.out),
        data_root=config.data_root,
        image_size=settings.image_size,
        resize=settings.resize,
        validation_share=config.validation_share,
        seed=config.seed,
        skip_unreadable=config.skip_unreadable,
        channels=config.channels,
        class_order=config.class_order,
        classes=names,
    )
    if config.recipe is None and suits_gpu_recipe(
        choose_device(config.device), data, process_group
    ):
        settings = replace(settings, recipe=config.resolve(GPU_RECIPE).recipe)
        if process_group.is_main:
            _print_note(
                f"recipe {GPU_RECIPE}, which is the default for many small images on a GPU; "
                f"--recipe {DEFAULT_RECIPE} chooses the default of a CPU"
            )
    torch.manual_seed(config.seed)
    model = build_model(
        settings.model,
        num_classes=len(data.classes),
        **network,
        gate_start=gate_start or "half",
        channels=data.train.shape[1],
    )
    report = None if weights is None else start_from(model, weights)
    if process_group.is_main:
        small = settings.model != "cnn" and network["stem"] in (None, "cifar")
        if small and data.image_size > _SMALL:
            _print_note(
                f"the cifar stem is meant for small images: with {data.image_size} pixels, a step "
                f"takes {(data.image_size / 32) ** 2:.0f} times the time and memory of 32 pixels; "
                "use --stem imagenet or --recipe finetune for photographs"
            )
        for line in data.skipped:
            _print_note(f"skipped {line}")
        for line in data.notes:
            _print_note(line)
        if report is not None:
            _print_note(f"weights {settings.weights}\n{report}")
    fit(
        model,
        data,
        settings.recipe,
        settings.out,
        epochs=config.epochs,
        class_weights=config.class_weights,
        seed=config.seed,
        device=config.device,
        precision=config.precision,
        compiled=config.compile,
        deterministic=config.deterministic,
        monitor_every=(config.monitor_every or MONITOR_EVERY) if config.monitor else None,
        resume=config.resume,
        progress=progress,
        config={
            **({} if (command := config.command()) is None else {"command": command}),
            "data": config.data,
            "data_root": str(config.data_root),
            "places": places_of(data.source, config.data_root, settings.out),
            "resize": settings.resize,
            "validation_share": config.validation_share,
            "skip_unreadable": config.skip_unreadable,
            **({"skipped": data.skipped} if data.skipped else {}),
            **image_settings({**vars(config), "listed_classes": names is not None}),
            "weights": settings.weights,
            "weights_report": None if report is None else str(report).splitlines(),
        },
    )
    process_group.barrier()  # the other processes can now read what the main process wrote
    return settings.out


def _find_data(config: TrainConfig, out: Path) -> str:
    """Return the data source: to resume, that of the run, wherever this command is called."""
    if not config.resume or not (out / layout.CONFIG).is_file():
        return config.data
    stored = read_config(out)
    if stored.get("data") != config.data:
        return config.data
    return find_data(config.data, stored.get("places"), out)


def suits_gpu_recipe(device: torch.device, data: Data, process_group: ProcessGroup) -> bool:
    """Whether `GPU_RECIPE` is the default recipe: on a GPU, for many small images.

    Its batches are large: of few images they would be few steps, and large images would not fit
    into the memory of most GPUs.

    Args:
        device: where the network is trained.
        data: the training images.
        process_group: the processes that train together, each of which takes a batch in a step.
    """
    step = RECIPES[GPU_RECIPE].batch_size * process_group.size
    small, many = data.image_size <= _SMALL_FOR_GPU, len(data.train) >= _FEWEST_STEPS * step
    return device.type == "cuda" and small and many


def _read_weights(settings: ResolvedConfig, process_group: ProcessGroup) -> Pretrained:
    """Read pretrained weights. The main process goes first, so that they are downloaded once."""
    if not process_group.is_main:
        process_group.barrier()
    weights = read_pretrained(settings.weights, settings.model)
    if process_group.is_main:
        process_group.barrier()
    return weights


def _print_note(line: str) -> None:
    print(printable(line), file=sys.stderr)
