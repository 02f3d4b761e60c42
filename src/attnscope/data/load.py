"""Load labeled images from a source such as ``digits`` or ``folder:PATH``, and split them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from attnscope.data.changes import change_notes
from attnscope.data.classes import ClassOrder, Order
from attnscope.data.datasets import names_data_set, open_data_set
from attnscope.data.images import LabeledImages, Normalization
from attnscope.data.known import find_source
from attnscope.data.sources import DataRequest, LoadedSplits
from attnscope.data.splits import stratified_split
from attnscope.errors import InputError
from attnscope.files import StrPath


@dataclass(frozen=True)
class Data:
    """The three splits of a data source, and the normalization of its images."""

    source: str
    """The source as it was given, such as ``digits`` or ``folder:PATH``."""
    train: LabeledImages
    """The training split."""
    validation: LabeledImages
    """The validation split."""
    test: LabeledImages
    """The test split."""
    normalization: Normalization
    """The published normalization of the source, or that of the training split."""
    may_flip: bool
    """Whether images can be mirrored without changing their class; not so for digits."""
    skipped: list[str]
    """One line for each file that was skipped, with the reason."""
    notes: list[str] = field(default_factory=list)
    """What else a user should know: what was passed over, split or changed; one line each."""
    split_notes: dict[str, list[str]] = field(default_factory=dict)
    """The same for a user of one split: ``train``, ``validation`` or ``test``."""
    changed: list[str] = field(default_factory=list)
    """What has changed since the network of a run was trained, if it was opened although something
    has; one phrase for each split."""
    white: int | None = None
    """The value of white in images with 16 bits per channel; None if there are none."""

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(split):,}" for name, split in self.splits().items())
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"<Data {self.source!r}: {sizes} images of {self.image_size}×{self.image_size} pixels, "
            f"{len(self.classes)} classes{skipped}>"
        )

    def fingerprints(self) -> dict[str, dict[str, int | str]]:
        """Return the number of images of each split, and the SHA-256 of their paths and labels."""
        return {name: summary_of(split) for name, split in self.splits().items()}

    def splits(self) -> dict[str, LabeledImages]:
        """Return the three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def classes(self) -> list[str]:
        """The names of the classes; labels are indices into them."""
        return self.test.classes

    @property
    def image_size(self) -> int:
        """Height and width of the images that a network gets, in pixels."""
        return self.test.shape[-1]


@dataclass(frozen=True)
class DataSettings:
    """The source of the images, and how they are split. Equal settings give equal splits.

    Raises:
        InputError: The source is unknown, or a value is out of range.
    """

    source: str = "digits"
    """``NAME`` or ``NAME:PATH`` of a source in `attnscope.data.sources.DATA_SOURCES`, or
    ``package.module:callable`` of a data set (`attnscope.data.datasets`)."""
    data_root: Path = Path("data")
    """The folder of downloaded data sets."""
    image_size: int | None = None
    """Height and width of the images, in pixels; None means the source's own."""
    resize: int | None = None
    """Height and width to which images are resized before they are cropped, in pixels."""
    validation_share: float = 0.1
    """The share of the training split that becomes validation, if the source has no such split."""
    seed: int = 0
    """The random seed of that split."""
    skip_unreadable: bool = False
    """Skip files that cannot be read, and list them in `Data.skipped`."""
    channels: int | None = None
    """Number of channels of the images; None means the source's own, RGB for image files."""
    class_order: Order = "text"
    """How classes are sorted: 0, 1, 10, 2 (``text``) or 0, 1, 2, 10 (``natural``)."""
    classes: tuple[str, ...] | None = None
    """All classes in the order of the network's outputs; replaces ``class_order``."""

    def __post_init__(self) -> None:
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(self.classes))  # JSON contains lists
        ClassOrder(self.class_order, self.classes)
        if self.channels is not None and self.channels < 1:
            raise InputError("AS227", f"channels is {self.channels}; it must be at least 1")
        if not 0 < self.validation_share < 1:
            raise InputError(
                "AS219",
                f"the validation share is {self.validation_share}; it must be greater than 0 and "
                "less than 1",
            )
        if self.seed < 0:
            raise InputError("AS220", f"the seed is {self.seed}; it must be 0 or greater")
        size, resize = self.image_size, self.resize
        if size is not None and not 8 <= size <= 1024:
            raise InputError(
                "AS221", f"the image size is {size} pixels; it must be between 8 and 1024"
            )
        if resize is not None and size is None:
            raise InputError(
                "AS222",
                f"resize is {resize} pixels, but no image size is given; set the image size",
            )
        if resize is not None and size is not None and not size <= resize <= 1024:
            raise InputError(
                "AS222",
                f"resize is {resize} pixels; it must be between the image size ({size}) and 1024",
            )
        if not self.is_data_set:
            find_source(self.source)
            return
        defaults = DataSettings()
        for name in (
            "image_size",
            "resize",
            "skip_unreadable",
            "channels",
            "class_order",
            "classes",
        ):
            if getattr(self, name) != getattr(defaults, name):
                raise InputError(
                    "AS233",
                    f"--{name.replace('_', '-')} does not apply to {self.source}, a data set that "
                    "gives images as the network gets them; leave it out",
                )

    @property
    def is_data_set(self) -> bool:
        """Whether the source is ``package.module:callable``, a data set of the user."""
        return names_data_set(self.source)

    def open_data_set(self, split: str) -> Dataset[Any]:
        """Open a split of a data set of the user, whose code is run.

        Raises:
            InputError: It cannot be imported, or is no data set.
        """
        return open_data_set(self.source, split)

    def load(self, download: bool = True) -> Data:
        """Load all three splits.

        Args:
            download: Whether missing files may be downloaded.

        Raises:
            InputError: The images are missing or cannot be used.
        """
        found = self._read(download, test_alone=False)
        train, test = found.splits[0], found.splits[-1]
        changes = list(found.changes)
        if len(found.splits) == 3:
            validation = found.splits[1]
        else:
            kept, held_out = stratified_split(
                train.labels.numpy(), train.classes, self.validation_share, self.seed
            )
            train, validation = train[kept], train[held_out]
            if changes:
                changes[:1] = [changes[0].of(kept), changes[0].of(held_out)]
        validation, test = self._crop(validation), self._crop(test)
        _, source, _ = find_source(self.source)
        normalization = source.normalization or train.sum_values().normalization()
        return Data(
            self.source,
            train,
            validation,
            test,
            normalization,
            source.may_flip,
            found.skipped,
            found.notes + change_notes(changes),
            {
                name: found.notes + change_notes(changes[i : i + 1])
                for i, name in enumerate(("train", "validation", "test"))
            },
            white=found.white,
        )

    def load_test(self, download: bool = True) -> LoadedSplits:
        """Load the test split only.

        This needs less memory than `load`, because a source may leave the other splits unread.

        Returns:
            The test split of `load` alone, its skipped files, and notes.

        Raises:
            InputError: The images are missing or cannot be used.
        """
        found = self._read(download, test_alone=True)
        notes = found.notes + change_notes(found.changes[-1:])
        return replace(
            found, splits=[self._crop(found.splits[-1])], notes=notes, changes=found.changes[-1:]
        )

    def _read(self, download: bool, test_alone: bool) -> LoadedSplits:
        if self.is_data_set:
            raise InputError(
                "AS234",
                f"{self.source} is a data set of tensors, and this needs images in files; use "
                "another source, or attnscope capture, which takes it",
            )
        _, source, path = find_source(self.source)
        size = self.resize or self.image_size or source.image_size
        order = ClassOrder(self.class_order, self.classes)
        request = DataRequest(
            path,
            self.data_root,
            size,
            download,
            self.skip_unreadable,
            test_alone,
            self.channels,
            order,
        )
        found = source.load(request)
        splits = [
            images.with_channels(self.channels or images.shape[1]).with_classes(
                order.arrange(images.classes)
            )
            for images in found.splits
        ]
        return replace(found, splits=splits)

    def _crop(self, images: LabeledImages) -> LabeledImages:
        return images if self.image_size is None else images.center_crop(self.image_size)


def summary_of(split: LabeledImages) -> dict[str, int | str]:
    """Return the number of images of a split, and the SHA-256 of their paths and labels."""
    digest = hashlib.sha256("\n".join(split.paths).encode())
    digest.update(split.labels.numpy().tobytes())
    return {"images": len(split), "sha256": digest.hexdigest()}


def load_data(
    source: str = "digits",
    *,
    data_root: StrPath = "data",
    image_size: int | None = None,
    resize: int | None = None,
    validation_share: float = 0.1,
    seed: int = 0,
    download: bool = True,
    skip_unreadable: bool = False,
    channels: int | None = None,
    class_order: Order = "text",
    classes: Sequence[str] | None = None,
) -> Data:
    """Load a data source and split it. Equal arguments give equal splits.

    Args:
        source: ``digits`` (scikit-learn's 1,797 images, included), ``cifar10`` or ``cifar100``
            (torchvision), ``folder:PATH`` with images in ``train/CLASS/`` and ``test/CLASS/``, or
            another source in `attnscope.data.sources.DATA_SOURCES`. The names of the splits are
            those of `attnscope.data.split_folders.SPLIT_NAMES`, in any case; a validation split
            without a test split is the test split. A folder with ``CLASS/`` only is split.
        data_root: The folder of downloaded data sets.
        image_size: Height and width of the images, in pixels. Default: 32; for a folder, the
            images' own size if all are squares of one size up to 96 pixels, else 224. The shorter
            side is resized and the image is center cropped.
        resize: Height and width to which images are resized first, in pixels; at least
            ``image_size``. Validation and test images are then center cropped to ``image_size``.
            Training images keep this size, for an augmentation that crops.
        validation_share: The share of each class of the training split that becomes validation, if
            the source has no validation split.
        seed: The random seed of that split.
        download: Whether cifar10 and cifar100 may be downloaded.
        skip_unreadable: Skip files that cannot be read, and list them in ``Data.skipped``.
        channels: Number of channels of the images: 1 for gray images, or 3 for RGB. From files also
            4, for the bands of RGBA files. Default: the source's own, RGB for image files.
        class_order: How classes are sorted: 0, 1, 10, 2 (``text``) or 0, 1, 2, 10 (``natural``).
        classes: All classes in the order of the network's outputs; replaces ``class_order``.

    Returns:
        The three splits and their normalization.

    Raises:
        InputError: The source is unknown, an argument is out of range, or the images are missing
            or cannot be used.
    """
    settings = DataSettings(
        source,
        Path(data_root),
        image_size,
        resize,
        validation_share,
        seed,
        skip_unreadable,
        channels,
        class_order,
        None if classes is None else tuple(classes),
    )
    return settings.load(download)
