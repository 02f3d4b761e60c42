"""What an intervention changes: paired differences, image by image, with intervals.

An outcome is what the network said of one image under one edit: ``prediction`` and ``margin``, the
true class's logit minus the largest other one.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.statistics.inference import (
    mcnemar,
    mean_share_interval,
    paired_accuracy_change,
    paired_t,
)
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import bootstrap_interval

OUTCOME_COLUMNS = ["target", "edit", "row", "label", "prediction", "margin"]
OWN = "own"
"""The edit that leaves every gate as it is."""


def margins(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The true class's logit minus the largest other one: above 0 where the image is right.

    Args:
        logits: ``(N, K)``, of at least two classes.
        labels: ``(N,)``

    Returns:
        ``(N,)``, in units of the logits.
    """
    every = np.asarray(logits, np.float64)
    rows = np.arange(len(every))
    true = every[rows, labels].copy()
    others = every.copy()
    others[rows, labels] = -np.inf
    found: NDArray[np.float64] = true - others.max(1)
    return found


@statistic("What each edit of each gate changes.", takes=("outcomes",))
def replacement_effects(
    outcomes: pd.DataFrame, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """What each edit of each target changes, against the unedited network on the same images.

    Args:
        outcomes: of `attnscope.interventions.replace_gates`: target, edit, row, label, prediction,
            margin; the edit ``own`` once for each image.
        resamples: of the bootstrap over images.
        seed: of it.

    Returns:
        One row a target and edit: target, edit, images, accuracy (under the edit), change, low,
        high (of accuracy, -1 to 1, with `paired_accuracy_change`), margin_change, margin_low,
        margin_high (in units of the logits, bootstrap), flips (share of images whose prediction
        changes, 0 to 1), flips_low, flips_high (95 %, Wilson 1927, JASA 22), gained, lost (images
        that become right, and wrong).

    Raises:
        InputError: columns are missing, or an image has no outcome of its own gates.
    """
    own = _own(outcomes)
    rows = []
    for (target, edit), group in outcomes.groupby(["target", "edit"], sort=False, observed=True):
        if edit == OWN:
            continue
        before = own.loc[group["row"]]
        was, now = _right(before), _right(group)
        flips = np.mean(group["prediction"].to_numpy() != before["prediction"].to_numpy())
        # Of one share alone the interval of a mean of shares is Wilson's.
        flips_low, flips_high = mean_share_interval(np.array([flips]), np.array([len(group)]))
        rows.append(
            {
                "target": target,
                "edit": edit,
                "images": len(group),
                "accuracy": now.mean(),
                **_changes(before, group, resamples, seed),
                "flips": flips,
                "flips_low": flips_low,
                "flips_high": flips_high,
                "gained": int((now & ~was).sum()),
                "lost": int((was & ~now).sum()),
            }
        )
    return pd.DataFrame(rows)


@statistic("Two edits of each gate against each other.", takes=("outcomes", "edit", "edit"))
def edit_contrast(
    outcomes: pd.DataFrame, first: str, second: str, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Two edits of each target against each other, on the images that have both.

    ``edit_contrast(outcomes, "mean", "own")`` is the value of being dynamic: what the gates of the
    image itself are worth above the data set's mean. ``("swap_other", "swap_same")`` is what the
    class in the gate is worth: both are another image's gate, and differ in its class.

    Args:
        outcomes: of `attnscope.interventions.replace_gates`.
        first, second: edits; ``own`` stands for the unedited network.
        resamples: of the bootstrap over images.
        seed: of it.

    Returns:
        One row a target that has both: target, images, change, low, high (accuracy of the second
        minus that of the first), margin_change, margin_low, margin_high, p: exact McNemar, two-
        sided, the null being that an image that one edit alone gets right is as likely one's as the
        other's; p_margin: Student's paired t test of the margins, two-sided, the null being that
        they are the same in the mean. NaN with fewer than two images.

    Raises:
        InputError: there is no such edit, or columns are missing.
    """
    own = _own(outcomes)
    known = [OWN, *(e for e in outcomes["edit"].unique() if e != OWN)]
    for edit in (first, second):
        if edit not in known:
            raise InputError(f"there is no edit '{edit}'; there are {', '.join(known)}")
    rows = []
    edited = outcomes[outcomes["edit"] != OWN]
    for target, group in edited.groupby("target", sort=False, observed=True):
        pair = []
        for edit in (first, second):
            part = own if edit == OWN else group[group["edit"] == edit].set_index("row")
            pair.append(part)
        shared = pair[0].index.intersection(pair[1].index)
        if not len(shared):
            continue
        a, b = (part.loc[shared] for part in pair)
        rows.append(
            {
                "target": target,
                "images": len(shared),
                **_changes(a, b, resamples, seed),
                "p": mcnemar(_right(a), _right(b)),
                "p_margin": paired_t(a["margin"].to_numpy(), b["margin"].to_numpy()),
            }
        )
    return pd.DataFrame(rows)


def _changes(
    before: pd.DataFrame, after: pd.DataFrame, resamples: int, seed: int
) -> dict[str, float]:
    """What changes in accuracy and margin between two outcomes of the same images, in one order."""
    change, low, high = paired_accuracy_change(_right(before), _right(after))
    shift = after["margin"].to_numpy(np.float64) - before["margin"].to_numpy(np.float64)
    margin_low, margin_high = bootstrap_interval(shift[:, None], resamples, seed)
    return {
        "change": change,
        "low": low,
        "high": high,
        "margin_change": float(shift.mean()),
        "margin_low": margin_low[0],
        "margin_high": margin_high[0],
    }


def _right(outcomes: pd.DataFrame) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = (outcomes["prediction"] == outcomes["label"]).to_numpy()
    return right


def _own(outcomes: pd.DataFrame) -> pd.DataFrame:
    missing = [column for column in OUTCOME_COLUMNS if column not in outcomes]
    if missing:
        raise InputError(f"outcomes lack the column {missing[0]}; take those of replace_gates")
    own = outcomes[outcomes["edit"] == OWN].set_index("row")
    lacking = ~outcomes["row"].isin(own.index)
    if lacking.any() or own.index.has_duplicates:
        row = int(outcomes["row"][lacking].iloc[0]) if lacking.any() else -1
        raise InputError(
            f"image {row} has no outcome of its own gates"
            if row >= 0
            else "an image has several outcomes of its own gates"
        )
    return own
