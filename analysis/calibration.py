"""Measure false positive rates and coverage: python analysis/calibration.py --times 10.

The script runs the simulations of tests/statistics/calibration with more data sets each, and prints
the rates as the table of docs/metrics.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import tyro

from attnscope.files import write_bytes

TESTS = Path(__file__).parents[1] / "tests" / "statistics" / "calibration"


def main(times: int = 10, out: Path = Path("calibration.csv")) -> None:
    """Measure the rates of false positives at 5% and the coverage of 95% intervals.

    Each simulation logs its own rates; a row of the table is one rate of one simulation.

    Args:
        times: factor for the number of data sets of each simulation.
        out: CSV file for the table, which is replaced if it exists. The table is also printed as
            Markdown.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.jsonl"
        settings = {
            "ATTNSCOPE_CALIBRATION_TIMES": str(times),
            "ATTNSCOPE_CALIBRATION_FOUND": str(found),
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", str(TESTS)]
        # With more data sets the limits of the tests are narrower. A failure is reported below.
        code = subprocess.run(command, env=os.environ | settings, check=False).returncode
        if not found.is_file():
            sys.exit("no simulation ran; install attnscope[test] and run this from a clone")
        table = pd.read_json(found, lines=True)
    write_bytes(out, table.to_csv(index=False).encode())
    print("\n| what | rate or coverage | data sets |\n| --- | --- | --- |")
    for row in table.to_dict("records"):
        simulation = row["test"].removeprefix("test_").replace("_", " ")
        what = f"{simulation}: {row['what']}"
        print(f"| {what} | {100 * row['rate']:.1f}% | {row['data_sets']:,} |")
    print(
        f"\n{out}: {len(table)} rates; "
        + ("all within their limits" if code == 0 else "some outside their limits")
    )


if __name__ == "__main__":
    tyro.cli(main)
