"""Checking files against their SHA-256, and the hashes of the files of a run.

Each problem is one line that ends with its code of `attnscope.errors.ERRORS`.

A finished training or fold writes ``hashes.json``: the SHA-256 of each file of the run folder. What
is made later (recordings, interventions, figures, reports) is not listed; recordings and
interventions have hashes of their own. While a run is being trained, its checkpoint and its best
weights have seals (`attnscope.integrity`), and the other files are written again.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from attnscope import layout
from attnscope.errors import InputError
from attnscope.files import is_there, read_json, sha256_of, write_sealed
from attnscope.integrity import is_array_file_whole

_LATER = frozenset({layout.HASHES, layout.CHECKPOINT, layout.ANALYSIS})
"""Files in a run folder that are not those of the finished run."""
_NEEDED = (layout.CONFIG, layout.WEIGHTS, layout.MODEL, layout.RESULT)
_SEALED = (layout.CHECKPOINT, layout.BEST_WEIGHTS, layout.LAST_WEIGHTS, layout.WEIGHTS)


def problem(code: str, text: str) -> str:
    """Return one problem as a line with its code."""
    return str(InputError(code, text))


def without_code(problem: str) -> str:
    """Return a problem without its code, for a message that ends with a code of its own."""
    return problem.rpartition(" [")[0]


def verify_hash(file: Path, expected: str) -> list[str]:
    """Check a file against its SHA-256; return its problem, or nothing."""
    try:
        if sha256_of(file) != expected:
            return [problem("AS681", f"{file} has changed since it was written (SHA-256)")]
    except FileNotFoundError:
        return [problem("AS682", f"{file} is missing")]
    except OSError as error:
        return [problem("AS692", f"{file} cannot be read ({error.strerror})")]
    return []


def write_hashes(run: Path, coming: Mapping[str, bytes] = {}, going: Collection[str] = ()) -> None:
    """Write the hashes of the files of a finished run.

    Args:
        run: The run folder.
        coming: Names and contents of files that are written next. The file that says that the run
            has finished is written last, so that a run that has it also has hashes.
        going: Names of files that are removed next.
    """
    hashes = {
        file.name: sha256_of(file)
        for file in sorted(run.iterdir())
        if file.is_file() and not file.name.startswith(".") and file.name not in {*_LATER, *going}
    }
    hashes |= {name: hashlib.sha256(content).hexdigest() for name, content in coming.items()}
    write_sealed(run / layout.HASHES, {"files": hashes})


def expect_unchanged_file(run: Path, name: str) -> None:
    """Refuse a file of a run that has changed since the run finished.

    Runs of versions that wrote no hashes, and unfinished ones, pass.

    Raises:
        InputError: AS119, it has changed; or the hashes cannot be read.
    """
    expected = _known_hashes(run).get(name)
    if expected is not None and (found := verify_hash(run / name, expected)):
        text = without_code(found[0])
        raise InputError("AS119", f"{text}; copy it again from where it is whole, or train again")


def verify_run_files(run: Path) -> tuple[list[str], str]:
    """Check the files of a run folder, without its recordings and interventions.

    Returns:
        The problems, one line each, and what could not be checked, in words; empty if nothing.
    """
    found = list(_strange_files(run))
    if found:
        return found, ""
    is_finished = (run / layout.RESULT).is_file()
    if not is_finished and not is_there(run / layout.HASHES):
        return list(_broken_seals(run)), "it has not finished, so that only checkpoints are checked"
    try:
        hashes = _known_hashes(run)
    except InputError as error:
        return [str(error)], ""
    if not hashes:
        found = list(_broken_seals(run)) or list(_missing(run))
        return (
            found,
            f"it has no {layout.HASHES}, as runs of earlier versions: its weights, "
            "settings and logs could not be checked",
        )
    if (run / layout.CHECKPOINT).is_file():  # stopped between the hashes and the result
        return list(_broken_seals(run)), ""
    for name, expected in hashes.items():
        found += verify_hash(run / name, expected)
    return found, ""


def _known_hashes(run: Path) -> Mapping[str, str]:
    file = run / layout.HASHES
    if not is_there(file):
        return {}
    value = read_json(file)
    files = value.get("files") if isinstance(value, dict) else None
    if not isinstance(files, dict) or not all(
        # The name becomes part of a path.
        isinstance(expected, str) and os.path.basename(name) == name and name not in ("", ".", "..")
        for name, expected in files.items()
    ):
        raise InputError("AS119", f"{file} does not hold the hashes of a run; copy the run again")
    return files


def _missing(run: Path) -> Iterator[str]:
    for name in _NEEDED:
        if not (run / name).is_file():
            yield problem("AS682", f"{run / name} is missing")


def _broken_seals(run: Path) -> Iterator[str]:
    for name in _SEALED:
        try:
            if (run / name).is_file() and is_array_file_whole(run / name) is False:
                yield problem("AS681", f"{run / name} has changed since it was written (SHA-256)")
        except OSError as error:
            yield problem("AS692", f"{run / name} cannot be read ({error.strerror})")


def _strange_files(folder: Path) -> Iterator[str]:
    """Yield what is neither a regular file nor a folder, and links that lead outside."""
    root = folder.resolve()
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            if not path.resolve().is_relative_to(root):
                yield problem("AS607", f"{path} links to a file outside the run")
        elif not (stat.S_ISREG(mode := path.lstat().st_mode) or stat.S_ISDIR(mode)):
            yield problem("AS692", f"{path} cannot be read (it is a pipe or a device)")
