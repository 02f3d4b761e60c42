"""Verification of a run, a recording, moments, or a folder of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from attnscope import layout
from attnscope.errors import InputError
from attnscope.files import StrPath, is_there
from attnscope.hashes import problem, verify_run_files
from attnscope.notebook import number_of
from attnscope.recording.masks import verify_masks
from attnscope.recording.outcomes import verify_outcomes
from attnscope.recording.places import masks_file, outcomes_folder
from attnscope.runs import open_captured

_CAPTURED = (
    (layout.RECORDINGS,),
    (layout.MOMENTS,),
    (layout.UNTRAINED,),
    (layout.UNTRAINED, layout.MOMENTS),
)
"""Where a run has recordings and moments."""
_OF_RUN = (layout.CONFIG, layout.WEIGHTS, layout.CHECKPOINT, layout.HASHES, layout.FOLD)


@dataclass(frozen=True)
class Verified:
    """What verification found in one folder."""

    folder: Path
    """A run, a recording, moments, interventions or masks."""
    content: str
    """What it holds, in words."""
    problems: tuple[str, ...]
    """One line each, with its code."""
    unchecked: str = ""
    """What could not be checked, in words; empty if nothing."""

    @property
    def line(self) -> str:
        """The result as one line: what is intact, or the first problem."""
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            return f"{self.folder}: {self.problems[0]}{more}"
        if self.unchecked:
            return f"{self.folder}: {self.content}, not checked: {self.unchecked}"
        return f"{self.folder}: {self.content}, all files are intact"


def verify(folder: StrPath) -> list[Verified]:
    """Check the files of runs, recordings, moments, interventions and masks.

    Hashes, seals, counts, types, shapes and ranges of values are checked. Nothing but regular files
    inside of a folder is read.

    Args:
        folder: A run with everything in it; a recording with its interventions and masks, or
            moments; or a folder of runs and recordings.

    Returns:
        One result for each run, recording, moments, interventions and masks.

    Raises:
        InputError: AS530, the folder does not exist; AS601, it holds none of these.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("AS530", f"the folder {folder} does not exist; check the path")
    found = list(_verify_one(folder))
    if not found:
        for inner in sorted(folder.iterdir()):
            if not inner.name.startswith(".") and inner.is_dir():
                found += _verify_one(inner)
    if not found:
        raise InputError(
            "AS601",
            f"{folder} holds no run and no recording (no {layout.MANIFEST}); check the path, or "
            "create a recording with: attnscope capture RUN",
        )
    return found


def _verify_one(folder: Path) -> Iterator[Verified]:
    """Verify a run or a recording; yield nothing if the folder is neither."""
    try:
        if is_there(folder / layout.MANIFEST):
            yield from _verify_captured(folder)
            return
        if any(is_there(folder / name) for name in _OF_RUN):
            yield _verified(folder, lambda: ("the files of the run", *verify_run_files(folder)))
        for place in _CAPTURED:
            if not folder.joinpath(*place).is_dir():
                continue
            for inner in sorted(folder.joinpath(*place).iterdir()):
                if not inner.name.startswith(".") and inner.is_dir() and not _is_beside(inner):
                    yield from _verify_captured(inner)
    except OSError as error:  # a folder that may not be read
        yield Verified(folder, "", (_not_readable(error),))


def _is_beside(folder: Path) -> bool:
    """Return whether a folder beside recordings holds what is made of recordings, and none."""
    name = folder.name
    is_named = name == layout.MOMENTS or name.endswith(
        (layout.OUTCOMES_SUFFIX, layout.MASKS_SUFFIX, layout.EXPLORED_SUFFIX)
    )
    return is_named and not is_there(folder / layout.MANIFEST)


def _verify_captured(folder: Path) -> Iterator[Verified]:
    """Verify a recording, or moments, and what belongs to it."""
    yield _verified(folder, lambda: _check_captured(folder))
    if folder.resolve().parent.name == layout.MOMENTS:
        return
    outcomes, masks = outcomes_folder(folder), masks_file(folder).parent
    # They are named as the recording is, and not with the absolute path.
    if not folder.is_absolute():
        outcomes, masks = (Path(os.path.relpath(path)) for path in (outcomes, masks))
    if outcomes.is_dir():
        words = "the tables of interventions"
        yield _verified(outcomes, lambda: (words, *verify_outcomes(outcomes)))
    if masks.is_dir():
        yield _verified(masks, lambda: ("the masks of images", *verify_masks(folder)))


def _check_captured(folder: Path) -> tuple[str, list[str], str]:
    """Check a recording or moments; return the content, the problems, and what is unchecked."""
    manifest = folder / layout.MANIFEST
    if not is_there(manifest):
        raise InputError("AS682", f"{manifest} is missing")
    if not manifest.is_file():
        raise InputError("AS692", f"{manifest} cannot be read (it is a folder, a pipe or a device)")
    recording = open_captured(folder)
    problems = recording.verify()
    content = f"{number_of(len(recording), 'image')}, {number_of(len(recording.gates), 'gate')}"
    has_no_plan = not recording.id and not problems
    return content, problems, "it has no plan, as recordings of version 0.1" if has_no_plan else ""


def _verified(folder: Path, check: Callable[[], tuple[str, list[str], str]]) -> Verified:
    """Return what a check found: the content, the problems, and what is unchecked."""
    try:
        content, problems, unchecked = check()
    except InputError as error:
        return Verified(folder, "", (str(error),))
    except OSError as error:  # a folder in it may not be read
        return Verified(folder, "", (_not_readable(error),))
    return Verified(folder, content, tuple(problems), unchecked)


def _not_readable(error: OSError) -> str:
    return problem("AS692", f"{error.filename} cannot be read ({error.strerror})")
