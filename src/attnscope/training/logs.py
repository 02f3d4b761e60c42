"""The logs of training: CSV tables, TensorBoard and some training images."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from attnscope.data.augment import augment
from attnscope.data.load import Data
from attnscope.files import write_bytes
from attnscope.training.processes import ProcessGroup
from attnscope.training.randomness import derive_seed, derived_generator
from attnscope.training.recipe import Recipe

_SHOWN_IMAGES = 32  # training images that are stored for the figure


def save_training_images(data: Data, recipe: Recipe, seed: int, file: Path) -> None:
    """Save some augmented training images, not normalized, for the figure ``training_images``.

    Args:
        data: its training split.
        recipe: its augmentation.
        seed: the seed of the run.
        file: a safetensors file: ``images``, float32 ``(n, C, H, W)``, and ``labels``, int64
            ``(n,)``.
    """
    rows = np.sort(derived_generator("shown", seed).permutation(len(data.train))[:_SHOWN_IMAGES])
    chosen = data.train[rows]
    x = augment(
        chosen.images,
        data.normalization,
        recipe.augmentation,
        torch.Generator().manual_seed(derive_seed("shown", seed)),
        size=data.image_size,
        may_flip=data.may_flip,
    )
    shown = data.normalization.undo(x).contiguous()
    write_bytes(file, save({"images": shown, "labels": chosen.labels.contiguous()}))


@contextmanager
def open_board(
    folder: Path, step: int, process_group: ProcessGroup
) -> Iterator[SummaryWriter | None]:
    """Open a TensorBoard writer.

    Args:
        folder: where the events are written.
        step: the step from which training continues. Events of later steps are dropped.
        process_group: only its main process writes.

    Yields:
        The writer, or None in other processes.
    """
    if not process_group.is_main:
        yield None
        return
    with SummaryWriter(str(folder), purge_step=step + 1 if step else None) as board:
        yield board


def log_step(board: SummaryWriter | None, row: dict[str, float]) -> None:
    """Log loss, accuracy and learning rate of a step."""
    if board is not None:
        for name in ("loss", "accuracy", "learning_rate"):
            board.add_scalar(f"batch/{name}", row[name], row["step"])


def log_histograms(board: SummaryWriter, model: nn.Module, step: int) -> None:
    """Log a histogram of every parameter and its gradient, after the backward pass."""
    for name, parameter in model.named_parameters():
        board.add_histogram(f"weights/{name}", parameter, step)
        if parameter.grad is not None:
            board.add_histogram(f"gradients/{name}", parameter.grad, step)


def log_epoch(board: SummaryWriter | None, row: dict[str, float]) -> None:
    """Log the training and validation loss and accuracy of an epoch."""
    if board is not None:
        for name in ("loss", "accuracy"):
            board.add_scalar(f"train/{name}", row[f"train_{name}"], row["step"])
            board.add_scalar(f"validation/{name}", row[f"validation_{name}"], row["step"])
        board.flush()


def read_rows(file: Path) -> list[dict[str, float]]:
    """Read a CSV file of numbers."""
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            {name: int(v) if name in ("step", "epoch") else float(v) for name, v in row.items()}
            for row in csv.DictReader(stream)
        ]


def write_rows(file: Path, rows: list[dict[str, float]]) -> None:
    """Write a CSV file of numbers."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(file, text.getvalue().encode())
