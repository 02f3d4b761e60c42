"""Verification of a run, a recording, moments, or a folder of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from attnscope import layout
from attnscope.errors import InputError
from attnscope.files import StrPath
from attnscope.hashes import verify_run_files
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
        if os.path.lexists(folder / layout.MANIFEST):
            yield from _verify_captured(folder)
            return
        captured = [
            inner
            for place in _CAPTURED
            if folder.joinpath(*place).is_dir()
            for inner in sorted(folder.joinpath(*place).iterdir())
            if not inner.name.startswith(".") and inner.is_dir() and not _is_beside(inner)
        ]
        if any(os.path.lexists(folder / name) for name in _OF_RUN):
            problems, unchecked = verify_run_files(folder)
            yield Verified(folder, "the files of the run", tuple(problems), unchecked)
        for inner in captured:
            yield from _verify_captured(inner)
    except OSError as error:  # a folder that may not be read
        text = f"{error.filename} cannot be read ({error.strerror})"
        yield Verified(folder, "", (str(InputError("AS692", text)),))


def _is_beside(folder: Path) -> bool:
    """Return whether a folder beside recordings holds moments, interventions or masks."""
    if os.path.lexists(folder / layout.MANIFEST):
        return False
    return folder.name == layout.MOMENTS or folder.name.endswith(
        (layout.OUTCOMES_SUFFIX, layout.MASKS_SUFFIX)
    )


def _verify_captured(folder: Path) -> Iterator[Verified]:
    try:
        manifest = folder / layout.MANIFEST
        if not os.path.lexists(manifest):
            raise InputError("AS682", f"{manifest} is missing")
        if not manifest.is_file():
            raise InputError(
                "AS692", f"{manifest} cannot be read (it is a folder, a pipe or a device)"
            )
        recording = open_captured(folder)
        problems = recording.verify()
        content = f"{number_of(len(recording), 'image')}, {number_of(len(recording.gates), 'gate')}"
        unchecked = (
            "" if recording.id or problems else "it has no plan, as recordings of version 0.1"
        )
    except InputError as error:
        problems, content, unchecked = [str(error)], "", ""
    yield Verified(folder, content, tuple(problems), unchecked)
    if folder.resolve().parent.name == layout.MOMENTS:
        return

    def named(path: Path) -> Path:
        """Return a path as the recording is named, and not the absolute one."""
        return path if folder.is_absolute() else Path(os.path.relpath(path))

    outcomes, masks = outcomes_folder(folder), masks_file(folder).parent
    if outcomes.is_dir():
        found, unchecked = verify_outcomes(outcomes)
        yield Verified(named(outcomes), "the tables of interventions", tuple(found), unchecked)
    if masks.is_dir():
        found, unchecked = verify_masks(folder)
        yield Verified(named(masks), "the masks of images", tuple(found), unchecked)
