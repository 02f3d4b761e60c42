"""Results that were asked for in the dashboard, kept beside the recording: a JSON file for each.

They can be computed again at any time. The recording itself does not change. A result names the
recording by the SHA-256 of its manifest, so that a result of an earlier recording in the same
folder is never shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnscope.files import make_folder, read_json, sha256_of, write_sealed
from attnscope.layout import MANIFEST
from attnscope.recording.format import expect_own_file
from attnscope.recording.places import explored_folder
from attnscope.recording.reader import ShardReader

_RECORDING = "manifest_sha256"
_SUBJECT = "subject"
_RESULT = "result"


def explored_file(recording: ShardReader, subject: str) -> Path:
    """Return the file of a result.

    Args:
        recording: the recording.
        subject: what was asked, such as the name of a method and of a gate.
    """
    # Names of gates can be longer than a file name may be, and can hold any character.
    name = hashlib.sha256(subject.encode()).hexdigest()[:24]
    return explored_folder(recording.folder) / f"{name}.json"


def read_explored(recording: ShardReader, subject: str) -> dict[str, Any] | None:
    """Return a result on the present recording, or None.

    Raises:
        InputError: AS111, AS112 or AS119, its file cannot be read or has changed; AS606 or AS607,
            it is no regular file, or a link that leads elsewhere.
    """
    file = explored_file(recording, subject)
    expect_own_file(file.parent, file)
    if not file.is_file():
        return None
    known = read_json(file)
    if not isinstance(known, dict) or known.get(_SUBJECT) != subject:
        return None
    if known.get(_RECORDING) != sha256_of(recording.folder / MANIFEST):
        return None
    result = known.get(_RESULT)
    return result if isinstance(result, dict) else None


def write_explored(recording: ShardReader, subject: str, result: Mapping[str, Any]) -> None:
    """Keep a result; an earlier one is replaced.

    Args:
        recording: the recording.
        subject: as for `explored_file`.
        result: values of JSON.

    Raises:
        InputError: AS114, the folder cannot be created; AS606 or AS607, as for `read_explored`.
        OSError: the disk is full, for example.
    """
    file = explored_file(recording, subject)
    if not file.parent.is_dir():
        make_folder(file.parent)
    expect_own_file(file.parent, file)
    about = {_RECORDING: sha256_of(recording.folder / MANIFEST), _SUBJECT: subject}
    write_sealed(file, {**about, _RESULT: dict(result)})
