"""Effects of interventions: paired differences over images, with intervals.

An outcome is the result of one edit for one image: the ``prediction``, and the ``log_loss`` of the
true class at the best temperature of the edit. An edit that takes the gates of several donors has
an outcome for each of them, and the image counts with the mean over its donors.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Float64, Int64
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp

from attnscope.errors import InputError
from attnscope.shapes import Array
from attnscope.statistics.inference import mean_share_interval
from attnscope.statistics.outcome_pairs import (
    ImageOutcomes,
    paired_changes,
    paired_images,
    paired_tests,
)
from attnscope.statistics.registry import statistic
from attnscope.statistics.resampling import bootstrap_interval

OUTCOME_COLUMNS = ["target", "edit", "row", "label", "prediction", "log_loss"]
_TEMPERATURES = 1e3
"""Temperatures lie within this factor of 1: the best one of a network without errors is 0."""
_LEAST = 1e-6
"""Smaller log losses, in nats, are 0. They occur where the temperature has reached its end."""
OWN = "own"
"""Name of the edit that keeps every gate as it is: the unedited network."""
_CONTRAST_COLUMNS = [
    "target",
    "images",
    "change",
    "low",
    "high",
    "log_loss_change",
    "log_loss_low",
    "log_loss_high",
    "p",
    "p_log_loss",
]


def calibrated_log_losses(
    logits: Float[Array, "images classes"], labels: Int64[Array, " images"]
) -> Float64[Array, " images"]:
    """Compute the log loss of each image at the temperature with the lowest mean.

    Logits have no unit: what divides all of them by one number, such as an edit that makes a
    network more or less confident, changes log losses without changing what the logits
    tell about the class. The temperature (Guo et al. 2017, ICML) removes this. Since the mean is at
    its lowest there, its error does not depend, to first order, on that of the temperature, which
    is estimated from the same images.

    Args:
        logits: ``(N, K)`` with at least two classes.
        labels: the true class of each image, ``(N,)``.

    Returns:
        ``(N,)``, in nats, at least 0.
    """
    every = np.asarray(logits, np.float64)
    # Relative to the true class, so that small losses are exact.
    every = every - every[np.arange(len(every)), labels][:, None]

    def losses(log_inverse: float) -> NDArray[np.float64]:
        return np.asarray(logsumexp(np.exp(log_inverse) * every, axis=1))

    end = float(np.log(_TEMPERATURES))
    # The mean is convex in the inverse temperature, so it has one minimum.
    best = minimize_scalar(lambda x: losses(x).mean(), bounds=(-end, end), method="bounded")
    found = losses(float(best.x))
    found[found < _LEAST] = 0
    return found


@statistic("Effect of each edit of each gate on accuracy and log loss.", takes=("outcomes",))
def replacement_effects(
    outcomes: pd.DataFrame,
    resamples: int = 1000,
    seed: int = 0,
    logits: Float32[Array, "rows classes"] | None = None,
) -> pd.DataFrame:
    """Measure the effect of each edit of each target, relative to the unedited network.

    The interval of the change in accuracy is Bonett and Price's (`paired_accuracy_change`), those
    of the change in log loss and of the divergence are the 95% percentile bootstrap over images
    (Efron 1979, Annals of Statistics 7), and those of shares are Wilson's (1927, JASA 22). The
    intervals of changes include the dependence of images that share a donor
    (`attnscope.statistics.paired`). Null hypothesis: the change is 0.

    Args:
        outcomes: the table of `attnscope.interventions.replace_gates` with the columns target,
            edit, row, label, prediction and log_loss. The edit ``own`` occurs once per image.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples.
        logits: the logits of each row of the outcomes (`Outcomes.logits`), ``(R, K)``.

    Returns:
        One row per target and edit:

        - ``target``, ``edit``
        - ``images``: number of images.
        - ``accuracy``: accuracy under the edit, 0 to 1.
        - ``change``, ``low``, ``high``: change in accuracy, -1 to 1, with its 95% CI.
        - ``log_loss_change``, ``log_loss_low``, ``log_loss_high``: mean change in log loss
          (`calibrated_log_losses`), in nats, with its 95% CI; positive if predictions are worse.
        - ``flips``, ``flips_low``, ``flips_high``: share of images whose prediction changes, 0 to
          1, with its 95% CI.
        - ``gained``, ``lost``: images that become correct, and that become wrong.
        - ``agreement``: share of images whose prediction stays, 0 to 1: 1 - ``flips``.
        - ``kl``, ``kl_low``, ``kl_high``: mean Kullback-Leibler divergence of the probabilities
          under the edit from those of the unedited network, in nats, with its 95% CI; NaN without
          ``logits``.
        - ``interchange``, ``interchange_low``, ``interchange_high``: share of images that are
          predicted as the class of their donor, of those whose donor is of another class (or whose
          gate is the mean of another class), 0 to 1, with its 95% CI: the interchange intervention
          accuracy of Geiger et al. (2021, NeurIPS). NaN without such donors.
        - ``interchange_own``: the share of the same images that the unedited network predicts as
          that class.

    Raises:
        InputError: a column is missing, or an image has no outcome, or several, of the unedited
            network.
    """
    own = own_outcomes(outcomes)
    outcomes = outcomes.reset_index(drop=True)
    divergence = None if logits is None else _divergence(outcomes, logits)
    rows = []
    for (target, edit), group in outcomes.groupby(["target", "edit"], sort=False, observed=True):
        if edit == OWN:
            continue
        after = ImageOutcomes.of(group)
        before = ImageOutcomes.of(own.loc[after.rows].reset_index())
        was, now = before.right, after.right
        said = own.loc[group["row"], "prediction"].to_numpy()
        flips = _mean_of_images(group, group["prediction"].to_numpy() != said)
        # For a single share, the interval of a mean of shares is Wilson's.
        flips_low, flips_high = mean_share_interval(np.array([flips]), np.array([len(was)]))
        found = {
            "target": target,
            "edit": edit,
            "images": len(was),
            "accuracy": now.mean(),
            **paired_changes(before, after, resamples, seed),
            "flips": flips,
            "flips_low": flips_low,
            "flips_high": flips_high,
            "gained": int((now.astype(float) > was).sum()),
            "lost": int((now.astype(float) < was).sum()),
            "agreement": 1 - flips,
            **dict.fromkeys(("kl", "kl_low", "kl_high"), np.nan),
        }
        if divergence is not None:
            each = _per_image(group, divergence[group.index])
            low, high = bootstrap_interval(each[:, None], resamples, seed)
            found |= {"kl": float(each.mean()), "kl_low": low[0], "kl_high": high[0]}
        rows.append({**found, **_interchange(group, said)})
    return pd.DataFrame(rows)


@statistic("Comparison of two edits of each gate.", takes=("outcomes", "edit", "edit"))
def edit_contrast(
    outcomes: pd.DataFrame, first: str, second: str, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Compare two edits of each target, on the images that have both.

    ``edit_contrast(outcomes, "constant", "own")`` measures what the gate of each image is worth
    relative to the best constant (removal). ``edit_contrast(outcomes, "swap_other", "swap_same")``
    measures how sensitive the network is to the gate of another class (misinformation): both edits
    are resample ablations, with the gate of another image of a different or of the same class.

    ``p`` is the two-sided exact McNemar test, and with several donors per image the exact sign-flip
    test of the differences, which generalizes it. Null hypothesis: an image that is correct under
    exactly one edit is equally likely to be correct under either. ``p_log_loss`` is the two-sided
    paired t test of the log losses. Null hypothesis: the mean log losses are equal. If donors serve
    several images, the variance includes the dependence of these images
    (`attnscope.statistics.paired`): ``p`` is the larger one of the exact test and of a t test with
    this variance, and ``p_log_loss`` is that of the t test.

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
        - ``log_loss_change``, ``log_loss_low``, ``log_loss_high``: log loss of the second edit
          minus log loss of the first, in nats, with its 95% CI (percentile bootstrap over images).
        - ``p``, ``p_log_loss``: not corrected for the number of targets. ``p_log_loss`` and the
          ends of the interval of the log loss are NaN with fewer than two images. ``p_log_loss`` is
          also NaN if the log losses of fewer than 10 images move (it is 1 if none does), and both
          are NaN if fewer than 10 donors serve several images.

    Raises:
        InputError: an edit is unknown, a column is missing, or an image has no outcome, or several,
            of the unedited network.
    """
    own = own_outcomes(outcomes)
    known = [OWN, *(e for e in outcomes["edit"].unique() if e != OWN)]
    for edit in (first, second):
        if edit not in known:
            raise InputError(
                "AS710", f"the edit '{edit}' is unknown; choose one of {', '.join(known)}"
            )
    rows = []
    edited = outcomes[outcomes["edit"] != OWN]
    for target, group in edited.groupby("target", sort=False, observed=True):
        parts = [
            own.reset_index() if edit == OWN else group[group["edit"] == edit]
            for edit in (first, second)
        ]
        pair = paired_images(*parts)
        if not len(pair[0].rows):
            continue
        rows.append(
            {
                "target": target,
                "images": len(pair[0].rows),
                **paired_changes(*pair, resamples, seed),
                **paired_tests(*pair),
            }
        )
    return pd.DataFrame(rows, columns=_CONTRAST_COLUMNS)


def _divergence(
    outcomes: pd.DataFrame, logits: Float32[Array, "rows classes"]
) -> Float64[Array, " rows"]:
    """Return the divergence of each row from the unedited network on the same image, in nats."""
    if len(logits) != len(outcomes):
        raise InputError(
            "AS740",
            f"there are logits of {len(logits)} rows, but the outcomes have {len(outcomes)} rows; "
            "pass the logits and the table of the same outcomes",
        )
    every = log_softmax(np.asarray(logits, np.float64), axis=1)
    is_own = (outcomes["edit"] == OWN).to_numpy()
    place = pd.Series(np.flatnonzero(is_own), outcomes["row"].to_numpy()[is_own])
    own = every[place.loc[outcomes["row"]].to_numpy()]
    found: NDArray[np.float64] = np.asarray((np.exp(own) * (own - every)).sum(1)).clip(0)
    return found


def _interchange(group: pd.DataFrame, said: NDArray[np.int64]) -> dict[str, float]:
    """Return the share of images that are predicted as their donor's class, if it is another."""
    none = dict.fromkeys(
        ("interchange", "interchange_low", "interchange_high", "interchange_own"), np.nan
    )
    if "donor_class" not in group:
        return none
    of_class = group["donor_class"].to_numpy()
    other = (of_class >= 0) & (of_class != group["label"].to_numpy())
    if not other.any():
        return none
    part = group[other]
    share = _mean_of_images(part, part["prediction"].to_numpy() == of_class[other])
    images = part["row"].nunique()
    low, high = mean_share_interval(np.array([share]), np.array([images]))
    own = _mean_of_images(part, said[other] == of_class[other])
    return {
        "interchange": share,
        "interchange_low": low,
        "interchange_high": high,
        "interchange_own": own,
    }


def _per_image(group: pd.DataFrame, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the donors of each image, in the order of the images."""
    if not group["row"].duplicated().any():
        return values
    means = pd.Series(values).groupby(group["row"].to_numpy(), sort=False).mean()
    return np.asarray(means, np.float64)


def _mean_of_images(group: pd.DataFrame, holds: NDArray[np.bool_]) -> float:
    """Return the share of images for which something holds; an image has the mean of its donors."""
    return float(np.mean(_per_image(group, holds.astype(np.float64))))


def own_outcomes(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return the outcomes of the unedited network, indexed by the rows of the images.

    Raises:
        InputError: a column is missing (AS707), or an image has no outcome (AS708), or several
            (AS709), of the unedited network.
    """
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
