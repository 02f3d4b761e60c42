"""Compare what is decodable with what is used: python analysis/decodable_vs_used.py RUN...

Runs that differ only in the seed are grouped. Missing interventions are run first.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from attnscope import statistics
from attnscope.errors import InputError
from attnscope.files import new_folder, write_bytes
from attnscope.plots import PLOTS, plots_for
from attnscope.plots.subjects import Intervened, SeedComparison, Seeds
from attnscope.plots.usage import joint_of, usage_of
from attnscope.recording.outcomes import Outcomes, find_outcomes, outcomes_folder
from attnscope.recording.recording import Recording
from attnscope.report import expect_own_names, write_drawings, write_report
from attnscope.statistics.seeds import expect_pairs


def main(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional], out: Path = Path("decodable-vs-used")
) -> None:
    """Write tables (CSV), figures and an HTML page.

    Args:
        runs: runs with recordings of the test split. Their folder names must differ.
        out: output folder, which must not exist.
    """
    expect_own_names(runs)
    recordings = [Recording(run) for run in runs]
    kinds = statistics.group_by_kind(recordings)
    run_of = {r.folder: run for r, run in zip(recordings, runs, strict=True)}
    pairs = list(combinations(kinds, 2))
    for a, b in pairs:  # checked first, because interventions take hours
        expect_pairs(kinds[a], kinds[b])
    for recording in recordings:
        existing = outcomes_folder(recording.folder)
        if recording.gates and existing.exists() and find_outcomes(recording) is None:
            raise InputError(
                "AS942",
                f"the interventions in {existing} belong to another recording than "
                f"{recording.folder}; remove them, and they are run again",
            )
    with new_folder(out) as folder:
        drawings = {}
        for kind, seeds in kinds.items():
            of_seeds, tables = [], []
            for recording in seeds if seeds[0].gates else ():
                run = run_of[recording.folder]
                outcomes = find_outcomes(recording)
                if outcomes is None or is_incomplete(outcomes):
                    others = [run_of[other.folder] for other in seeds if other is not recording]
                    outcomes = intervene(run, others, recording)
                of_seeds.append(outcomes)
                usage = pd.concat([usage_of(outcomes), joint_of(outcomes)], ignore_index=True)
                tables.append(usage)
                write_bytes(folder / f"{run.name}-usage.csv", usage.to_csv(index=False).encode())
                subject = Intervened(recording, outcomes)
                for plot in plots_for(subject):
                    drawings[f"{run.name}-{plot.name}"] = plot.make(subject)
            if len(of_seeds) > 1:
                name = f"{kind}-usage_over_seeds"
                drawings[name] = PLOTS["seed_usage"].make(Seeds(kind, seeds, of_seeds))
                made = [each.replacement for each in of_seeds if each.replacement is not None]
                table = statistics.usage_over_seeds(tables, outcomes=made)
                write_bytes(folder / f"{name}.csv", table.to_csv(index=False).encode())
        for a, b in pairs:
            table = statistics.compare_seeds(kinds[a], kinds[b])
            write_bytes(folder / f"{a}-{b}.csv", table.to_csv(index=False).encode())
            drawings[f"{a}-{b}"] = PLOTS["seed_differences"].make(
                SeedComparison((a, b), kinds[a], kinds[b])
            )
        write_drawings(drawings, folder)
        write_report(list(runs), folder / "report.html")
    for name, drawing in drawings.items():
        print(f"{name}: {drawing.caption}")
    print(f"{out}: {len(drawings)} figures, tables, report.html")


def is_incomplete(outcomes: Outcomes) -> bool:
    """Return whether tables that the page needs are missing, after an interruption."""
    return outcomes.replacement is None or not {"decoding", "effects"} <= set(outcomes.tables)


def intervene(run: Path, seeds: list[Path], recording: Recording) -> Outcomes:
    """Run ``attnscope intervene`` and return the outcomes that it wrote."""
    command = [sys.executable, "-m", "attnscope", "intervene", str(run)]
    if seeds:
        command += ["--seed-runs", *map(str, seeds)]
    subprocess.run(command, check=True)
    outcomes = find_outcomes(recording)
    assert outcomes is not None  # the command has just written them
    return outcomes


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
