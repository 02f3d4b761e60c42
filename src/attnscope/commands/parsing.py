"""Command lines from dataclasses.

The fields of a command are its options, and the type of a field is what its option takes:

- ``bool`` is a switch: ``--moments``, or ``--no-grad-cam`` where the default is true. With
  ``bool | None``, whose default is a choice that attnscope makes, both forms decide it by hand;
- ``int``, ``float``, ``str`` and ``Path`` take one value, ``X | None`` the same as ``X``;
- ``Literal["a", "b"]`` takes one of its choices;
- ``tuple[X, ...]`` takes one or more values, ``tuple[X, X, X]`` exactly three;
- a dataclass is a group of options.

Every refusal is an `InputError`: the program prints it as one line and exits with code 2.
"""

from __future__ import annotations

import types
from argparse import SUPPRESS, ArgumentError, ArgumentParser
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from attnscope.errors import InputError

_EXPECTED = {int: "a whole number", float: "a number", str: "text", Path: "a path"}
_METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class Argument:
    """How a field is written on the command line, as metadata of ``typing.Annotated``."""

    positional: bool = False
    """The value stands alone, without the name of an option."""
    metavar: str | None = None
    """Name of the value in help texts. Default: the name of its type."""
    more_help: Callable[[], str] | None = None
    """Text to append to the help, made when the help is shown."""


@dataclass(frozen=True, eq=False)
class Option:
    """One option of a command, or its positional argument."""

    command: type[Any]
    """The dataclass that has the field."""
    group: str | None
    """Name of the command's field that holds the dataclass; None if it is the command itself."""
    field: str
    hint: Any
    """Type of the value, without ``Annotated`` and without ``None``."""
    default: Any
    """``dataclasses.MISSING`` if the option is required."""
    argument: Argument

    @property
    def required(self) -> bool:
        """Whether a command line must have it."""
        return self.default is MISSING

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return self.hint is bool

    @property
    def flag(self) -> str:
        """The option as it is written: ``--batch-size``; the metavar of a positional argument."""
        if self.argument.positional:
            return self.metavar
        name = self.field.replace("_", "-")
        return f"--no-{name}" if self.is_switch and self.default is True else f"--{name}"

    @property
    def flags(self) -> tuple[str, ...]:
        """All forms that help texts name; two if neither is the default."""
        if self.is_switch and self.default is None:
            return self.flag, self.flag.replace("--", "--no-", 1)
        return (self.flag,)

    @property
    def metavar(self) -> str:
        """The name of one value in help texts."""
        if self.argument.metavar is not None:
            return self.argument.metavar
        return "|".join(_metavars(self.hint))

    @property
    def count(self) -> int | Literal["+"] | None:
        """Number of values: None is one, ``+`` is one or more."""
        if self.is_switch:
            return 0
        kind = _alternatives(self.hint)[-1]
        if get_origin(kind) is not tuple:
            return None
        parts = get_args(kind)
        return "+" if parts[-1] is ... else len(parts)

    @property
    def expected(self) -> str:
        """What its value is, for error messages."""
        if self.argument.positional and self.hint is Path:
            return "a folder"
        return _describe(self.hint)


def options_of(command: type[Any]) -> list[Option]:
    """The options of a command in the order of its fields, those of groups included."""
    return list(_options(command, None))


def _options(command: type[Any], group: str | None) -> Iterator[Option]:
    hints = get_type_hints(command, include_extras=True)
    for field in fields(command):
        hint, argument = hints[field.name], Argument()
        if get_origin(hint) is Annotated:
            hint, *metadata = get_args(hint)
            argument = next((one for one in metadata if isinstance(one, Argument)), argument)
        if is_dataclass(hint):
            assert isinstance(hint, type)
            yield from _options(hint, field.name)
        elif field.init:
            kinds = [kind for kind in _alternatives(hint) if kind is not types.NoneType]
            hint = kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007
            factory = field.default_factory
            default = field.default if factory is MISSING else factory()
            yield Option(command, group, field.name, hint, default, argument)


def parse(command: type[Any], program: str, arguments: Sequence[str]) -> Any:
    """The command with the values of a command line.

    Args:
        command: a dataclass.
        program: what stands before the arguments, such as ``attnscope train``.
        arguments: the words of the command line.

    Raises:
        InputError: an option is unknown, or a value is missing or cannot be used.
    """
    options = options_of(command)
    words = [_with_hyphens(word) for word in arguments]
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    by_name = {}
    for number, option in enumerate(options):
        if option.argument.positional:
            continue
        name = option.field.replace("_", "-")
        names = {f"--no-{name}": False, f"--{name}": True} if option.is_switch else {option.flag: 0}
        for flag, constant in names.items():
            by_name[flag] = option
            if option.is_switch:
                parser.add_argument(
                    flag, dest=str(number), action="store_const", const=constant, default=SUPPRESS
                )
            else:
                parser.add_argument(flag, dest=str(number), nargs=option.count, default=SUPPRESS)
    try:
        # Positional arguments are left over: argparse cannot mix optional ones with options.
        given, rest = parser.parse_known_args(words)
    except ArgumentError as error:
        _refuse_count(by_name[str(error.argument_name)])
    values = {options[int(number)]: value for number, value in vars(given).items()}
    _take_positionals(options, rest, values, program)
    built: dict[str | None, dict[str, Any]] = {option.group: {} for option in options}
    for option, value in values.items():
        if not option.is_switch:
            words = [value] if isinstance(value, str) else value
            value = _convert(option, option.hint, words)
        built[option.group][option.field] = value
    for option in options:
        if option.required and option not in values:
            raise InputError(
                "AS955", f"{option.flag} is missing; the usage is: {usage(options, program)}"
            )
    groups = {option.group: option.command for option in options if option.group is not None}
    nested = {name: kind(**built[name]) for name, kind in groups.items()}
    return command(**built.get(None, {}), **nested)


def _take_positionals(
    options: list[Option], rest: list[str], values: dict[Option, Any], program: str
) -> None:
    """Give the words without an option to the positional argument; refuse what is left."""
    words = []
    for word in rest:
        if word.startswith("-") and word != "--" and not _is_number(word):
            flag = word.partition("=")[0]
            known = [option.flag for option in options if not option.argument.positional]
            raise InputError(
                "AS951",
                f"the option {flag} is unknown; {near_miss(flag, known, 'options', program)}",
            )
        if word != "--":
            words.append(word)
    for option in options:
        if option.argument.positional and words:
            taken = words if option.count == "+" else words[:1]
            values[option], words = taken, words[len(taken) :]
    if words:
        raise InputError(
            "AS956",
            f"the argument '{words[0]}' is not expected; the usage is: {usage(options, program)}",
        )


def near_miss(name: str, known: Iterable[str], what: str, program: str) -> str:
    """The remedy for an unknown name: the nearest name, or where the names are listed.

    Args:
        name: as it was written.
        known: the names that exist.
        what: what they name, in the plural.
        program: the command whose help lists them.
    """
    nearest = get_close_matches(name, list(known), 1)
    return f"did you mean {nearest[0]}?" if nearest else f"list the {what} with: {program} --help"


def usage(options: Sequence[Option], program: str) -> str:
    """How the command is written: positional arguments and required options first."""
    words = [program]
    for option in options:
        if option.argument.positional:
            more = f" [{option.metavar} ...]" if option.count == "+" else ""
            words.append(f"{option.metavar}{more}" if option.required else f"[{option.metavar}]")
    words += [invocation(o) for o in options if o.required and not o.argument.positional]
    return " ".join([*words, "[OPTIONS]"])


def invocation(option: Option) -> str:
    """An option with the names of its values: ``--mean FLOAT FLOAT FLOAT``."""
    if option.argument.positional or option.is_switch:
        return ", ".join(option.flags)
    if option.count == "+":
        values = f"{option.metavar} [...]"
    else:
        values = " ".join([option.metavar] * (option.count or 1))
    return f"{option.flag} {values}"


def _with_hyphens(word: str) -> str:
    """``--batch_size=4`` as ``--batch-size=4``: options may be written as in Python."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _refuse_count(option: Option) -> None:
    """Refuse the wrong number of values."""
    if option.is_switch:
        raise InputError("AS952", f"{option.flag} takes no value; write it alone")
    if isinstance(option.count, int):
        wanted = f"it must have {option.count} values, each {option.expected}"
    elif get_origin(option.hint) is Literal:
        wanted = f"choose {option.expected}"
    else:
        wanted = f"it must be {option.expected}"
    few = "too few values" if isinstance(option.count, int) else "no value"
    raise InputError("AS952", f"{option.flag} has {few}; {wanted}")


def _convert(option: Option, hint: Any, words: list[str]) -> Any:
    """The words after an option as a value of its type.

    Raises:
        InputError: a word is not one of the choices, or is not a number.
    """
    kinds = _alternatives(hint)
    if len(kinds) > 1:  # a name, or else a list
        for kind in kinds[:-1]:
            if get_origin(kind) is Literal and len(words) == 1 and words[0] in get_args(kind):
                return words[0]
        return _convert(option, kinds[-1], words)
    if get_origin(hint) is tuple:
        return tuple(_convert(option, get_args(hint)[0], [word]) for word in words)
    (word,) = words
    if get_origin(hint) is Literal:
        if word not in get_args(hint):
            raise InputError("AS953", f"{option.flag} is '{word}'; choose {option.expected}")
        return word
    try:
        return hint(word)
    except ValueError:
        raise InputError(
            "AS954", f"{option.flag} is '{word}'; it must be {option.expected}"
        ) from None


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _metavars(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return [f"{{{','.join(get_args(hint))}}}"]
    if get_origin(hint) is tuple:
        return _metavars(get_args(hint)[0])
    kinds = _alternatives(hint)
    if len(kinds) > 1:
        return [name for kind in kinds for name in _metavars(kind)]
    return [_METAVARS.get(hint, getattr(hint, "__name__", str(hint)).upper())]


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) is tuple:
        return _describe(get_args(hint)[0])
    kinds = _alternatives(hint)
    if len(kinds) > 1:
        return " or ".join(_describe(kind) for kind in kinds)
    return _EXPECTED.get(hint, f"a {getattr(hint, '__name__', hint)}")
