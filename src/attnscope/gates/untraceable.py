"""Modules and functions that run without Python, so that their operations cannot be traced."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from functools import lru_cache, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from attnscope.errors import InputError

_SCRIPTED = (torch.jit.ScriptFunction, torch.jit.ScriptModule)
_OF_A_MODULE = frozenset(dir(nn.Module))


def refuse_untraceable(model: nn.Module) -> None:
    """Refuse a network with parts that run without Python, and one that is not initialized.

    A function that `torch.compile` compiled is refused only as an attribute of a module. Others run
    as Python under a tracer (`attnscope.gates.modes.EagerStance`).

    Raises:
        InputError: AS406, a module or a function is scripted or compiled; AS414, there are lazy
            parameters.
    """
    read: set[tuple[FunctionType, type]] = set()
    for path, module in model.named_modules():
        _refuse(module, path, read)


def _refuse(module: nn.Module, path: str, read: set[tuple[FunctionType, type]]) -> None:
    what = ""
    where = f"the module {path}" if path else "the network"
    place = where
    if isinstance(module, torch.jit.ScriptModule):
        what = "scripted or traced by torch.jit"
    elif type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None:
        what = "compiled by torch.compile"
    for name, value in vars(module).items():
        if isinstance(value, torch.jit.ScriptFunction):
            what, where = "scripted by torch.jit", f"the function {path and path + '.'}{name}"
        elif callable(value) and hasattr(value, "_torchdynamo_orig_callable"):
            what, where = "compiled by torch.compile", f"the function {path and path + '.'}{name}"
    if any(isinstance(p, UninitializedParameter) for p in module.parameters(recurse=False)):
        raise InputError(
            "AS414",
            f"{where} ({type(module).__name__}) has lazy parameters that are not initialized; run "
            "the network once on a sample before you search for gates",
        )
    if not what:
        called = _scripted_name(module, read)
        if called:
            what, where = "scripted by torch.jit", f"the function {called}, which {place} calls"
    if what:
        raise InputError(
            "AS406",
            f"{where} ({type(module).__name__}) is {what}, so its operations cannot be traced; "
            "use the original code",
        )


def _scripted_name(module: nn.Module, read: set[tuple[FunctionType, type]]) -> str:
    """Return the name of a scripted function that the forward of a module names, or "".

    The functions and methods that it calls are read, too.

    Args:
        module: the module.
        read: functions that were read, with the classes whose methods they could call.
    """
    kind = type(module)
    waiting: list[Any] = [
        module.forward,
        *module._forward_pre_hooks.values(),
        *module._forward_hooks.values(),
        *(value for value in vars(module).values() if isinstance(value, FunctionType)),
    ]
    while waiting:
        function = _unwrapped(waiting.pop())
        if not isinstance(function, FunctionType) or (function, kind) in read:
            continue
        if f"{function.__module__}.".startswith("torch."):
            continue
        read.add((function, kind))
        for name, value in _named_in(function, kind):
            if isinstance(_unwrapped(value), _SCRIPTED):
                return name
            waiting.append(value)
    return ""


def _unwrapped(value: Any) -> Any:
    """Return the function in a method, a property or a partial function."""
    while True:
        if isinstance(value, (MethodType, staticmethod, classmethod)):
            value = value.__func__
        elif isinstance(value, partial):
            value = value.func
        elif isinstance(value, property):
            value = value.fget
        else:
            return value


def _named_in(function: FunctionType, kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of the global variables, cells and methods in a function."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # the cell is empty
            continue
    values = function.__globals__
    methods = [vars(each) for each in kind.__mro__ if each not in nn.Module.__mro__]
    variables, names = _names_in(function.__code__)
    for name in variables & values.keys():
        yield name, values[name]
        if isinstance(values[name], ModuleType):
            own = vars(values[name])
            yield from ((other, own[other]) for other in names & own.keys())
    for own in methods:
        yield from ((name, own[name]) for name in names & own.keys())


@lru_cache(maxsize=4096)  # code never changes, and a network is read at each block
def _names_in(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """Return the global variables in the code of a function, and the attributes."""
    variables, names = set(), set()
    for each in dis.get_instructions(code):
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            variables.add(each.argval)
        elif each.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            names.add(each.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):  # a function that is defined in it
            inner = _names_in(constant)
            variables |= inner[0]
            names |= inner[1]
    return frozenset(variables), frozenset(names - _OF_A_MODULE | names & {"forward"})
