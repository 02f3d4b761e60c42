"""Image folders: ``PATH/train/CLASS/*`` and ``PATH/test/CLASS/*``, or ``PATH/CLASS/*``."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnscope.data.listing import PassedOver, entries, list_images, pass_over_others
from attnscope.data.memory import MEMORY_VARIABLE, as_gib, image_memory, image_workers
from attnscope.data.sources import DataRequest, DataSource, LoadedSplits, register_data_source
from attnscope.data.split_folders import find_split_folders
from attnscope.errors import InputError

_TEST_SHARE = 0.2  # of each class of a folder without splits
_CHANNELS = (1, 3, 4)
_log = logging.getLogger(__name__)
# Folders that all have such names, such as train_images, are splits and not classes.
_SPLIT = re.compile(r"train|test|valid|(^|[^a-z])(val|dev|eval)([^a-z]|$)", re.IGNORECASE)


def load(request: DataRequest) -> LoadedSplits:
    """Load the splits of an image folder.

    The splits have the names of `attnscope.data.split_folders.SPLIT_NAMES`. A folder without splits
    is split: a fifth of each class becomes the test split, chosen by a hash of the file names, so
    that most images stay in their split when others are added.

    Returns:
        The splits, one line for each file that was skipped, and notes on what was passed over or
        changed.

    Raises:
        InputError: The folder has another layout, or contains files that cannot be read.
    """
    root = Path(request.path).expanduser()
    if root.is_file():
        raise InputError(
            "AS204",
            f"{root} is a file and no folder of images; name a folder with --data folder:PATH",
        )
    if not root.is_dir():
        raise InputError(
            "AS204",
            f"the image folder {root} does not exist; name another one with --data folder:PATH",
        )
    if request.channels is not None and request.channels not in _CHANNELS:
        raise InputError(
            "AS227",
            f"images of {request.channels} channels cannot be read from files; choose 1 (gray), "
            "3 (RGB) or 4 (RGBA), or use a data set of your own: --data package.module:callable",
        )
    passed = PassedOver(root, request.skip_unreadable)
    folders = find_split_folders(root, entries(root, passed, needed=True))
    if folders is None:
        splits, train = _split_flat(root, passed)
    else:
        splits = [_list_split(folder, passed) for folder in folders.all]
        train = folders.train
        pass_over_others(root, folders.all, passed)
    classes = _classes_of(splits[0], train)
    for split in splits[1:]:
        _expect_known(split, classes, train)
    names = request.class_order.arrange(classes)
    loaded = _load(root, splits, classes, names, request)
    if folders is None:
        count = sum(map(len, splits))
        loaded.notes.insert(
            0,
            f"the folder {root} has no folders train/ and test/, so it was split: "
            f"{len(splits[-1])} of its {count} images are the test split, chosen by a hash "
            "of their names; if the network was trained on some of these, make the folders "
            "yourself",
        )
    loaded.notes.extend(passed.lines())
    loaded.skipped[:0] = passed.unreadable
    return loaded


register_data_source(
    "folder",
    DataSource(
        load,
        help="a folder with train/CLASS/ and test/CLASS/, or with CLASS/",
        takes_path=True,
        image_size=None,
    ),
)


@dataclass(frozen=True)
class _Split:
    """The image files of a split."""

    name: str
    """Its folder, for messages."""
    images: dict[str, list[str]]
    """Class -> the paths of its images in the image folder, sorted by both."""
    folders: Sequence[Path] = ()
    """Its class folders, also those without images."""

    def __len__(self) -> int:
        return sum(map(len, self.images.values()))

    def names(self) -> list[str]:
        """Return the paths of all images."""
        return [name for names in self.images.values() for name in names]


def _list_split(folder: Path, passed: PassedOver) -> _Split:
    listing = list_images(folder, passed)
    return _Split(str(folder), listing.images, listing.folders)


def _split_flat(root: Path, passed: PassedOver) -> tuple[list[_Split], Path]:
    """Split a folder of class folders into a training split and a test split.

    Returns:
        Both splits, and the folder of the training split.

    Raises:
        InputError: There are no class folders with images, or a class has one image only.
    """
    listing = list_images(root, passed)
    named_like_splits = [folder.name for folder in listing.folders if _SPLIT.search(folder.name)]
    if not listing.images or len(named_like_splits) == len(listing.folders):
        has = f" (but {', '.join(named_like_splits[:3])})" if named_like_splits else ""
        raise InputError(
            "AS205",
            f"the image folder {root} has no folder train/{has}; create train/CLASS/ and "
            "test/CLASS/, or put the images of each class into a folder CLASS/",
        )
    train, test = {}, {}
    for name, files in listing.images.items():
        if len(files) < 2:
            raise InputError(
                "AS228",
                f"the class {name} of {root} has only one image, so it cannot be split into "
                "training and test images; add images or remove its folder",
            )
        by_hash = sorted(files, key=lambda file: hashlib.sha256(file.encode()).digest())
        held_out = set(by_hash[: max(1, round(_TEST_SHARE * len(files)))])
        test[name] = [file for file in files if file in held_out]
        train[name] = [file for file in files if file not in held_out]
    return [_Split(str(root), train, listing.folders), _Split(str(root), test)], root


def _classes_of(split: _Split, train: Path) -> list[str]:
    """Return the classes of the training split, sorted.

    Raises:
        InputError: A class folder has no images, or there are fewer than two classes.
    """
    classes = sorted(split.images)
    for folder in split.folders:
        if folder.name not in classes:
            raise InputError(
                "AS208", f"the class folder {folder} has no images; add some or remove the folder"
            )
    if len(classes) < 2:
        found = f"only the class {classes[0]}" if classes else "no class folders"
        raise InputError("AS209", f"{train} has {found}; it needs at least two folders with images")
    return classes


def _expect_known(split: _Split, classes: list[str], train: Path) -> None:
    unknown = sorted(set(split.images) - set(classes))
    if unknown:
        raise InputError(
            "AS210",
            f"{split.name} has the class {unknown[0]}, which {train} does not have; "
            "add training images of this class or remove its folder",
        )
    if not split.images:
        raise InputError("AS211", f"{split.name} has no images; add image files in CLASS/ folders")


def _load(
    root: Path, splits: list[_Split], classes: list[str], names: list[str], request: DataRequest
) -> LoadedSplits:
    """Read the images of all splits, or of the test split only.

    Args:
        root: The image folder.
        splits: Its splits.
        classes: The classes of the training split.
        names: All classes, in the order of the labels.
        request: The image size, and what else is asked for.

    Raises:
        InputError: Images cannot be read.
    """
    import numpy as np
    import torch

    from attnscope.data.decoding import choose_image_size
    from attnscope.data.folder_images import FolderImages
    from attnscope.data.images import LabeledImages
    from attnscope.data.streamed import StreamedImages, hashed_header
    from attnscope.data.workers import DecodingPool

    all_files = [file for split in splits for file in split.names()]
    size = request.image_size or choose_image_size(root, all_files)
    wanted = splits[-1:] if request.test_alone else splits
    count = sum(map(len, wanted))
    channels = request.channels or 3
    streams = _streams(count, channels * size**2)
    pool = DecodingPool(image_workers()) if streams else None
    reader = FolderImages(root, size, channels, pool)
    read, labels = [], []
    for split in wanted:
        numbers = [names.index(name) for name in split.images]
        counts = [len(files) for files in split.images.values()]
        labels.append(torch.from_numpy(np.repeat(np.array(numbers, np.int64), counts)))
        files = split.names()
        header = hashed_header(files, labels[-1]) if streams else b""
        # The normalization is that of the training split.
        summed = streams and split is splits[0]
        read.append(reader.read(files, header, summed=summed))
    unreadable = [line for part in read for line in part.unreadable]
    if unreadable and not request.skip_unreadable:
        shown = "; ".join(unreadable[:3]) + ("; ..." if len(unreadable) > 3 else "")
        raise InputError(
            "AS212",
            f"{len(unreadable)} of {count} images cannot be read: {shown}; "
            "repair or remove them, or skip them with --skip-unreadable",
        )
    reader.scale(read, others=all_files if request.test_alone else [])
    loaded: list[LabeledImages] = []
    for split, part, numbers_of in zip(wanted, read, labels, strict=True):
        kept = part.rows
        known, paths = numbers_of[kept], [part.names[row] for row in kept]
        present = {names[number] for number in set(known.tolist())}
        missing = sorted(set(classes) - present) if split is splits[0] else []
        if missing or not len(kept):
            where = f"the class {missing[0]} of {split.name}" if missing else split.name
            raise InputError("AS213", f"{where} has no readable images; add some")
        if part.images is None:
            loaded.append(StreamedImages(reader.files(part), known, paths, names))
        else:
            images = part.images if len(kept) == len(part.images) else part.images[kept]
            loaded.append(LabeledImages(images, known, paths, names, part.facts["hash"][kept]))
    changes = [reader.changes(part) for part in read]
    return LoadedSplits(loaded, unreadable, changes=changes, white=reader.white)


def _streams(count: int, bytes_each: int) -> bool:
    """Return whether images are decoded whenever they are needed, and say so if they are."""
    size, limit = count * bytes_each, image_memory()
    if size <= limit:
        return False
    if os.environ.get("RANK", "0") == "0":  # once under torchrun
        _log.warning(
            "%s images need %s, more than the %s of memory that images may take: they are decoded "
            "as they are needed, which gives the same results (%s sets the limit in GiB)",
            *(f"{count:,}", as_gib(size), as_gib(limit), MEMORY_VARIABLE),
        )
    return True
