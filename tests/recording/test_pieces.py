"""Finished pieces of an experiment, in memory and in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attnscope.recording.pieces import Pieces, partial_folder, remove_pieces, unfinished
from tests.making import refused

PLAN = {"experiment": "replace", "seed": 0}


def test_pieces_are_found_by_a_later_call_with_the_same_plan(tmp_path: Path) -> None:
    folder = tmp_path / "replace"
    first = {"own": np.arange(6, dtype=np.float32).reshape(2, 3), "usable": np.array([True, False])}

    def stopped() -> None:
        with Pieces(folder, PLAN) as pieces:
            pieces.keep("0/a|b.c", first)
            pieces.keep("1/", {"n": np.asarray(-1)})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with Pieces(folder, PLAN) as again:
        assert len(again) == 2
        assert "0/x" not in again
        assert again.find("0/x") is None
        found = again.find("0/a|b.c")
        assert found is not None
        assert {key: value.dtype for key, value in found.items()} == {
            key: value.dtype for key, value in first.items()
        }
        for key, value in first.items():
            np.testing.assert_array_equal(found[key], value)
        again.keep("2/", {"n": np.asarray(3)})
    with Pieces(folder, PLAN) as again:
        assert [int(again.find(name)["n"]) for name in ("1/", "2/")] == [-1, 3]


def test_pieces_without_a_folder_stay_in_memory(tmp_path: Path) -> None:
    with Pieces() as pieces:
        pieces.keep("a", {"n": np.ones(2)})
        assert "a" in pieces
    assert list(tmp_path.iterdir()) == []


def test_forgotten_pieces_leave_memory_and_others_are_written(tmp_path: Path) -> None:
    with Pieces(tmp_path / "p", PLAN) as pieces:
        pieces.keep("batch", {"n": np.ones(2)})
        pieces.keep("sum", {"n": np.full(1, 2.0)})
        pieces.forget(["batch", "never kept"])
        assert "batch" not in pieces
    with Pieces(tmp_path / "p", PLAN) as again:
        assert "batch" not in again
        assert again.find("sum")["n"].tolist() == [2]


def test_nothing_is_written_before_a_piece_is_finished(tmp_path: Path) -> None:
    with Pieces(tmp_path / "p" / "replace", PLAN):
        pass
    assert list(tmp_path.iterdir()) == []


def test_large_pieces_are_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnscope.recording.pieces._BYTES", 100)
    pieces = Pieces(tmp_path / "p", PLAN)
    pieces.keep("a", {"n": np.ones(5)})
    assert not (tmp_path / "p").exists()
    pieces.keep("b", {"n": np.ones(100)})
    pieces.keep("c", {"n": np.ones(1)})
    with Pieces(tmp_path / "p", PLAN) as again:
        assert "a" in again
        assert "b" in again
        assert "c" not in again


def test_pieces_of_other_settings_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    with Pieces(tmp_path / "p", PLAN) as pieces:
        pieces.keep("a", {"n": np.ones(5)})
    with (
        refused("AS634", names=(tmp_path / "p", "seed 0, now 1")),
        Pieces(tmp_path / "p", {**PLAN, "seed": 1}),
    ):
        pass
    (file,) = (tmp_path / "p").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-3])
    with refused("AS635", names=(file,)), Pieces(tmp_path / "p", PLAN):
        pass


def test_unfinished_experiments_are_listed_and_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert unfinished(out) == {}
    for name in ("replace", "erase"):
        with Pieces(partial_folder(out) / name, {**PLAN, "experiment": name}) as pieces:
            pieces.keep("a", {"n": np.ones(5)})
    assert set(unfinished(out)) == {"replace", "erase"}
    remove_pieces(out, "replace")
    assert unfinished(out) == {"erase": {**PLAN, "experiment": "erase"}}
    remove_pieces(out, "erase")
    assert list(tmp_path.iterdir()) == []
