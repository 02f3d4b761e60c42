"""Effects of interventions: paired differences over images, with intervals.

An outcome is the result of one edit for one image: the ``prediction``, and the ``margin``, which is
the logit of the true class minus the largest other logit.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.shapes import Array
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
"""Name of the edit that keeps every gate as it is: the unedited network."""


def margins(
    logits: Float[Array, "images classes"], labels: Int64[Array, " images"]
) -> Float64[Array, " images"]:
    """Compute the logit of the true class minus the largest other logit, for each image.

    The margin is positive if the image is classified correctly.

    Args:
        logits: ``(N, K)`` with at least two classes.
        labels: the true class of each image, ``(N,)``.

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


@statistic("Effect of each edit of each gate on accuracy and margin.", takes=("outcomes",))
def replacement_effects(
    outcomes: pd.DataFrame, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Measure the effect of each edit of each target, relative to the unedited network.

    The interval of the change in accuracy is Bonett and Price's (`paired_accuracy_change`), that of
    the change in margin is the 95% percentile bootstrap over images (Efron 1979, Annals of
    Statistics 7), and that of the flips is Wilson's (1927, JASA 22). Null hypothesis: the change is
    0.

    Args:
        outcomes: the table of `attnscope.interventions.replace_gates` with the columns target,
            edit, row, label, prediction and margin. The edit ``own`` occurs once per image.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples.

    Returns:
        One row per target and edit:

        - ``target``, ``edit``
        - ``images``: number of images.
        - ``accuracy``: accuracy under the edit, 0 to 1.
        - ``change``, ``low``, ``high``: change in accuracy, -1 to 1, with its 95% CI.
        - ``margin_change``, ``margin_low``, ``margin_high``: mean change in margin, in units of the
          logits, with its 95% CI.
        - ``flips``, ``flips_low``, ``flips_high``: share of images whose prediction changes, 0 to
          1, with its 95% CI.
        - ``gained``, ``lost``: images that become correct, and that become wrong.

    Raises:
        InputError: a column is missing, or an image has no outcome, or several, of the unedited
            network.
    """
    own = _own(outcomes)
    rows = []
    for (target, edit), group in outcomes.groupby(["target", "edit"], sort=False, observed=True):
        if edit == OWN:
            continue
        before = own.loc[group["row"]]
        was, now = _right(before), _right(group)
        flips = np.mean(group["prediction"].to_numpy() != before["prediction"].to_numpy())
        # For a single share, the interval of a mean of shares is Wilson's.
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


@statistic("Comparison of two edits of each gate.", takes=("outcomes", "edit", "edit"))
def edit_contrast(
    outcomes: pd.DataFrame, first: str, second: str, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Compare two edits of each target, on the images that have both.

    ``edit_contrast(outcomes, "mean", "own")`` measures what the gate of each image is worth
    relative to its mean over the data set (mean ablation). ``edit_contrast(outcomes, "swap_other",
    "swap_same")`` measures what the class information in the gate is worth: both edits are resample
    ablations, with the gate of another image of a different or of the same class.

    ``p`` is the two-sided exact McNemar test. Null hypothesis: an image that is correct under
    exactly one edit is equally likely to be correct under either. ``p_margin`` is the two-sided
    paired t test of the margins. Null hypothesis: the mean margins are equal.

    Args:
        outcomes: the table of `attnscope.interventions.replace_gates`.
        first: an edit; ``own`` is the unedited network.
        second: the edit that is compared with the first.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples.

    Returns:
        One row per target that has both edits:

        - ``target``
        - ``images``: number of images that have both edits.
        - ``change``, ``low``, ``high``: accuracy of the second edit minus accuracy of the first, -1
          to 1, with its 95% CI (`paired_accuracy_change`).
        - ``margin_change``, ``margin_low``, ``margin_high``: mean difference in margin, in units of
          the logits, with its 95% CI (percentile bootstrap over images).
        - ``p``, ``p_margin``: not corrected for the number of targets. ``p_margin`` and the ends of
          the margin interval are NaN with fewer than two images.

    Raises:
        InputError: an edit is unknown, a column is missing, or an image has no outcome, or several,
            of the unedited network.
    """
    own = _own(outcomes)
    known = [OWN, *(e for e in outcomes["edit"].unique() if e != OWN)]
    for edit in (first, second):
        if edit not in known:
            raise InputError(
                "AS710", f"the edit '{edit}' is unknown; choose one of {', '.join(known)}"
            )
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
    """Return the changes in accuracy and margin; both tables list the same images in one order."""
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
        raise InputError(
            "AS707",
            f"the outcomes have no column '{missing[0]}'; pass the table of "
            "attnscope.interventions.replace_gates",
        )
    own = outcomes[outcomes["edit"] == OWN].set_index("row")
    lacking = ~outcomes["row"].isin(own.index)
    if lacking.any():
        raise InputError(
            "AS708",
            f"the image in row {outcomes['row'][lacking].iloc[0]} has no outcome of the edit "
            f"'{OWN}'; pass the whole table of attnscope.interventions.replace_gates",
        )
    if own.index.has_duplicates:
        raise InputError(
            "AS709",
            f"the image in row {own.index[own.index.duplicated()][0]} has several outcomes of the "
            f"edit '{OWN}'; pass the table of one call of attnscope.interventions.replace_gates",
        )
    return own
