"""Image folders: ``PATH/train/CLASS/*`` and ``PATH/test/CLASS/*``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from attnscope.data.images import LabelledImages, check_memory
from attnscope.errors import InputError, first_line

_IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_LARGEST_NATIVE = 96  # pixels; larger images, or images of several sizes, are resized
_DEFAULT_RESIZE = 224
_Read = TypeVar("_Read")


def load_folder(
    root: Path, image_size: int | None, skip_unreadable: bool, test_alone: bool
) -> tuple[list[LabelledImages], list[str]]:
    """The splits of an image folder, and one line for each file that cannot be read.

    Raises:
        InputError: the folder has another layout, or holds files that cannot be read.
    """
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
    check_memory(len(files), size)
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
