"""``attnscope compare``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnscope.commands.options import RunsArgument, announce_files, verify_folder
from attnscope.errors import InputError


@dataclass(frozen=True)
class Compare:
    """Compare two networks on the same images, class by class; or two kinds over several seeds."""

    runs: RunsArgument
    """Two run folders with recordings, or two recordings; or as many of one kind as of another."""
    out: Path = Path("comparison")
    """Where the figures go."""

    def __call__(self) -> None:
        from attnscope.pictures import accuracy_sentence
        from attnscope.recording.recording import Recording
        from attnscope.report import write_comparison
        from attnscope.statistics import compare_accuracy

        if len(self.runs) < 2:
            raise InputError(f"compare takes two runs or more, not {len(self.runs)}")
        for run in self.runs:
            verify_folder(run)
        if len(self.runs) > 2:
            self._over_seeds()
            return
        first, second = self.runs
        a, b = Recording(first), Recording(second)
        comparison = compare_accuracy(a, b)
        files = write_comparison(first, second, self.out)
        print(comparison.to_string(index=False, float_format="{:.4g}".format))
        print(accuracy_sentence(comparison, a.name, b.name))
        announce_files(files)

    def _over_seeds(self) -> None:
        from attnscope import figures
        from attnscope.pictures import seed_differences
        from attnscope.recording.recording import Recording
        from attnscope.report import write_pictures
        from attnscope.statistics import compare_seeds, group_by_kind

        kinds = group_by_kind([Recording(run) for run in self.runs])
        if len(kinds) != 2:
            raise InputError(
                f"these are {len(kinds)} kinds of network ({', '.join(kinds)}); compare takes two "
                "runs, or several seeds of two kinds"
            )
        (name_a, a), (name_b, b) = kinds.items()
        table = compare_seeds(a, b)
        with figures.style():
            picture = seed_differences(a, b, (name_a, name_b))
        files = write_pictures({"seed_differences": picture}, self.out)
        print(table.to_string(index=False, float_format="{:.4g}".format))
        print(picture.caption)
        announce_files(files)
