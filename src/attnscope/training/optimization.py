"""Optimizer, learning rate schedule and the sizes of the steps of a recipe."""

from __future__ import annotations

import bisect

import torch
from torch import nn
from torch.optim import lr_scheduler

from attnscope.errors import InputError
from attnscope.training.recipe import Adam, Milestones, OneCycle, Plateau, Recipe


def build_optimizer(model: nn.Module, recipe: Recipe, rate: float) -> torch.optim.Optimizer:
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


def build_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> lr_scheduler.LRScheduler | None:
    """The learning rate schedule of a recipe; None where the learning rate stays."""
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


def step_sizes(count: int, batch_size: int, parts: int) -> list[int]:
    """Images of each step of one epoch, each step being split into ``parts`` batches.

    What would leave a batch of one image joins the step before: alone it could not pass a BatchNorm
    over 1×1 maps, and elsewhere would be normalized by itself.

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
