"""Seals: files that hold their own SHA-256, so that a flipped bit is found when they are read.

A sealed JSON file ends with the member ``checksum``, the SHA-256 of the file without that line. A
sealed safetensors file has the SHA-256 of the file in its metadata, computed with zeros in its
place. The seal is part of the file: a kill cannot separate the two, and a copy keeps it. Files of
other programs, and of versions that wrote no seals, have none, and are read as before.

Only regular files are read: a pipe would block the reader, and a device may have no end.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attnscope.errors import InputError

CHECKSUM = "checksum"
"""The last member of a sealed JSON file."""
_JSON_END = re.compile(rb',\n  "(?P<key>[^"\n]*)": "(?P<value>[^"\n]*)"\n}\n\Z')
_ARRAYS_START = b'{"__metadata__":{"sha256":"'
_ZEROS = b"0" * 64
_DIGITS = re.compile(rb"[0-9a-f]{64}")
_DIGEST = slice(8 + len(_ARRAYS_START), 8 + len(_ARRAYS_START) + 64)
"""Where a sealed safetensors file has its SHA-256, after eight bytes of the header's length."""
_BLOCK = 2**20  # bytes that are read at once


def open_regular(file: Path) -> io.BufferedReader:
    """Open a file for reading, unless it is a pipe or a device.

    Raises:
        OSError: It cannot be opened, or is not a regular file.
    """
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO
        text = "it is a folder" if stat.S_ISDIR(mode) else "it is a pipe or a device"
        raise OSError(number, text, str(file))
    return open(descriptor, "rb")


def json_bytes(value: Any) -> bytes:
    """Return a value as the content of a file of indented JSON.

    Raises:
        InputError: AS105, the value contains NaN or infinity, which are not JSON.
    """
    for place, number in _numbers(value):
        if not math.isfinite(number):
            name = place.removeprefix(".") or "a result"
            raise InputError(
                "AS105",
                f"{name} is {number}, which cannot be stored; look for "
                "values that are not finite in the settings, the images and the network's outputs",
            )
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def _numbers(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Yield each float of a JSON value with its place, such as ``loss.low`` or ``bounds[0]``."""
    if isinstance(value, float):
        yield place, value
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield from _numbers(member, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, member in enumerate(value):
            yield from _numbers(member, f"{place}[{number}]")


def sealed_json(value: Mapping[str, Any]) -> bytes:
    """Return a JSON object as the content of a file with a seal.

    Args:
        value: Any members but `CHECKSUM`. An object without members gets no seal.

    Raises:
        ValueError: The object is sealed already.
        InputError: AS105, it holds NaN or infinity.
    """
    if CHECKSUM in value:
        raise ValueError(f"an object to seal has no member that is called {CHECKSUM}")
    body = json_bytes(value)
    if not value:
        return body
    return body.removesuffix(b"\n}\n") + (
        f',\n  "{CHECKSUM}": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()
    )


def is_json_whole(content: bytes) -> bool | None:
    """Check the seal of a JSON file.

    Args:
        content: The whole file.

    Returns:
        Whether the file is as it was written; None if it has no seal.
    """
    end = _JSON_END.search(content)
    if end is None:
        return False if f'"{CHECKSUM}"'.encode() in content[-200:] else None
    digest = hashlib.sha256(content[: end.start()] + b"\n}\n").hexdigest().encode()
    key, value = end["key"], end["value"]
    if key != CHECKSUM.encode():  # the bit may have flipped in the name of the member
        return False if value == digest else None
    return value == digest


def sealed_arrays(content: bytes) -> list[bytes | memoryview]:
    """Return a safetensors file with a seal, in parts that share the memory of its arrays.

    Args:
        content: The file without a seal. Its other metadata are kept.
    """
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip(b" ")
    known = b'{"__metadata__":{'
    if header.startswith(known):
        more = header.removeprefix(known)
        rest = (b'"' if more.startswith(b"}") else b'",') + more
    else:
        rest = b'"}' + (b"" if header == b"{}" else b",") + header.removeprefix(b"{")
    tail = rest + b" " * (-len(_ARRAYS_START + _ZEROS + rest) % 8)  # arrays begin at multiples of 8
    size = len(_ARRAYS_START + _ZEROS + tail).to_bytes(8, "little")
    arrays = memoryview(content)[8 + length :]
    digest = hashlib.sha256(size + _ARRAYS_START + _ZEROS + tail)
    digest.update(arrays)
    return [size + _ARRAYS_START + digest.hexdigest().encode() + tail, arrays]


def is_array_file_whole(file: Path) -> bool | None:
    """Check the seal of a safetensors file.

    Returns:
        Whether the file is as it was written; None if it has no seal.

    Raises:
        OSError: It cannot be read, or is not a regular file.
    """
    with open_regular(file) as stream:
        start = stream.read(_DIGEST.stop)
        stored, is_marked = start[_DIGEST], start[8 : _DIGEST.start] == _ARRAYS_START
        # A single flipped bit leaves one of the two as it was.
        if not is_marked and not _DIGITS.fullmatch(stored):
            return None
        digest = hashlib.sha256(start[: _DIGEST.start] + _ZEROS)
        while block := stream.read(_BLOCK):
            digest.update(block)
    return is_marked and stored == digest.hexdigest().encode()
