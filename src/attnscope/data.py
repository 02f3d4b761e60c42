"""Labelled images by one string, ``digits`` or ``folder:PATH``: decoded, split, normalised."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from attnscope.errors import InputError, first_line

SOURCES = ("digits", "cifar10", "cifar100", "folder:PATH")
_IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_MEMORY_LIMIT = 8 * 2**30  # bytes of decoded images that are held
_LARGEST_NATIVE = 96  # pixels; larger images, or images of several sizes, are resized
_DEFAULT_RESIZE = 224
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation per RGB channel of pixels in 0 to 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, images: Tensor) -> Tensor:
        """uint8 ``(N, 3, H, W)`` -> normalised float32, of the same shape and channels-last."""
        # One multiplication and one addition, channels-last: what the first convolution wants.
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=images.device)[:, None, None]
            for v in (self.mean, self.std)
        )
        x = images.to(torch.float32, memory_format=torch.channels_last)
        return x.mul_(1 / (255 * std)).sub_(mean / std)

    def undo(self, images: Tensor) -> Tensor:
        """Normalised float ``(N, 3, H, W)`` -> uint8, rounded and clipped to 0..255."""
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=images.device)[:, None, None]
            for v in (self.mean, self.std)
        )
        return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


_KNOWN_NORMALIZATIONS = {
    "cifar10": Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalization((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


@dataclass(frozen=True)
class LabelledImages:
    """Images of one size in memory, with what a recording needs to know about each."""

    images: Tensor
    """uint8, ``(N, 3, H, W)``"""
    labels: Tensor
    """int64, ``(N,)``, indices into ``classes``"""
    paths: list[str]
    """Where each image comes from, relative to its source; unique."""
    classes: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def center_crop(self, size: int) -> LabelledImages:
        """The middle of each image, ``size`` pixels high and wide."""
        margin = (self.images.shape[-1] - size) // 2
        if not margin and self.images.shape[-1] == size:
            return self
        middle = self.images[:, :, margin : margin + size, margin : margin + size]
        return replace(self, images=middle.contiguous())

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> LabelledImages:
        index = np.arange(len(self))[rows]
        return LabelledImages(
            self.images[index], self.labels[index], [self.paths[i] for i in index], self.classes
        )


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
        kept, held_out = _stratified_split(
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
        return _digits(side or 32), []
    if source in ("cifar10", "cifar100"):
        return _cifar(source, data_root, side or 32, download), []
    if name == "folder" and path:
        return _folder(Path(path).expanduser(), side, skip_unreadable, test_alone)
    raise InputError(f"data source '{source}' is not known; take one of {', '.join(SOURCES)}")


def batches(part: LabelledImages, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """``(images, labels)`` in order, the last batch smaller."""
    for start in range(0, len(part), batch_size):
        yield part.images[start : start + batch_size], part.labels[start : start + batch_size]


def _digits(image_size: int) -> list[LabelledImages]:
    from sklearn.datasets import load_digits  # slow to import, and only this source needs it

    _check_memory(1797, image_size)
    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)  # 8×8, values 0 to 16
    images = _resize(small, image_size).expand(-1, 3, -1, -1).contiguous()
    whole = LabelledImages(
        images,
        torch.from_numpy(digits.target).long(),
        [f"digits/{i}" for i in range(len(images))],
        [str(c) for c in digits.target_names],
    )
    # The test part is the same for every seed, so that runs of several seeds can be compared.
    kept, test = _stratified_split(digits.target, whole.classes, 0.2, seed=0)
    return [whole[kept], whole[test]]


def _cifar(name: str, root: Path, image_size: int, download: bool) -> list[LabelledImages]:
    from torchvision.datasets import CIFAR10, CIFAR100

    _check_memory(60_000, image_size)
    # torchvision unpickles these files, but only where their MD5 is that of the published ones.
    source = CIFAR10 if name == "cifar10" else CIFAR100
    try:
        datasets = [source(root, train) for train in (True, False)]
    except Exception as error:  # RuntimeError says that files are missing or changed
        if not download:
            raise InputError(
                f"{name} does not lie whole under {root} ({first_line(error)}); "
                "set --data-root to where it lies, or download it there"
            ) from None
        missing = not root.exists()
        try:
            datasets = [source(root, train, download=True) for train in (True, False)]
        except Exception as error:  # URLError, OSError: whatever a download meets
            if missing and root.is_dir() and not any(root.iterdir()):
                root.rmdir()  # torchvision makes it before it has anything to put there
            raise InputError(
                f"{name} is neither under {root} nor could it be downloaded "
                f"({first_line(error)}); set --data-root to where it lies"
            ) from None
    parts = []
    for part, dataset in zip(("train", "test"), datasets, strict=True):
        images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2)
        if image_size != 32:
            images = _resize(images, image_size)
        parts.append(
            LabelledImages(
                images.contiguous(),
                torch.tensor(dataset.targets),
                [f"{part}/{i}" for i in range(len(images))],
                list(dataset.classes),
            )
        )
    return parts


def _folder(
    root: Path, image_size: int | None, skip_unreadable: bool, test_alone: bool
) -> tuple[list[LabelledImages], list[str]]:
    if not root.is_dir():
        raise InputError(f"folder {root} does not exist; check the path after 'folder:'")
    if not (root / "train").is_dir():
        raise InputError(
            f"{root} has no folder train/; it must hold train/<class>/ and test/<class>/"
        )
    held_out = [name for name in ("val", "eval", "test") if (root / name).is_dir()]
    if not held_out:
        raise InputError(f"{root} has no folder test/, val/ or eval/ beside train/; make one")
    if len(held_out) == 3:
        raise InputError(
            f"{root} has val/, eval/ and test/; remove one, it is not clear which is which"
        )
    names = ["train", *held_out]
    listings = {name: _list_folder(root, root / name) for name in names}
    classes = sorted({c for c, _ in listings["train"]})
    for folder in _class_folders(root / "train"):
        if folder.name not in classes:
            raise InputError(f"{folder} holds no image; add some or remove the folder")
    if len(classes) < 2:
        found = f"one class, {classes[0]}" if classes else "no image"
        raise InputError(f"{root / 'train'} holds {found}; it needs two folders of images or more")
    for name in held_out:
        foreign = sorted({c for c, _ in listings[name]} - set(classes))
        if foreign:
            raise InputError(f"{root / name} has the class {foreign[0]}, which train/ has not")
        if not listings[name]:
            raise InputError(f"{root / name} holds no image; it needs <class>/<image> files")
    size = image_size or _common_size(root, [f for name in names for _, f in listings[name]])
    names = names[-1:] if test_alone else names
    files = [file for name in names for _, file in listings[name]]
    _check_memory(len(files), size)
    decoded, unreadable = _attempt(root, files, lambda file: _read_image(file, size))
    if unreadable:
        shown = "; ".join(unreadable[:3]) + ("; ..." if len(unreadable) > 3 else "")
        if not skip_unreadable:
            raise InputError(
                f"{len(unreadable)} of {len(files)} images cannot be read: {shown}; "
                "mend them, or go on without them with --skip-unreadable"
            )
    parts = []
    for name in names:
        kept = [(c, f) for c, f in listings[name] if f in decoded]
        missing = sorted(set(classes) - {c for c, _ in kept}) if name == "train" else []
        if missing or not kept:
            what = f"class {missing[0]} of {root / name}" if missing else str(root / name)
            raise InputError(f"{what} has no readable image; add some")
        parts.append(
            LabelledImages(
                torch.stack([decoded[f] for _, f in kept]),
                torch.tensor([classes.index(c) for c, _ in kept]),
                [f.relative_to(root).as_posix() for _, f in kept],
                classes,
            )
        )
    return parts, unreadable


def _class_folders(part: Path) -> list[Path]:
    return sorted(p for p in part.iterdir() if p.is_dir() and not p.name.startswith("."))


def _list_folder(root: Path, part: Path) -> list[tuple[str, Path]]:
    inside = root.resolve()
    found = []
    for folder in _class_folders(part):
        for file in sorted(folder.rglob("*")):
            # Hidden files are what systems leave behind: "._cat.jpg" is no image.
            if any(name.startswith(".") for name in file.relative_to(folder).parts):
                continue
            if file.is_dir() and file.is_symlink():
                raise InputError(f"{file} is a link to a folder; replace it by the folder")
            if file.suffix.lower() not in _IMAGE_SUFFIXES or file.is_dir():
                continue
            if not Path(os.path.realpath(file)).is_relative_to(inside):
                raise InputError(f"{file} leads outside {root}; replace the link by the file")
            try:
                str(file).encode()
            except UnicodeEncodeError:
                raise InputError(
                    f"the name of {str(file)!a} is not UTF-8; rename the file"
                ) from None
            found.append((folder.name, file))
    return found


def _common_size(root: Path, files: list[Path]) -> int:
    """The side of the images where all have one and it is small, else the default."""
    sizes, _ = _attempt(root, files, _image_size)
    if len(set(sizes.values())) == 1:
        width, height = next(iter(sizes.values()))
        if width == height and width <= _LARGEST_NATIVE:
            return width
    return _DEFAULT_RESIZE


def _attempt(
    root: Path, files: list[Path], read: Callable[[Path], _Read]
) -> tuple[dict[Path, _Read], list[str]]:
    """What was read of every readable file; what could not be read, and why."""

    def one(file: Path) -> _Read | str:
        try:
            if not file.is_file():  # a link that leads nowhere; a pipe would block
                return f"{file.relative_to(root)} (no regular file)"
            if not file.stat().st_size:
                return f"{file.relative_to(root)} (empty file)"
            return read(file)
        except Exception as error:  # Pillow's decoders raise what they like on broken files
            reason = first_line(error).split(" '")[0].rstrip(":")
            return f"{file.relative_to(root)} ({reason})"

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        results = dict(zip(files, pool.map(one, files), strict=True))
    good = {f: r for f, r in results.items() if not isinstance(r, str)}
    return good, [r for r in results.values() if isinstance(r, str)]


def _check_memory(count: int, image_size: int) -> None:
    need = count * 3 * image_size**2
    if need > _MEMORY_LIMIT:
        raise InputError(
            f"{count} images of {image_size}×{image_size} need {need / 2**30:.1f} GiB of memory, "
            f"more than {_MEMORY_LIMIT / 2**30:.0f}; take a smaller --image-size"
        )


def _resize(images: Tensor, size: int) -> Tensor:
    """``(N, C, H, W)`` of values 0 to 255 -> uint8 ``(N, C, size, size)``."""
    resized = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)
    for start in range(0, len(images), 1024):  # in float32 the whole is four times what is kept
        piece = images[start : start + 1024].float()
        piece = F.interpolate(piece, size=size, mode="bilinear", antialias=True)
        resized[start : start + 1024] = piece.round().clamp(0, 255).to(torch.uint8)
    return resized


def _image_size(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


def _read_image(file: Path, size: int) -> Tensor:
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):
            # 16 bits a pixel: Pillow's own conversion to RGB clips at 255 instead of scaling.
            deep = np.asarray(image).astype(np.int64)
            if deep.min() < 0 or deep.max() > 65535:
                raise ValueError("pixels of more than 16 bits")
            image = Image.fromarray((deep / 257).round().astype(np.uint8))
        elif image.mode == "F":
            raise ValueError("floating-point pixels, whose white is not known")
        elif image.mode in ("P", "PA"):
            image = image.convert("RGBA")  # straight to RGB, Pillow warns of transparent colours
        image = image.convert("RGB")
    if image.size != (size, size):
        # Resized and centre cropped at once: the whole of a very long image could fill the memory.
        wide, high = image.size
        short = min(wide, high)
        left, top = (wide - short) / 2, (high - short) / 2
        box = (left, top, left + short, top + short)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _stratified_split(
    labels: NDArray[np.int64], classes: list[str], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows kept and rows held out, ``share`` of each class (at least one, never all), in order."""
    generator = np.random.default_rng(seed)
    held_out = []
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        if len(rows) < 2:
            raise InputError(
                f"class {classes[label]} has one training image only; "
                "two are needed to hold one out for validation"
            )
        held_out.append(rows[: min(max(1, round(share * len(rows))), len(rows) - 1)])
    out = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), out), out


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
