"""The registry of data sources: where labeled images come from. Imports no torch.

A source is one file that registers itself::

    def load(request: DataRequest) -> LoadedSplits:
        ...

    register_data_source("stripes", DataSource(load, help="stripes of two directions"))

and is then a value of ``--data`` and of `attnscope.load_data`. The sources of the package are
imported by `attnscope.data.known`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attnscope.data.normalization import Normalization
from attnscope.errors import InputError
from attnscope.registry import Registry

if TYPE_CHECKING:
    from attnscope.data.images import LabeledImages


@dataclass(frozen=True)
class DataRequest:
    """What a source is asked for."""

    path: str
    """What stands after the colon of ``NAME:PATH``; empty for a source that takes no path."""
    root: Path
    """Where downloaded sets lie, or are downloaded to."""
    image_size: int | None
    """Height and width in pixels to which images are resized; None: the source's own."""
    download: bool
    """Whether something may be downloaded."""
    skip_unreadable: bool
    """Go on without files that cannot be read, and name them."""
    test_alone: bool
    """Only the last split is wanted; a source may leave out the others."""


@dataclass(frozen=True)
class LoadedSplits:
    """What a source gives."""

    splits: list[LabeledImages]
    """Training and test, or training, validation and test; all with the same classes."""
    skipped: list[str]
    """Files that could not be read, each with the reason."""


@dataclass(frozen=True)
class DataSource:
    """A source of labeled images."""

    load: Callable[[DataRequest], LoadedSplits]
    """Raises an InputError where the images are not there or cannot be used."""
    help: str
    """A few words for help texts: what the images are, or how a path must look."""
    takes_path: bool = False
    """Whether it is written ``NAME:PATH``."""
    image_size: int | None = 32
    """Where none is asked for; None: the source chooses."""
    normalization: Normalization | None = None
    """The published one; None: it is measured on the training split."""
    may_flip: bool = True
    """Whether a mirrored image keeps its class."""


def _check(source: DataSource) -> None:
    if not isinstance(source, DataSource):
        raise TypeError(f"it is {type(source).__name__}, not a DataSource")
    if not callable(source.load):
        raise TypeError("its load is no function")


DATA_SOURCES: Registry[DataSource] = Registry("data source", _check)


def register_data_source(name: str, source: DataSource) -> DataSource:
    """Make a source known under a name.

    Raises:
        InputError: the name is taken, or the source is not complete.
    """
    return DATA_SOURCES.register(name, source)


def form_of(name: str) -> str:
    """How a source is written: ``digits``, ``folder:PATH``."""
    return f"{name}:PATH" if DATA_SOURCES[name].takes_path else name


def describe_sources() -> str:
    """All sources in one line, for help texts."""
    return ", ".join(f"{form_of(name)} ({DATA_SOURCES[name].help})" for name in DATA_SOURCES)


def find_source(text: str) -> tuple[str, DataSource, str]:
    """Name, source and path of ``NAME`` or ``NAME:PATH``.

    Raises:
        InputError: no source is written like this.
    """
    name, colon, path = text.partition(":")
    source = DATA_SOURCES.get(name)
    if source is None or source.takes_path != bool(path) or bool(colon) != bool(path):
        known = ", ".join(map(form_of, DATA_SOURCES))
        raise InputError(f"data source '{text}' is not known; take one of {known}")
    return name, source, path
