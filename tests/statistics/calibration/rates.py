"""Tests that are wrong in 5 % without effect, intervals that hold the truth in 90 to 99 %.

Where a statistic is of one gate, the gates of one recording are the data sets: their values are
drawn independently, and their labels are the same.

``analysis/calibration.py`` runs the same with more data sets, and writes down what it finds.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from scipy import stats

TIMES = int(os.environ.get("ATTNSCOPE_CALIBRATION_TIMES", "1"))
FOUND = os.environ.get("ATTNSCOPE_CALIBRATION_FOUND")  # where rates are written down, if at all
RUNS = 400 * TIMES
TEN = list("abcdefghij")


def write_down(what, rate, runs):
    if FOUND:
        test = os.environ["PYTEST_CURRENT_TEST"].split("::")[1].split(" ")[0]
        line = {"test": test, "what": what, "rate": float(rate), "data_sets": runs}
        with Path(FOUND).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def expect_false_positives(p, conservative=False, of="p"):
    """At 5 %, within the central 95 % (two-sided) of what so many honest tests would give.

    Of a family of tests ``p`` is the least, corrected: then it is the family that is wrong in 5 %.
    ``of`` is its column, for the table.
    """
    p = np.asarray(p, float)
    assert len(p) >= 200
    assert not np.isnan(p).any()
    found = (p <= 0.05).sum()
    asked = "at most 5 %" if conservative else "5 %"
    write_down(f"false positives of {of} ({asked})", found / len(p), len(p))
    low, high = stats.binom.interval(0.95, len(p), 0.05)
    assert found <= high, f"{found} of {len(p)} are below 0.05, more than {high}"
    assert conservative or found >= low, f"{found} of {len(p)} are below 0.05, fewer than {low}"


def expect_coverage(low, high, truth, of="the interval"):
    low, high = np.asarray(low, float), np.asarray(high, float)
    assert len(low) >= 200
    covered = ((low <= truth) & (truth <= high)).mean()
    write_down(f"coverage of {of}", covered, len(low))
    assert 0.90 <= covered <= 0.99, f"the interval holds the truth in {covered:.1%}"


def many(write_recording, make, labels, name="many", runs=RUNS, names=TEN, **rest):
    """One recording whose gates are ``runs`` data sets."""
    gates = {f"g{i:05d}": make(np.random.default_rng(1000 + i)) for i in range(runs)}
    return write_recording(name, labels=labels, gates=gates, names=names, **rest)
