"""Run a network in the middle of its training, without any effect on the training."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attnscope.errors import InputError

_SEED = 0
_TABLES = ("_parameters", "_buffers", "_modules")
_WRAPPERS = ("DistributedDataParallel", "DataParallel")
_SHARDED = ("FullyShardedDataParallel", "DTensor")


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside `torch.compile`, DistributedDataParallel and DataParallel.

    Raises:
        InputError: AS415, its parameters are distributed over processes.
    """
    while True:
        if hasattr(model, "_orig_mod"):
            inner = model._orig_mod
        elif type(model).__name__ in _WRAPPERS:
            inner = model.module
        else:
            break
        assert isinstance(inner, nn.Module)
        model = inner
    kinds = [type(each).__name__ for each in (*model.modules(), *model.parameters())]
    sharded = next((kind for kind in kinds if kind in _SHARDED), "")
    if sharded:
        raise InputError(
            "AS415",
            f"the parameters of {type(model).__name__} are distributed over processes ({sharded}), "
            "so that one process cannot run it alone; use DistributedDataParallel",
        )
    return model


@contextmanager
def aside(model: nn.Module) -> Iterator[nn.Module]:
    """Lend a network for forwards that leave no trace in its training.

    Inside the block, the network is in eval mode, without gradients, without autocast, and not
    compiled. Random numbers have a fixed seed, so that a network that draws some draws the same in
    each block. Afterwards, also after an exception, everything is as it was: the mode and the
    attributes of each module, all buffers, gradients, and the state of every random generator
    (of torch on its device, of NumPy, of Python, and those that modules hold). Nothing waits for
    another process.

    What a forward does to objects outside the network cannot be undone, such as values that a hook
    appends to a list.

    Args:
        model: the network, as `unwrapped` returns it.

    Yields:
        The network.
    """
    modules = list(model.modules())
    attributes = [dict(vars(module)) for module in modules]
    tables = [{name: dict(vars(module)[name]) for name in _TABLES} for module in modules]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    generators = [restorer for each in attributes for restorer in _restorers(each)]
    device = next((each.device for each in _tensors(model)), torch.device("cpu"))
    cuda = {each.device.index or 0 for each in _tensors(model) if each.device.type == "cuda"}
    python = random.getstate()
    # The legacy state is that of `np.random.shuffle` and the like, which training may use.
    arrays = np.random.get_state()  # noqa: NPY002
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(sorted(cuda)))
            stack.enter_context(torch.no_grad())
            # The numbers must not depend on whether the caller is inside an autocast.
            stack.enter_context(torch.autocast(device.type, enabled=False))
            _seed(cuda)
            for module in modules:
                _make_plain(module)
            yield model
    finally:
        for module, before, table in zip(modules, attributes, tables, strict=True):
            _restore(vars(module), before)
            for name, entries in table.items():
                _restore(vars(module)[name], entries)
        for buffer, content in buffers:
            buffer.data.copy_(content)  # `data`: no new version, which a backward would refuse
        for restore in generators:
            restore()
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _make_plain(module: nn.Module) -> None:
    """Set a module to eval mode and take what torch.compile has put into it out of it."""
    own = vars(module)
    # Not `module.eval()`: a network may do more in it than can be undone, such as merge weights.
    own["training"] = False
    if own.get("_compiled_call_impl") is not None:
        own["_compiled_call_impl"] = None
    for name, value in list(own.items()):
        if callable(value) and hasattr(value, "_torchdynamo_orig_callable"):
            own[name] = value._torchdynamo_orig_callable
    for name, child in list(own["_modules"].items()):
        if child is not None and hasattr(child, "_orig_mod"):
            own["_modules"][name] = child._orig_mod


def _restore(table: dict[str, Any], before: dict[str, Any]) -> None:
    """Put back the entries of a dict that were replaced, and remove those that were added."""
    for name in table.keys() - before.keys():
        del table[name]
    for name, value in before.items():
        if name not in table or table[name] is not value:
            table[name] = value


def _restorers(attributes: dict[str, Any]) -> Iterator[Callable[[], object]]:
    """Yield a function that restores the state of each random generator that a module holds."""
    for value in attributes.values():
        if isinstance(value, torch.Generator):
            yield partial(value.set_state, value.get_state())
        elif isinstance(value, np.random.Generator):
            yield partial(setattr, value.bit_generator, "state", value.bit_generator.state)
        elif isinstance(value, random.Random):
            yield partial(value.setstate, value.getstate())


def _seed(cuda: set[int]) -> None:
    # torch.manual_seed would also seed GPUs whose state is not restored.
    torch.default_generator.manual_seed(_SEED)
    for index in cuda:
        torch.cuda.default_generators[index].manual_seed(_SEED)
    random.seed(_SEED)
    np.random.seed(_SEED)  # noqa: NPY002
