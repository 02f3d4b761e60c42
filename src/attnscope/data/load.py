"""Labeled images by one string, ``digits`` or ``folder:PATH``: decoded, split, normalized."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attnscope.data.cifar import load_cifar
from attnscope.data.digits import load_digits_split
from attnscope.data.folder import load_folder
from attnscope.data.images import LabelledImages, Normalization
from attnscope.data.splits import stratified_split
from attnscope.errors import InputError

SOURCES = ("digits", "cifar10", "cifar100", "folder:PATH")


_KNOWN_NORMALIZATIONS = {
    "cifar10": Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalization((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


@dataclass(frozen=True)
class Data:
    """The three parts of a source, and the normalisation of its training part."""

    source: str
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    normalization: Normalization
    may_flip: bool
    """Whether a mirrored image keeps its class; not so for digits."""
    skipped: list[str]
    """Files that could not be read, each with the reason."""

    def fingerprints(self) -> dict[str, dict[str, int | str]]:
        """Of each part the number of its images, and a SHA-256 over their paths and labels."""
        found: dict[str, dict[str, int | str]] = {}
        for name in ("train", "validation", "test"):
            part: LabelledImages = getattr(self, name)
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
            (torchvision), or ``folder:PATH`` with ``train/<class>/*`` and ``test/<class>/*``
            (``val`` and ``eval`` do as well; of three parts the middle one is validation).
        data_root: where torchvision's sets lie, or are downloaded to.
        image_size: pixels; default 32, and for folders the images' own size where all have one of
            at most 96 pixels, else 224 (shorter side resized, centre cropped).
        resize: pixels to which the images are resized before, ``image_size`` or more. Validation
            and test images are cropped from their centres; training images keep this size, for an
            augmentation that crops.
        validation_share: share of the training part that becomes validation, class by class, where
            the source has no validation part.
        seed: of that split.
        download: whether cifar10 and cifar100 may be downloaded.
        skip_unreadable: go on without files that cannot be read, naming them in ``Data.skipped``.

    Raises:
        InputError: the source is not known, not there, or cannot be used.
    """
    if not 0 < validation_share < 1:
        raise InputError(f"validation share {validation_share} must lie between 0 and 1")
    if seed < 0:
        raise InputError(f"seed {seed} must be 0 or more")
    parts, skipped = _parts(source, data_root, image_size, resize, download, skip_unreadable)
    train, test = parts[0], parts[-1]
    if len(parts) == 3:
        validation = parts[1]
    else:
        kept, held_out = stratified_split(
            train.labels.numpy(), train.classes, validation_share, seed
        )
        train, validation = train[kept], train[held_out]
    if image_size is not None:
        validation, test = (part.center_crop(image_size) for part in (validation, test))
    normalization = _KNOWN_NORMALIZATIONS.get(source) or _measure_normalization(train.images)
    return Data(source, train, validation, test, normalization, source != "digits", skipped)


def load_test_part(
    source: str,
    *,
    data_root: Path = Path("data"),
    image_size: int | None = None,
    resize: int | None = None,
    download: bool = True,
    skip_unreadable: bool = False,
) -> tuple[LabelledImages, list[str]]:
    """The test part of `load_data`, and which of its files were skipped.

    Of a folder the images of other parts are not read: they may be too many for the memory.

    Args:
        source: of `load_data`, as are all others.
        data_root: as there.
        image_size: as there.
        resize: as there.
        download: as there.
        skip_unreadable: as there.

    Raises:
        InputError: as `load_data`.
    """
    parts, skipped = _parts(
        source, data_root, image_size, resize, download, skip_unreadable, test_alone=True
    )
    test = parts[-1]
    return test if image_size is None else test.center_crop(image_size), skipped


def _parts(
    source: str,
    data_root: Path,
    image_size: int | None,
    resize: int | None,
    download: bool,
    skip_unreadable: bool,
    test_alone: bool = False,
) -> tuple[list[LabelledImages], list[str]]:
    """The parts that a source has, the last of them for the test, and what was skipped."""
    if image_size is not None and not 8 <= image_size <= 1024:
        raise InputError(f"image size {image_size} must lie between 8 and 1024 pixels")
    if resize is not None and not (image_size is not None and image_size <= resize <= 1024):
        raise InputError(f"resize {resize} must lie between the image size and 1024 pixels")
    name, _, path = source.partition(":")
    side = resize or image_size
    if source == "digits":
        return load_digits_split(side or 32), []
    if source in ("cifar10", "cifar100"):
        return load_cifar(source, data_root, side or 32, download), []
    if name == "folder" and path:
        return load_folder(Path(path).expanduser(), side, skip_unreadable, test_alone)
    raise InputError(f"data source '{source}' is not known; take one of {', '.join(SOURCES)}")


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
