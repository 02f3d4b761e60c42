"""Folded networks beside the network from which they were made, as their ``fold.json`` says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnscope import layout
from attnscope.errors import InputError
from attnscope.files import read_json
from attnscope.recording.format import expect_own_file
from attnscope.recording.reader import ShardReader


@dataclass(frozen=True)
class Losses:
    """What changed on the same images by a fold."""

    split: str
    images: int
    before: float
    """Accuracy before, 0 to 1."""
    after: float
    """Accuracy after, 0 to 1."""
    loss: float
    """Loss of accuracy in percentage points."""
    low: float
    """Lower end of the 95% CI of the loss, in percentage points."""
    high: float
    """Upper end of the 95% CI of the loss, in percentage points."""
    agreement: float
    """Share of the images whose prediction is the same, 0 to 1."""


@dataclass(frozen=True)
class Folded:
    """A network with constants in place of some of its gates."""

    folder: Path
    gates: tuple[str, ...]
    """The folded gates."""
    total: int
    """Number of gates before."""
    tolerance: float | None
    """Loss in percentage points within which the gates were chosen by a test; None if the gates
    were named, so that nothing was tested."""
    losses: Losses | None
    """On images that chose nothing; None if there were none."""
    parameters: tuple[int, int]
    """Number of parameters before and after."""
    stored_values: int
    """Number of values of stored constants, which are not parameters."""


def find_folds(root: Path, recording: ShardReader) -> list[Folded]:
    """Return the folded networks in a folder that were made from the network of a recording.

    The network is recognized by the hash of its weights. A ``fold.json`` that cannot be read, or
    that a link leads out of its folder to, is left out.

    Args:
        root: a folder of runs.
        recording: the recording of the network before the fold.
    """
    weights = recording.about.get("weights_sha256")
    if not weights:
        return []
    found = []
    for folder in (root, *_folders(root)):
        file = folder / layout.FOLD
        if not file.is_file():
            continue
        try:
            made = read_json(expect_own_file(folder, file))
            if weights in _weights_of(made):
                found.append(_parse(folder, made))
        except (InputError, OSError, KeyError, TypeError, ValueError, AttributeError):
            continue
    return found


def _folders(root: Path) -> list[Path]:
    inside = root.resolve()
    try:
        paths = [Path(entry.path) for entry in os.scandir(root) if entry.is_dir()]
    except OSError:
        return []
    return sorted(path for path in paths if path.resolve().is_relative_to(inside))


def _weights_of(made: Mapping[str, Any]) -> set[object]:
    source = dict(made.get("source") or {})
    network = dict(source.get("network") or {})
    return {made.get("weights_sha256"), source.get("weights"), network.get("weights_sha256")}


def _parse(folder: Path, made: Mapping[str, Any]) -> Folded:
    gates = tuple(str(gate) for gate in made["folded"])
    chosen = made["chosen"]
    # Of a network that attnscope built, and of any other one.
    split = "test" if "test" in made else str(made.get("split"))
    losses = made["test"] if "test" in made else made["accuracy"]
    before, after = made["parameters"]
    return Folded(
        folder,
        gates,
        len(gates) + len(made["dynamic"]) + len(made.get("unused", [])),
        None if chosen is None else float(chosen["tolerance"]),
        None
        if losses is None
        else Losses(
            split,
            int(losses["images"]),
            before=float(losses["before"]),
            after=float(losses["after"]),
            loss=float(losses["loss"]),
            low=float(losses["low"]),
            high=float(losses["high"]),
            agreement=float(losses["agreement"]),
        ),
        (int(before), int(after)),
        int(made["stored_values"]),
    )
