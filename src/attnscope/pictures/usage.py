"""What gates could tell about the class beside what the network uses: one figure a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnscope import figures, statistics
from attnscope.errors import InputError
from attnscope.pictures.common import (
    LEVEL,
    Picture,
    Unavailable,
    as_p,
    as_percent,
    as_points,
    highest,
    lowest,
    row_height,
    shorten,
    title_of,
    with_drawn_names,
)
from attnscope.pictures.comparison import disagreements
from attnscope.recording.outcomes import Outcomes
from attnscope.recording.recording import Recording
from attnscope.statistics.comparison import expect_same_images
from attnscope.statistics.effects import OWN
from attnscope.statistics.inference import holm
from attnscope.statistics.usage import CONSTANT, target_kind


def _decodable_and_used(recording: Recording, outcomes: Outcomes) -> Picture:
    usage, joint = usage_of(outcomes), joint_of(outcomes)
    decoding = outcomes.table("decoding")
    drawn = _with_joint(usage, joint)
    width = float(np.clip(2.5 + 0.42 * len(drawn), 6.5, 14))
    figure = Figure(figsize=(width, 10.2), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True)
    figures.draw_decoding(axes[0], decoding, "balanced_accuracy")
    axes[0].set_title("can the class be read from the gate? (linear probe)")
    figures.draw_decoding(axes[1], decoding, "omega_squared")
    axes[1].set_title("how much of the gate's variance lies between the classes?")
    figures.draw_usage(axes[2], drawn)
    axes[2].set_title("what is lost without it? (filled: p < 0.05, McNemar, Holm)")
    figures.draw_margins_moved(axes[3], drawn)
    for ax in axes[2:]:
        figures.draw_border(ax, len(usage))
    axes[3].set_title(
        "and in the margins, of which the standard deviation is "
        f"{usage['margin_std'].max():.3g} (filled: p < 0.05, t, Holm)"
    )
    axes[3].set_xlabel("gate, in the order in which they act")
    for ax in axes[:3]:
        ax.tick_params(labelbottom=False)
    shown: dict[str, Any] = {}
    for ax in (axes[0], axes[2]):  # the middle one has the same marks as the first
        shown |= {
            label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=2, fontsize=7)
    figure.suptitle(f"Decodable and used: {title_of(recording)}")
    return Picture(
        [figure],
        f"{usage_sentence(usage)}{joint_sentence(joint)} {outcomes.about['images']:,} images "
        "scored; means and gates of other images come from the rest.",
    )


def _with_joint(usage: pd.DataFrame, joint: pd.DataFrame) -> pd.DataFrame:
    """One frame of gates and of gates together, under names that can be drawn."""
    drawn = pd.concat([usage, joint], ignore_index=True) if len(joint) else usage
    return drawn.assign(gate=_short_targets(list(drawn["gate"])))


def _short_targets(targets: list[str]) -> list[str]:
    """Each kind of target is shortened by itself: what they share stands in the others too."""
    blocks = [target for target in targets if target_kind(target) == "block"]
    gates = [target for target in targets if target_kind(target) == "gate"]
    paths = [block.removeprefix("block ") for block in blocks]
    names = {"all": "all"} | dict(zip(gates, figures.short_names(gates), strict=True))
    for block, short in zip(blocks, figures.short_names(paths), strict=True):
        names[block] = f"block {short}"
    return [names[target] for target in targets]


def _static_gates(recording: Recording, outcomes: Outcomes) -> Picture:
    if outcomes.replacement is None:
        raise _no_replacement(outcomes)
    try:
        effects = outcomes.table("effects")
    except InputError as reason:
        raise Unavailable(str(reason)) from None
    mean = effects[effects["edit"] == "mean"]
    if mean.empty:
        raise Unavailable(f"no gate of {recording.name} was replaced by its mean")
    contrast = statistics.edit_contrast(outcomes.replacement, "mean", OWN).set_index("target")
    contrast = contrast.loc[list(mean["target"])]
    targets = list(mean["target"])
    # Gates are one question, blocks another, and all together a third: as in `gate_usage`, what a
    # gate is found to be does not hang on how many blocks there are.
    what = np.array([target_kind(target) for target in targets])
    corrected = np.ones(len(mean))
    for kind in set(what):
        corrected[what == kind] = holm(contrast["p"].to_numpy(float)[what == kind])
    sure = (corrected < LEVEL) & (contrast["change"].to_numpy(float) > 0)
    own = float((mean["accuracy"] - mean["change"]).iloc[0])
    labels = _short_targets(targets)
    figure = Figure(figsize=(7.5, min(1.9 + 0.2 * len(mean), 14)), layout="constrained")
    ax = figures.draw_static_gates(figure.subplots(), mean, own, list(sure), labels)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)
    ax.set_xlabel(f"accuracy kept, of {outcomes.about['images']:,} images that are scored")
    figure.suptitle(f"Gates as their mean: {title_of(recording)}")
    return Picture(
        [figure],
        f"{static_sentence(mean, sure)} With its own gates the network is right in "
        f"{as_percent(own)} of these {outcomes.about['images']:,} images: the line. Intervals are "
        f"paired, 95 %; filled: less accurate, McNemar's p below {LEVEL} after Holm's correction "
        "over the gates, and over the blocks.",
    )


USAGE: dict[str, Callable[[Recording, Outcomes], Picture]] = {
    "decodable_and_used": _decodable_and_used,
    "static_gates": _static_gates,
}
"""What one network's interventions are shown by."""


def seed_differences(
    a: Sequence[Recording], b: Sequence[Recording], names: tuple[str, str]
) -> Picture:
    """Where two kinds of network differ: per class over seeds, and the images that tell them apart.

    Args:
        a, b: recordings of the same images, one of each kind for each seed.
        names: of the two kinds.

    Raises:
        InputError: as `attnscope.statistics.compare_seeds`.
    """
    frame = statistics.compare_seeds(a, b)
    drawn = with_drawn_names(frame, a[0])
    height = 1.2 + row_height(frame)
    pages = [Figure(figsize=(7.5, height), layout="constrained")]
    ax = figures.draw_seed_differences(pages[0].subplots(), drawn, names)
    pages[0].legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    pages[0].suptitle(f"Accuracy per class: {names[1]} minus {names[0]}")
    alone = disagreements(a[0], b[0], names)
    pages += alone.figures
    caption = f"{seeds_sentence(frame, *names)} What follows is of the first seed. {alone.caption}"
    return Picture(pages, caption)


def seed_usage(
    usages: Sequence[pd.DataFrame], joints: Sequence[pd.DataFrame], name: str
) -> Picture:
    """What the gates of one kind of network know and what is used of it, over its trainings.

    Args:
        usages: of `usage_of`, one a training.
        joints: of `joint_of`, likewise.
        name: of the kind.

    Raises:
        InputError: as `attnscope.statistics.usage_over_seeds`.
    """
    frame, joint = statistics.usage_over_seeds(usages), statistics.usage_over_seeds(joints)
    drawn = _with_joint(frame, joint)
    trainings = [_with_joint(*each) for each in zip(usages, joints, strict=True)]
    width = float(np.clip(2.5 + 0.42 * len(drawn), 6.5, 14))
    figure = Figure(figsize=(width, 8.2), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    figures.draw_reading_over_seeds(axes[0], frame)
    figures.draw_trainings(axes[0], usages, ["balanced_accuracy"])
    axes[0].set_title("can the class be read from the gate? (linear probe)")
    figures.draw_usage(axes[1], drawn)
    figures.draw_trainings(axes[1], trainings, ["class_value", "dynamic_value"])
    axes[1].set_title("what is lost without it? (filled: p < 0.05 over trainings, Holm)")
    figures.draw_margins_moved(axes[2], drawn)
    figures.draw_trainings(axes[2], trainings, ["class_margin", "dynamic_margin"])
    for ax in axes[1:]:
        figures.draw_border(ax, len(frame))
    axes[2].set_title(
        "and in the margins, of which the standard deviation is "
        f"{frame['margin_std'].max():.3g} (filled: p < 0.05, as above)"
    )
    axes[2].set_xlabel("gate, in the order in which they act")
    for ax in axes[:2]:
        ax.tick_params(labelbottom=False)
    shown: dict[str, Any] = {}
    for ax in axes:
        shown |= {
            label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=2, fontsize=7)
    figure.suptitle(f"Decodable and used over {len(usages)} trainings: {shorten(name, 40)}")
    return Picture([figure], seed_usage_sentence(frame, name) + joint_sentence(joint))


def usage_of(outcomes: Outcomes) -> pd.DataFrame:
    """What `attnscope.statistics.gate_usage` says of them.

    Raises:
        Unavailable: what it needs was not made.
    """
    return _told(outcomes, lambda made: statistics.gate_usage(outcomes.table("decoding"), made))


def joint_of(outcomes: Outcomes) -> pd.DataFrame:
    """What `attnscope.statistics.joint_usage` says of them.

    Raises:
        Unavailable: what it needs was not made.
    """
    return _told(outcomes, statistics.joint_usage)


def _told(outcomes: Outcomes, tell: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    if outcomes.replacement is None:
        raise _no_replacement(outcomes)
    try:
        return tell(outcomes.replacement)
    except InputError as reason:
        raise Unavailable(str(reason)) from None


def usages_of(recordings: Sequence[Recording], outcomes: Sequence[Outcomes]) -> list[pd.DataFrame]:
    """`usage_of` of several trainings, whose numbers are to be summed up.

    Raises:
        InputError: they were scored on other images; or as `usage_of`.
    """
    for recording, made in zip(recordings, outcomes, strict=True):
        expect_same_images(recordings[0], recording)
        for what in ("images", "seed"):
            if made.about[what] != outcomes[0].about[what]:
                raise InputError(
                    f"the interventions on {recording.name} have {what} {made.about[what]}, those "
                    f"on {recordings[0].name} {outcomes[0].about[what]}; make them with the same "
                    "--images and --seed"
                )
    return [usage_of(made) for made in outcomes]


def usage_sentence(usage: pd.DataFrame) -> str:
    """What the table of `attnscope.statistics.gate_usage` says, also where nothing was seen."""
    if usage.empty:
        return "There is no gate to tell of."
    reads, count = usage[usage["p_read"] < LEVEL], len(usage)
    if usage["p_read"].isna().all():
        text = "No linear probe could be fitted: too few images, or classes."
    elif reads.empty:
        text = f"No linear probe is seen to read the class from any of the {count} gates."
    else:
        best = highest(reads, "balanced_accuracy")
        text = (
            f"The class can be read from {len(reads)} of {count} gates, best from {best['gate']}: "
            f"balanced accuracy {as_percent(best['balanced_accuracy'])}, under permuted labels "
            f"{as_percent(best['chance'])}."
        )
    constant = int((usage["verdict"] == CONSTANT).sum())
    if constant:
        text += f" {constant} of {count} gates {'is' if constant == 1 else 'are'} constant."
    acts = usage[usage["p_used"] < LEVEL]
    used, harms = acts[acts["class_value"] > 0], acts[acts["class_value"] < 0]
    if acts.empty:
        text += (
            " No use of it in accuracy seen: at no gate is the gate of an image of another class "
            "seen to cost more than that of one of the same; the intervals reach up to "
            f"{as_points(usage['class_high'].max())} points."
        )
    if len(used):
        most = highest(used, "class_value")
        text += (
            f" It is used at {len(used)}, most at {most['gate']}: the gate of an image of another "
            f"class costs {as_points(most['class_value']).lstrip('+')} points of accuracy against "
            f"that of one of the same (95 % {as_points(most['class_low'])} to "
            f"{as_points(most['class_high'])})."
        )
    if len(harms):
        most = lowest(harms, "class_value")
        text += (
            f" At {len(harms)} the gate of another class does better, most at {most['gate']}: by "
            f"{as_points(-most['class_value']).lstrip('+')} points."
        )
    text += _margins_sentence(usage)
    own = usage[(usage["p_dynamic"] < LEVEL) & (usage["dynamic_value"] > 0)]
    if own.empty:
        return f"{text} At no gate is the image's own seen to be better than the mean."
    most = highest(own, "dynamic_value")
    return (
        f"{text} The image's own gate is better than the mean at {len(own)}, most at "
        f"{most['gate']}: by {as_points(most['dynamic_value']).lstrip('+')} points."
    )


def joint_sentence(joint: pd.DataFrame) -> str:
    """What gates together do, of `attnscope.statistics.joint_usage`, or of it over seeds.

    Begins with a space; empty where there is one gate alone.
    """
    text = ""
    blocks, together = joint[joint["kind"] == "block"], joint[joint["kind"] == "all"]
    if len(blocks):
        used = blocks[(blocks["p_used"] < LEVEL) & (blocks["class_value"] > 0)]
        text += (
            f" With all gates of a block at once the class is used at {len(used) or 'none'} of "
            f"{len(blocks)} block{'' if len(blocks) == 1 else 's'}"
        )
        if len(used):
            most = highest(used, "class_value")
            text += f", most at {most['gate']}: {as_points(most['class_value'])} points"
        text += "."
    if len(together):
        row = together.iloc[0]
        what = "could not be tested"
        if not np.isnan(row["p_used"]):
            kept = "is used" if row["class_value"] > 0 else "does harm"
            what = kept if row["p_used"] < LEVEL else "is not seen to be used"
        text += (
            f" With all gates of the network at once the class {what}: those of another class cost "
            f"{as_points(row['class_value'])} points "
            f"(95 % {as_points(row['class_low'])} to {as_points(row['class_high'])})"
        )
        moved = row["p_margin"] < LEVEL
        if moved:
            text += f" and {_logits(row['class_margin'])} logits of margin"
        text += " against those of the same class."
    return text


def _logits(value: float) -> str:
    return f"{value:+.2g}".replace("-", "\N{MINUS SIGN}")


def _margins_sentence(usage: pd.DataFrame) -> str:
    """What the class in the gates does to the margins."""
    if usage["p_margin"].isna().all():
        return " Whether the class in the gates moves the margins could not be tested."
    moved = usage[usage["p_margin"] < LEVEL]
    if moved.empty:
        return " The class in the gates is not seen to move the margins."
    most = moved.iloc[int(moved["class_margin"].abs().to_numpy().argmax())]
    by = _logits(most["class_margin"])
    text = (
        f" The class in the gates moves the margins at {len(moved)}, most at {most['gate']}: by "
        f"{by} logits"
    )
    if most["margin_std"] > 0:
        share = abs(most["class_margin"]) / most["margin_std"]
        text += f", {as_percent(share)} of their standard deviation"
    return f"{text}."


def seed_usage_sentence(frame: pd.DataFrame, name: str) -> str:
    """What the table of `attnscope.statistics.usage_over_seeds` says, also where nothing is seen.

    Args:
        frame: of at least one gate.
        name: of the kind of network.
    """
    seeds, count = int(frame["seeds"].iloc[0]), len(frame)
    always = frame[frame["reads"] == seeds]
    text = f"{name}, {seeds} training{'' if seeds == 1 else 's'}: "
    if always.empty:
        text += f"from none of the {count} gates can the class be read in every training."
    else:
        best = highest(always, "balanced_accuracy")
        text += (
            f"the class can be read from {len(always)} of {count} gates in every training, best "
            f"from {best['gate']}: balanced accuracy {as_percent(best['balanced_accuracy'])}."
        )
    if seeds < 2:
        return f"{text} One training says nothing of another one: no test over trainings."
    harmed = bool((frame["harms"] > 0).any())
    for value, low, high, p, alone, yes, no, harm in (
        ("class_value", "class_low", "class_high", "p_used",
         _by_own_test("its class used", frame["uses"])
         + (_by_own_test("its class doing harm", frame["harms"]) if harmed else ""),
         "Its class is used at", "At no gate is its class seen to be used over the trainings",
         "Its class does harm at"),
        ("dynamic_value", "dynamic_low", "dynamic_high", "p_dynamic",
         _by_own_test("the image's own better", frame["needs_own"]),
         "The image's own gate is better than the mean at",
         "At no gate is the image's own seen to be better than the mean over the trainings",
         "The mean is better than the image's own gate at"),
    ):  # fmt: skip
        for sign, words in ((1, yes), (-1, harm)):
            seen = frame[(frame[p] < LEVEL) & (sign * frame[value] > 0)]
            if len(seen):
                most = highest(seen, value) if sign > 0 else lowest(seen, value)
                text += (
                    f" {words} {len(seen)}, most at {most['gate']}: {as_points(most[value])} "
                    f"points (95 % {as_points(most[low])} to {as_points(most[high])})."
                )
            elif sign > 0:
                largest = frame[high].max()
                reach = f"; intervals reach up to {as_points(largest)} points"
                text += f" {no}{'' if np.isnan(largest) else reach}."
        same = int(frame[p].isna().sum())
        if same:
            text += f" At {same} all trainings give the same number, and nothing can be tested."
        text += alone
    return f"{text}{_margins_sentence(frame)}{_by_own_test('them moved', frame['moves'])}"


def _by_own_test(what: str, trainings: pd.Series[int]) -> str:
    """At how many gates some training sees it without the others; begins with a space."""
    gates = int((trainings > 0).sum())
    if not gates:
        return f" By its own test no training sees {what}."
    return f" By its own test at least one training sees {what} at {gates}."


def static_sentence(mean: pd.DataFrame, lost: NDArray[np.bool_]) -> str:
    """Which gates could be their mean, in words.

    Args:
        mean: the rows of `attnscope.statistics.replacement_effects` with the edit ``mean``.
        lost: for each, whether it counts as a loss.
    """
    kinds = np.array([target_kind(target) for target in mean["target"]])
    gates, costly = mean[kinds == "gate"], mean[(kinds == "gate") & lost]
    if costly.empty:
        text = f"No gate alone is seen to need its images: none of {len(gates)}."
    else:
        most = lowest(costly, "change")
        text = (
            f"At {len(costly)} of {len(gates)} gates the mean alone costs accuracy, most at "
            f"{most['target']}: {as_points(most['change'])} points; at the others no loss is seen."
        )
    blocks = mean[kinds == "block"]
    if len(blocks):
        worst = lowest(blocks, "change")
        costly = int((lost & (kinds == "block")).sum())
        text += (
            f" Of {len(blocks)} blocks with all their gates as means {costly or 'none'} "
            f"{'is' if costly < 2 else 'are'} seen to lose; the lowest is {worst['target']}, "
            f"{as_points(worst['change'])} points."
        )
    together = mean[kinds == "all"]
    if len(together):
        row = together.iloc[0]
        seen = "a loss" if lost[kinds == "all"][0] else "no loss seen"
        text += (
            f" All gates as their means: {as_points(row['change'])} points (95 % "
            f"{as_points(row['low'])} to {as_points(row['high'])}), {as_percent(row['accuracy'])}: "
            f"{seen}."
        )
    return text


def seeds_sentence(frame: pd.DataFrame, name_a: str, name_b: str) -> str:
    """What `attnscope.statistics.compare_seeds` found, in words; also that no class differs."""
    whole, classes = frame.iloc[0], frame.iloc[1:]
    seeds = int(whole["seeds"])
    text = (
        f"{name_b} minus {name_a}: {as_points(whole['difference'])} points of accuracy over "
        f"{seeds} seed{'' if seeds == 1 else 's'}"
    )
    if seeds < 2:
        return f"{text}. One training of each says nothing of another one: no test over seeds."
    if np.isnan(whole["p"]):
        text += ", the same in each pair, so that there is nothing to test it against."
    else:
        text += (
            f" (95 % {as_points(whole['low'])} to {as_points(whole['high'])}, {as_p(whole['p'])})."
        )
    tested = classes[classes["p_holm"].notna()]
    differs = tested[tested["p_holm"] < LEVEL]
    if differs.empty:
        text += f" None of {len(tested)} classes is seen to differ (t test over seeds, Holm)."
    else:
        parts = [
            f"{row['class']} ({as_points(row['difference'])})" for _, row in differs.iterrows()
        ]
        text += f" {len(differs)} of {len(tested)} classes differ: {', '.join(parts)}."
    if len(tested) < len(classes):
        text += (
            f" {len(classes) - len(tested)} could not be tested: all pairs differ by the same, or "
            "the class has no image."
        )
    return text


def _no_replacement(outcomes: Outcomes) -> Unavailable:
    return Unavailable(
        f"the interventions on {outcomes.about.get('name')} replaced no gate yet; run attnscope "
        "intervene without --experiments, which makes those that are missing"
    )
