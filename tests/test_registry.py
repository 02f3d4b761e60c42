"""Registries and plugins: what they refuse."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from attnscope import registry
from attnscope.registry import Registry, load_plugin
from tests.making import refused


def expect_even(number: int) -> None:
    if number % 2:
        raise ValueError(f"{number} is odd\nand has a second line")


@pytest.fixture
def numbers() -> Registry[int]:
    return Registry("number", expect_even)


def test_entries_are_found_by_name_in_the_order_of_registration(numbers: Registry[int]) -> None:
    assert numbers.register("two", 2) == 2
    numbers.register("an-other_1", 0)
    assert list(numbers) == ["two", "an-other_1"]
    assert (numbers.find("two"), numbers["an-other_1"], len(numbers)) == (2, 0, 2)
    with refused("AS120", names=("number 'four'", "two, an-other_1")):
        numbers.find("four")


def test_taken_and_malformed_names_and_incomplete_entries_are_refused(
    numbers: Registry[int],
) -> None:
    numbers.register("two", 2)
    with refused("AS121", names=("number 'two'",)):
        numbers.register("two", 4)
    for name in ("", "a b", "a.b", "--"):
        with refused("AS122", names=(f"'{name}'",)):
            numbers.register(name, 4)
    with refused("AS123", names=("number 'three'", "3 is odd")):
        numbers.register("three", 3)
    assert dict(numbers) == {"two": 2}


def test_a_plugin_that_cannot_be_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('first\\nsecond')")
    monkeypatch.chdir(tmp_path)
    with refused("AS125", names=("'no_such_module'", "ModuleNotFoundError")):
        load_plugin("no_such_module")
    with refused("AS125", names=("'broken_plugin'", "RuntimeError: first")):
        load_plugin("broken_plugin")
    (tmp_path / "ending_plugin.py").write_text("raise SystemExit(0)")
    with refused("AS125", names=("'ending_plugin'", "__name__ == '__main__'")):
        load_plugin("ending_plugin")


def test_a_declared_plugin_that_cannot_be_imported_is_refused(
    monkeypatch: pytest.MonkeyPatch, numbers: Registry[int]
) -> None:
    broken = EntryPoint("broken", "no_such_module", registry.PLUGIN_GROUP)
    monkeypatch.setattr(registry, "_declared_plugins_are_loaded", False)
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken])
    with refused("AS124", names=("no_such_module",)):
        len(numbers)
