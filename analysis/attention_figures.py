"""Every figure of every recording in a folder: python analysis/attention_figures.py RUNS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from attnscope.errors import InputError
from attnscope.recording.recording import Recording, find_recordings
from attnscope.report import write_figures


def main(folder: Annotated[Path, tyro.conf.Positional], out: Path | None = None) -> None:
    """Write every figure of every recording in a folder, as PNG and PDF.

    Args:
        folder: runs with recordings, or recordings.
        out: one folder a recording below it; default beside each run.
    """
    for recording in map(Recording, find_recordings(folder)):
        found = recording.verify()
        if found:
            raise InputError("AS962", f"{found[0]}; record it again with: attnscope capture")
        place = out / recording.folder.relative_to(folder) if out else None
        files = write_figures(recording.folder, place)
        print(f"{recording.name}: {len(files)} files in {files[0].parent}")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
