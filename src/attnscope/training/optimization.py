"""Optimizer, learning rate schedule and step sizes of a recipe."""

from __future__ import annotations

import bisect

import torch
from torch import nn
from torch.optim import lr_scheduler

from attnscope.errors import InputError
from attnscope.training.recipe import Adam, Milestones, OneCycle, Plateau, Recipe


def build_optimizer(model: nn.Module, recipe: Recipe, rate: float) -> torch.optim.Optimizer:
    """Build the optimizer of a recipe over the parameters that require a gradient.

    Args:
        model: the network.
        recipe: its optimizer and weight decay.
        rate: the learning rate.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    # On a GPU, one kernel updates many weights. On a CPU, torch chooses.
    fused = True if any(p.device.type != "cpu" for p in trained) else None
    kind = recipe.optimizer
    if isinstance(kind, Adam):
        return torch.optim.Adam(trained, lr=rate, fused=fused)
    decayed = [p for p in trained if kind.decays_all or p.ndim > 1]
    norms_and_biases = [p for p in trained if not kind.decays_all and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": kind.weight_decay}]
    if norms_and_biases:
        groups.append({"params": norms_and_biases, "weight_decay": 0.0})
    return torch.optim.SGD(
        groups, lr=rate, momentum=kind.momentum, nesterov=kind.nesterov, fused=fused
    )


def build_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> lr_scheduler.LRScheduler | None:
    """Build the learning rate schedule of a recipe.

    Args:
        optimizer: whose learning rate changes.
        recipe: its schedule and maximum learning rate.
        steps: number of steps of the whole run.

    Returns:
        The schedule, or None if the learning rate is constant.
    """
    kind = recipe.schedule
    if isinstance(kind, OneCycle):
        return lr_scheduler.OneCycleLR(
            optimizer,
            recipe.learning_rate,
            total_steps=max(steps, 3),
            # OneCycleLR divides by the number of rising steps minus one, so it needs two.
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


def step_sizes(count: int, batch_size: int, batches: int) -> list[int]:
    """Return the number of images of each step of an epoch.

    Images that would leave a batch of one image are added to the last full step. BatchNorm cannot
    normalize a single image with a 1×1 map, and would normalize a larger map by itself.

    Args:
        count: number of training images.
        batch_size: images in a batch.
        batches: batches in a step, over all devices and accumulated batches.

    Raises:
        InputError: AS507, there are too few images for this number of batches.
    """
    full_steps, rest = divmod(count, batch_size * batches)
    sizes = [batch_size * batches] * full_steps
    if full_steps and rest < 2 * batches:
        sizes[-1] += rest
    elif rest:
        sizes.append(rest)
    if batches > 1 and sizes[0] < 2 * batches:
        raise InputError(
            "AS507",
            f"{count} training images are too few for {batches} batches per step; use fewer "
            "devices or a smaller --accumulate",
        )
    return sizes
