"""What do the gates know, and is it used? python analysis/decodable_vs_used.py RUN...

Runs of one kind of attention are taken as its seeds. Interventions are made where a run has none.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import tyro

from attnscope import figures, statistics
from attnscope.errors import InputError
from attnscope.files import new_folder, read_json, write_bytes
from attnscope.pictures import USAGE, seed_differences, usage_of
from attnscope.recording import Recording
from attnscope.report import find_outcomes, write_pictures, write_report


def main(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional], out: Path = Path("decodable-vs-used")
) -> None:
    """Tables (CSV), figures and one page.

    Args:
        runs: with recordings of the test part.
        out: a folder that must not exist.
    """
    if not runs:
        raise InputError("give one or more runs with recordings")
    kinds: dict[str, list[Path]] = {}
    for run in runs:
        kinds.setdefault(read_json(run / "model.json")["attention"], []).append(run)
    recordings = {run: Recording(run) for run in runs}
    with new_folder(out) as folder:
        pictures = {}
        for seeds in kinds.values():
            for run in seeds if recordings[seeds[0]].gates else ():
                outcomes = find_outcomes(recordings[run])
                if outcomes is None:
                    others = [f"--seed-runs={other}" for other in seeds if other != run]
                    command = [sys.executable, "-m", "attnscope", "intervene", str(run), *others]
                    subprocess.run(command, check=True)
                    outcomes = find_outcomes(recordings[run])
                assert outcomes is not None  # they were made
                usage = usage_of(outcomes)
                write_bytes(folder / f"{run.name}-usage.csv", usage.to_csv(index=False).encode())
                with figures.style():
                    for name, make in USAGE.items():
                        pictures[f"{run.name}-{name}"] = make(recordings[run], outcomes)
        pairs = [(a, b) for i, a in enumerate(kinds) for b in list(kinds)[i + 1 :]]
        for a, b in pairs:
            of_a, of_b = ([recordings[run] for run in kinds[kind]] for kind in (a, b))
            table = statistics.compare_seeds(of_a, of_b)
            write_bytes(folder / f"{a}-{b}.csv", table.to_csv(index=False).encode())
            with figures.style():
                pictures[f"{a}-{b}"] = seed_differences(of_a, of_b, (a.upper(), b.upper()))
        write_pictures(pictures, folder)
        write_report(list(runs), folder / "report.html")
        for name, picture in pictures.items():
            print(f"{name}: {picture.caption}")
    print(f"{out}: {len(pictures)} figures, tables, report.html")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
