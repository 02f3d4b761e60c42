"""The registry of data sources, from which labeled images are loaded. Does not import torch.

A data source is a function that loads its splits, and a call that registers it::

    def load(request: DataRequest) -> LoadedSplits:
        ...

    register_data_source("stripes", DataSource(load, help="horizontal and vertical stripes"))

``--data stripes`` and ``attnscope.load_data("stripes")`` then load it. `attnscope.data.known`
imports the data sources of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from attnscope.data.changes import Changes
from attnscope.data.classes import ClassOrder
from attnscope.data.normalization import Normalization
from attnscope.errors import InputError
from attnscope.registry import Registry

if TYPE_CHECKING:
    from attnscope.data.images import LabeledImages


@dataclass(frozen=True)
class DataRequest:
    """The arguments with which a data source is loaded."""

    path: str
    """The text after the colon of ``NAME:PATH``; empty for a source without one."""
    root: Path
    """The folder of downloaded data sets (``--data-root``)."""
    image_size: int | None
    """Height and width to which images are resized, in pixels; None means the source's own."""
    download: bool
    """Whether the source may download files."""
    skip_unreadable: bool
    """Whether to skip files that cannot be read, and list them in `LoadedSplits.skipped`."""
    test_alone: bool
    """Whether only the test split is needed; the source may then return it alone."""
    channels: int | None = None
    """Number of channels of the images; None means the source's own. A source may return RGB images
    if it is asked for 1, which are then converted."""
    class_order: ClassOrder = field(default_factory=ClassOrder)
    """The order of the classes. It is applied to what a source returns; a source can check before
    it reads images whether its classes fit, by ``class_order.arrange(classes)``."""


@dataclass(frozen=True)
class LoadedSplits:
    """The splits that a data source returns."""

    splits: list[LabeledImages]
    """Training and test, or training, validation and test; all with the same classes."""
    skipped: list[str]
    """One line for each file or folder that was skipped, with the reason."""
    notes: list[str] = field(default_factory=list)
    """What else a user should know: what was passed over, split or changed; one line each."""
    changes: list[Changes] = field(default_factory=list)
    """What was changed in the images of each split, for notes on a split alone; may be empty."""
    white: int | None = None
    """The value of white in images with 16 bits per channel; None if there are none."""


@dataclass(frozen=True)
class DataSource:
    """A source of labeled images."""

    load: Callable[[DataRequest], LoadedSplits]
    """Loads the splits; raises an InputError if the images are missing or cannot be used."""
    help: str
    """A short description for help texts: what the images are, or what the path must contain."""
    takes_path: bool = False
    """Whether the source is written ``NAME:PATH``."""
    is_place: bool = True
    """Whether that path is one of a file or folder, which is stored as an absolute path. False for
    another text, such as a number, which is stored as it is."""
    image_size: int | None = 32
    """The default image size in pixels; None means that the source chooses."""
    normalization: Normalization | None = None
    """The published normalization; None means that it is computed from the training split."""
    may_flip: bool = True
    """Whether images can be mirrored without changing their class."""


def _check(source: DataSource) -> None:
    if not isinstance(source, DataSource):
        raise TypeError(f"it has the type {type(source).__name__}; expected a DataSource")
    if not callable(source.load):
        raise TypeError("its attribute 'load' is not callable")


DATA_SOURCES: Registry[DataSource] = Registry("data source", _check)


def register_data_source(name: str, source: DataSource) -> DataSource:
    """Register a data source under a name, which ``--data`` and `attnscope.load_data` then accept.

    Returns:
        The data source.

    Raises:
        InputError: The name is taken, or the source is incomplete.
    """
    return DATA_SOURCES.register(name, source)


def form_of(name: str) -> str:
    """Return the form in which a source is written, such as ``digits`` or ``folder:PATH``."""
    source = DATA_SOURCES[name]
    if not source.takes_path:
        return name
    return f"{name}:PATH" if source.is_place else f"{name}:TEXT"


def describe_sources() -> str:
    """Describe all data sources in one line, for help texts."""
    return ", ".join(f"{form_of(name)} ({DATA_SOURCES[name].help})" for name in DATA_SOURCES)


def find_source(text: str) -> tuple[str, DataSource, str]:
    """Look up a data source that is written ``NAME`` or ``NAME:PATH``.

    Returns:
        The name, the data source and the path, which is empty if the source takes none.

    Raises:
        InputError: The source is unknown, its path is missing, or it takes no path.
    """
    name, colon, path = text.partition(":")
    source = DATA_SOURCES.get(name)
    if source is None or source.takes_path != bool(path) or bool(colon) != bool(path):
        known = ", ".join(map(form_of, DATA_SOURCES))
        raise InputError("AS201", f"the data source '{text}' is unknown; choose one of {known}")
    return name, source, path
