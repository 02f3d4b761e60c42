"""Eval mode for a block, modules that run without the modes of torch, and compiled functions."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


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


class FunctionModes(threading.local):
    """Switches the function modes of a thread off and on.

    Two tracers may run at once, and a module's hooks run in the same order before and after it. The
    first to switch off and the last to switch on are those that count.
    """

    depth = 0
    guard: Any = None

    def switch_off(self) -> None:
        """Switch the modes off, if no other caller has."""
        self.depth += 1
        if self.depth == 1:
            self.guard = torch._C.DisableTorchFunction()
            self.guard.__enter__()

    def switch_on(self) -> None:
        """Switch the modes on again, after the last caller."""
        self.depth -= 1
        if self.depth == 0:
            self.guard.__exit__(None, None, None)


FUNCTION_MODES = FunctionModes()


@contextmanager
def without_modes() -> Iterator[None]:
    """Switch the function modes of this thread off for a block, which runs no gates.

    Under the mode of a tracer, each operation takes some microseconds more.
    """
    FUNCTION_MODES.switch_off()
    try:
        yield
    finally:
        FUNCTION_MODES.switch_on()


class EagerStance:
    """Lets what torch.compile compiled run as Python while a tracer is open.

    A compiled function would have its operations compiled together with the tracer. The stance of
    the compiler is that of the process, and tracers of several threads may overlap: the first sets
    it, and the last restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._stance: Any = None

    def enter(self) -> None:
        """Set the stance, unless another tracer has."""
        with self._lock:
            if self._depth == 0:
                self._stance = torch.compiler.set_stance("force_eager")
            self._depth += 1

    def leave(self) -> None:
        """Restore the stance, after the last tracer."""
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._stance.__exit__(None, None, None)


EAGER_STANCE = EagerStance()


_FAST_PATHS = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)


_OPAQUE = frozenset(
    {
        *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear),
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm),
    }
)


_PLAIN = frozenset({Tensor, nn.Parameter, type(None)})


def is_opaque(module: nn.Module) -> bool:
    """Return whether a module runs one operation that is not registered, and nothing else.

    The class must be one of torch exactly: a parametrized module has a class of its own.
    """
    own = vars(module)
    return type(module) in _OPAQUE and "forward" not in own and _holds_plain(module)


def has_fast_path(module: nn.Module) -> bool:
    """Return whether a mode would switch off the fast path of a transformer.

    All submodules must be those of torch, in which no gate can be.
    """
    return type(module) in _FAST_PATHS and all(
        type(each).__module__.startswith("torch.nn.") and _holds_plain(each)
        for each in module.modules()
    )


def are_plain(tensors: Iterable[Tensor | None]) -> bool:
    """Return whether no tensor has operations of its own, as those with quantized values have.

    `FunctionModes.switch_off` would switch these operations off, too.
    """
    return _PLAIN.issuperset(map(type, tensors))


def _holds_plain(module: nn.Module) -> bool:
    """Return whether the tensors that are plain attributes of a module are plain."""
    return are_plain(value for value in vars(module).values() if isinstance(value, Tensor))
