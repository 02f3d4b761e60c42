"""Recordings written for the tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attnscope.data.label_kinds import CLASS
from attnscope.kinds import Gate
from attnscope.recording.recording import RecordingWriter

GATES = [
    Gate("layer1.attention.channel", "channel", 6, None, "sigmoid", 0.0, 1.0, 1.0),
    Gate("layer1.attention.spatial", "spatial", 6, (4, 5), "hardsigmoid", 0.0, 2.0, 1.0),
]
CLASSES = ["猫", "dog", "owl"]
SIZES = (3, 4, 1)
Arrays = dict[str, np.ndarray[Any, Any]]


def make_arrays(count: int = sum(SIZES)) -> Arrays:
    rng = np.random.default_rng(5)
    return {
        "gate/layer1.attention.channel": rng.random((count, 6), np.float32),
        "gate/layer1.attention.spatial": rng.random((count, 4, 5), np.float32) * 2,
        "grad_cam/layer1/predicted": rng.normal(size=(count, 4, 5)).astype(np.float16),
        "grad_cam/layer1/true": rng.normal(size=(count, 4, 5)).astype(np.float16),
        "logits": rng.normal(size=(count, 3)).astype(np.float32),
        "images": rng.integers(0, 256, (count, 8, 10, 3), dtype=np.uint8),
    }


def make_rows(arrays: Arrays) -> pd.DataFrame:
    count = len(arrays["logits"])
    return pd.DataFrame(
        {
            "path": [f"test/猫/{i}.png" for i in range(count)],
            "label": np.arange(count) % 3,
            "prediction": arrays["logits"].argmax(1),
            "loss": np.linspace(0, 1, count),
        }
    )


def write(
    folder: Path,
    arrays: Arrays | None = None,
    rows: pd.DataFrame | None = None,
    label_kind: str = CLASS,
) -> Path:
    arrays = make_arrays() if arrays is None else arrays
    rows = make_rows(arrays) if rows is None else rows
    if label_kind != CLASS:
        rows["label"] = -1
    with RecordingWriter(
        folder,
        gates=GATES,
        classes=CLASSES,
        grad_cam_layers=["layer1"],
        about={"name": "toy"},
        label_kind=label_kind,
    ) as writer:
        start = 0
        for size in SIZES:
            piece = slice(start, start + size)
            writer.add_shard({key: value[piece] for key, value in arrays.items()}, rows[piece])
            start += size
    return folder


def problems(lines: list[str]) -> list[tuple[str, str]]:
    """The problems that `verify` found, each as its code and its text."""
    for line in lines:
        assert re.fullmatch(r"[^\n]+ \[AS\d{3}\]", line), line
    return [(line[-6:-1], line[:-8]) for line in lines]


def found_problems(lines: list[str], *expected: tuple[object, ...]) -> None:
    """`verify` found these problems: of each the code, and values that its text contains."""
    found = problems(lines)
    assert [code for code, _ in found] == [code for code, *_ in expected]
    for (_, text), (_, *names) in zip(found, expected, strict=True):
        for name in names:
            assert str(name) in text, f"{name} is not named in: {text}"


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
