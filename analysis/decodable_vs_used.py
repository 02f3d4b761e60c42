"""What do the gates know, and is it used? python analysis/decodable_vs_used.py RUN...

Runs that differ in nothing but the seed are taken together. Interventions are made where a run
lacks some.
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
from attnscope.plots import PLOTS, plots_of
from attnscope.plots.subjects import Intervened, SeedComparison, Seeds
from attnscope.plots.usage import joint_of, usage_of
from attnscope.recording.outcomes import Outcomes, find_outcomes, outcomes_folder
from attnscope.recording.recording import Recording
from attnscope.report import write_drawings, write_report
from attnscope.statistics.seeds import expect_pairs


def main(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional], out: Path = Path("decodable-vs-used")
) -> None:
    """Tables (CSV), figures and one page.

    Args:
        runs: with recordings of the test split; each has a folder name of its own.
        out: a folder that must not exist.
    """
    if not runs or len({run.name for run in runs}) < len(runs):
        raise InputError("AS955", "give one or more runs with different folder names")
    recordings = [Recording(run) for run in runs]
    kinds = statistics.group_by_kind(recordings)
    run_of = {r.folder: run for r, run in zip(recordings, runs, strict=True)}
    pairs = list(combinations(kinds, 2))
    for a, b in pairs:  # before the hours that interventions take
        expect_pairs(kinds[a], kinds[b])
    for recording in recordings:
        older = outcomes_folder(recording.folder)
        if recording.gates and older.exists() and find_outcomes(recording) is None:
            raise InputError(
                "AS811", f"{older} belongs to another recording; remove it to create it again"
            )
    with new_folder(out) as folder:
        drawings = {}
        for kind, seeds in kinds.items():
            made, tables = [], []
            for recording in seeds if seeds[0].gates else ():
                run = run_of[recording.folder]
                outcomes = find_outcomes(recording)
                if outcomes is None or is_cut_short(outcomes):
                    others = [run_of[other.folder] for other in seeds if other is not recording]
                    outcomes = intervene(run, others, recording)
                made.append(outcomes)
                usage = pd.concat([usage_of(outcomes), joint_of(outcomes)], ignore_index=True)
                tables.append(usage)
                write_bytes(folder / f"{run.name}-usage.csv", usage.to_csv(index=False).encode())
                for plot in plots_of(Intervened):
                    drawings[f"{run.name}-{plot.name}"] = plot.make(Intervened(recording, outcomes))
            if len(made) > 1:
                name = f"{kind}-usage_over_seeds"
                drawings[name] = PLOTS["seed_usage"].make(Seeds(kind, seeds, made))
                table = statistics.usage_over_seeds(tables)
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


def is_cut_short(outcomes: Outcomes) -> bool:
    """Whether an interruption left out what the page is made of."""
    return outcomes.replacement is None or not {"decoding", "effects"} <= set(outcomes.tables)


def intervene(run: Path, seeds: list[Path], recording: Recording) -> Outcomes:
    """Runs the command, and reads what it wrote."""
    command = [sys.executable, "-m", "attnscope", "intervene", str(run)]
    if seeds:
        command += ["--seed-runs", *map(str, seeds)]
    subprocess.run(command, check=True)
    outcomes = find_outcomes(recording)
    assert outcomes is not None  # they were just written
    return outcomes


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
