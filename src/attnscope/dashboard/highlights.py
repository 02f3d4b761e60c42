"""What stands out in a recording, in sentences: each names what was measured, with its interval.

>>> for highlight in confused_pairs(confusion_matrix(recording)):
...     print(highlight.write())

A sentence is made from a table, and there is none if the table does not show what it says. Names of
gates and classes are kept apart from the words, because pages must show them literally.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from attnscope.kinds import PER_CHANNEL
from attnscope.plots.text import (
    as_count,
    as_interval,
    as_percent,
    as_plain_nats,
    as_plain_points,
)
from attnscope.recording.recording import Recording
from attnscope.statistics.inference import LEVEL, holm, mean_share_interval, significant
from attnscope.statistics.questions import REMOVAL, is_mixed
from attnscope.statistics.reading import gate_chunks, units_of
from attnscope.statistics.verdicts import NOT_NEEDED, NOTHING, SENSITIVE, UNUSED

STILL = 0.01
"""Share of its range by which a gate that never moves varies at most."""
MOST = 3
"""Number of gates, pairs or classes that are named; the others are counted."""
CHANNELS, MAPS, USAGE, CONFUSION = "channels", "maps", "usage", "confusion"
"""Pages that show more."""


@dataclass(frozen=True)
class Highlight:
    """A sentence, and where to see more."""

    template: str
    """The sentence, in which ``{0}``, ``{1}`` ... stand for `names`."""
    names: tuple[str, ...]
    """Names of gates or classes."""
    page: str
    """The page of the dashboard that shows more: one of the names above."""
    query: Mapping[str, str] = field(default_factory=dict)
    """What is chosen on that page: key of the address -> value."""

    def write(self, quote: Callable[[str], str] = str) -> str:
        """Return the sentence.

        Args:
            quote: writes a name, such as a function that escapes it.
        """
        return self.template.format(*map(quote, self.names))


def still_gates(recording: Recording, threshold: float = STILL) -> pd.DataFrame:
    """Find the gates of which no value moves: every unit is nearly the same for all images.

    A unit is a channel, or a position of another gate. Reading a gate ends as soon as one of its
    units has moved.

    Args:
        recording: recording of one network.
        threshold: share of the gate's range that a unit's values may span.

    Returns:
        One row per gate with bounds:

        - ``gate``, ``kind``, ``depth``
        - ``still``: whether the values of every unit span at most the threshold.
        - ``span``: the largest span of a unit as a share of the range; NaN for a gate that moves.
        - ``has_channels``: whether it has one value for each channel.
    """
    rows = []
    for depth, gate in enumerate(recording.gates, start=1):
        if not gate.bounded:
            continue
        units = units_of(recording, gate.name)
        low, high = np.full(units, np.inf), np.full(units, -np.inf)
        span = 0.0
        for chunk in gate_chunks(recording, gate.name):
            values = recording.gate(gate.name, chunk).reshape(-1, units)
            np.minimum(low, values.min(0), out=low)
            np.maximum(high, values.max(0), out=high)
            span = float((high - low).max()) / (gate.hi - gate.lo)
            if span > threshold:
                break
        rows.append(
            {
                "gate": gate.name,
                "kind": gate.kind,
                "depth": depth,
                "still": span <= threshold,
                "span": span if span <= threshold else np.nan,
                "has_channels": gate.offers(PER_CHANNEL),
            }
        )
    columns = ["gate", "kind", "depth", "still", "span", "has_channels"]
    return pd.DataFrame(rows, columns=columns)


def gates_that_never_move(still: pd.DataFrame, images: int) -> list[Highlight]:
    """Say which gates never move.

    Args:
        still: `still_gates`.
        images: number of images on which that was seen.
    """
    found = still[still["still"].astype(bool)].sort_values("span")
    if found.empty:
        return []
    names = list(found["gate"])
    shown = names[:MOST]
    every = as_count(len(still), "gate")
    # With no exception among N images: the upper end of Clopper and Pearson's one-sided interval.
    most = 1 - 0.05 ** (1 / images)
    which = f"{_slots(shown)}{_and_others(len(names) - len(shown), 'gate')}"
    verb = "never moves" if len(names) == 1 else "never move"
    first = found.iloc[0]
    return [
        Highlight(
            f"{len(names)} of {every} {verb}: {which}. Every value varies by at most "
            f"{100 * found['span'].max():.2g}% of its range over {as_count(images, 'image')}; with "
            f"95% confidence, a gate moves further in less than {_small_percent(most)} of images "
            "like these.",
            tuple(shown),
            CHANNELS if first["has_channels"] else MAPS,
            {"gate": str(first["gate"])} if first["has_channels"] else {},
        )
    ]


def gates_that_could_be_constants(usage: pd.DataFrame) -> list[Highlight]:
    """Say which gates could be constants by the interventions.

    Args:
        usage: `attnscope.statistics.gate_usage`.
    """
    highlights = []
    every = as_count(len(usage), "gate")
    needless = usage[usage["verdict"] == NOT_NEEDED].sort_values("removal_value")
    if len(needless):
        shown = list(needless["gate"])[:MOST]
        most = needless["removal_high"].max()
        highlights.append(
            Highlight(
                f"{len(needless)} of {every} could be constants: {_slots(shown)}"
                f"{_and_others(len(needless) - len(shown), 'gate')}. Replacing one of them by its "
                "best constant is shown to change less than the smallest effect that was stated "
                "beforehand; the 95% CIs of the loss of accuracy reach up to "
                f"{as_plain_points(most)} percentage points.",
                tuple(shown),
                USAGE,
            )
        )
    undetected = usage[usage["verdict"].isin([NOTHING, UNUSED, SENSITIVE])]
    if len(undetected):
        shown = list(undetected.sort_values("removal_value")["gate"])[:MOST]
        worst = _largest(undetected, "removal_value")
        interval = as_interval(worst["removal_low"], worst["removal_high"], as_plain_points)
        text = (
            f"No use was detected of {len(undetected)} of {every}: {_slots(shown)}"
            f"{_and_others(len(undetected) - len(shown), 'gate')}. This does not show "
            "that constants could replace them: with the best constants, the largest loss of "
            "accuracy is "
            f"{as_plain_points(worst['removal_value'])} percentage points ({interval})"
        )
        if np.isfinite(undetected["detectable"]).any():
            seen = as_plain_points(undetected["detectable"].max())
            text += (
                f", and a loss of {seen} points, if no image is gained, would have been seen with "
                "a power of 80%"
            )
        highlights.append(Highlight(f"{text}.", tuple(shown), USAGE))
    return highlights


def all_gates_at_once(joint: pd.DataFrame) -> list[Highlight]:
    """Say what it costs to replace all gates by constants together.

    Args:
        joint: `attnscope.statistics.joint_usage`.
    """
    whole = joint[joint["gate"] == "all"]
    if whole.empty or not np.isfinite(whole["removal_value"].iloc[0]):
        return []
    row = whole.iloc[0]
    points = as_interval(row["removal_low"], row["removal_high"], as_plain_points)
    nats = as_interval(row["removal_log_loss_low"], row["removal_log_loss_high"], as_plain_nats)
    loss, log_loss = row["removal_value"], row["removal_log_loss"]
    of_accuracy = f"the accuracy (loss: {as_plain_points(loss)} percentage points, {points})"
    if is_mixed(whole, REMOVAL)[0]:
        what = (
            f"improves one of accuracy and log loss and worsens the other (accuracy lost: "
            f"{as_plain_points(loss)} percentage points, {points}; log loss added: "
            f"{as_plain_nats(log_loss)} nats, {nats})"
        )
    elif significant(np.array([row["p_removal"]]))[0]:
        verb = "costs" if loss > 0 else "gains"
        what = f"{verb} {as_plain_points(abs(loss))} percentage points of accuracy (loss: {points})"
    elif significant(np.array([row["p_removal_log_loss"]]))[0]:
        verb = "raises" if log_loss > 0 else "lowers"
        what = (
            f"{verb} the log loss by {as_plain_nats(abs(log_loss))} nats (added: {nats}); it is "
            f"not shown to change {of_accuracy}"
        )
    else:
        what = f"is not shown to change {of_accuracy} or the log loss"
    return [Highlight(f"Replacing all gates at once by their best constants {what}.", (), USAGE)]


def confused_pairs(counts: pd.DataFrame) -> list[Highlight]:
    """Say which classes are taken for which others most often.

    An error that occurs once says nothing about its classes.

    Args:
        counts: `attnscope.statistics.confusion_matrix`.
    """
    numbers = counts.to_numpy(np.int64, copy=True)
    totals = numbers.sum(1)
    np.fill_diagonal(numbers, 0)
    frequent = np.argsort(-numbers, axis=None, kind="stable")[:MOST]
    highlights = []
    for place in frequent:
        true, predicted = (int(k) for k in np.unravel_index(place, numbers.shape))
        count, total = int(numbers[true, predicted]), int(totals[true])
        if count < 2:
            break
        low, high = mean_share_interval(np.array([count / total]), np.array([total]))
        names = str(counts.index[true]), str(counts.columns[predicted])
        highlights.append(
            Highlight(
                f"{{0}} is taken for {{1}}: {count:,} of {as_count(total, 'image')} of {{0}}, "
                f"{as_percent(count / total)} ({as_interval(low, high, as_percent)}).",
                names,
                CONFUSION,
                {"true": names[0], "predicted": names[1]},
            )
        )
    return highlights


def weakest_classes(metrics: pd.DataFrame) -> list[Highlight]:
    """Say which classes have a lower accuracy than all images together.

    Each class is tested by the binomial distribution with the accuracy over all images, one-sided,
    corrected over the classes by Holm's method.

    Args:
        metrics: `attnscope.statistics.class_metrics`.
    """
    known = metrics[metrics["support"] > 0]
    count = known["support"].to_numpy(np.int64)
    right = np.rint(known["recall"].to_numpy() * count).astype(np.int64)
    if len(known) < 2 or right.sum() == count.sum():
        return []
    accuracy = right.sum() / count.sum()
    p = holm(stats.binom.cdf(right, count, accuracy))
    low = known[significant(p)].sort_values("recall", kind="stable")
    classes = as_count(len(known), "class", "classes")
    if low.empty:
        worst = known.iloc[int(known["recall"].to_numpy().argmin())]
        return [
            Highlight(
                "No class is shown to be harder than the others (one-sided binomial tests with the "
                f"accuracy over all images, Holm's correction over {classes}; lowest: "
                f"{{0}}, {_share(worst)}; all images: {as_percent(accuracy)}).",
                (str(worst["class"]),),
                CONFUSION,
                {"true": str(worst["class"])},
            )
        ]
    highlights = []
    for _, row in low.head(MOST).iterrows():
        name = str(row["class"])
        highlights.append(
            Highlight(
                f"{{0}} is hard for the network: {_share(row)} of its images are right, and "
                f"{as_percent(accuracy)} of all images (one-sided binomial test, p < {LEVEL:g} "
                f"after Holm's correction over {classes}).",
                (name,),
                CONFUSION,
                {"true": name},
            )
        )
    if len(low) > MOST:
        highlights.append(
            Highlight(
                f"{len(low)} of {classes} have a lower accuracy than all images together "
                f"(p < {LEVEL:g} each, after Holm's correction over the classes).",
                (),
                CONFUSION,
            )
        )
    return highlights


def _share(row: pd.Series) -> str:
    low, high = mean_share_interval(np.array([row["recall"]]), np.array([int(row["support"])]))
    return f"{as_percent(row['recall'])} ({as_interval(low, high, as_percent)})"


def _largest(frame: pd.DataFrame, column: str) -> pd.Series:
    """Return the row with the largest value; NaN counts as the smallest."""
    return frame.iloc[int(frame[column].fillna(-np.inf).to_numpy().argmax())]


def _slots(names: Sequence[str]) -> str:
    return ", ".join(f"{{{place}}}" for place in range(len(names)))


def _and_others(count: int, noun: str) -> str:
    return f" and {as_count(count, f'other {noun}')}" if count else ""


def _small_percent(share: float) -> str:
    return f"{100 * share:.2g}%"
