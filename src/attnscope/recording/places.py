"""Where recordings lie: in a run, or by themselves. Opens none."""

from __future__ import annotations

from pathlib import Path

from attnscope import layout
from attnscope.errors import InputError


def run_of(recording: Path) -> Path | None:
    """The run of whose network a folder is a recording, ``RUN/recordings/SPLIT``; or None."""
    folder = recording.resolve()
    return folder.parent.parent if folder.parent.name == layout.RECORDINGS else None


def home_run(captured: Path) -> Path | None:
    """The run in which a recording, moments, or those of an untrained network lie; or None."""
    folder = captured.resolve()
    kinds = [
        (layout.RECORDINGS,),
        (layout.UNTRAINED, layout.MOMENTS),
        (layout.MOMENTS,),
        (layout.UNTRAINED,),
    ]
    for kind in kinds:
        if folder.parent.parts[-len(kind) :] == kind:
            run = folder.parents[len(kind)]
            if (run / layout.CONFIG).is_file():
                return run
    return None


def outcomes_folder(recording: Path) -> Path:
    """Where the outcomes of a recording lie: ``RUN/interventions/SPLIT``, or beside it."""
    folder, run = recording.resolve(), run_of(recording)
    if run is not None:
        return run / layout.INTERVENTIONS / folder.name
    return folder.parent / f"{folder.name}{layout.OUTCOMES_SUFFIX}"


def captured_in(folder: Path, place: str) -> Path:
    """What was captured: ``folder`` itself, or of a run what lies there of the test split.

    Args:
        folder: a run, or what was captured.
        place: the folder of a run for what is wanted, of `attnscope.layout`.
    """
    of_test = folder / place / "test"
    return of_test if not is_captured(folder) and of_test.is_dir() else folder


def is_captured(folder: Path) -> bool:
    """Whether a folder is a recording or moments."""
    return (folder / layout.MANIFEST).is_file()


def find_recordings(folder: Path) -> list[Path]:
    """Folders of the recordings in a folder of runs, a run or a recording, sorted; none is opened.

    Raises:
        InputError: there is none, or one lies behind a link that leads outside.
    """
    if not folder.is_dir():
        raise InputError(f"folder {folder} does not exist; check the path")
    in_a_run = f"{layout.RECORDINGS}/*/{layout.MANIFEST}"
    patterns = (layout.MANIFEST, f"*/{layout.MANIFEST}", in_a_run, f"*/{in_a_run}")
    found = sorted(
        file.parent
        for pattern in patterns
        for file in folder.glob(pattern)
        if not file.parent.name.startswith(".")  # left by a capture that was killed
    )
    if not found:
        raise InputError(f"{folder} holds no recording; make one with attnscope capture RUN")
    for path in found:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path} leads outside {folder}; open the folder where it lies")
    return found
