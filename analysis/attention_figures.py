"""Draw all figures of all recordings in a folder: python analysis/attention_figures.py RUNS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from attnscope.commands.options import expect_whole
from attnscope.errors import InputError
from attnscope.recording.recording import Recording, find_recordings
from attnscope.report import write_figures


def main(folder: Annotated[Path, tyro.conf.Positional], out: Path | None = None) -> None:
    """Draw all figures of all recordings in a folder, as PNG and PDF.

    Args:
        folder: folder that contains runs with recordings, or recordings.
        out: output folder, with one folder per recording. Default: next to each recording.
    """
    for recording in map(Recording, find_recordings(folder)):
        expect_whole(recording)
        place = out / recording.folder.relative_to(folder) if out else None
        files = write_figures(recording.folder, place)
        print(f"{recording.name}: {len(files)} files in {files[0].parent}")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
