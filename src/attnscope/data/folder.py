"""Image folders: ``PATH/train/CLASS/*`` and ``PATH/test/CLASS/*``."""

from __future__ import annotations

import os
from pathlib import Path

from attnscope.data.sources import DataRequest, DataSource, LoadedSplits, register_data_source
from attnscope.errors import InputError

_IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def load(request: DataRequest) -> LoadedSplits:
    """The splits of an image folder, and one line for each file that cannot be read.

    Of three splits (``val`` or ``eval`` beside ``test``) the middle one is validation.

    Raises:
        InputError: the folder has another layout, or holds files that cannot be read.
    """
    root = Path(request.path).expanduser()
    return _load_folder(root, request.image_size, request.skip_unreadable, request.test_alone)


register_data_source(
    "folder",
    DataSource(
        load, help="with train/CLASS/ and test/CLASS/ in it", takes_path=True, image_size=None
    ),
)


def _load_folder(
    root: Path, image_size: int | None, skip_unreadable: bool, test_alone: bool
) -> LoadedSplits:
    import torch

    from attnscope.data.decoding import attempt, common_size, read_image
    from attnscope.data.images import LabeledImages, check_memory

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
    size = image_size or common_size(root, [f for name in names for _, f in listings[name]])
    names = names[-1:] if test_alone else names
    files = [file for name in names for _, file in listings[name]]
    check_memory(len(files), size)
    decoded, unreadable = attempt(root, files, lambda file: read_image(file, size))
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
            LabeledImages(
                torch.stack([decoded[f] for _, f in kept]),
                torch.tensor([classes.index(c) for c, _ in kept]),
                [f.relative_to(root).as_posix() for _, f in kept],
                classes,
            )
        )
    return LoadedSplits(parts, unreadable)


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
