"""Dataclasses of settings: types, and tables of files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from attnscope.errors import InputError
from attnscope.settings import check_types, from_table, require


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
def test_values_of_the_types_are_taken(changes: dict[str, Any]) -> None:
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
def test_values_of_other_types_are_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(changes))} is "):
        Settings(**{"count": 1, **changes})


def test_a_table_is_read_strictly() -> None:
    assert from_table(Settings, {"count": 2, "pair": [5, 6]}) == Settings(2, pair=(5, 6))
    with pytest.raises(InputError, match="'counts' is not known; choose one of count, rate"):
        from_table(Settings, {"counts": 2})
    with pytest.raises(InputError, match="'count' is missing"):
        from_table(Settings, {})


def test_require_names_the_setting_in_words() -> None:
    require(True, "batch_size", 1, "1 or more")
    with pytest.raises(InputError, match=r"^batch size is 0; it must be 1 or more$"):
        require(False, "batch_size", 0, "1 or more")
