"""``attnscope verify``"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from attnscope.commands.options import RecordingArgument
from attnscope.errors import InputError, printable


@dataclass(frozen=True)
class Verify:
    """Check the files of a run, a recording or a folder of them: hashes, shapes and values."""

    recording: RecordingArgument
    """Recording, moments, run folder with all that is in it, or a folder of these."""

    def __call__(self) -> None:
        from attnscope.hashes import without_code
        from attnscope.recording.places import capture_again, is_captured
        from attnscope.verifying import verify

        found = verify(self.recording)
        damaged = [each for each in found if each.problems]
        for each in found:
            if each.unchecked:
                print(printable(each.line), file=sys.stderr)
            elif not each.problems or len(damaged) > 1:
                print(printable(each.line))
        if damaged:
            problems = [problem for each in damaged for problem in each.problems]
            more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
            folder = damaged[0].folder
            anew = capture_again(folder) if is_captured(folder) else "make it again"
            raise InputError(
                "AS962",
                f"{without_code(problems[0])}{more}; copy it again from where it is whole, or "
                f"{anew}",
            )
