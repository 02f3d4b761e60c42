"""The help of the program and of its commands, as plain text.

The help of a command is its docstring, and the help of an option is the docstring below its field.
"""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING
from textwrap import fill, wrap
from typing import Any

from attnscope.commands.parsing import Option, invocation, options_of, usage

_WIDEST = 100
_COLUMN = 26
"""Where the texts begin, beside what they describe."""
PROGRAM_OPTIONS = (
    ("-h, --help", "Show this help and exit."),
    ("--version", "Print the version and exit."),
)
PLUGIN_OPTION = (
    "--plugin MODULE",
    "Import a Python module that registers plots, statistics, recipes and so on. Can be repeated.",
)
_EXIT_CODES = (
    ("0", "Success."),
    ("1", "The command failed, for example on a full disk or a loss that is not finite."),
    ("2", "The input cannot be used; the message names the reason and the remedy."),
    (
        "128 + N",
        "Stopped by signal N: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP. Ctrl-C is how the "
        "dashboard ends, so that it exits with 0.",
    ),
)


def program_help(
    program: str, about: str, commands: Iterable[tuple[str, Callable[..., Any]]]
) -> str:
    """The help of the whole program, which lists the commands."""
    listed = [(name, _paragraphs(command)[0]) for name, command in commands]
    return "\n\n".join(
        [
            f"Usage: {program} COMMAND [OPTIONS]",
            about,
            _section("Commands", listed),
            _section("Options", [*PROGRAM_OPTIONS, PLUGIN_OPTION]),
            _section("Exit codes", _EXIT_CODES),
            _filled(f"'{program} COMMAND --help' describes a command and its options."),
        ]
    )


def command_help(command: type[Any], program: str) -> str:
    """The help of one command, which describes its options.

    A command can sort its options: ``option_groups`` of its class maps the heading of a section to
    the names of its fields. The other options follow under the heading "Options".
    """
    options = options_of(command)
    groups: Mapping[str, tuple[str, ...]] = getattr(command, "option_groups", {})
    section_of = {name: heading for heading, names in groups.items() for name in names}
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
    sections |= {heading: [] for heading in [*groups, "Options"]}
    texts = {kind: _field_texts(kind) for kind in {option.command for option in options}}
    for option in options:
        heading = section_of.get(option.group or option.field, "Options")
        if option.argument.positional:
            heading = "Arguments"
        sections[heading].append((invocation(option), _describe(option, texts[option.command])))
    sections["Options"] += [PLUGIN_OPTION, PROGRAM_OPTIONS[0]]
    return "\n\n".join(
        [
            f"Usage: {usage(options, program)}",
            *(_filled(paragraph) for paragraph in _paragraphs(command)),
            *(_section(heading, rows) for heading, rows in sections.items() if rows),
        ]
    )


def _describe(option: Option, texts: Mapping[str, str]) -> str:
    """The help of an option; its default is added where the text does not name one."""
    text = texts.get(option.field, "")
    if option.argument.more_help is not None:
        text = f"{text} {option.argument.more_help()}".strip()
    silent = option.is_switch or option.default is None or option.default in (MISSING, ())
    if not silent and not re.search(r"\bdefault\b", text, re.IGNORECASE):
        text = f"{text} Default: {option.default}."
    return text


def _field_texts(command: type[Any]) -> dict[str, str]:
    """Field -> its docstring, from the source of the class and of those that it extends."""
    texts: dict[str, str] = {}
    for kind in reversed(command.__mro__):
        field = ""
        for node in _class_body(kind):
            match node:
                case ast.AnnAssign(target=ast.Name(id=name)):
                    field = name
                case ast.Expr(value=ast.Constant(value=str(text))) if field:
                    texts[field] = " ".join(text.split())
                    field = ""
                case _:
                    field = ""
    return texts


def _class_body(kind: type[Any]) -> list[ast.stmt]:
    module = sys.modules.get(kind.__module__)
    try:
        tree = ast.parse(inspect.getsource(module)) if module else None
    except (OSError, TypeError):  # built in, or without a source
        return []
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
            return node.body
    return []


def _paragraphs(command: Callable[..., Any]) -> list[str]:
    text = inspect.getdoc(command) or ""
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _section(heading: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"{heading}:"]
    for name, text in rows:
        indent = " " * _COLUMN
        texts = wrap(
            text, _width(), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
        )
        if len(name) + 4 <= _COLUMN and texts:
            texts[0] = f"  {name:{_COLUMN - 2}}{texts[0].lstrip()}"
        else:
            lines.append(f"  {name}")
        lines += texts
    return "\n".join(lines)


def _filled(text: str) -> str:
    return fill(text, _width(), break_on_hyphens=False)


def _width() -> int:
    return max(60, min(_WIDEST, shutil.get_terminal_size().columns))
