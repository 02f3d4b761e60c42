"""Labeled images by one string, ``digits`` or ``folder:PATH``: decoded, split, normalized."""

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


@dataclass(frozen=True)
class Data:
    """The three parts of a source, and the normalization of its training split."""

    source: str
    train: LabeledImages
    validation: LabeledImages
    test: LabeledImages
    normalization: Normalization
    may_flip: bool
    """Whether a mirrored image keeps its class; not so for digits."""
    skipped: list[str]
    """Files that could not be read, each with the reason."""

    def fingerprints(self) -> dict[str, dict[str, int | str]]:
        """Of each part the number of its images, and a SHA-256 over their paths and labels."""
        found: dict[str, dict[str, int | str]] = {}
        for name in ("train", "validation", "test"):
            part: LabeledImages = getattr(self, name)
            digest = hashlib.sha256("\n".join(part.paths).encode())
            digest.update(part.labels.numpy().tobytes())
            found[name] = {"images": len(part), "sha256": digest.hexdigest()}
        return found

    @property
    def classes(self) -> list[str]:
        """Names, by label."""
        return self.test.classes

    @property
    def image_size(self) -> int:
        """Height and width in pixels of the images that a network gets."""
        return self.test.images.shape[-1]


@dataclass(frozen=True)
class DataSettings:
    """Which images, and how they are split; equal settings give equal splits.

    Raises:
        InputError: the source is not known, or a value is out of range.
    """

    source: str = "digits"
    """``NAME`` or ``NAME:PATH`` of `attnscope.data.sources.DATA_SOURCES`."""
    data_root: Path = Path("data")
    """Where torchvision's sets lie, or are downloaded to."""
    image_size: int | None = None
    """Height and width in pixels; None: the source's own."""
    resize: int | None = None
    """Pixels to which images are resized before, ``image_size`` or more."""
    validation_share: float = 0.1
    """Share of the training split that becomes validation, where the source has none."""
    seed: int = 0
    """Random seed of that split."""
    skip_unreadable: bool = False
    """Go on without files that cannot be read, and name them in ``Data.skipped``."""

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise InputError(f"validation share {self.validation_share} must lie between 0 and 1")
        if self.seed < 0:
            raise InputError(f"seed {self.seed} must be 0 or more")
        size, resize = self.image_size, self.resize
        if size is not None and not 8 <= size <= 1024:
            raise InputError(f"image size {size} must lie between 8 and 1024 pixels")
        if resize is not None and not (size is not None and size <= resize <= 1024):
            raise InputError(f"resize {resize} must lie between the image size and 1024 pixels")
        find_source(self.source)

    def load(self, download: bool = True) -> Data:
        """All three splits.

        Args:
            download: whether something may be downloaded.

        Raises:
            InputError: the source is not there, or cannot be used.
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
        """The test split of `load`, and which of its files were skipped.

        A source may leave the other splits unread: they may be too many for the memory.

        Raises:
            InputError: as `load`.
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
    data_root: Path = Path("data"),
    image_size: int | None = None,
    resize: int | None = None,
    validation_share: float = 0.1,
    seed: int = 0,
    download: bool = True,
    skip_unreadable: bool = False,
) -> Data:
    """Loads a source and splits it; the same arguments give the same parts.

    Args:
        source: ``digits`` (scikit-learn's 1,797 images, included), ``cifar10`` or ``cifar100``
            (torchvision), ``folder:PATH`` with ``train/<class>/*`` and ``test/<class>/*``
            (``val`` and ``eval`` do as well; of three parts the middle one is validation), or
            another of `attnscope.data.sources.DATA_SOURCES`.
        data_root: where torchvision's sets lie, or are downloaded to.
        image_size: pixels; default 32, and for folders the images' own size where all have one of
            at most 96 pixels, else 224 (shorter side resized, center cropped).
        resize: pixels to which the images are resized before, ``image_size`` or more. Validation
            and test images are cropped from their centers; training images keep this size, for an
            augmentation that crops.
        validation_share: share of the training split that becomes validation, class by class, where
            the source has no validation split.
        seed: of that split.
        download: whether cifar10 and cifar100 may be downloaded.
        skip_unreadable: go on without files that cannot be read, naming them in ``Data.skipped``.

    Raises:
        InputError: the source is not known, not there, or cannot be used.
    """
    settings = DataSettings(
        source, data_root, image_size, resize, validation_share, seed, skip_unreadable
    )
    return settings.load(download)


def _measure_normalization(images: Tensor) -> Normalization:
    """Over all pixels of uint8 ``(N, 3, H, W)``, from exact counts of the 256 values."""
    mean, std = [], []
    values = torch.arange(256, dtype=torch.float64) / 255
    for channel in range(3):
        counts = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        m = (counts * values).sum() / counts.sum()
        variance = (counts * (values - m) ** 2).sum() / counts.sum()
        mean.append(round(m.item(), 4))
        std.append(round(max(variance.sqrt().item(), 1 / 255), 4))
    return Normalization((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
