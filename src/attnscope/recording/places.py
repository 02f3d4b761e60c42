"""Where recordings lie: in a run folder, or on their own. Nothing here opens them."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

from attnscope import layout
from attnscope.errors import InputError
from attnscope.shell import shell_command
from attnscope.unfinished import how_to_continue, is_interrupted

_LISTED = 8  # names that a message lists


def run_of(recording: Path) -> Path | None:
    """Return the run folder of a recording in ``RUN/recordings/SPLIT``; None elsewhere."""
    folder = recording.resolve()
    return folder.parent.parent if folder.parent.name == layout.RECORDINGS else None


def enclosing_run(captured: Path) -> Path | None:
    """Return the run folder in which recordings or moments lie; None if they lie elsewhere.

    They may be those of the trained or of the untrained network.
    """
    folder = captured.resolve()
    places = [
        (layout.RECORDINGS,),
        (layout.UNTRAINED, layout.MOMENTS),
        (layout.MOMENTS,),
        (layout.UNTRAINED,),
    ]
    for place in places:
        if folder.parent.parts[-len(place) :] == place:
            run = folder.parents[len(place)]
            if (run / layout.CONFIG).is_file():
                return run
    return None


def capture_again(captured: Path, *options: str) -> str:
    """Return in words how a recording or moments are made again, for the end of a message.

    Args:
        captured: The recording or moments. They must be removed first, because no command writes
            over them.
        options: Options of ``attnscope capture`` that are needed.

    Returns:
        ``remove RUN/recordings/test, then run: attnscope capture RUN``, or outside a run ``remove
        FOLDER, then repeat the command that made it``.
    """
    try:
        run = enclosing_run(captured)
    except OSError:  # one may not enter the folder
        run = None
    if run is None:
        added = f" with {shlex.join(options)}" if options else ""
        return f"remove {captured}, then repeat the command that made it{added}"
    place = captured.resolve().relative_to(run).parts
    if captured.parts[-len(place) :] == place:  # as the user wrote it
        run = captured.parents[len(place) - 1]
    *kinds, split = place
    chosen = [f"--{name}" for name in (layout.UNTRAINED, layout.MOMENTS) if name in kinds]
    if split not in layout.SPLITS:
        chosen += ["--out", str(captured)]
    elif split != "test":
        chosen += ["--split", split]
    return f"remove {captured}, then run: {shell_command('capture', run, *chosen, *options)}"


def outcomes_folder(recording: Path) -> Path:
    """Return the folder of a recording's interventions.

    It is ``RUN/interventions/SPLIT``, or for a recording outside a run ``NAME-interventions``
    beside it.
    """
    folder, run = recording.resolve(), run_of(recording)
    if run is not None:
        return run / layout.INTERVENTIONS / folder.name
    return folder.parent / f"{folder.name}{layout.OUTCOMES_SUFFIX}"


def masks_file(recording: Path) -> Path:
    """Return the file of the masks of a recording's images.

    It is ``RUN/masks/SPLIT/arrays.safetensors``, or for a recording outside a run in the folder
    ``NAME-masks`` beside it.
    """
    folder, run = recording.resolve(), run_of(recording)
    if run is not None:
        return run / layout.MASKS / folder.name / layout.ARRAYS
    return folder.parent / f"{folder.name}{layout.MASKS_SUFFIX}" / layout.ARRAYS


def explored_folder(recording: Path) -> Path:
    """Return the folder of the results that were asked for in the dashboard.

    It is ``RUN/explored/SPLIT``, or for a recording outside a run ``NAME-explored`` beside it.
    """
    folder, run = recording.resolve(), run_of(recording)
    if run is not None:
        return run / layout.EXPLORED / folder.name
    return folder.parent / f"{folder.name}{layout.EXPLORED_SUFFIX}"


def folder_around(recording: Path) -> Path:
    """Return the run folder of a recording, or else the recording itself; relative if it is."""
    if recording.parent.name == layout.RECORDINGS:
        return recording.parent.parent
    return run_of(recording) or recording


def folder_beside(recording: Path, name: str) -> Path:
    """Return a folder of what was made of a recording, such as its figures.

    Args:
        recording: The folder of the recording.
        name: The name of the folder.

    Returns:
        ``RUN/NAME`` for the test split of a run, ``RUN/NAME/SPLIT`` for another one, and
        ``RECORDING/NAME`` for a recording outside a run.
    """
    run, split = folder_around(recording), recording.resolve().name
    if run == recording:
        return recording / name
    return run / name if split == "test" else run / name / split


def file_beside(recording: Path, name: str) -> Path:
    """Return a file of what was made of a recording, such as its report.

    Args:
        recording: The folder of the recording.
        name: The name of the file, such as ``report.html``.

    Returns:
        ``RUN/report.html`` for the test split of a run, ``RUN/report-SPLIT.html`` for another one,
        and ``RECORDING/report.html`` for a recording outside a run.
    """
    run, split = folder_around(recording), recording.resolve().name
    if run == recording or split == "test":
        return run / name
    return run / f"{Path(name).stem}-{split}{Path(name).suffix}"


def distinct_names(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return names of recordings that differ: equal names are followed by what tells them apart.

    That is the end of the folder's path that differs, without the parts that all of them share:
    ``tiny (a)`` and ``tiny (b)`` of ``a/recordings/test`` and ``b/recordings/test``.

    Args:
        names: The name of each recording.
        folders: The folder of each recording. One that is given twice is numbered.
    """
    found = list(names)
    for name in dict.fromkeys(names):
        rows = [i for i, each in enumerate(names) if each == name]
        if len(rows) > 1:
            for row, end in zip(rows, _ends([folders[i] for i in rows]), strict=True):
                found[row] = f"{name} ({end})"
    return found


def _ends(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that differ, without the end that all have in common."""
    parts = [folder.resolve().parts for folder in folders]
    while len({path[-1:] for path in parts}) == 1 and parts[0]:
        parts = [path[:-1] for path in parts]
    for length in range(1, max(map(len, parts), default=0) + 1):
        ends = ["/".join(path[-length:]) for path in parts]
        if len(set(ends)) == len(ends):
            return ends
    return [str(number) for number in range(1, len(folders) + 1)]


def captured_in(folder: Path, place: str) -> Path:
    """Return the recording or moments in a folder: the folder itself, or in a run the test split.

    Args:
        folder: A run, a recording or moments.
        place: The subfolder of a run to look in, a name of `attnscope.layout`.
    """
    of_test = folder / place / "test"
    return of_test if not is_captured(folder) and of_test.is_dir() else folder


def no_recording(folder: Path, kind: str = "recording", option: str = "") -> InputError:
    """Return the error AS601 of a folder without a recording, which says what it is instead.

    Args:
        folder: What was given as a recording or a run.
        kind: What it does not hold: ``recording`` or ``moments``.
        option: The option with which ``attnscope capture`` makes it.
    """
    command = ["capture", folder, *([option] if option else [])]
    if not folder.exists():
        text = f"{folder} does not exist; check the path"
    elif is_interrupted(folder):
        text = (
            f"the run {folder} has no {kind}, because its training was interrupted; "
            f"{how_to_continue(folder)}"
        )
    elif (folder / layout.CONFIG).is_file():
        text = f"the run {folder} has no {kind}; record it with: {shell_command(*command)}"
        if others := _inside(folder / layout.RECORDINGS, layout.MANIFEST):
            text += f", or name {folder / layout.RECORDINGS / others[0]}"
    elif runs := _inside(folder, layout.CONFIG):
        text = f"{folder} contains the runs {_listed(runs)}; name one of them"
    elif recordings := _inside(folder, layout.MANIFEST):
        text = f"{folder} contains the recordings {_listed(recordings)}; name one of them"
    else:
        text = (
            f"{folder} holds no {kind} (no {layout.MANIFEST}); check the path, or create it with: "
            f"attnscope capture RUN{option and f' {option}'}"
        )
    return InputError("AS601", text)


def _inside(folder: Path, file: str) -> list[str]:
    """Return the names of the folders in a folder that contain a file, sorted."""
    try:
        return sorted(each.parent.name for each in folder.glob(f"[!.]*/{file}"))
    except OSError:  # one may not read it
        return []


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"


def is_captured(folder: Path) -> bool:
    """Return whether a folder is a recording or moments."""
    return (folder / layout.MANIFEST).is_file()


def find_recordings(folder: Path) -> list[Path]:
    """Return the folders of all recordings in a folder of runs, a run, or a recording.

    Returns:
        The folders, sorted.

    Raises:
        InputError: There is none; or one cannot be read, or lies behind a link that leads outside
            ``folder``.
    """
    found, problems = list_recordings(folder)
    if problems:
        raise problems[0]
    return found


def list_recordings(folder: Path) -> tuple[list[Path], list[InputError]]:
    """Return the folders of all recordings, and what is wrong with those that cannot be opened.

    A recording that is damaged, or that one may not read, does not hide the others.

    Args:
        folder: A folder of runs, a run, or a recording.

    Returns:
        The folders that have a manifest, sorted, and one error for each other recording.

    Raises:
        InputError: There is neither; or the folder does not exist.
    """
    if not folder.is_dir():
        raise InputError("AS620", f"the folder {folder} does not exist; check the path")
    problems: list[InputError] = []
    inner = _folders_in(folder, problems)
    in_runs = [
        each
        for run in (folder, *inner)
        if run.name != layout.RECORDINGS
        for each in _folders_in(run / layout.RECORDINGS, problems)
    ]
    root, found = folder.resolve(), []
    for place in sorted({folder, *inner, *in_runs}):
        try:
            mode = os.lstat(place / layout.MANIFEST).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            problems.append(_not_readable(place, error))
            continue
        if not place.resolve().is_relative_to(root):
            problems.append(
                InputError(
                    "AS607", f"{place} links to a folder outside {folder}; open that folder itself"
                )
            )
        elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            found.append(place)
        else:
            problems.append(
                InputError(
                    "AS604",
                    f"{place / layout.MANIFEST} is a folder, a pipe or a device, and no manifest; "
                    f"{capture_again(place)}",
                )
            )
    if not found and not problems:
        raise InputError(
            "AS601", f"{folder} holds no recording; create one with: attnscope capture RUN"
        )
    return found, problems


def _folders_in(folder: Path, problems: list[InputError]) -> list[Path]:
    try:
        return [
            path
            for path in folder.iterdir()
            if not path.name.startswith(".") and path.is_dir()  # hidden: unfinished recordings
        ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        problems.append(_not_readable(folder, error))
        return []


def _not_readable(folder: Path, error: OSError) -> InputError:
    return InputError("AS692", f"{folder} cannot be read ({error.strerror}); check its permissions")
