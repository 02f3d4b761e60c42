"""Are the tests wrong as often as they say? python analysis/calibration.py --times 10.

Runs the simulations of tests/statistics/calibration with more data sets each, and prints
what they find as the table of docs/reference/metrics.md.
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
    """Rates of false positives at 5 % and coverages of 95 % intervals, as tables.

    Each simulation tells by itself what it counts: a row is of one test, and of what it says there.

    Args:
        times: how many times as many data sets as the tests draw.
        out: the table, CSV; an older one is replaced. In Markdown it is printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.jsonl"
        told = {
            "ATTNSCOPE_CALIBRATION_TIMES": str(times),
            "ATTNSCOPE_CALIBRATION_FOUND": str(found),
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", str(TESTS)]
        # With more data sets a rate is known better than a test asks: a miss is told, not hidden.
        code = subprocess.run(command, env=os.environ | told, check=False).returncode
        if not found.is_file():
            sys.exit("no simulation ran; install attnscope[test] and run this from a clone")
        table = pd.read_json(found, lines=True)
    write_bytes(out, table.to_csv(index=False).encode())
    print("\n| what | rate or coverage | data sets |\n| --- | --- | --- |")
    for row in table.to_dict("records"):
        simulation = row["test"].removeprefix("test_").replace("_", " ")
        what = f"{simulation}: {row['what']}"
        print(f"| {what} | {100 * row['rate']:.1f} % | {row['data_sets']:,} |")
    print(f"\n{out}: {len(table)} rates; " + ("all as asked" if code == 0 else "not all as asked"))


if __name__ == "__main__":
    tyro.cli(main)
