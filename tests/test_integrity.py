"""Seals: every flipped bit is found, and what was sealed is read as before."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load, save

from analysis.attack import time_limit
from attnscope.files import read_json, write_json, write_sealed
from attnscope.integrity import (
    is_array_file_whole,
    is_json_whole,
    open_regular,
    sealed_arrays,
    sealed_json,
)
from tests.making import refused


@pytest.mark.parametrize("metadata", [None, {"k": 'v"x'}])
def test_every_flipped_bit_of_an_array_file_is_found(
    tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    arrays = {"a": np.arange(3), "b c": np.zeros(2, np.float16)}
    plain = save(arrays, metadata)
    whole = b"".join(sealed_arrays(plain))
    file = tmp_path / "file.safetensors"
    file.write_bytes(whole)
    assert is_array_file_whole(file) is True
    assert all(np.array_equal(value, arrays[name]) for name, value in load(whole).items())
    with safe_open(file, "np") as opened:
        assert (metadata or {}).items() <= opened.metadata().items()
    for place in range(len(whole)):
        bit = 1 << place % 8
        file.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        assert is_array_file_whole(file) is False, place
    file.write_bytes(plain)
    assert is_array_file_whole(file) is None


def test_every_flipped_bit_of_a_json_file_is_found() -> None:
    whole = sealed_json({"a": [1, 2.5], "b": {"c": "é"}, "s": "x"})
    assert is_json_whole(whole) is True
    for place in range(len(whole)):
        for bit in range(8):
            content = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
            if is_json_whole(content) is not False:
                with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
                    json.loads(content)
    assert is_json_whole(b'{\n  "a": 1\n}\n') is None
    assert sealed_json({}) == b"{}\n"  # nothing to seal
    assert is_json_whole(b"{}\n") is None


def test_a_sealed_json_file_that_was_written_anew_is_not_whole(tmp_path: Path) -> None:
    """An editor keeps the seal and changes the layout, or a value and the layout."""
    whole = sealed_json({"a": [1, 2.5], "s": "x"})
    value = json.loads(whole)
    for indent in (None, 1, 4):
        assert is_json_whole(json.dumps(value, indent=indent).encode()) is False
    assert is_json_whole(whole.replace(b"\n", b"\r\n")) is False
    assert is_json_whole(whole + b"\n") is False
    file = tmp_path / "file.json"
    file.write_text(json.dumps({**value, "a": 3}))
    with refused("AS119", names=(file,)):
        read_json(file)


@pytest.mark.parametrize(
    ("place", "number"),
    [("pipe", errno.ENXIO), ("/dev/zero", errno.ENXIO), (".", errno.EISDIR)],
)
def test_only_regular_files_are_opened(tmp_path: Path, place: str, number: int) -> None:
    os.mkfifo(tmp_path / "pipe")
    with time_limit(10), pytest.raises(OSError, match=r"folder|pipe or a device") as caught:
        open_regular(tmp_path / place)
    assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / place))


@pytest.mark.parametrize("write", [write_json, write_sealed])
@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"loss": math.nan}, "loss is nan"),
        ({"best": {"loss": [{}, {"low": math.inf}]}}, "best.loss[1].low is inf"),
        ({"bounds": (0, 1, -math.inf)}, "bounds[2] is -inf"),
    ],
)
def test_a_number_that_is_not_finite_is_not_written(
    value: dict[str, object],
    place: str,
    write: Callable[[Path, dict[str, object]], None],
    tmp_path: Path,
) -> None:
    with refused("AS105", names=(place,)):
        write(tmp_path / "a.json", value)
    assert list(tmp_path.iterdir()) == []
