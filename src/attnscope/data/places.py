"""Where the images of a run or a recording are: absolute, and relative to its folder.

The absolute place is found from any working directory. The relative one is found when a project is
moved as a whole. Does not import torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from attnscope.data.known import find_source
from attnscope.errors import InputError

_ABSOLUTE, _RELATIVE = "absolute", "relative"
_DATA, _ROOT = "data", "data_root"

Places = Mapping[str, Mapping[str, str]]
"""``data`` and ``data_root`` -> ``absolute`` and ``relative`` -> a path."""


def place_in(source: str) -> Path | None:
    """Return the path of a file or folder that a source names; None if it names none.

    The text after the colon of a source can be something else, such as a number. So a relative path
    counts only if something is there.
    """
    _, found, path = find_source(source)
    if not (found.takes_path and found.is_place):
        return None
    place = Path(path).expanduser()
    return place if place.is_absolute() or place.exists() else None


def pinned_source(source: str) -> str:
    """Return a source with the absolute path of what it names; otherwise as it is."""
    place = place_in(source)
    return source if place is None else f"{source.partition(':')[0]}:{place.resolve()}"


def places_of(source: str, data_root: Path, folder: Path) -> dict[str, dict[str, str]]:
    """Return where the data is, to be stored in a run or a recording.

    Args:
        source: A registered data source, such as ``folder:PATH``.
        data_root: The folder of downloaded data sets.
        folder: The run or the recording, which need not exist.

    Returns:
        The places of ``data``, if the source has a path that exists, and of ``data_root``.
    """
    paths = {_ROOT: data_root}
    if (place := place_in(source)) is not None and place.exists():
        paths = {_DATA: place, **paths}
    start = folder.resolve()
    return {
        name: {_ABSOLUTE: str(path.resolve()), _RELATIVE: os.path.relpath(path.resolve(), start)}
        for name, path in paths.items()
    }


def find_data(source: str, places: object, folder: Path) -> str:
    """Return a data source with the place where its images are now.

    Args:
        source: The source as a run or a recording stores it.
        places: The stored places; None if there are none, as in version 0.1.
        folder: The run or the recording.

    Returns:
        The source at the first stored place that exists, or at the absolute one if none does.
        Without stored places, the source as it is, whose path is that of the working directory.
    """
    name, found, _ = find_source(source)
    takes_place = found.takes_path and found.is_place
    known = list(_stored(places, _DATA, folder)) if takes_place else []
    if not known:
        return source
    return f"{name}:{next((place for place in known if place.exists()), known[0])}"


def is_gone(source: str) -> bool:
    """Return whether a source has an absolute path at which there is nothing.

    What is wrong with a relative one is left to the source itself.
    """
    place = place_in(source)
    return place is not None and not place.exists()


def expect_place(source: str, folder: Path) -> None:
    """Refuse a source whose images are gone.

    Args:
        source: The source.
        folder: The run or the recording whose images they are.

    Raises:
        InputError: AS244.
    """
    if is_gone(source):
        name, _, path = source.partition(":")
        raise InputError(
            "AS244",
            f"the images of {folder} are not at {path}; restore them, or name their place with "
            f"--data {name}:PATH",
        )


def find_data_root(data_root: str, places: object, folder: Path) -> Path:
    """Return the folder of downloaded data sets.

    Args:
        data_root: The folder as a run stores it.
        places: As for `find_data`.
        folder: The run.

    Returns:
        The first stored place that exists, or ``data_root`` in the working directory.
    """
    existing = (place for place in _stored(places, _ROOT, folder) if place.exists())
    return next(existing, Path(data_root))


def _stored(places: object, name: str, folder: Path) -> Iterator[Path]:
    """Yield the absolute place, and the one relative to the folder as it lies now."""
    place = places.get(name) if isinstance(places, dict) else None
    if not isinstance(place, dict):
        return
    if isinstance(place.get(_ABSOLUTE), str):
        yield Path(place[_ABSOLUTE])
    if isinstance(place.get(_RELATIVE), str):
        yield Path(os.path.normpath(folder.resolve() / place[_RELATIVE]))
