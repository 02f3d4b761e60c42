"""The bytes of a safetensors file, without a copy of the arrays.

`safetensors.numpy.save` returns the file as a whole, which needs its memory and a copy. The bytes
here are the same (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NAMES = {
    np.dtype(name): code
    for name, code in (
        *(("bool", "BOOL"), ("uint8", "U8"), ("int8", "I8"), ("int16", "I16"), ("uint16", "U16")),
        *(("float16", "F16"), ("int32", "I32"), ("uint32", "U32"), ("float32", "F32")),
        *(("float64", "F64"), ("int64", "I64"), ("uint64", "U64")),
    )
}
"""The types, in the order in which safetensors sorts arrays: the last ones first."""
_ORDER = list(_NAMES)
_ALIGNMENT = 8  # bytes


def array_file(arrays: Mapping[str, NDArray[Any]]) -> list[bytes | memoryview]:
    """Return the content of a file, in parts that share the memory of the arrays.

    Args:
        arrays: The arrays by name. They must not change before the parts are written.

    Raises:
        ValueError: An array has a type that such a file does not hold.
    """
    held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    for name, array in held.items():
        if array.dtype not in _NAMES:
            raise ValueError(f"{name} has the type {array.dtype}, which a file cannot hold")
    ordered = sorted(held, key=lambda name: (-_ORDER.index(held[name].dtype), name.encode()))
    header: dict[str, Any] = {}
    start = 0
    for name in ordered:
        array = held[name]
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(arrays[name].shape),  # ascontiguousarray gives a number an axis
            "data_offsets": [start, start + array.nbytes],
        }
        start += array.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    # An empty array has no bytes that a view could be cast to.
    parts = [held[name].data.cast("B") for name in ordered if held[name].size]
    return [len(text).to_bytes(8, "little"), text, *parts]
