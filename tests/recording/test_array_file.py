"""Files of arrays have the bytes that the library safetensors writes."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save

from attnscope.recording.array_file import array_file


def test_bytes_are_those_of_safetensors() -> None:
    rng = np.random.default_rng(0)
    arrays = {
        f'{kind}/größe "{i}"\n\x1f': np.asarray(100 * rng.random(shape)).astype(kind)
        for i, shape in enumerate([(3, 2), (0, 4), (), (5,)])
        for kind in (
            *("float32", "float16", "float64", "int64", "int32", "int16", "int8"),
            *("uint64", "uint32", "uint16", "uint8", "bool"),
        )
    }
    arrays["turned"] = rng.random((4, 3)).T
    content = b"".join(array_file(arrays))
    assert content == save(
        {name: np.ascontiguousarray(a) if a.ndim else a for name, a in arrays.items()}
    )
    read = load(content)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


def test_parts_share_the_memory_of_the_arrays() -> None:
    array = np.zeros(3, np.float32)
    *_, part = array_file({"a": array})
    array[1] = 1
    assert bytes(part) == array.tobytes()


def test_types_that_a_file_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="complex"):
        array_file({"a": np.zeros(2, complex)})
