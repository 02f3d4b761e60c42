"""How often verdicts on gates are false: python analysis/verdicts.py --data-sets 500.

Networks with 16 gates in four blocks are simulated, of which 0, 1 or 8 are used. The script counts
the data sets in which any gate or block that is not used gets a verdict that says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from numpy.typing import NDArray
from scipy import stats

from attnscope.files import write_bytes
from attnscope.statistics.effects import calibrated_log_losses
from attnscope.statistics.inference import significant
from attnscope.statistics.questions import ask
from attnscope.statistics.verdicts import NOTHING, SENSITIVE, target_kind, verdicts

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "verdicts.csv"
GATES, BLOCKS = 16, 4
USED = (0, 1, 8)
EDITS = {
    "constant": 0,
    "swap_any": 1,
    "swap_same": 1,
    "swap_other": 1,
    "matched_same": 2,
    "matched_other": 2,
}
"""Edit -> number of donors of each image."""


@dataclass(frozen=True)
class Rates:
    """What was counted in the data sets of one number of used gates."""

    used: int
    data_sets: int
    false: int
    """Data sets with a false verdict."""
    found: float
    """Mean share of the used gates that are found, 0 to 1; NaN without used gates."""
    untested: float
    """Mean share of the tests of the log losses that were refused, 0 to 1."""
    resample: int
    """Data sets in which resampling an unused gate is significant."""
    misinformation: int
    """Data sets in which a wrong class in an unused gate is significant."""
    matched: int
    """The same with matched donors."""

    @property
    def interval(self) -> tuple[float, float]:
        """Return the exact 95% interval of the rate (Clopper and Pearson 1934)."""
        found = stats.binomtest(self.false, self.data_sets).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)


def simulate(
    used: int,
    rng: np.random.Generator,
    images: int = 250,
    donors: int = 400,
    edits: Mapping[str, int] = EDITS,
) -> pd.DataFrame:
    """Return outcomes of a network with 16 gates, the first ``used`` of which are used.

    The margin of an image is its difficulty plus a contribution of each gate. A contribution has
    heavy tails (Student's t with three degrees of freedom), and another draw is as good, whatever
    it comes from; a part of it belongs to the donor, so that images with the same donor depend on
    each other. The own gate of a used gate adds one standard deviation, and the gate of another
    class takes one away.

    Args:
        used: number of used gates, 0 to 16.
        rng: random generator.
        images: number of scored images.
        donors: number of donors, which are drawn with replacement.
        edits: some of `EDITS`.
    """
    gates = [f"block{g // (GATES // BLOCKS)}.g{g:02d}" for g in range(GATES)]
    blocks = {
        f"block block{b}": [g for g in range(GATES) if g // BLOCKS == b] for b in range(BLOCKS)
    }
    targets = {name: [g] for g, name in enumerate(gates)} | blocks | {"all": list(range(GATES))}
    # About four of five images are right, however many gates are used.
    base = 7 - 1.5 * used + 2 * rng.normal(size=images)
    own = rng.standard_t(3, (GATES, images))
    own[:used] += 1.5
    of_donor = rng.standard_t(3, (GATES, donors))

    def frame(
        target: str, edit: str, margin: NDArray[np.float64], donor: NDArray[np.int64]
    ) -> pd.DataFrame:
        values = {
            "row": np.arange(images),
            "label": np.zeros(images, int),
            "prediction": (margin <= 0).astype(int),
        }
        logits = np.stack([margin, np.zeros(images)], axis=1)
        return pd.DataFrame(
            {
                "target": target,
                "edit": edit,
                **values,
                "log_loss": calibrated_log_losses(logits, values["label"]),
                "donor": donor,
            }
        )

    total = base + own.sum(0)
    none = np.full(images, -1)
    frames = [frame("", "own", total, none)]
    drawn = {
        (edit, k): rng.integers(0, donors, images)
        for edit, count in edits.items()
        for k in range(count)
    }
    for target, members in targets.items():
        kept = total - own[members].sum(0)
        for edit, count in edits.items():
            for k in range(max(count, 1)):
                # A contribution has the same spread whatever it comes from.
                new = rng.standard_t(3, (len(members), images))
                donor = none
                if count:
                    donor = drawn[edit, k]
                    new = (new + of_donor[np.array(members)[:, None], donor]) / np.sqrt(2)
                if edit.endswith("other"):
                    new[[place for place, g in enumerate(members) if g < used]] -= 1.5
                frames.append(frame(target, edit, kept + new.sum(0), donor))
    return pd.concat(frames, ignore_index=True)


def count_false(
    used: int,
    data_sets: int,
    seed: int = 0,
    images: int = 250,
    edits: Mapping[str, int] = EDITS,
) -> Rates:
    """Simulate data sets, and count those with a false verdict.

    Args:
        used: number of used gates, 0 to 16.
        data_sets: number of data sets.
        seed: random seed.
        images: number of scored images.
        edits: some of `EDITS`.
    """
    false, found, untested = 0, [], []
    misled = {"resample": 0, "misinformation": 0, "matched": 0}
    for number in range(data_sets):
        rng = np.random.default_rng([seed, used, number])
        asked = ask(simulate(used, rng, images, edits=edits), resamples=1)
        names = [str(target) for target in asked.index]
        said = verdicts(asked)
        truth = np.array([_is_used(name, used) for name in names])
        false += bool((~truth & ~np.isin(said, (NOTHING, SENSITIVE))).any())
        # Sensitivity to a wrong gate is no use, and has rates of its own.
        for question in misled:
            tests = asked.loc[~truth, [f"p_{question}", f"p_{question}_log_loss"]]
            misled[question] += bool(significant(tests).any())
        single = np.array([target_kind(name) == "gate" for name in names])
        if used:
            found.append(float((~np.isin(said[truth & single], (NOTHING, SENSITIVE))).mean()))
        untested.append(float(asked["p_removal_log_loss"].isna().mean()))
    share = float(np.mean(found)) if found else np.nan
    return Rates(used, data_sets, false, share, float(np.mean(untested)), **misled)


def _is_used(target: str, used: int) -> bool:
    kind = target_kind(target)
    if kind == "all":
        return used > 0
    if kind == "block":
        return int(target.removeprefix("block block")) * (GATES // BLOCKS) < used
    return int(target[-2:]) < used


def main(data_sets: int = 1000, images: int = 250, out: Path = RESULTS) -> None:
    """Measure the rate of false verdicts with 0, 1 and 8 of 16 gates used.

    Args:
        data_sets: number of data sets for each number of used gates.
        images: number of scored images.
        out: CSV file for the table, which is also printed as Markdown.
    """
    rows = []
    print(
        "| gates used | data sets | with a false verdict | false: resample | misinformation | "
        "matched | used gates found | refused |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for used in USED:
        rates = count_false(used, data_sets, images=images)
        low, high = rates.interval
        rate = rates.false / data_sets
        rows.append({**vars(rates), "rate": rate, "low": low, "high": high, "images": images})
        found = f"{rates.found:.1%}" if used else "–"
        others = " | ".join(
            f"{each / data_sets:.1%}"
            for each in (rates.resample, rates.misinformation, rates.matched)
        )
        print(
            f"| {used} of {GATES} | {data_sets:,} | {rate:.1%} ({low:.1%} to {high:.1%}) "
            f"| {others} | {found} | {rates.untested:.1%} |",
            flush=True,
        )
    write_bytes(out, pd.DataFrame(rows).to_csv(index=False).encode())


if __name__ == "__main__":
    tyro.cli(main)
