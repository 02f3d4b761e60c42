"""Mean of every gate over depth, in two networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.plots.axes import label_axis
from attnscope.plots.frames import highest, lowest
from attnscope.plots.needs import Need
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Comparison, no_gate
from attnscope.plots.text import as_count, short_names
from attnscope.plots.theme import NETWORK_COLORS
from attnscope.plots.titles import short_pair, two_names
from attnscope.statistics.comparison import expect_same_images


@dataclass(frozen=True)
class GatesOverDepth:
    """The mean of every gate of two networks, over all images and for each class."""

    names: tuple[str, str]
    images: int
    means: pd.DataFrame
    """One row per network and gate: network (``a`` or ``b``), gate, kind, depth, place (position
    among the gates of its kind, from 1), mean (over images), lowest, highest (means of classes),
    lowest_class, highest_class."""


def compute(pair: Comparison) -> GatesOverDepth:
    """Average every gate over all images, and over those of each class."""
    expect_same_images(pair.a, pair.b)
    rows = []
    for side, recording in zip("ab", pair.recordings, strict=True):
        places: dict[str, int] = {}
        profiles = statistics.gate_profiles(recording)
        for gate, part in profiles.groupby("gate", sort=False):
            kind, depth = str(part["kind"].iloc[0]), int(part["depth"].iloc[0])
            known = part[part["count"] > 0]
            places[kind] = places.get(kind, 0) + 1
            low, high = lowest(known, "mean"), highest(known, "mean")
            rows.append(
                {
                    "network": side,
                    "gate": gate,
                    "kind": kind,
                    "depth": depth,
                    "place": places[kind],
                    "mean": float(np.average(known["mean"], weights=known["count"])),
                    "lowest": low["mean"],
                    "highest": high["mean"],
                    "lowest_class": low["class"],
                    "highest_class": high["class"],
                }
            )
    return GatesOverDepth(pair.names, len(pair.a), pd.DataFrame(rows))


def draw(ax: Axes, means: pd.DataFrame, labels: Sequence[str]) -> Axes:
    """Draw the gates of one kind: a line for each network, and the range of its class means.

    Args:
        ax: the Axes to draw on.
        means: of `GatesOverDepth`, of one kind.
        labels: what the two networks are called.
    """
    for side, label, color in zip("ab", labels, NETWORK_COLORS, strict=True):
        own = means[means["network"] == side]
        if own.empty:
            continue
        x = own["place"].to_numpy()
        ax.fill_between(x, own["lowest"], own["highest"], color=color, alpha=0.15, linewidth=0)
        # The range of a single gate has no area.
        ax.vlines(x, own["lowest"], own["highest"], color=color, alpha=0.35, linewidth=1)
        ax.plot(x, own["mean"], color=color, marker="o", markersize=3.5, label=label)
    longest = means[means["network"] == means["network"].value_counts().idxmax()]
    same = all(
        list(own["gate"]) == list(longest["gate"])
        for side in "ab"
        if not (own := means[means["network"] == side]).empty
    )
    texts = short_names(list(longest["gate"])) if same else [str(n) for n in longest["place"]]
    label_axis(ax.xaxis, ["", *texts])
    ax.set_xlim(0.6, len(longest) + 0.4)
    ax.set_xlabel("gate (in forward order)")
    ax.set_ylabel("mean gate")
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    return ax


def lay_out(shown: GatesOverDepth) -> list[Figure]:
    """Draw one panel for each kind of gate."""
    kinds = list(dict.fromkeys(shown.means["kind"]))
    figure = Figure(figsize=(max(6.5, 4.6 * len(kinds)), 3.6), layout="constrained")
    axes = figure.subplots(1, len(kinds), squeeze=False)[0]
    labels = short_pair(shown.names)
    for ax, kind in zip(axes, kinds, strict=True):
        draw(ax, shown.means[shown.means["kind"] == kind], labels)
        ax.set_title(f"{kind} gates")
    entries = {
        label: handle
        for ax in axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=2)
    first, second = two_names(*shown.names)
    figure.suptitle(f"Mean gates over depth: {first} and {second}")
    return [figure]


def caption(shown: GatesOverDepth) -> str:
    """Say where the gates of each network are lowest and highest, and where classes differ most."""
    parts = []
    for side, name in zip("ab", shown.names, strict=True):
        own = shown.means[shown.means["network"] == side]
        if own.empty:
            parts.append(f"{name} has no gates.")
            continue
        low, high = lowest(own, "mean"), highest(own, "mean")
        apart = highest(own.assign(apart=own["highest"] - own["lowest"]), "apart")
        parts.append(
            f"In {name}, the means of {as_count(len(own), 'gate')} lie between {low['mean']:.3g} "
            f"({low['gate']}) and {high['mean']:.3g} ({high['gate']}); the classes differ most at "
            f"{apart['gate']}, from {apart['lowest']:.3g} (class {apart['lowest_class']}) to "
            f"{apart['highest']:.3g} (class {apart['highest_class']})."
        )
    return (
        f"Mean of each gate over {as_count(shown.images, 'image')} (line) and the range of the "
        f"means of the classes (band; not tested). {' '.join(parts)} Gates of the two networks at "
        "the same place need not "
        "multiply features of the same kind."
    )


def _any_gate(pair: Comparison) -> str:
    missing = [no_gate(recording) for recording in pair.recordings if not recording.gates]
    return " ".join(missing) if len(missing) == 2 else ""


register_plot(
    Plot(
        name="gates_over_depth",
        title="Gates over depth",
        about="The mean of each gate in the order in which the gates act, in two networks.",
        subject=Comparison,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=attrgetter("means"),
        needs=(Need("gates", _any_gate, left_out=True),),
        place=15,
    )
)
