"""The masks of a recording's images, as they are stored beside the recording. Without torch.

One file has, for each image with a mask, which share of each cell of each map's grid is inside, so
that no mask is resized again. `attnscope.recording.masking` makes it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from attnscope import layout
from attnscope.errors import InputError, first_line
from attnscope.files import is_there, make_folder, sha256_of, write_bytes
from attnscope.kinds import MAP, Gate
from attnscope.recording.format import expect_own_file
from attnscope.recording.places import masks_file
from attnscope.recording.reader import ShardReader
from attnscope.recording.recording import Recording
from attnscope.shapes import Array

_FACTS, _DIGEST, _RECORDING = "facts", "sha256", "recording"
_ROWS, _PICTURES = "rows", "pictures"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskFacts:
    """Where masks come from, and how many images have one."""

    kind: str
    """``masks``, ``boxes`` or ``ink``."""
    source: str
    """The folder or file; empty for ink."""
    images: int
    """Number of images of the recording."""
    used: int
    """Number of images whose mask has an inside and an outside. Only these are stored."""
    missing: int
    """Number of images without a mask."""
    empty: int
    """Number of images whose mask has no inside, in the part that the network receives."""
    full: int
    """Number of images whose mask covers all of that part."""
    unused: int
    """Number of masks that belong to no image of the recording."""
    notes: tuple[str, ...] = ()
    """What else a user should know, one line each."""


@dataclass(frozen=True)
class Masks:
    """The masks of some images of a recording."""

    rows: Int64[Array, " masked"]
    """Row of each image in the recording, ascending."""
    shares: Mapping[tuple[int, int], Float32[Array, "masked height width"]]
    """Grid -> which share of each cell is inside, 0 to 1. ``(1, 1)`` has the share of the image."""
    pictures: UInt8[Array, "masked height width"]
    """The same on the grid of the pictures, in 255ths, for figures."""
    facts: MaskFacts

    def inside(self, grid: tuple[int, int]) -> Float32[Array, "masked height width"]:
        """Return which share of each cell of a grid is inside.

        Raises:
            InputError: AS696, the recording has other grids than when the masks were made.
        """
        if grid not in self.shares:
            raise InputError(
                "AS696",
                f"the masks of this recording have no grid of {grid[0]}×{grid[1]} cells; give them "
                "again with --masks",
            )
        return self.shares[grid]

    @property
    def areas(self) -> NDArray[np.float64]:
        """The share of each image that is inside, ``(M,)``."""
        return self.shares[1, 1].reshape(-1).astype(np.float64)


def on_image(gate: Gate) -> bool:
    """Return whether the map of a gate lies on rows or columns of the image.

    Maps of frames, of slices of volumes and of sequences do not.
    """
    if not gate.offers(MAP):
        return False
    view = gate.view(MAP)
    return view is None or not {"D", "L"} & set(view.axes)


def attributions_on_image(recording: Recording) -> list[str]:
    """Return the recorded attribution methods; none if the inputs are sequences or volumes."""
    others = any({"D", "L"} & set(gate.layout) for gate in recording.gates)
    return [] if others else recording.attribution_methods


def has_masks(recording: ShardReader) -> bool:
    """Return whether masks of this recording are stored; they may be damaged."""
    file = masks_file(recording.folder)
    return is_there(file) and _is_of(file, recording.folder)


def find_masks(recording: ShardReader) -> Masks | None:
    """Return the stored masks of a recording, or None.

    Masks of an earlier recording in the same folder are left out with a warning in the log.

    Raises:
        InputError: AS696, they are damaged; AS606 or AS607, the file is a pipe, a device or a link
            that leads outside.
    """
    file = masks_file(recording.folder)
    if not is_there(file):
        return None
    if not _is_of(file, recording.folder):
        _log.warning(
            "%s is left out because it belongs to an earlier recording in %s; give the masks again "
            "with --masks",
            file,
            recording.folder,
        )
        return None
    return _read(file)


def masks_of(recording: ShardReader) -> Masks:
    """Return the stored masks of a recording.

    Raises:
        InputError: AS693, there are none; AS696, they are damaged.
    """
    found = find_masks(recording)
    if found is None:
        raise InputError("AS693", without_masks(recording))
    return found


def without_masks(recording: ShardReader) -> str:
    """Return a sentence that says that a recording has no masks, with the remedy."""
    return (
        f"{recording.folder} has no masks; add them with: attnscope figures RUN --masks FOLDER (or "
        "--masks ink for drawings)"
    )


def verify_masks(recording: Path) -> tuple[list[str], str]:
    """Check the stored masks of a recording, which may be damaged itself.

    Args:
        recording: The folder of the recording.

    Returns:
        The problems, one line each, and what could not be checked, in words; empty if nothing.
    """
    file = masks_file(recording)
    try:
        _read(file)
    except InputError as error:
        return [str(error)], ""
    try:
        is_of = _is_of(file, recording)
    except OSError as error:
        return [], f"whose they are, because {error.filename} cannot be read ({error.strerror})"
    return [], "" if is_of else "they belong to an earlier recording"


def write_masks(recording: ShardReader, masks: Masks) -> Path:
    """Store masks beside their recording; those that are there are replaced.

    Returns:
        The file.
    """
    arrays: dict[str, NDArray[Any]] = {_ROWS: masks.rows, _PICTURES: masks.pictures}
    arrays |= {_name(grid): values for grid, values in masks.shares.items()}
    # safetensors would write an array of another order as it lies in memory.
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    facts = json.dumps(asdict(masks.facts))
    of = sha256_of(recording.folder / layout.MANIFEST)
    header = {_FACTS: facts, _RECORDING: of, _DIGEST: _digest(arrays, facts, of)}
    file = masks_file(recording.folder)
    if not file.parent.is_dir():
        make_folder(file.parent)
    write_bytes(file, save(arrays, header))
    return file


def _read(file: Path) -> Masks:
    expect_own_file(file.parent, file)
    try:
        with safe_open(file, "numpy") as opened:
            header = opened.metadata() or {}
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        facts, of = header[_FACTS], header[_RECORDING]
        if _digest(arrays, facts, of) != header[_DIGEST]:
            raise ValueError("its SHA-256 is another one")
        known = json.loads(facts)
        known["notes"] = tuple(known["notes"])
        shares = {_grid(name): values for name, values in arrays.items() if "x" in name}
        return Masks(
            arrays[_ROWS],
            shares,
            arrays[_PICTURES],
            MaskFacts(**{field.name: known[field.name] for field in fields(MaskFacts)}),
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "AS696",
            f"{file} is damaged ({first_line(error)}); give the masks again with --masks",
        ) from None


def _is_of(file: Path, recording: Path) -> bool:
    """Return whether a file has masks of this recording; a file that cannot be read has."""
    if not file.is_file():  # opening a pipe would wait for a writer
        return True
    try:
        with safe_open(file, "numpy") as opened:
            of = (opened.metadata() or {}).get(_RECORDING)
    except (SafetensorError, OSError):
        return True
    return of is None or of == sha256_of(recording / layout.MANIFEST)


def _name(grid: tuple[int, int]) -> str:
    return f"{grid[0]}x{grid[1]}"


def _grid(name: str) -> tuple[int, int]:
    height, width = name.split("x")
    return int(height), int(width)


def _digest(arrays: Mapping[str, NDArray[Any]], *texts: str) -> str:
    """Return the SHA-256 of everything that a file says."""
    digest = hashlib.sha256("\n".join(texts).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()
