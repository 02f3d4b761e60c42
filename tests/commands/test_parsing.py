"""Command lines from dataclasses: values, defaults, and a code for each kind of refusal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest

from attnscope.commands.parsing import Argument, parse
from tests.making import refused


@dataclass(frozen=True)
class Group:
    scale: tuple[float, float, float] | None = None
    name: str | None = None


@dataclass(frozen=True)
class Toy:
    option_groups: ClassVar[dict[str, tuple[str, ...]]] = {}

    run: Annotated[Path | None, Argument(positional=True, metavar="RUN")] = None
    group: Group = field(default_factory=Group)
    batch_size: int = 4
    rate: float | None = None
    choice: Literal["one", "two"] | None = "one"
    weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    words: tuple[str, ...] = ()
    small: bool = False
    pictures: bool = True


@dataclass(frozen=True)
class Strict:
    runs: Annotated[tuple[Path, ...], Argument(positional=True, metavar="RUN")]
    out: Path


def toy(*words: str) -> Any:
    return parse(Toy, "toy", words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), Toy()),
        (("run",), Toy(Path("run"))),
        (("--batch-size", "8"), Toy(batch_size=8)),
        (("--batch_size=8",), Toy(batch_size=8)),
        (("--batch-size", "8", "run"), Toy(Path("run"), batch_size=8)),
        (("run", "--batch-size", "1", "--batch-size", "2"), Toy(Path("run"), batch_size=2)),
        (("--rate", "1e-3"), Toy(rate=0.001)),
        (("--choice", "two"), Toy(choice="two")),
        (("--weights", "balanced"), Toy(weights="balanced")),
        (("--weights", "1", "2.5"), Toy(weights=(1.0, 2.5))),
        (("--words", "a", "b", "--small"), Toy(words=("a", "b"), small=True)),
        (("--small", "--no-small"), Toy()),
        (("--no-pictures",), Toy(pictures=False)),
        (("--scale", "-1", "0", "1"), Toy(group=Group((-1.0, 0.0, 1.0)))),
        (("--name", "a b"), Toy(group=Group(name="a b"))),
        (("--", "run"), Toy(Path("run"))),
    ],
)
def test_words_become_the_fields_of_a_command(words: tuple[str, ...], expected: Toy) -> None:
    assert toy(*words) == expected


def test_positional_arguments_may_stand_around_options() -> None:
    expected = Strict((Path("a"), Path("b")), Path("c"))
    assert parse(Strict, "strict", ["a", "--out", "c", "b"]) == expected


@pytest.mark.parametrize(
    ("code", "words", "names"),
    [
        ("AS951", ("--batch-sise", "8"), ("--batch-sise", "--batch-size")),
        ("AS951", ("--batch", "8"), ("--batch", "--batch-size")),
        ("AS951", ("--zzz=3",), ("--zzz", "toy --help")),
        ("AS951", ("-z",), ("-z", "toy --help")),
        ("AS952", ("--batch-size",), ("--batch-size",)),
        ("AS952", ("--batch-size", "--small"), ("--batch-size",)),
        ("AS952", ("--choice",), ("--choice", "one, two")),
        ("AS952", ("--words",), ("--words",)),
        ("AS952", ("--scale", "1", "2"), ("--scale", "3")),
        ("AS952", ("--small=yes",), ("--small",)),
        ("AS953", ("--choice", "three"), ("--choice", "three", "one, two")),
        ("AS954", ("--batch-size", "2.5"), ("--batch-size", "2.5")),
        ("AS954", ("--rate", "fast"), ("--rate", "fast")),
        ("AS954", ("--weights", "balancd"), ("--weights", "balancd", "balanced")),
        ("AS954", ("--scale", "1", "2", "x"), ("--scale", "x")),
        ("AS956", ("run", "other"), ("other", "toy [RUN] [OPTIONS]")),
    ],
)
def test_each_mistake_has_its_code_and_is_named(
    code: str, words: tuple[str, ...], names: tuple[str, ...]
) -> None:
    with refused(code, names=names):
        toy(*words)


@pytest.mark.parametrize(
    ("words", "missing"), [([], "RUN"), (["--out", "x"], "RUN"), (["a"], "--out")]
)
def test_what_is_required_is_named_with_the_usage(words: list[str], missing: str) -> None:
    with refused("AS955", names=(missing, "strict RUN [RUN ...] --out PATH [OPTIONS]")):
        parse(Strict, "strict", words)
