"""The order of classes, which decides which output of a network is which class.

Does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from attnscope.errors import InputError, first_line

Order = Literal["text", "natural"]
"""``text`` sorts 0, 1, 10, 2, as torchvision does; ``natural`` sorts 0, 1, 2, 10."""


@dataclass(frozen=True)
class ClassOrder:
    """How the classes of a data source are ordered: sorted, or as in a list of names.

    Raises:
        InputError: The order is unknown, or the list has a name twice or is empty.
    """

    order: Order = "text"
    names: tuple[str, ...] | None = None
    """All classes, in the order of the network's outputs. It replaces ``order``."""

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise InputError(
                "AS224", f"the class order is '{self.order}'; it must be text or natural"
            )
        if self.names is None:
            return
        if not self.names:
            raise InputError("AS225", "the list of classes is empty; give one name per class")
        twice = [name for i, name in enumerate(self.names) if name in self.names[:i]]
        if twice:
            raise InputError(
                "AS225", f"the list of classes has '{twice[0]}' twice; each name must occur once"
            )

    def arrange(self, found: Sequence[str]) -> list[str]:
        """Return all classes in their order, given those that a data source has.

        Args:
            found: The classes of the data source, in its own order.

        Raises:
            InputError: The list of classes lacks one of them.
        """
        if self.names is not None:
            missing = [name for name in found if name not in self.names]
            if missing:
                raise InputError(
                    "AS226",
                    f"the list of classes (--classes) lacks the class '{missing[0]}', which the "
                    "images have; add it to the list, or remove its images",
                )
            return list(self.names)
        return sorted(found, key=natural_key) if self.order == "natural" else list(found)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts numbers in names by their value: 2 before 10."""
    return [
        (0, int(part), part) if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def read_class_names(file: Path) -> tuple[str, ...]:
    """Return the names in a text file with one name per line.

    Raises:
        InputError: The file does not exist, is not text, or has an empty line between names.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "AS225",
            f"the list of classes {file} cannot be read ({first_line(error)}); give a text file "
            "with one class per line",
        ) from None
    names = tuple(line.strip() for line in lines)
    if "" in names:
        raise InputError(
            "AS225",
            f"line {names.index('') + 1} of the list of classes {file} is empty; give one class "
            "per line",
        )
    return names


def advise_order(classes: Sequence[str]) -> str | None:
    """Return a note if the classes are numbers that are sorted as text, such as 0, 1, 10, 2.

    Args:
        classes: The names of the classes, in the order of the labels.
    """
    natural = sorted(classes, key=natural_key)
    if list(classes) != sorted(classes) or natural == list(classes):
        return None
    first = next(i for i, (a, b) in enumerate(zip(classes, natural, strict=True)) if a != b)
    shown = ", ".join(classes[: first + 2])
    return (
        f"the classes are sorted as text ({shown} ...); if the outputs of the network are in "
        "numerical order, add --class-order natural"
    )
