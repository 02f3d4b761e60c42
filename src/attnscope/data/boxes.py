"""Boxes of images in a JSON or CSV file, and how masks and boxes are opened."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnscope.data.masks import IMAGE_ENDINGS, Frame, Key, MaskFiles, MaskSource, Region, key_of
from attnscope.errors import InputError, first_line
from attnscope.files import read_json

_COLUMNS = ("image", "x0", "y0", "x1", "y1")
_BEYOND = 1.0  # pixels by which a box may reach beyond its image: some count the last pixel


@dataclass(frozen=True)
class Boxes(MaskSource):
    """A table of boxes. Several boxes of one image are joined."""

    boxes: Mapping[Key, NDArray[np.float64]] = field(default_factory=dict)
    """Key of an image -> its boxes, ``(n, 4)``."""

    @property
    def kind(self) -> str:
        """``boxes``."""
        return "boxes"

    def read(self, key: Key, frame: Frame) -> Region:
        """Return the boxes of an image as one region.

        Raises:
            InputError: AS252, a box reaches beyond its image.
        """
        boxes, size = self.boxes[key], (frame.width, frame.height)
        x, y = boxes[:, [0, 2]], boxes[:, [1, 3]]
        low, high = min(x.min(), y.min()), max((x - size[0]).max(), (y - size[1]).max())
        if low < -_BEYOND or high > _BEYOND:
            raise InputError(
                "AS252",
                f"a box of {self.names[key]} in {self.path} reaches beyond its image of "
                f"{size[0]}×{size[1]} pixels; give x0, y0, x1, y1 in pixels of the upright image",
            )
        x, y = x.clip(0, size[0]), y.clip(0, size[1])
        columns = np.unique(np.concatenate([[0, size[0]], x.ravel()]))
        rows = np.unique(np.concatenate([[0, size[1]], y.ravel()]))
        inside = np.zeros((len(rows) - 1, len(columns) - 1), bool)
        for (x0, x1), (y0, y1) in zip(x, y, strict=True):
            down = (rows[:-1] >= y0) & (rows[1:] <= y1)
            inside |= down[:, None] & (columns[:-1] >= x0) & (columns[1:] <= x1)
        return Region(inside, rows, columns)


def open_masks(path: Path) -> MaskSource:
    """Open a folder of masks, or a JSON or CSV file of boxes.

    Args:
        path: the folder or the file. A folder that has one JSON or CSV file and no image is a table
            of boxes.

    Raises:
        InputError: AS250, there are no masks; AS252, the boxes are not valid; AS253, an image has
            two masks.
    """
    if path.is_file():
        return open_boxes(path)
    files = sorted(_files(path)) if path.is_dir() else []
    names = [name for name in files if PurePosixPath(name).suffix.lower() in IMAGE_ENDINGS]
    tables = [name for name in files if name.lower().endswith((".csv", ".json"))]
    if not names and len(tables) == 1:
        return open_boxes(path / tables[0])
    if not names:
        has = f"holds {len(tables)} tables" if tables else "holds no masks"
        raise InputError(
            "AS250",
            f"{path} {has if path.is_dir() else 'does not exist'}; give a folder of masks (PNG) "
            "named as the images, one JSON or CSV file of boxes, or ink",
        )
    known: dict[Key, str] = {}
    for name in names:
        if (other := known.setdefault(key_of(name), name)) != name:
            raise InputError(
                "AS253", f"{other} and {name} in {path} are masks of the same image; keep one"
            )
    others = len(files) - len(names)
    passed = (f"passed over {others} files in {path} that are no images",) if others else ()
    return MaskFiles(path, known, passed=passed)


def _files(folder: Path) -> Iterable[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield (Path(parent) / name).relative_to(folder).as_posix()


def open_boxes(file: Path) -> Boxes:
    """Open a JSON or CSV file of boxes.

    Raises:
        InputError: AS250, the file has another ending; AS252, the boxes are not valid.
    """
    form = file.suffix.lower()
    if form not in (".json", ".csv"):
        raise InputError(
            "AS250", f"{file} is neither a folder nor a JSON or CSV file; give one of these"
        )
    rows = _rows_of_json(file) if form == ".json" else _rows_of_csv(file)
    found: dict[Key, list[Sequence[float]]] = {}
    names: dict[Key, str] = {}
    for name, box in rows:
        names.setdefault(key_of(name), name)
        found.setdefault(key_of(name), []).append(box)
    if not found:
        raise InputError("AS252", f"{file} has no boxes; give at least one")
    boxes = {key: np.array(several, np.float64) for key, several in found.items()}
    if max(float(several.max()) for several in boxes.values()) <= 1:
        raise InputError(
            "AS252",
            f"the boxes of {file} have no coordinate above 1, so that they may be shares of the "
            "sides; give pixels",
        )
    return Boxes(file, names, boxes=boxes)


def _rows_of_csv(file: Path) -> list[tuple[str, Sequence[float]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            table = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            "AS252", f"{file} cannot be read ({first_line(error)}); save it as CSV in UTF-8"
        ) from None
    return [_row_of(file, f"row {i}", row) for i, row in enumerate(table, start=2)]


def _rows_of_json(file: Path) -> list[tuple[str, Sequence[float]]]:
    value = read_json(file)
    if isinstance(value, list):
        return [_row_of(file, f"item {i}", row) for i, row in enumerate(value, start=1)]
    if not isinstance(value, dict):
        raise _invalid(file, "it is neither an object nor a list")
    rows = []
    for name, boxes in value.items():
        several = boxes if isinstance(boxes, list) else [boxes]
        if several and not isinstance(several[0], list):
            several = [several]
        for box in several:
            if not isinstance(box, list) or len(box) != 4:
                raise _invalid(file, f"a box of {name} is not a list of four numbers")
            row = dict(zip(_COLUMNS, (name, *box), strict=True))
            rows.append(_row_of(file, name, row))
    return rows


def _row_of(file: Path, place: str, row: Any) -> tuple[str, Sequence[float]]:
    """Return the name and the box in one row of a table."""
    if not isinstance(row, dict) or any(row.get(name) in (None, "") for name in _COLUMNS):
        raise _invalid(file, f"{place} lacks one of the columns {', '.join(_COLUMNS)}")
    try:
        box = [float(row[name]) for name in _COLUMNS[1:]]
    except (TypeError, ValueError):
        box = [math.nan]
    if not all(map(math.isfinite, box)):
        raise _invalid(file, f"{place} has a coordinate that is not a number")
    if not (box[0] < box[2] and box[1] < box[3]):
        raise _invalid(file, f"the box in {place} is empty, because x0 < x1 or y0 < y1 is not so")
    return str(row["image"]), box


def _invalid(file: Path, what: str) -> InputError:
    return InputError(
        "AS252",
        f"{file} is not a valid table of boxes ({what}); give the columns {', '.join(_COLUMNS)}, "
        'or in JSON {"IMAGE": [[x0, y0, x1, y1], ...]}',
    )
