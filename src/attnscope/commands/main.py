"""The program ``attnscope``: find the commands, load plugins, run one command, report errors.

A command is a file in this folder: ``NAME.py`` with a dataclass ``Name``. Its fields are the
options (see `attnscope.commands.parsing`), and calling it does the work. Modules that are slow to
import are imported in ``__call__``. A module without such a class is not a command.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any, NoReturn

from attnscope import __version__, commands
from attnscope.commands.help_text import command_help, program_help
from attnscope.commands.parsing import near_miss, options_of, parse
from attnscope.commands.printing import plain_output
from attnscope.errors import InputError, LostProcess, printable
from attnscope.files import DISK_ERRORS, PATH_ERRORS, refuse_path
from attnscope.registry import load_plugin
from attnscope.signals import end_with_parent, exit_code, interrupting_signals, was_interrupted

_PROGRAM = "attnscope"
_ABOUT = "The microscope for attention gates in neural networks."
_PLUGIN = "--plugin"
RENAMED_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "--attribution": "--attribution-methods",
        "--grad-cam-layer": "--grad-cam-layers",
        "--part": "--split",
    }
)
"""Old option -> new option. The old options work in this version and print a warning."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the words after ``attnscope``. Default: those of this process.

    Returns:
        The exit code: 0 for success; 1 for a failure such as a full disk, a loss that is not
        finite, a process of a training that has ended or a closed pipe; 2 for input that cannot be
        used; and 128 and the number of the signal for an interruption: 130 for Ctrl-C.

    Raises:
        SystemExit: with code 0, after ``--help`` and ``--version``.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    end_with_parent()
    with plain_output():
        return _run_and_report(given)


def _run_and_report(given: Sequence[str]) -> int:
    """Run a command; print an error as one line and return its exit code."""
    try:
        with interrupting_signals():
            code: int = _run(given) or 0
            sys.stdout.flush()
            return code
    except InputError as error:
        if was_interrupted():  # a library that reads a file in Rust made another error of it
            return _interrupted()
        print(f"attnscope: {error}", file=sys.stderr)
        return 2
    except (FloatingPointError, LostProcess) as error:
        print(f"attnscope: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as under `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno in PATH_ERRORS and error.filename is not None:
            print(f"attnscope: {refuse_path(error)}", file=sys.stderr)
            return 2
        if error.errno not in DISK_ERRORS:
            raise
        named = printable(str(error.filename or "a file"))
        print(f"attnscope: {named}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        return _interrupted(str(error))
    except Exception:
        # A library that is interrupted while it is being imported raises an error of its own.
        if not was_interrupted():
            raise
        return _interrupted()


def _interrupted(how_to_go_on: str = "") -> int:
    print(f"attnscope: {how_to_go_on or 'interrupted'}", file=sys.stderr)
    return exit_code()


def _run(arguments: Sequence[str]) -> int | None:
    plugins, rest = split_plugins(arguments)
    for module in plugins:
        load_plugin(module)
    name, *options = rest or [""]
    if name in ("-h", "--help"):
        _print_and_exit(program_help(_PROGRAM, _ABOUT, find_commands()))
    if name == "--version":
        _print_and_exit(f"{_PROGRAM} {__version__}")
    command, program = _find_command(name), f"{_PROGRAM} {name}"
    if command is None:
        _refuse_command(name)
    if {"-h", "--help"} & set(options):
        _print_and_exit(command_help(command, program))
    code: int | None = parse(command, program, _with_new_names(command, options))()
    return code


def _refuse_command(name: str) -> NoReturn:
    """Refuse a word that is not the name of a command."""
    if not name:
        raise InputError("AS955", f"no command is given; list the commands with: {_PROGRAM} --help")
    if name.startswith("-"):
        remedy = near_miss(name, ["--help", "--version", _PLUGIN], "options", _PROGRAM)
        raise InputError("AS951", f"the option {name} is unknown; {remedy}")
    remedy = near_miss(name, [known for known, _ in find_commands()], "commands", _PROGRAM)
    raise InputError("AS950", f"the command '{name}' is unknown; {remedy}")


def _print_and_exit(text: str) -> NoReturn:
    print(text)
    sys.stdout.flush()
    raise SystemExit(0)


def find_commands() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Name and class of each command in this folder, in alphabetical order."""
    for name in _modules():
        command = _find_command(name)
        if command is not None:
            yield name, command


def _find_command(name: str) -> type[Any] | None:
    """The class of a command, without the import of the others, or None if there is none."""
    if name not in _modules():
        return None
    module = import_module(f"{commands.__name__}.{name.replace('-', '_')}")
    command: type[Any] | None = getattr(
        module, "".join(word.capitalize() for word in name.split("-")), None
    )
    return command


def _modules() -> list[str]:
    """The modules of this folder, spelled like commands; some of them are no commands."""
    return sorted(module.name.replace("_", "-") for module in iter_modules(commands.__path__))


def split_plugins(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the modules of ``--plugin`` from the other arguments.

    The modules are imported before a command reads its options, because the options can depend on
    what the modules register.

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
            raise InputError("AS952", f"{_PLUGIN} has no value; it must be the name of a module")
        plugins.append(module)
    return plugins, rest


def _with_new_names(command: type[Any], arguments: Sequence[str]) -> list[str]:
    """Replace options that have a new name, with a warning on stderr."""
    known = {option.flag for option in options_of(command)}
    renamed = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        flag = flag.replace("_", "-")
        new = RENAMED_OPTIONS.get(flag)
        if new in known and flag not in known:
            print(
                f"attnscope: {flag} is now {new}; the old name will be removed in the next version",
                file=sys.stderr,
            )
            argument = f"{new}{equals}{value}"
        renamed.append(argument)
    return renamed
