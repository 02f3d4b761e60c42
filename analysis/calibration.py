"""Measure false positive rates and coverage: python analysis/calibration.py --times 10.

The script runs the simulations of tests/statistics/calibration with more data sets each, file after
file, and writes their rates. The same command continues after an interruption. The table of
docs/reference/metrics.md is made from its result.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tyro
from scipy import stats

from attnscope.files import write_bytes

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "statistics" / "calibration"
RESULTS = ROOT / "docs" / "results" / "calibration.json"


def main(times: int = 5, out: Path = RESULTS, only: str = "") -> None:
    """Measure the rates of false positives at 5% and the coverage of 95% intervals.

    Each simulation logs its own rates; a row of the table is one rate of one simulation.

    Args:
        times: factor for the number of data sets of each simulation.
        out: JSON file for the rates. Files of simulations that it has with this factor are not run
            again.
        only: a part of the names of the files to run.
    """
    results: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {}
    for file in sorted(TESTS.glob("test_*.py")):
        name = file.stem.removeprefix("test_")
        if only not in name or results.get(name, {}).get("times") == times:
            continue
        results[name] = {"times": times, **_run(file, times)}
        write_bytes(out, (json.dumps(results, indent=1) + "\n").encode())
        print(f"{name}: {'all within' if results[name]['passed'] else 'some OUTSIDE'} their limits")
    print(table(results))


def table(results: dict[str, Any]) -> str:
    """Return the rates as a Markdown table, each with its exact 95% interval."""
    lines = ["| what | rate or coverage | 95% CI | refused | data sets |", "|" + " --- |" * 5]
    for row in (rate for result in results.values() for rate in result["rates"]):
        simulation = row["test"].removeprefix("test_").replace("_", " ")
        what, data_sets = f"{simulation}: {row['what']}", row["data_sets"]
        if row["what"].startswith("mean of"):
            lines.append(f"| {what} | {row['rate']:.3f} | – | – | {data_sets:,} |")
            continue
        # The coverage is that of the intervals that are given; so are some rates.
        is_of_given = "coverage" in what or "among those given" in what
        given = round(data_sets * (1 - row["refused"])) if is_of_given else data_sets
        if not given:
            lines.append(f"| {what} | none given | – | 100.0% | {data_sets:,} |")
            continue
        low, high = stats.binomtest(round(row["rate"] * given), given).proportion_ci()
        lines.append(
            f"| {what} | {100 * row['rate']:.1f}% | {100 * low:.1f} to {100 * high:.1f}% | "
            f"{100 * row['refused']:.1f}% | {data_sets:,} |"
        )
    return "\n".join(lines)


def _run(file: Path, times: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.jsonl"
        settings = {
            "ATTNSCOPE_CALIBRATION_TIMES": str(times),
            "ATTNSCOPE_CALIBRATION_FOUND": str(found),
        }
        # With more data sets the limits of the tests are narrower.
        command = [sys.executable, "-m", "pytest", "-p", "no:xdist", str(file)]
        done = subprocess.run(command, env=os.environ | settings, check=False, cwd=ROOT)
        lines = found.read_text().splitlines() if found.is_file() else []
    if not lines:
        sys.exit(f"{file} logged no rate; install attnscope[test] and run this from a clone")
    rates = [json.loads(line) for line in lines]
    for rate in rates:
        rate |= {key: round(rate[key], 4) for key in ("rate", "refused")}
    return {"passed": done.returncode == 0, "rates": rates}


if __name__ == "__main__":
    tyro.cli(main)
