"""Recordings of gates of every kind, made without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.kinds import Gate
from attnscope.recording.moments import ClassSums, Moments, MomentsWriter
from attnscope.recording.recording import Recording, RecordingWriter

SIZES = {"B": 2, "G": 3, "C": 6, "D": 4, "H": 8, "W": 10, "L": 20}
AXES = {
    "scalar": ("N",),
    "sequence": ("NL",),
    "volume": ("NDHW",),
    "grouped": ("NG", "NGC", "NGHW"),
    "strip": ("NCH", "NCW", "NH"),
    "branch": ("NB", "NBC", "NBHW"),
    "full": ("NCHW", "NCL", "NCDHW"),
    "activation": ("NCHW", "NGCHW"),
}
"""Axes of the gates of each kind that a recording of `record_kind` has."""
CLASSES = ["cat", "dog", "owl"]


def record_kind(folder: Path, kind: str, *, count: int = 24, moments: bool = False) -> Any:
    """Write and open a recording of one kind of gate, or its moments.

    The units of a gate differ between the classes, and each class has a place where it is open.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(count) % len(CLASSES)
    gates, arrays = [], {}
    for depth, axes in enumerate(AXES[kind], 1):
        name = f"block{depth}.gate"
        gates.append(Gate(name, kind, SIZES["C"], None, "sigmoid", 0.0, 1.0, 1.0, axes=axes))
        arrays[f"gate/{name}"] = make_values(axes, labels, rng)
    logits = rng.normal(size=(count, 3)).astype(np.float32)
    logits[np.arange(count), labels] += 2.5
    arrays["logits"] = logits
    place = make_values("NHW", labels, rng)
    for target in ("predicted", "true"):
        arrays[f"grad_cam/last/{target}"] = (place - 0.4).astype(np.float16)
    pictures = rng.integers(0, 120, (count, 16, 20, 3))
    pictures += (100 * place.repeat(2, 1).repeat(2, 2)[..., None]).astype(int)
    table = pd.DataFrame(
        {
            "path": [f"test/{CLASSES[label]}/{i}.png" for i, label in enumerate(labels)],
            "label": labels,
            "prediction": logits.argmax(1),
            "loss": 1.0,
        }
    )
    given: dict[str, Any] = {
        "gates": gates,
        "classes": CLASSES,
        "grad_cam_layers": ["last"],
        "about": {"name": kind, "split": "test", "source": "made by the test"},
    }
    half = count // 2
    parts = [slice(0, half), slice(half, count)]
    if moments:
        with MomentsWriter(folder, **given) as writer:
            for part in parts:
                sums = ClassSums(gates)
                sums.add({key: v[part] for key, v in arrays.items()}, labels[part])
                writer.add_shard(sums.arrays(), table[part])
        return Moments(folder)
    arrays["images"] = pictures.astype(np.uint8)
    with RecordingWriter(folder, **given) as writer:
        for part in parts:
            writer.add_shard({key: v[part] for key, v in arrays.items()}, table[part])
    return Recording(folder)


def make_values(
    axes: str, labels: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return gates, ``(N, ...)`` in 0 to 1, that depend on the class and on the place."""
    shape = (len(labels), *(SIZES[letter] for letter in axes[1:]))
    logit = rng.normal(0, 0.3, shape) - 0.5
    for axis, letter in enumerate(axes[1:], 1):
        at = np.arange(shape[axis])
        if letter in "DHWL":
            middle = (labels + 1)[:, None] * shape[axis] / 4 - 0.5
            along = 2 * np.exp(-(((at - middle) / (shape[axis] / 6)) ** 2))
        else:
            along = rng.normal(0, 1, (3, shape[axis]))[labels]
        logit += along.reshape(
            [len(labels), *(n if i == axis else 1 for i, n in enumerate(shape) if i)]
        )
    if axes == "N":
        logit = logit + labels - 1
    if "B" in axes:  # branches share a softmax
        logit = logit - logit.mean(axes.index("B"), keepdims=True)
        return (1 / (1 + np.exp(-2 * logit))).astype(np.float32)
    return (1 / (1 + np.exp(-logit))).astype(np.float32)
