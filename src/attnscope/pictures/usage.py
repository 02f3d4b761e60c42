"""What gates could tell about the class beside what the network uses: one figure a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from attnscope import figures, statistics
from attnscope.outcomes import Outcomes
from attnscope.pictures.common import (
    Picture,
    Unavailable,
    as_percent,
    class_names,
    shorten,
    title_of,
    with_drawn_names,
)
from attnscope.recording import Recording
from attnscope.statistics.seeds import seeds_sentence
from attnscope.statistics.usage import static_sentence, usage_sentence

_SHOWN = 12  # images that two kinds of network disagree about


def _decodable_and_used(recording: Recording, outcomes: Outcomes) -> Picture:
    decoding, usage = outcomes.table("decoding"), usage_of(outcomes)
    width = float(np.clip(2.5 + 0.42 * len(decoding), 6.5, 12))
    figure = Figure(figsize=(width, 7.6), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    figures.draw_decoding(axes[0], decoding, "balanced_accuracy")
    axes[0].set_title("can the class be read from the gate? (linear probe)")
    figures.draw_decoding(axes[1], decoding, "omega_squared")
    axes[1].set_title("how much of the gate's variance is between classes?")
    shown = decoding[["gate"]].merge(usage, on="gate", how="left")
    figures.draw_usage(axes[2], shown)
    axes[2].set_title("what is lost without it? (filled: p < 0.05, McNemar, Holm)")
    axes[2].set_xlabel("gate, in the order in which they act")
    for ax in axes[:2]:
        ax.tick_params(labelbottom=False)
    axes[0].legend(loc="best", fontsize=7)
    axes[2].legend(loc="best", fontsize=7)
    figure.suptitle(f"Decodable and used: {title_of(recording)}")
    caption = (
        f"{usage_sentence(usage, len(recording.classes))} {outcomes.about['images']:,} images "
        "scored; means and gates of other images come from the rest."
    )
    return Picture([figure], caption)


def _static_gates(recording: Recording, outcomes: Outcomes) -> Picture:
    effects, usage = outcomes.table("effects"), usage_of(outcomes)
    mean = effects[effects["edit"] == "mean"]
    own = float((mean["accuracy"] - mean["change"]).iloc[0])
    p = usage.set_index("gate")["p_dynamic"]
    # Blocks and all together are one test each; their interval says it.
    sure = [
        bool(p[target] < 0.05 if target in p.index else not low <= 0 <= high)
        for target, low, high in zip(mean["target"], mean["low"], mean["high"], strict=True)
    ]
    height = 1.5 + 0.24 * len(mean)
    figure = Figure(figsize=(7.5, height), layout="constrained")
    ax = figures.draw_static_gates(figure.subplots(), mean, own, sure)
    ax.legend(loc="best", fontsize=7)
    figure.suptitle(f"Gates as their mean: {title_of(recording)}")
    caption = (
        f"{static_sentence(effects, usage)} With its own gates the network is right in "
        f"{as_percent(own)} of these {outcomes.about['images']:,} images; the line. Intervals are "
        "paired, 95 %; single gates are filled where McNemar's p, Holm-corrected, is below 0.05."
    )
    return Picture([figure], caption)


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
    height = max(2.6, 0.24 * len(frame) + 1.2)
    pages = [Figure(figsize=(7.5, height), layout="constrained")]
    ax = figures.draw_seed_differences(pages[0].subplots(), drawn, names)
    pages[0].legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    pages[0].suptitle(f"Accuracy per class: {names[1]} minus {names[0]}")
    different = statistics.disagreements(a[0], b[0])
    caption = seeds_sentence(frame, *names)
    if len(different):
        pages.append(_disagreements(a[0], b[0], different.head(_SHOWN), names))
        caption += (
            f" {len(different):,} of {len(a[0]):,} images are right in one network of the first "
            f"seed alone; shown are the {min(_SHOWN, len(different))} of which both are most sure."
        )
    return Picture(pages, caption)


def _disagreements(
    a: Recording, b: Recording, shown: pd.DataFrame, names: tuple[str, str]
) -> Figure:
    """Images, what each network said, and each network's Grad-CAM."""
    drawn = dict(zip(a.classes, class_names(a), strict=True))
    panels = 1 + 2 * bool(a.grad_cam_layers and b.grad_cam_layers)
    columns = 6
    bands = -(-len(shown) // columns)
    figure = Figure(figsize=(9.5, 0.6 + bands * (0.55 + 1.25 * panels)), layout="compressed")
    axes = figure.subplots(bands * panels, columns, squeeze=False)
    for ax in axes.ravel():
        ax.set_axis_off()
    maps = [
        np.concatenate(
            [np.maximum(kind.grad_cam(rows=slice(row, row + 1)), 0) for row in shown["row"]]
        )
        for kind in (a, b)
        if panels > 1
    ]
    heat = []
    for k, image in enumerate(shown.to_dict("records")):
        band, column = divmod(k, columns)
        picture = a.image(int(image["row"]))
        said = [drawn[name] for name in (image["prediction_a"], image["prediction_b"])]
        title = f"is {shorten(drawn[image['label']], 14)}\n" + "\n".join(
            f"{shorten(name, 9)}: {shorten(word, 12)}"
            for name, word in zip(names, said, strict=True)
        )
        top = axes[band * panels, column]
        figures.draw_image(top, picture, title)
        top.set_axis_on()
        for offset, cams in enumerate(maps, start=1):
            ax = axes[band * panels + offset, column]
            # Two networks' Grad-CAM have no common unit: each is on the scale of its own images.
            figures.draw_overlay(ax, picture, cams[k], low=0, high=max(float(cams.max()), 1e-6))
            ax.set_axis_on()
            if column == 0:
                ax.set_ylabel(shorten(names[offset - 1], 12), fontsize=7)
            heat.append(ax)
    figure.suptitle("Right in one network alone, and both are sure")
    return figure


def usage_of(outcomes: Outcomes) -> pd.DataFrame:
    """What `attnscope.statistics.gate_usage` says of them.

    Raises:
        Unavailable: no gate was replaced.
    """
    if outcomes.replacement is None:
        raise Unavailable(
            f"the interventions on {outcomes.about.get('name')} replaced no gate; "
            "run attnscope intervene with replace"
        )
    return statistics.gate_usage(outcomes.table("decoding"), outcomes.replacement)
