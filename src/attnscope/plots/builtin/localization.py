"""Whether the spatial gates and Grad-CAM lie on the masks of the images, over depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.kinds import MAP, Gate
from attnscope.plots import needs
from attnscope.plots.axes import label_axis, percent_tick
from attnscope.plots.localization_sentences import (
    describe_localization,
    describe_masks,
    name_of,
)
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Identity, identity
from attnscope.plots.text import short_names
from attnscope.plots.theme import INK, NETWORK_COLORS, NULL_COLOR
from attnscope.plots.titles import title_of
from attnscope.plots.views import view_note
from attnscope.recording.masks import MaskFacts, masks_of, on_image
from attnscope.recording.recording import Recording
from attnscope.statistics.localization import ATTRIBUTION, BLOCK
from attnscope.statistics.localizing import CENTER, ENERGY, OTHER, POINTING

_NULLS = (
    (OTHER, 0.0, "s", "null: maps of all other images"),
    (CENTER, 0.24, "P", "null: Gaussian at the image center"),
)
"""Columns of the summary, horizontal offsets from the map, markers and labels."""
_TITLES = {ENERGY: "Energy inside the mask", POINTING: "Pointing game"}


@dataclass(frozen=True)
class Localizations:
    """Where the maps of a recording lie."""

    of: Identity
    summary: pd.DataFrame
    """`attnscope.statistics.localization_summary`"""
    masks: MaskFacts
    gates: Sequence[Gate] = ()
    """The gates that are scored."""
    left_out: Sequence[str] = ()
    """Names of gates with a map that has no rows and columns of the image."""


def compute(recording: Recording) -> Localizations:
    """Score every map against the masks."""
    masks = masks_of(recording)
    summary = statistics.localization_summary(recording, masks=masks)
    gates = [gate for gate in recording.gates_with(MAP) if on_image(gate)]
    left_out = [gate.name for gate in recording.gates_with(MAP) if gate not in gates]
    return Localizations(identity(recording), summary, masks.facts, gates, left_out)


def draw(ax: Axes, summary: pd.DataFrame, measure: str) -> Axes:
    """Draw one measure of each map beside both nulls, and the area of the masks.

    Args:
        ax: the Axes to draw on.
        summary: of `Localizations`.
        measure: ``energy`` or ``pointing``.
    """
    rows = summary[summary["measure"] == measure]
    at = np.arange(len(rows))
    own = NETWORK_COLORS[0]
    ax.hlines(
        rows["area"], at - 0.45, at + 0.45, color=INK, linewidth=0.8, linestyle=":",
        label="mean area of the masks",
    )  # fmt: skip
    ax.vlines(at - 0.24, rows["low"], rows["high"], color=own, linewidth=1.6)
    full = rows["on_object"].to_numpy(bool)
    for filled, label in ((True, "map, above both nulls"), (False, "map, not above both nulls")):
        which = full == filled
        ax.plot(
            at[which] - 0.24,
            rows["value"][which],
            "o",
            markersize=6.5,
            color=own,
            markerfacecolor=own if filled else "white",
            label=f"{label} (95% CI)",
        )
    for null, shift, marker, label in _NULLS:
        ax.plot(
            at + shift,
            rows[null],
            marker=marker,
            linestyle="none",
            markersize=5.5,
            label=label,
            markerfacecolor="white",
            markeredgecolor=NULL_COLOR,
        )
    label_axis(ax.xaxis, _names(rows))
    ax.set_xlim(-0.6, len(rows) - 0.4)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(percent_tick)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.set_title(_TITLES[measure])
    return ax


def lay_out(shown: Localizations) -> list[Figure]:
    """Draw a panel for each measure."""
    figure = Figure(figsize=(9.5, 4.0), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, measure in zip(axes, (ENERGY, POINTING), strict=True):
        draw(ax, shown.summary, measure).set_xlabel("map (gates in forward order)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"Are the maps on the masks? {title_of(shown.of)}")
    return [figure]


def caption(shown: Localizations) -> str:
    """Count the images and the maps on the masks, and name the highest score with its numbers."""
    text = (
        "Share of each map's energy inside the mask, and the pointing game: the share of the "
        "highest cell that is inside. The energy of a cell is its value above the lowest value of "
        "the map; attributions count after the ReLU. Masks are averaged down to the grid of the "
        "map. Both nulls keep the mask of the image and take another map: the maps of all other "
        "images, and a Gaussian at the image center. The dotted lines show the mean area of the "
        f"masks. {describe_masks(shown.masks)} "
    )
    text += " ".join(describe_localization(shown.summary, name) for name in (ENERGY, POINTING))
    constant = int(shown.summary.loc[shown.summary["measure"] == ENERGY, "constant"].max())
    if constant:
        text += f" Up to {constant:,} maps of a gate or method are constant and not scored."
    if shown.left_out:
        text += (
            f" {', '.join(shown.left_out)} are not scored, because their positions are not rows "
            "and columns of the image."
        )
    return f"{text} {view_note(shown.gates, MAP)}".rstrip()


def _names(rows: pd.DataFrame) -> list[str]:
    """Return the names of maps: gates and blocks without the parts that all gates share."""
    of_gate = ~rows["kind"].isin([ATTRIBUTION, BLOCK])
    short = iter(short_names(rows.loc[of_gate, "map"].tolist()))
    return [
        next(short) if is_gate else name_of(row)
        for is_gate, (_, row) in zip(of_gate, rows.iterrows(), strict=True)
    ]


register_plot(
    Plot(
        name="localization",
        title="Are the maps on the object?",
        about="Energy of the maps inside masks and the pointing game, over depth, with two nulls.",
        subject=Recording,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=attrgetter("summary"),
        needs=(needs.masks(),),
        place=94,
    )
)
