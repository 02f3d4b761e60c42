"""Files are written aside and renamed, so that a reader never meets half of one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attnscope.errors import InputError


def write_bytes(file: Path, content: bytes) -> None:
    """Writes ``content`` beside ``file``, flushes it to the disk, and renames it to ``file``."""
    with tempfile.NamedTemporaryFile(
        dir=file.parent, prefix=f".{file.name}.", suffix=".partial", delete=False
    ) as part:
        try:
            part.write(content)
            part.flush()
            os.fsync(part.fileno())
            os.chmod(part.name, 0o644)  # a temporary file is private, a result is not
            os.replace(part.name, file)
        except BaseException:
            os.unlink(part.name)
            raise


def write_json(file: Path, value: Any) -> None:
    """Writes ``value`` as indented JSON; NaN is refused, since other readers refuse it."""
    write_bytes(file, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(file: Path) -> Any:
    """The value in a JSON file.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file} does not exist") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file} is not JSON ({error}); write it again") from None


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` to fill; it becomes ``folder`` at the end, or vanishes on an error.

    Raises:
        InputError: ``folder`` exists already.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already; take another folder or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial"))
    try:
        yield part
        os.chmod(part, 0o755)
        os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
