"""``attnscope verify``"""

from __future__ import annotations

from dataclasses import dataclass

from attnscope.commands.options import RecordingArgument, verify_folder


@dataclass(frozen=True)
class Verify:
    """Check the files of a recording: hashes, counts and ranges of values."""

    recording: RecordingArgument
    """Recording, moments, or a run folder with a recording."""

    def __call__(self) -> None:
        print(verify_folder(self.recording))
