"""``attnscope verify``"""

from __future__ import annotations

from dataclasses import dataclass

from attnscope.commands.options import RunArgument, verify_folder


@dataclass(frozen=True)
class Verify:
    """Check the files of a recording or of moments: hashes, counts and ranges."""

    recording: RunArgument
    """A recording, moments, or a run folder with a recording."""

    def __call__(self) -> None:
        print(verify_folder(self.recording))
