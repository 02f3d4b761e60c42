"""Measure false positive rates and coverage: python analysis/calibration.py --times 10.

The script runs the simulations of tests/statistics/calibration with more data sets each, one after
the other, and writes their rates. The same command continues after an interruption. The table of
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
TESTS = Path("tests") / "statistics" / "calibration"
RESULTS = ROOT / "docs" / "results" / "calibration.json"


def main(times: int = 5, out: Path = RESULTS, only: str = "") -> None:
    """Measure the rates of false positives at 5% and the coverage of 95% intervals.

    Each simulation logs its own rates; a row of the table is one rate of one simulation.

    Args:
        times: factor for the number of data sets of each simulation.
        out: JSON file for the rates. Simulations that it has with this factor are not repeated.
        only: a part of the names of the simulations to run.
    """
    results: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {}
    for name in _collected():
        if only not in name or results.get(name, {}).get("times") == times:
            continue
        results[name] = {"times": times, **_run(name, times)}
        write_bytes(out, (json.dumps(results, indent=1) + "\n").encode())
        print(f"{name}: {'within' if results[name]['passed'] else 'OUTSIDE'} its limits")
    print(table(results))


def table(results: dict[str, Any]) -> str:
    """Return the rates as a Markdown table, each with its exact 95% interval."""
    lines = ["| what | rate or coverage | 95% CI | refused | data sets |", "|" + " --- |" * 5]
    for name, result in results.items():
        simulation = name.split("::")[1].removeprefix("test_").replace("_", " ")
        for row in result["rates"]:
            what = f"{simulation}: {row['what']}"
            if "mean of" in what:
                lines.append(f"| {what} | {row['rate']:.3f} | – | – | {row['data_sets']:,} |")
                continue
            given = row["data_sets"]
            if "coverage" in what:
                given = round(given * (1 - row["refused"]))
            low, high = stats.binomtest(round(row["rate"] * given), given).proportion_ci()
            lines.append(
                f"| {what} | {100 * row['rate']:.1f}% | {100 * low:.1f} to {100 * high:.1f}% | "
                f"{100 * row['refused']:.1f}% | {row['data_sets']:,} |"
            )
    return "\n".join(lines)


def _collected() -> list[str]:
    found = _pytest("--collect-only", "-q")
    names = [line for line in found.stdout.splitlines() if "::" in line]
    if not names:
        sys.exit("no simulation was found; install attnscope[test] and run this from a clone")
    return [name.split("/")[-1] for name in names]


def _run(name: str, times: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.jsonl"
        settings = {
            "ATTNSCOPE_CALIBRATION_TIMES": str(times),
            "ATTNSCOPE_CALIBRATION_FOUND": str(found),
        }
        # With more data sets the limits of the tests are narrower.
        done = _pytest("-q", "-p", "no:xdist", name=name, settings=settings)
        lines = found.read_text().splitlines() if found.is_file() else []
    rates = [json.loads(line) for line in lines]
    return {"passed": done.returncode == 0, "rates": [without_test(rate) for rate in rates]}


def without_test(rate: dict[str, Any]) -> dict[str, Any]:
    """Return a rate without the name of its simulation, rounded to four digits."""
    kept = {key: value for key, value in rate.items() if key != "test"}
    return {**kept, "rate": round(rate["rate"], 4), "refused": round(rate["refused"], 4)}


def _pytest(
    *options: str, name: str = "", settings: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    where = str(TESTS / name) if name else str(TESTS)
    command = [sys.executable, "-m", "pytest", *options, where]
    environment = os.environ | (settings or {})
    return subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, cwd=ROOT
    )


if __name__ == "__main__":
    tyro.cli(main)
