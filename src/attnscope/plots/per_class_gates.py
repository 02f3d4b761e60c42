"""How far each class's channel gates lie from the mean of the classes, in two networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.kinds import PER_CHANNEL
from attnscope.plots import needs
from attnscope.plots.axes import label_axis, over_gates
from attnscope.plots.frames import highest, unique, wide
from attnscope.plots.images import draw_colorbar, show
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Pair
from attnscope.plots.text import short_names
from attnscope.plots.theme import GATE_MAP, INK
from attnscope.plots.titles import two_names, with_drawn_names
from attnscope.statistics.inference import LEVEL, significant

_BARS = "#44546A"
_DISTANCES = ("distance_a", "distance_b")


@dataclass(frozen=True)
class PerClassGates:
    """Class profiles of two networks."""

    names: tuple[str, str]
    classes: Sequence[str]
    distances: pd.DataFrame
    """Of `attnscope.statistics.compare_profiles`."""
    order: pd.DataFrame
    """Of `attnscope.statistics.compare_class_order`."""

    @property
    def high(self) -> float:
        """The upper end of the scale of both networks."""
        return max(float(np.nanmax(self.distances[list(_DISTANCES)].to_numpy(float))), 1e-6)


def compute(pair: Pair) -> PerClassGates:
    """Distances, and how similarly the networks order the classes by them."""
    return PerClassGates(
        (pair.a.name, pair.b.name),
        pair.a.classes,
        statistics.compare_profiles(pair.a, pair.b),
        statistics.compare_class_order(pair.a, pair.b),
    )


def draw(ax: Axes, distances: pd.DataFrame, column: str, *, high: float, title: str = "") -> Axes:
    """Class × gate: how far the class's profile lies from the mean profile, from 0 to ``high``.

    Args:
        ax: where.
        distances: of `PerClassGates`.
        column: ``distance_a`` or ``distance_b``.
        high: upper end of the scale.
        title: of the panel.
    """
    table = wide(distances, "gate", column)[unique(distances["gate"])]
    show(ax, table.to_numpy(dtype=np.float64), 0, high, GATE_MAP)
    ax.set_aspect("auto")
    label_axis(ax.yaxis, list(table.index))
    label_axis(ax.xaxis, short_names(list(table.columns)))
    ax.set_title(title)
    return ax


def draw_order(ax: Axes, order: pd.DataFrame) -> Axes:
    """How alike two networks order the classes by distance: Spearman's correlation per gate.

    Args:
        ax: where.
        order: of `PerClassGates`: gate, spearman, p. Full bars are significant.
    """
    x = np.arange(len(order))
    values = order["spearman"].to_numpy(dtype=np.float64)
    bars = ax.bar(x, np.nan_to_num(values), 0.65, edgecolor=_BARS, linewidth=0.9)
    for bar, full in zip(bars, significant(order["p"]), strict=True):
        bar.set_facecolor(_BARS if full else "white")
    ax.axhline(0, color=INK, linewidth=0.6)
    ax.set_ylim(-1, 1)
    ax.set_ylabel("Spearman correlation")
    return over_gates(ax, list(order["gate"]))


def lay_out(shown: PerClassGates) -> list[Figure]:
    """Both networks above, on one scale; how alike they order the classes below."""
    names = two_names(*shown.names)
    height = max(2.4, 0.11 * len(shown.classes) + 1)
    figure = Figure(figsize=(9.5, height + 3), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[height, 1.6])
    top = [figure.add_subplot(grid[0, i]) for i in range(2)]
    drawn = with_drawn_names(shown.distances, shown.classes)
    for ax, column, name in zip(top, _DISTANCES, names, strict=True):
        draw(ax, drawn, column, high=shown.high, title=name)
    top[1].set_yticklabels([])
    draw_colorbar(top[0], "distance to the mean profile", top)
    below = draw_order(figure.add_subplot(grid[1, :]), shown.order)
    below.set_title(f"do both order the classes alike? (filled: p < {LEVEL}, not corrected)")
    figure.suptitle(f"Class profiles of the channel gates: {names[0]} and {names[1]}")
    return [figure]


def caption(shown: PerClassGates) -> str:
    """Which class lies furthest, and how alike the networks order them."""
    parts = []
    for column, name in zip(_DISTANCES, shown.names, strict=True):
        if shown.distances[column].notna().any():
            top = highest(shown.distances, column)
            parts.append(
                f"in {name} it is {top['class']} at {top['gate']} that lies furthest "
                f"({top[column]:.3g})"
            )
    order = shown.order
    sure = int(significant(order["p"]).sum())
    furthest = "; ".join(parts)
    furthest = furthest[:1].upper() + furthest[1:] + ". " if furthest else ""
    return (
        "Root mean square over channels of class profile minus mean profile, both networks on one "
        f"scale from 0 to {shown.high:.3g}. {furthest}The two order the classes with Spearman "
        f"{order['spearman'].median():.2f} (median over {len(order)} gates); {sure} of "
        f"{len(order)} gates have p < {LEVEL}, not corrected."
    )


register_plot(
    Plot(
        name="per_class_gates",
        title="Per class gates",
        about="How far each class's channel gates lie from the mean of the classes.",
        subject=Pair,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        needs=(needs.shared_gate(PER_CHANNEL, "channel"),),
        place=20,
    )
)
