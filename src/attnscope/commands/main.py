"""The program: finds the commands, loads plugins, runs one command, says what went wrong.

A command is a file of this folder: ``NAME.py`` with a dataclass ``Name`` whose fields are its
options and which does its work when it is called. Whatever is slow to import is imported there and
then. A module without such a class is no command.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, make_dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any

import tyro

from attnscope import commands
from attnscope.errors import InputError
from attnscope.files import DISK_ERRORS
from attnscope.registry import load_plugin

_PLUGIN = "--plugin"
_PluginOption = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
        metavar="MODULE",
        help="A Python module that adds to attnscope: plots, statistics, recipes and so on.",
    ),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 is success, 2 is input that cannot be used, 130 is an interruption.

    1 is what went wrong on the way: a full disk, a loss that is not finite, a pipe that closed.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        plugins, rest = split_plugins(given)
        for module in plugins:
            load_plugin(module)
        command = tyro.extras.subcommand_cli_from_dict(
            {name: _with_plugin_option(command) for name, command in find_commands()},
            prog="attnscope",
            description="The microscope for the attention gates of convolutional networks.",
            args=rest,
        )
        code = command() or 0
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"attnscope: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"attnscope: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as under `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print(f"attnscope: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"attnscope: {error if error.args else 'interrupted'}", file=sys.stderr)
        return 130


def find_commands() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Name and class of each command in this folder, by name."""
    for found in sorted(module.name for module in iter_modules(commands.__path__)):
        module = import_module(f"{commands.__name__}.{found}")
        class_name = "".join(word.capitalize() for word in found.split("_"))
        command = getattr(module, class_name, None)
        if command is not None:
            yield found.replace("_", "-"), command


def split_plugins(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modules of ``--plugin``, and the other arguments.

    They are loaded before a command reads its options, which may depend on what they register.

    Raises:
        InputError: the option has no value.
    """
    plugins, rest = [], []
    given = iter(arguments)
    for argument in given:
        option, equals, value = argument.partition("=")
        if option != _PLUGIN:
            rest.append(argument)
            continue
        module = value if equals else next(given, "")
        if not module or module.startswith("-"):
            raise InputError(f"{_PLUGIN} has no value; give it the name of a Python module")
        plugins.append(module)
    return plugins, rest


def _with_plugin_option(command: Callable[..., Any]) -> type[Any]:
    """A command whose help shows ``--plugin``, which `main` has taken away when it is parsed."""
    assert isinstance(command, type)
    plugin = ("plugin", _PluginOption, field(default=(), kw_only=True))
    shown = make_dataclass(command.__name__, [plugin], bases=(command,), frozen=True)
    shown.__doc__ = command.__doc__
    return shown
