"""Draw all figures of all recordings in a folder: python analysis/attention_figures.py RUNS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from attnscope.commands.options import expect_whole
from attnscope.errors import InputError
from attnscope.recording.places import list_recordings
from attnscope.recording.recording import Recording
from attnscope.report import write_figures


def main(folder: Annotated[Path, tyro.conf.Positional], out: Path | None = None) -> int:
    """Draw all figures of all recordings in a folder, as PNG and PDF.

    A recording that is damaged or cannot be read is named, and the others are drawn.

    Args:
        folder: folder that contains runs with recordings, or recordings.
        out: output folder, with one folder per recording. Default: next to each recording.
    """
    found, problems = list_recordings(folder)
    for path in found:
        try:
            recording = Recording(path)
            expect_whole(recording)
            place = out / path.relative_to(folder) if out else None
            files = write_figures(path, place)
            print(f"{recording.name}: {len(files)} files in {files[0].parent}")
        except InputError as error:
            problems.append(error)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(main))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
