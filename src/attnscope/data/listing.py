"""List the image files of class folders, and whatever is passed over. Does not import torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from attnscope.errors import InputError

_IMAGE_SUFFIXES = {
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"),
}
_OTHER_IMAGE_SUFFIXES = {
    *(".avif", ".heic", ".heif", ".jp2", ".jxl", ".pbm", ".pgm", ".pnm", ".svg", ".psd", ".dcm"),
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raw", ".exr", ".tga", ".ico", ".nii"),
}
_SYSTEM_FILES = {".ds_store", "desktop.ini", "thumbs.db"}
_SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information"}
# The first bytes of image files: JPEG, PNG, GIF, TIFF, BMP, PPM. RIFF and ISO files say more later.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"BM", b"P6")
_LONGEST_SIGNATURE = 16
_SHOWN = 3  # names in one line
_NO_IMAGE = "file that is not an image", "files that are not images"
_NO_FORMAT = "image file in an unsupported format", "image files in unsupported formats"
_NO_CLASS = "image outside the class folders", "images outside the class folders"
_HIDDEN = "hidden file or folder with images", "hidden files or folders with images"
_JUNK = "folder that a system made", "folders that a system made"
_CIRCLE = "link to a folder that contains it", "links to folders that contain them"
_NO_SPLIT = "folder that is not a split", "folders that are not splits"


@dataclass
class PassedOver:
    """Files and folders that are not read, by reason."""

    root: Path
    skips_unreadable: bool = False
    """Whether folders that cannot be read are passed over; otherwise they are refused."""
    unreadable: list[str] = field(default_factory=list)
    """One line for each folder that cannot be read, with the reason."""
    _names: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, path: Path, reason: tuple[str, str]) -> None:
        """Add a path with the reason why it is not read, in the singular and the plural."""
        self._names.setdefault(reason, []).append(self._shown(path))

    def add_unreadable(self, folder: Path, reason: str) -> None:
        """Add a folder that cannot be read."""
        self.unreadable.append(f"{self._shown(folder)} and what is in it ({reason})")

    def _shown(self, path: Path) -> str:
        name = path.relative_to(self.root).as_posix()
        # Names can contain control codes, and bytes that are not UTF-8 and cannot be printed.
        shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
        return "".join(shown)

    def lines(self) -> list[str]:
        """Return one line for each reason, with the number of paths and the first of them."""
        lines = []
        for reason, names in self._names.items():
            names = sorted(names)
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            lines.append(f"passed over {len(names)} {reason[len(names) > 1]}: {shown}")
        return lines


@dataclass
class ClassListing:
    """The image files of one folder of class folders."""

    images: dict[str, list[str]] = field(default_factory=dict)
    """Class -> the paths of its images relative to the image folder, sorted. Classes without images
    are left out. There may be millions of paths, which are kept as text only."""
    folders: list[Path] = field(default_factory=list)
    """All class folders, also those without images."""


def list_images(folder: Path, passed: PassedOver) -> ClassListing:
    """List the images in the class folders of a folder, following links.

    Args:
        folder: A split, or a whole image folder without splits.
        passed: Collects what is not read; its root is the image folder.

    Raises:
        InputError: The name of a file is not UTF-8, or a folder cannot be read.
    """
    listing = ClassListing()
    for path in entries(folder, passed, needed=True):
        if _is_junk(path, passed):
            continue
        if not path.is_dir():
            _pass_over_file(path, passed, loose=True)
            continue
        listing.folders.append(path)
        found = sorted(_walk(path, passed, _with_parents(path)))
        if found:
            listing.images[path.name] = [file.relative_to(passed.root).as_posix() for file in found]
    return listing


def entries(folder: Path, passed: PassedOver, *, needed: bool = False) -> list[Path]:
    """Return what a folder contains, sorted.

    A folder that cannot be read is passed over if that is wanted and it is not needed.

    Raises:
        InputError: AS215, the folder cannot be read.
    """
    reason = "Permission denied"
    try:
        # A folder that can be listed and not entered has names, and no files.
        if os.access(folder, os.R_OK | os.X_OK):
            return sorted(folder.iterdir())
    except OSError as error:
        reason = str(error.strerror)
    if passed.skips_unreadable and not needed:
        passed.add_unreadable(folder, reason)
        return []
    raise InputError(
        "AS215",
        f"the folder {folder} cannot be read ({reason}); correct its permissions"
        + ("" if needed else ", or pass it over with --skip-unreadable"),
    )


def pass_over_others(root: Path, splits: tuple[Path, ...], passed: PassedOver) -> None:
    """Add what lies beside the folders of the splits."""
    for path in entries(root, passed):
        if path in splits or _is_junk(path, passed):
            continue
        if path.is_dir():
            passed.add(path, _NO_SPLIT)
        else:
            _pass_over_file(path, passed, loose=True)


def has_loose_images(folder: Path) -> bool:
    """Return whether images lie in a folder itself and none in the folders in it."""
    try:
        paths = list(folder.iterdir())
    except OSError:  # it is refused where it is read
        return False
    return any(map(_is_image, paths)) and not any(
        _holds_image(path) for path in paths if path.is_dir()
    )


def _with_parents(folder: Path) -> frozenset[str]:
    """Return the real paths of a folder and of all folders that contain it or a link to it."""
    real = Path(os.path.realpath(folder))
    parents = Path(os.path.realpath(folder.parent))
    return frozenset(map(str, (real, *real.parents, parents, *parents.parents)))


def _walk(folder: Path, passed: PassedOver, above: frozenset[str]) -> Iterator[Path]:
    """Yield the image files of a class folder; ``above`` are the real paths of its parents."""
    for path in entries(folder, passed):
        if _is_junk(path, passed):
            continue
        if path.is_dir():
            real = os.path.realpath(path)
            if real in above:
                passed.add(path, _CIRCLE)
            else:
                yield from _walk(path, passed, above | {real})
        elif _is_image(path):
            _expect_utf8(path)
            yield path
        else:
            _pass_over_file(path, passed)


def _is_image(file: Path) -> bool:
    """Return whether a file is read as an image: by its suffix, or by its content without one."""
    suffix = file.suffix.lower()
    if suffix in _IMAGE_SUFFIXES or (suffix == ".avif" and _reads_avif()):
        return True
    # A pipe would block.
    return not suffix and file.is_file() and _has_signature(file)


def _has_signature(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            start = opened.read(_LONGEST_SIGNATURE)
    except OSError:
        return False
    return (
        start.startswith(_SIGNATURES)
        or (start.startswith(b"RIFF") and start[8:12] == b"WEBP")
        or (start[4:12] in (b"ftypavif", b"ftypavis") and _reads_avif())
    )


def _reads_avif() -> bool:
    """Return whether Pillow can read AVIF; it depends on how it was built."""
    from PIL import features

    return "avif" in features.modules and bool(features.check("avif"))


def _is_junk(path: Path, passed: PassedOver) -> bool:
    """Return whether a path is hidden or made by a system, and note it if images may be in it."""
    name = path.name.lower()
    if name in _SYSTEM_FILES or name.startswith("._"):
        return True
    if name in _SYSTEM_FOLDERS and path.is_dir():
        passed.add(path, _JUNK)
        return True
    if not name.startswith("."):
        return False
    if _holds_image(path) if path.is_dir() else path.suffix.lower() in _IMAGE_SUFFIXES:
        passed.add(path, _HIDDEN)
    return True


def _holds_image(folder: Path) -> bool:
    return any(
        os.path.splitext(name)[1].lower() in _IMAGE_SUFFIXES
        for _, _, names in os.walk(folder)
        for name in names
    )


def _pass_over_file(file: Path, passed: PassedOver, *, loose: bool = False) -> None:
    if loose and _is_image(file):
        passed.add(file, _NO_CLASS)
    elif file.suffix.lower() in _OTHER_IMAGE_SUFFIXES:
        passed.add(file, _NO_FORMAT)
    else:
        passed.add(file, _NO_IMAGE)


def _expect_utf8(file: Path) -> None:
    try:
        str(file).encode()
    except UnicodeEncodeError:
        raise InputError(
            "AS216", f"the file name {str(file)!a} is not UTF-8; rename the file"
        ) from None
