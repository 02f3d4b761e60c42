"""Dataclasses of settings: types, and tables read from files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from attnscope.settings import check_types, from_table, require
from tests.making import refused


@dataclass(frozen=True)
class Inner:
    x: int = 0


@dataclass(frozen=True)
class Settings:
    count: int
    rate: float = 0.5
    on: bool = False
    name: str | None = None
    choice: Literal["a", "b"] | tuple[float, ...] = "a"
    pair: tuple[int, int] = (1, 2)
    folder: Path | None = None
    inner: Inner = Inner()

    def __post_init__(self) -> None:
        check_types(self)


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 1},
        {"name": "x"},
        {"choice": "b"},
        {"choice": (1.0, 2)},
        {"pair": (3, 4)},
        {"folder": Path("x")},
        {"inner": Inner(3)},
    ],
)
def test_values_of_the_right_types_are_accepted(changes: dict[str, Any]) -> None:
    Settings(1, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 1.0},
        {"count": True},
        {"count": None},
        {"rate": "1"},
        {"rate": True},
        {"rate": float("inf")},
        {"on": 1},
        {"name": 3},
        {"choice": "c"},
        {"choice": (1.0, "x")},
        {"choice": [1.0]},
        {"pair": (1, 2, 3)},
        {"pair": (1, 2.5)},
        {"folder": "x"},
        {"inner": {"x": 3}},
    ],
)
def test_values_of_wrong_types_are_refused_by_name(changes: dict[str, Any]) -> None:
    ((name, value),) = changes.items()
    shown = f"'{value}'" if isinstance(value, str) else value
    with refused("AS101", names=(f"{name} must be ", shown)):
        Settings(**{"count": 1, **changes})


def test_choices_are_listed() -> None:
    with refused("AS101", names=("a, b or a list of values",)):
        Settings(1, choice="c")  # type: ignore[arg-type]


def test_unknown_and_missing_keys_of_a_table_are_refused() -> None:
    assert from_table(Settings, {"count": 2, "pair": [5, 6]}) == Settings(2, pair=(5, 6))
    with refused("AS103", names=("'counts'", "count, rate, on, name, choice")):
        from_table(Settings, {"counts": 2})
    with refused("AS104", names=("'count'",)):
        from_table(Settings, {})


def test_require_names_the_setting_its_value_and_what_is_expected() -> None:
    require(True, "batch_size", 1, "at least 1")
    with refused("AS102", names=("batch size", "at least 1", "0")):
        require(False, "batch_size", 0, "at least 1")


def test_a_value_of_several_lines_is_shown_in_one_line() -> None:
    with refused("AS102", names=("'a b'",)):
        require(False, "name", "a\nb", "one line")
