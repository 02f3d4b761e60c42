"""Checks of false positive rates (5%) and of the coverage of intervals (90% to 99%).

For statistics of single gates, the gates of one recording are the simulated data sets: they have
the same labels and independent values.

``analysis/calibration.py`` runs these simulations with more data sets and tabulates the rates.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from scipy import stats

TIMES = int(os.environ.get("ATTNSCOPE_CALIBRATION_TIMES", "1"))
FOUND = os.environ.get("ATTNSCOPE_CALIBRATION_FOUND")  # file to append the rates to
RUNS = 400 * TIMES
TEN = list("abcdefghij")


def log_rate(what, rate, runs, refused=0.0):
    if FOUND:
        test = os.environ["PYTEST_CURRENT_TEST"].split("::")[1].rsplit(" ", 1)[0]
        line = {"test": test, "what": what, "rate": float(rate), "data_sets": runs}
        line["refused"] = float(refused)
        with Path(FOUND).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def expect_false_positives(p, conservative=False, of="p"):
    """Check that the rate of p <= 0.05 is within the central 95% of a binomial distribution of 5%.

    For a family of tests ``p`` is the smallest corrected p: then the rate is the family-wise error.
    A conservative test may have a smaller rate. ``of`` names the column in the table of rates.
    """
    p = np.asarray(p, float)
    assert len(p) >= 200
    assert not np.isnan(p).any()
    found = (p <= 0.05).sum()
    expected = "at most 5%" if conservative else "5%"
    log_rate(f"false positives of {of} ({expected})", found / len(p), len(p))
    low, high = stats.binom.interval(0.95, len(p), 0.05)
    assert found <= high, f"{found} of {len(p)} are below 0.05, more than {high}"
    assert conservative or found >= low, f"{found} of {len(p)} are below 0.05, fewer than {low}"


def expect_at_most(p, most, of="p"):
    """Check that the rate of p <= 0.05 over all data sets is not above ``most``.

    A refused test, whose p is NaN, is no false positive; the share refused is in the table.
    """
    p = np.asarray(p, float)
    assert len(p) >= 200
    found, refused = (p <= 0.05).sum(), np.isnan(p).mean()
    what = f"false positives of {of} (at most {100 * most:.0f}%)"
    log_rate(what, found / len(p), len(p), refused)
    high = stats.binom.ppf(0.975, len(p), most)
    assert found <= high, f"{found} of {len(p)} are below 0.05, more than {high}"


def expect_at_most_of_given(p, most=0.05, of="p"):
    """Check that the rate of p <= 0.05 among the tests that are not refused is not above ``most``.

    A test that is refused for most data sets can have a small rate over all of them, and still
    mislead whoever gets a p value. Without any p value the rate is 0.
    """
    p = np.asarray(p, float)
    assert len(p) >= 200
    given = p[~np.isnan(p)]
    found = int((given <= 0.05).sum())
    what = f"false positives of {of} among those given (at most {100 * most:.0f}%)"
    log_rate(what, found / max(len(given), 1), len(p), 1 - len(given) / len(p))
    high = stats.binom.ppf(0.975, len(given), most)
    assert found <= high, f"{found} of {len(given)} are below 0.05, more than {high}"


def expect_coverage(low, high, truth, of="the interval", most=0.99):
    """Check that 90 to 99% of the intervals that are given contain the truth."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    assert len(low) >= 200
    given = ~np.isnan(low)
    truth = np.broadcast_to(truth, low.shape)[given]
    covered = ((low[given] <= truth) & (truth <= high[given])).mean()
    log_rate(f"coverage of {of}", covered, len(low), 1 - given.mean())
    assert 0.90 <= covered <= most, f"the coverage is {covered:.1%}"


def many(write_recording, make, labels, name="many", runs=RUNS, names=TEN, **rest):
    """Return a recording whose gates are ``runs`` simulated data sets."""
    gates = {f"g{i:05d}": make(np.random.default_rng(1000 + i)) for i in range(runs)}
    return write_recording(name, labels=labels, gates=gates, names=names, **rest)
