"""Run a network in the middle of its training, without any effect on the training."""

from __future__ import annotations

import operator
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
    each block. Afterwards, also after an exception, these are as they were: the mode and the
    attributes of each module, all buffers, gradients, and the state of every random generator
    (of torch on its device, of NumPy, of Python, and those that modules hold). Of attributes that
    are tensors, lists, tuples or dicts, or are in such a list, tuple or dict, the content is as it
    was, too. Nothing waits for another process.

    Not restored are parameters that a forward writes into, the content of attributes of other
    types (NumPy arrays, sets, queues, objects of other classes), the content of sparse and nested
    tensors that are no buffers, and objects outside the network, such as a list to which a hook
    appends.

    Args:
        model: the network, as `unwrapped` returns it.

    Yields:
        The network.
    """
    modules = list(model.modules())
    attributes = [dict(vars(module)) for module in modules]
    tables = [{name: dict(vars(module)[name]) for name in _TABLES} for module in modules]
    held, containers = _contents(modules)
    held += (buffer for buffer in model.buffers() if not _is_repeated(buffer))
    contents = [(tensor, tensor.detach().clone()) for tensor in held]
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
        for container, before in containers:
            _refill(container, before)
        for tensor, content in contents:
            tensor.data.copy_(content)  # `data`: no new version, which a backward would refuse
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


def _contents(
    modules: list[nn.Module],
) -> tuple[list[Tensor], list[tuple[list[Any] | dict[Any, Any], Any]]]:
    """Return what a forward could change in the attributes of modules without replacing them.

    Returns:
        The tensors, and each list and dict with a copy of it.
    """
    tensors: list[Tensor] = []
    containers: list[tuple[list[Any] | dict[Any, Any], Any]] = []
    waiting = [v for m in modules for name, v in vars(m).items() if name not in _TABLES]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, (Tensor, list, tuple, dict)):
            if id(value) in seen:
                continue
            seen.add(id(value))
        if isinstance(value, Tensor):
            if _is_writable(value):
                tensors.append(value)
        elif isinstance(value, (list, tuple)):
            waiting += value
            if isinstance(value, list):
                containers.append((value, value[:]))
        elif isinstance(value, dict):
            waiting += value.values()
            containers.append((value, list(value.items())))
    return tensors, containers


def _is_writable(tensor: Tensor) -> bool:
    """Return whether a forward may write into a tensor, and its content can be put back."""
    if isinstance(tensor, nn.Parameter) or tensor.layout != torch.strided or tensor.is_nested:
        return False
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        return False
    return not _is_repeated(tensor)


def _is_repeated(tensor: Tensor) -> bool:
    """Return whether values share memory, as after `expand`. Torch refuses to write into them."""
    if tensor.layout != torch.strided or tensor.is_nested:
        return False
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return any(size > 1 and not stride for size, stride in sizes)


def _refill(container: list[Any] | dict[Any, Any], before: list[Any]) -> None:
    """Put the entries that a list or a dict had back into it, if it has others."""
    if isinstance(container, list):
        if len(container) != len(before) or any(map(operator.is_not, container, before)):
            container[:] = before
    else:
        now = [each for item in container.items() for each in item]
        own = [each for item in before for each in item]
        if len(now) != len(own) or any(map(operator.is_not, now, own)):
            container.clear()
            container.update(before)


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
