"""Load labeled images from a source such as ``digits`` or ``folder:PATH``, and split them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

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

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(split):,}" for name, split in self._splits().items())
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"<Data {self.source!r}: {sizes} images of {self.image_size}×{self.image_size} pixels, "
            f"{len(self.classes)} classes{skipped}>"
        )

    def fingerprints(self) -> dict[str, dict[str, int | str]]:
        """Return the number of images of each split, and the SHA-256 of their paths and labels."""
        found: dict[str, dict[str, int | str]] = {}
        for name, split in self._splits().items():
            digest = hashlib.sha256("\n".join(split.paths).encode())
            digest.update(split.labels.numpy().tobytes())
            found[name] = {"images": len(split), "sha256": digest.hexdigest()}
        return found

    def _splits(self) -> dict[str, LabeledImages]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def classes(self) -> list[str]:
        """The names of the classes; labels are indices into them."""
        return self.test.classes

    @property
    def image_size(self) -> int:
        """Height and width of the images that a network gets, in pixels."""
        return self.test.images.shape[-1]


@dataclass(frozen=True)
class DataSettings:
    """The source of the images, and how they are split. Equal settings give equal splits.

    Raises:
        InputError: The source is unknown, or a value is out of range.
    """

    source: str = "digits"
    """``NAME`` or ``NAME:PATH`` of a source in `attnscope.data.sources.DATA_SOURCES`."""
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

    def __post_init__(self) -> None:
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
        find_source(self.source)

    def load(self, download: bool = True) -> Data:
        """Load all three splits.

        Args:
            download: Whether missing files may be downloaded.

        Raises:
            InputError: The images are missing or cannot be used.
        """
        found = self._read(download, test_alone=False)
        train, test = found.splits[0], found.splits[-1]
        if len(found.splits) == 3:
            validation = found.splits[1]
        else:
            kept, held_out = stratified_split(
                train.labels.numpy(), train.classes, self.validation_share, self.seed
            )
            train, validation = train[kept], train[held_out]
        validation, test = self._crop(validation), self._crop(test)
        _, source, _ = find_source(self.source)
        normalization = source.normalization or _measure_normalization(train.images)
        return Data(
            self.source, train, validation, test, normalization, source.may_flip, found.skipped
        )

    def load_test(self, download: bool = True) -> tuple[LabeledImages, list[str]]:
        """Load the test split only.

        This needs less memory than `load`, because a source may leave the other splits unread.

        Returns:
            The test split of `load`, and one line for each of its files that was skipped.

        Raises:
            InputError: The images are missing or cannot be used.
        """
        found = self._read(download, test_alone=True)
        return self._crop(found.splits[-1]), found.skipped

    def _read(self, download: bool, test_alone: bool) -> LoadedSplits:
        _, source, path = find_source(self.source)
        size = self.resize or self.image_size or source.image_size
        return source.load(
            DataRequest(path, self.data_root, size, download, self.skip_unreadable, test_alone)
        )

    def _crop(self, images: LabeledImages) -> LabeledImages:
        return images if self.image_size is None else images.center_crop(self.image_size)


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
) -> Data:
    """Load a data source and split it. Equal arguments give equal splits.

    Args:
        source: ``digits`` (scikit-learn's 1,797 images, included), ``cifar10`` or ``cifar100``
            (torchvision), ``folder:PATH`` with images in ``train/CLASS/`` and ``test/CLASS/``, or
            another source in `attnscope.data.sources.DATA_SOURCES`. A folder may call the test
            split ``val`` or ``eval``; if it has two of the three, the first in the order val,
            eval, test is the validation split.
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

    Returns:
        The three splits and their normalization.

    Raises:
        InputError: The source is unknown, an argument is out of range, or the images are missing
            or cannot be used.
    """
    settings = DataSettings(
        source, Path(data_root), image_size, resize, validation_share, seed, skip_unreadable
    )
    return settings.load(download)


def _measure_normalization(images: Tensor) -> Normalization:
    """Compute the normalization of uint8 images ``(N, 3, H, W)``, exactly, from value counts."""
    mean, std = [], []
    values = torch.arange(256, dtype=torch.float64) / 255
    for channel in range(3):
        counts = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        m = (counts * values).sum() / counts.sum()
        variance = (counts * (values - m) ** 2).sum() / counts.sum()
        mean.append(round(m.item(), 4))
        std.append(round(max(variance.sqrt().item(), 1 / 255), 4))
    return Normalization((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
