"""The arrays of a recording with names: dimensions, columns, and lazy reading for xarray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.data.label_kinds import CLASS, without_classes
from attnscope.errors import InputError
from attnscope.kinds import MAP, PER_CHANNEL, Gate
from attnscope.recording.places import capture_again
from attnscope.recording.rows import Rows

if TYPE_CHECKING:
    from xarray import Variable

AXIS_NAMES = {
    "N": "image",
    "B": "branch",
    "G": "group",
    "C": "channel",
    "D": "depth",
    "H": "height",
    "W": "width",
    "L": "position",
}
"""Letter of an axis in `attnscope.kinds.AXES` -> name of its dimension."""
_RESERVED = ("image", "class", "path", "label", "prediction", "right", "confidence", "logits")


def expect_class_labels(folder: object, label_kind: str, what: str = "") -> None:
    """Refuse a question about classes if the images have no class labels.

    Args:
        folder: The recording.
        label_kind: What its labels are.
        what: What it lacks for this reason; default only the labels.

    Raises:
        InputError: The labels are no classes.
    """
    if label_kind != CLASS:
        raise InputError(
            "AS648",
            f"{folder} has {f'no {what}, because it has ' if what else ''}"
            f"{without_classes(label_kind)}; capture images whose labels are classes",
        )


def expect_xarray() -> None:
    """Refuse where xarray is not installed.

    Raises:
        InputError: It is not.
    """
    try:
        import xarray  # noqa: F401
    except ImportError:
        raise InputError(
            "AS615", "xarray is not installed; install it with: pip install 'attnscope[xarray]'"
        ) from None


def variable_name(gate: Gate) -> str:
    """Return the name of a gate in a table or data set, where other columns have names, too."""
    return f"gate:{gate.name}" if gate.name in ("", *_RESERVED) else gate.name


def dimension_names(gate: Gate, ndim: int) -> list[str]:
    """Return the names of the axes of a gate's values, of which the first is that of images.

    Args:
        gate: The gate.
        ndim: Number of axes of its values.
    """
    if gate.has(PER_CHANNEL):
        letters = "NC"
    elif gate.has(MAP):  # positions that stand in one row are stored as a grid
        letters = "NHW"
    else:
        letters = gate.axes
    if len(letters) == ndim:
        return [AXIS_NAMES[letter] for letter in letters]
    return ["image", *(f"axis_{axis}" for axis in range(1, ndim))]


def lazy_variable(
    dimensions: list[str],
    read: Callable[[Rows], NDArray[Any]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    attributes: dict[str, Any],
) -> Variable:
    """Return an xarray variable whose values are read when they are used.

    Args:
        dimensions: Names of the axes, that of images first.
        read: Reads some rows of the array.
        shape: Of the whole array.
        dtype: Type of its values.
        attributes: Facts about the variable.
    """
    from xarray import Variable
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class RecordedArray(BackendArray):
        def __init__(self) -> None:
            self.shape, self.dtype = shape, dtype

        def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
            return indexing.explicit_indexing_adapter(
                key, shape, indexing.IndexingSupport.OUTER, self._read
            )

        def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
            values = read(key[0])
            skipped = np.ndim(key[0]) == 0 and not isinstance(key[0], slice)
            # From the last axis to the first, so that a number, which removes an axis, moves none
            # that is still to be indexed.
            for axis in range(len(key) - 1, 0, -1):
                values = values[(*[slice(None)] * (axis - skipped), key[axis])]
            return values

    data = indexing.LazilyIndexedArray(RecordedArray())
    return Variable(dimensions, data, attributes)


def class_columns(
    classes: list[str], rows: pd.DataFrame, label_kind: str, has_scores: bool, folder: object
) -> dict[str, NDArray[np.object_]]:
    """Return the columns path, label and prediction.

    Without class labels there is no label, and without class scores no prediction.
    """
    columns = {"path": rows["path"].to_numpy(object)}
    if label_kind == CLASS:
        columns["label"] = class_names(classes, rows["label"], folder)
    if has_scores:
        columns["prediction"] = class_names(classes, rows["prediction"], folder)
    return columns


def class_names(classes: list[str], column: pd.Series, folder: object) -> NDArray[np.object_]:
    """Return the names of the classes in a column of rows.

    Raises:
        InputError: A value is not a class.
    """
    numbers = column.to_numpy()
    outside = (numbers < 0) | (numbers >= len(classes))
    if outside.any():
        raise InputError(
            "AS616",
            f"row {int(outside.argmax())} of {folder} has the {column.name} "
            f"{numbers[outside][0]}, and there are {len(classes)} classes; "
            f"{capture_again(Path(str(folder)))}",
        )
    names: NDArray[np.object_] = np.array(classes, dtype=object)[numbers]
    return names
