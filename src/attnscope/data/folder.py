"""Image folders: ``PATH/train/CLASS/*`` and ``PATH/test/CLASS/*``."""

from __future__ import annotations

import os
from pathlib import Path

from attnscope.data.sources import DataRequest, DataSource, LoadedSplits, register_data_source
from attnscope.errors import InputError

_IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def load(request: DataRequest) -> LoadedSplits:
    """Load the splits of an image folder.

    The splits beside ``train`` are named ``val``, ``eval`` or ``test``. If there are two of them,
    the first in this order is the validation split and the second is the test split.

    Returns:
        The splits, and one line for each file that was skipped.

    Raises:
        InputError: The folder has another layout, or contains files that cannot be read.
    """
    root = Path(request.path).expanduser()
    return _load_folder(root, request.image_size, request.skip_unreadable, request.test_alone)


register_data_source(
    "folder",
    DataSource(
        load, help="a folder with train/CLASS/ and test/CLASS/", takes_path=True, image_size=None
    ),
)


def _load_folder(
    root: Path, image_size: int | None, skip_unreadable: bool, test_alone: bool
) -> LoadedSplits:
    import torch

    from attnscope.data.decoding import choose_image_size, read_files, read_image
    from attnscope.data.images import LabeledImages, check_memory

    if not root.is_dir():
        raise InputError(
            "AS204", f"the image folder {root} does not exist; check the path after 'folder:'"
        )
    if not (root / "train").is_dir():
        raise InputError(
            "AS205",
            f"the image folder {root} has no folder train/; create train/CLASS/ and test/CLASS/",
        )
    held_out = [name for name in ("val", "eval", "test") if (root / name).is_dir()]
    if not held_out:
        raise InputError(
            "AS206",
            f"the image folder {root} has no folder test/, val/ or eval/ beside train/; create one",
        )
    if len(held_out) == 3:
        raise InputError(
            "AS207",
            f"the image folder {root} has val/, eval/ and test/, but only two of them can be used; "
            "remove one",
        )
    names = ["train", *held_out]
    listings = {name: _list_images(root, root / name) for name in names}
    classes = sorted({c for c, _ in listings["train"]})
    for folder in _class_folders(root / "train"):
        if folder.name not in classes:
            raise InputError(
                "AS208", f"the class folder {folder} has no images; add some or remove the folder"
            )
    if len(classes) < 2:
        found = f"only the class {classes[0]}" if classes else "no class folders"
        raise InputError(
            "AS209", f"{root / 'train'} has {found}; it needs at least two folders with images"
        )
    for name in held_out:
        unknown = sorted({c for c, _ in listings[name]} - set(classes))
        if unknown:
            raise InputError(
                "AS210",
                f"{root / name} has the class {unknown[0]}, which {root / 'train'} does not have; "
                "add training images of this class or remove its folder",
            )
        if not listings[name]:
            raise InputError(
                "AS211", f"{root / name} has no images; add image files in CLASS/ folders"
            )
    size = image_size or choose_image_size(root, [f for name in names for _, f in listings[name]])
    names = names[-1:] if test_alone else names
    files = [file for name in names for _, file in listings[name]]
    check_memory(len(files), size)
    decoded, unreadable = read_files(root, files, lambda file: read_image(file, size))
    if unreadable and not skip_unreadable:
        shown = "; ".join(unreadable[:3]) + ("; ..." if len(unreadable) > 3 else "")
        raise InputError(
            "AS212",
            f"{len(unreadable)} of {len(files)} images cannot be read: {shown}; "
            "repair or remove them, or skip them with --skip-unreadable",
        )
    splits = []
    for name in names:
        kept = [(c, f) for c, f in listings[name] if f in decoded]
        missing = sorted(set(classes) - {c for c, _ in kept}) if name == "train" else []
        if missing or not kept:
            where = f"the class {missing[0]} of {root / name}" if missing else str(root / name)
            raise InputError("AS213", f"{where} has no readable images; add some")
        splits.append(
            LabeledImages(
                torch.stack([decoded[f] for _, f in kept]),
                torch.tensor([classes.index(c) for c, _ in kept]),
                [f.relative_to(root).as_posix() for _, f in kept],
                classes,
            )
        )
    return LoadedSplits(splits, unreadable)


def _class_folders(split: Path) -> list[Path]:
    return sorted(p for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))


def _list_images(root: Path, split: Path) -> list[tuple[str, Path]]:
    """Return the class and the path of every image of a split, sorted by both."""
    resolved_root = root.resolve()
    found = []
    for folder in _class_folders(split):
        for file in sorted(folder.rglob("*")):
            # Operating systems leave hidden files behind, such as "._cat.jpg", which are no images.
            if any(name.startswith(".") for name in file.relative_to(folder).parts):
                continue
            if file.is_dir() and file.is_symlink():
                raise InputError(
                    "AS214", f"{file} is a symbolic link to a folder; replace it by the folder"
                )
            if file.suffix.lower() not in _IMAGE_SUFFIXES or file.is_dir():
                continue
            if not Path(os.path.realpath(file)).is_relative_to(resolved_root):
                raise InputError(
                    "AS215",
                    f"the symbolic link {file} leads out of {root}; replace it by the file",
                )
            try:
                str(file).encode()
            except UnicodeEncodeError:
                raise InputError(
                    "AS216", f"the file name {str(file)!a} is not UTF-8; rename the file"
                ) from None
            found.append((folder.name, file))
    return found
