"""Distance of each class's channel gates from the mean of the classes, in two networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.kinds import PER_CHANNEL, Gate
from attnscope.plots import needs
from attnscope.plots.axes import label_axis, over_gates
from attnscope.plots.frames import highest, unique, wide
from attnscope.plots.images import draw_colorbar, show
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Comparison
from attnscope.plots.text import as_count, as_interval, as_p_number, as_score, short_names
from attnscope.plots.theme import GATE_MAP, INK
from attnscope.plots.titles import two_names, with_drawn_names
from attnscope.plots.views import noun_of, view_note
from attnscope.statistics.comparison import shared_channel_gates
from attnscope.statistics.inference import LEVEL, holm, significant

_BARS = "#44546A"
_DISTANCES = ("distance_a", "distance_b")
PERMUTATIONS = 999
"""Number of orders of the classes in the test of their similarity, if there are more than seven."""


@dataclass(frozen=True)
class PerClassGates:
    """Class profiles of two networks."""

    names: tuple[str, str]
    classes: Sequence[str]
    distances: pd.DataFrame
    """`attnscope.statistics.compare_profiles`"""
    order: pd.DataFrame
    """`attnscope.statistics.compare_class_order`"""
    geometry: pd.DataFrame
    """`attnscope.statistics.compare_geometry`, with ``p_holm``, corrected over the gates."""
    gates: Sequence[Gate] = ()
    """The gates that both networks have."""

    @property
    def high(self) -> float:
        """The upper end of the color scale of both networks."""
        return max(float(np.nanmax(self.distances[list(_DISTANCES)].to_numpy(float))), 1e-6)


def compute(pair: Comparison) -> PerClassGates:
    """Compute the distances, and how similarly the two networks order the classes by them."""
    return PerClassGates(
        pair.names,
        pair.a.classes,
        statistics.compare_profiles(pair.a, pair.b),
        statistics.compare_class_order(pair.a, pair.b),
        _geometry(pair),
        [pair.a.info(name) for name in shared_channel_gates(pair.a, pair.b)],
    )


def _geometry(pair: Comparison) -> pd.DataFrame:
    found = statistics.compare_geometry(pair.a, pair.b, PERMUTATIONS)
    return found.assign(p_holm=holm(found["p"].to_numpy(np.float64)))


def draw(ax: Axes, distances: pd.DataFrame, column: str, *, high: float, title: str = "") -> Axes:
    """Draw the distance of each class's profile from the mean profile, class × gate.

    Args:
        ax: the Axes to draw on.
        distances: of `PerClassGates`.
        column: ``distance_a`` or ``distance_b``.
        high: upper end of the color scale, which starts at 0.
        title: title of the panel.
    """
    table = wide(distances, "gate", column)[unique(distances["gate"])]
    show(ax, table.to_numpy(dtype=np.float64), 0, high, GATE_MAP)
    ax.set_aspect("auto")
    label_axis(ax.yaxis, list(table.index))
    label_axis(ax.xaxis, short_names(list(table.columns)))
    ax.set_title(title)
    return ax


def draw_order(ax: Axes, order: pd.DataFrame) -> Axes:
    """Draw how similarly two networks order the classes by distance: Spearman's rho per gate.

    No bar is marked as significant: images that both networks share, and classes of few images,
    make the orders agree without any class information.

    Args:
        ax: the Axes to draw on.
        order: of `PerClassGates`: gate, spearman.
    """
    x = np.arange(len(order))
    values = order["spearman"].to_numpy(dtype=np.float64)
    ax.bar(x, np.nan_to_num(values), 0.65, color=_BARS)
    ax.axhline(0, color=INK, linewidth=0.6)
    ax.set_ylim(-1, 1)
    ax.set_ylabel("Spearman correlation")
    return over_gates(ax, list(order["gate"]))


def lay_out(shown: PerClassGates) -> list[Figure]:
    """Draw both networks above, on one color scale, and the agreement of their orders below."""
    names = two_names(*shown.names)
    height = max(2.4, 0.11 * len(shown.classes) + 1)
    figure = Figure(figsize=(9.5, height + 3), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[height, 1.6])
    top = [figure.add_subplot(grid[0, i]) for i in range(2)]
    drawn = with_drawn_names(shown.distances, shown.classes)
    for ax, column, name in zip(top, _DISTANCES, names, strict=True):
        draw(ax, drawn, column, high=shown.high, title=name)
    top[1].set_yticklabels([])
    draw_colorbar(top[0], "distance from the mean profile", top)
    below = draw_order(figure.add_subplot(grid[1, :]), shown.order)
    below.set_title("Agreement of the two orders of the classes (not tested)")
    what = noun_of(shown.gates, PER_CHANNEL, plural=True)
    figure.suptitle(f"Class profiles of the {what}: {names[0]} and {names[1]}")
    return [figure]


def table(shown: PerClassGates) -> pd.DataFrame:
    """Return distances, agreement of the orders, and agreement of the geometries."""
    with_order = shown.distances.merge(shown.order, on="gate", how="left")
    geometry = shown.geometry.set_index("gate").add_prefix("geometry_").reset_index()
    return with_order.merge(geometry, on="gate", how="left")


def caption(shown: PerClassGates) -> str:
    """Say which class is furthest from the mean, and how similar the two orders are."""
    parts = []
    for column, name in zip(_DISTANCES, shown.names, strict=True):
        if shown.distances[column].notna().any():
            top = highest(shown.distances, column)
            parts.append(f"in {name}, class {top['class']} at {top['gate']} ({top[column]:.3g})")
    order = shown.order
    what = noun_of(shown.gates, PER_CHANNEL, plural=True)
    furthest = f"The largest distances are: {'; '.join(parts)}. " if parts else ""
    return (
        f"Distance of each class's profile of {what} from the mean profile (root mean square "
        f"over channels), both networks on one color scale from 0 to {shown.high:.3g}. {furthest}"
        "Bottom: Spearman correlation between the distances of the classes in the two networks, "
        f"median {as_score(order['spearman'].median())} over {as_count(len(order), 'gate')}. It "
        "is no evidence of class information: images that both networks share, and classes of few "
        "images, make the orders agree by themselves. "
        f"{geometry_sentence(shown.geometry)} {view_note(shown.gates, PER_CHANNEL)}"
    ).rstrip()


def smallest_p(classes: int) -> float:
    """Return the smallest p of the Mantel test of so many classes, without correction."""
    return max(1 / math.factorial(min(classes, 7)), 1 / (PERMUTATIONS + 1) if classes > 7 else 0)


def geometry_sentence(geometry: pd.DataFrame) -> str:
    """Say whether the same classes are similar in both networks, by a test that allows it.

    Args:
        geometry: of `PerClassGates`.
    """
    tested = geometry[geometry["p_holm"].notna()]
    test = "distances of classes, from a half of the images of its own for each network"
    if tested.empty:
        return (
            f"Whether the same classes are similar in both networks is not known ({test}): in none "
            f"of {as_count(len(geometry), 'gate')} are these distances reliable in both."
        )
    found = tested[significant(tested["p_holm"])]
    best = highest(tested, "spearman")
    text = (
        f"A test of whether the same classes are similar in both networks ({test}; Mantel test, "
        f"Holm's correction, p < {LEVEL}) is significant in {len(found)} of "
        f"{as_count(len(tested), 'gate')}; the highest correlation is "
        f"{as_score(best['spearman'])} ({as_interval(best['low'], best['high'], as_score)}; noise "
        f"ceiling {as_score(best['ceiling'])}), at {best['gate']}."
    )
    smallest = smallest_p(int(tested["classes"].max())) * len(tested)
    if smallest >= LEVEL:
        text += (
            f" With {as_count(int(tested['classes'].max()), 'class', 'classes')} and "
            f"{as_count(len(tested), 'tested gate')} the smallest possible p is "
            f"{as_p_number(min(smallest, 1))} after the correction, so that no test can be "
            "significant."
        )
    if len(tested) < len(geometry):
        text += (
            f" In {as_count(len(geometry) - len(tested), 'other gate')} the distances are not "
            "reliable enough for a test."
        )
    return text


register_plot(
    Plot(
        name="per_class_gates",
        title="Channel gates per class",
        about="Distance of each class's channel gates from the mean of the classes.",
        subject=Comparison,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=table,
        needs=(needs.shared_gate(PER_CHANNEL, "channel"),),
        place=20,
    )
)
