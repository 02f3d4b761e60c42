"""``attnscope compare``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnscope.commands.options import RunsArgument, announce_files, verify_folder
from attnscope.errors import InputError


@dataclass(frozen=True)
class Compare:
    """Compare two networks on the same images, class by class.

    With several runs of each of two configurations, compare the configurations over their seeds.
    Runs have the same configuration if they differ only in the seed.
    """

    runs: RunsArgument
    """Run folders with recordings, or recordings: two, or the same number for each of two
    configurations."""
    out: Path = Path("comparison")
    """Folder for the figures."""

    def __call__(self) -> None:
        from attnscope.comparison import expect_two_networks
        from attnscope.plots.builtin import per_class_accuracy, seed_differences
        from attnscope.plots.subjects import Comparison, compare_kinds
        from attnscope.recording.recording import Recording
        from attnscope.report import write_plots

        if len(self.runs) < 2:
            raise InputError(
                "AS959", f"a comparison needs at least two runs; add another to {self.runs[0]}"
            )
        for run in self.runs:
            verify_folder(run)
        recordings = [Recording(run) for run in self.runs]
        if len(recordings) == 2:
            expect_two_networks(*recordings)
            pair = Comparison(*recordings)
            accuracy = per_class_accuracy.compute(pair)
            table, words = accuracy.comparison, per_class_accuracy.caption(accuracy)
            files = write_plots(pair, self.out)
        else:
            kinds = compare_kinds(recordings)
            differences = seed_differences.compute(kinds)
            table, words = differences.comparison, seed_differences.caption(differences)
            files = write_plots(kinds, self.out)
        print(table.to_string(index=False, float_format="{:.4g}".format))
        if len(self.runs) == 2:  # both networks may have one name
            print(f"a (first): {self.runs[0]}, b (second): {self.runs[1]}")
        print(words)
        announce_files(files)
