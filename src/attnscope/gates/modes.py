"""Eval mode for a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Set a network to eval mode for a block, then restore the training flag of every module."""
    flags = [(module, module.training) for module in model.modules()]
    # A network may do more in `eval` than can be undone. Do not call it if it changes no flag.
    if any(training for _, training in flags):
        model.eval()
    try:
        yield
    finally:
        for module, training in flags:  # model.train() would also unfreeze a frozen BatchNorm
            module.training = training
