"""Which folders of an image folder are splits. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnscope.data.listing import has_loose_images
from attnscope.errors import InputError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
"""Split -> the names that its folder can have, in any case."""


@dataclass(frozen=True)
class SplitFolders:
    """The folders of the splits of an image folder."""

    train: Path
    held_out: tuple[Path, ...]
    """The test split, or the validation split and the test split."""

    @property
    def all(self) -> tuple[Path, ...]:
        """All of them, the training split first."""
        return (self.train, *self.held_out)


def find_split_folders(root: Path, paths: Sequence[Path]) -> SplitFolders | None:
    """Find the folders of the splits of an image folder, by their names.

    A folder of validation images is the test split if there is no other: the images on which the
    network was not trained are recorded. Of ``val`` and ``eval``, ``eval`` is then the test split.

    Args:
        root: The image folder.
        paths: What it contains, sorted.

    Returns:
        The folders; None if no folder has the name of a split.

    Raises:
        InputError: There is no training split or nothing but a training split, two folders can be
            the same split, or classes have the names of splits.
    """
    folders = [path for path in paths if path.is_dir()]
    found = {
        split: [folder for folder in folders if folder.name.lower() in names]
        for split, names in SPLIT_NAMES.items()
    }
    if not any(found.values()):
        return None
    _expect_no_classes(root, folders, [folder for some in found.values() for folder in some])
    evaluation = [folder for folder in found["validation"] if folder.name.lower() == "eval"]
    if not found["test"] and len(found["validation"]) == 2 and evaluation:
        found["validation"].remove(evaluation[0])
        found["test"] = evaluation
    for split, several in found.items():
        if len(several) > 1:
            named = " and ".join(f"{folder.name}/" for folder in several)
            raise InputError(
                "AS207",
                f"the image folder {root} has {named}, and each of them can be the {split} split; "
                "keep one",
            )
    if not found["train"]:
        raise InputError(
            "AS205",
            f"the image folder {root} has no folder train/; create train/CLASS/ and test/CLASS/",
        )
    held_out = (*found["validation"], *found["test"])
    if not held_out:
        raise InputError(
            "AS206",
            f"the image folder {root} has no folder test/ or val/ beside {found['train'][0].name}/;"
            " create one",
        )
    return SplitFolders(found["train"][0], held_out)


def _expect_no_classes(root: Path, folders: Sequence[Path], named: Sequence[Path]) -> None:
    """Refuse folders that have the names of splits, and are classes like the folders beside them.

    They could also be splits whose images were not sorted into classes yet, so they are not read as
    classes without a word.

    Args:
        root: The image folder.
        folders: All folders in it.
        named: Those with the names of splits.

    Raises:
        InputError: All of them have images and no class folders, and another folder has, too.
    """
    others = [folder for folder in folders if folder not in named]
    if any(map(has_loose_images, others)) and all(map(has_loose_images, named)):
        first = named[0].name
        raise InputError(
            "AS236",
            f"the folder {first}/ of {root} has the name of a split, and images without class "
            f"folders, as a class has them; if it is a class, rename it, for example to {first}_/; "
            f"if it is a split, sort its images into {first}/CLASS/",
        )
