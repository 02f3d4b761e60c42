"""Which folders of an image folder are splits. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
        InputError: There is no training split or nothing but a training split, or two folders can
            be the same split.
    """
    folders = [path for path in paths if path.is_dir()]
    found = {
        split: [folder for folder in folders if folder.name.lower() in names]
        for split, names in SPLIT_NAMES.items()
    }
    if not any(found.values()):
        return None
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
