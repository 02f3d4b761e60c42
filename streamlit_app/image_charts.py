"""Charts of one image: probabilities, maps with values, and places between two classes.

Colors of text, axes and background are those of the page's theme.
"""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from attnscope.plots.theme import GATE_MAP, GRAD_CAM_MAP, drawable_names, style

Layers = alt.LayerChart | alt.FacetChart
OWN, EDITED = "as recorded", "with the edit"
FIRST, SECOND, IMAGE = "#3b78b5", "#d1772b", "#c2344d"  # readable on white and on black
_BAR = 24  # pixels
_FRAME = 90  # pixels of the legend and the axis
_PER_ROW = 6
LARGEST_GRID = 32
"""Side of the largest map whose values are sent to the browser."""


def bars(table: pd.DataFrame) -> Layers:
    """Return bars of class probabilities with their numbers.

    Args:
        table: columns class, probability, logit, and role (``predicted``, ``true`` or ``other``).
    """
    base = alt.Chart(table).encode(
        alt.Y("class:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, ticks=False)),
        alt.X(
            "probability:Q",
            title="probability",
            scale=alt.Scale(domain=[0, 1.12], nice=False),
            axis=alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1]),
        ),
        tooltip=[
            alt.Tooltip("class:N"),
            alt.Tooltip("probability:Q", format=".4%"),
            alt.Tooltip("logit:Q", format=".4f"),
        ],
    )
    color = alt.Color(
        "role:N",
        scale=alt.Scale(domain=["true", "predicted", "other"], range=[FIRST, SECOND, "#9aa0a6"]),
        legend=alt.Legend(title=None, orient="top"),
    )
    text = base.mark_text(align="left", dx=4, color="#808080").encode(
        text=alt.Text("probability:Q", format=".1%")
    )
    return alt.layer(base.mark_bar().encode(color=color), text).properties(
        height=_BAR * len(table) + _FRAME
    )  # fmt: skip


def paired_bars(table: pd.DataFrame) -> Layers:
    """Return two bars for each class: as recorded, and with an edited gate.

    Args:
        table: columns class, state (`OWN` or `EDITED`), probability, logit.
    """
    classes = list(dict.fromkeys(table["class"]))
    base = alt.Chart(table).encode(
        alt.Y("class:N", sort=classes, title=None, axis=alt.Axis(labelLimit=170, ticks=False)),
        alt.YOffset("state:N", sort=[OWN, EDITED]),
        alt.X(
            "probability:Q", title="probability",
            scale=alt.Scale(domain=[0, 1.12], nice=False),
            axis=alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1]),
        ),
        tooltip=[
            alt.Tooltip("class:N"),
            alt.Tooltip("state:N"),
            alt.Tooltip("probability:Q", format=".4%"),
            alt.Tooltip("logit:Q", format=".4f"),
        ],
    )  # fmt: skip
    color = alt.Color(
        "state:N",
        scale=alt.Scale(domain=[OWN, EDITED], range=["#9aa0a6", IMAGE]),
        legend=alt.Legend(title=None, orient="top"),
    )
    text = base.mark_text(align="left", dx=4, color="#808080").encode(
        text=alt.Text("probability:Q", format=".1%")
    )
    return alt.layer(base.mark_bar().encode(color=color), text).properties(
        height=2 * 17 * len(classes) + _FRAME
    )


def value_maps(table: pd.DataFrame, low: float, high: float, kind: str) -> Layers:
    """Return maps whose raw values are shown where the pointer is, on one scale.

    Args:
        table: of `cached.maps.values_table`, of one kind.
        low: lower end of the scale.
        high: upper end.
        kind: ``gate`` or ``Grad-CAM``.
    """
    cmap = GATE_MAP if kind == "gate" else GRAD_CAM_MAP
    colors = [to_hex(color) for color in matplotlib.colormaps[cmap](np.linspace(0, 1, 12))]
    maps = table["map"].nunique()  # in rows of about the same length
    scale = alt.Scale(domain=[low, high], range=colors, clamp=True)
    blank = alt.Axis(labels=False, ticks=False, domain=False, grid=False, title=None)
    chart: alt.FacetChart = (
        alt.Chart(table)
        .mark_rect()
        .encode(
            alt.X("column:O", axis=blank),
            alt.Y("row:O", axis=blank),
            alt.Color(
                "value:Q",
                scale=scale,
                legend=alt.Legend(title=[kind], gradientLength=90, type="gradient"),
            ),
            # Without it, the background shines through between cells that do not fill pixels.
            stroke=alt.Stroke("value:Q", scale=scale, legend=None),
            tooltip=[
                alt.Tooltip("map:N"),
                alt.Tooltip("row:O"),
                alt.Tooltip("column:O"),
                alt.Tooltip("value:Q", format=".5f"),
            ],
        )
        .properties(width=128, height=128)
        .facet(
            alt.Facet(
                "map:N", sort=list(dict.fromkeys(table["map"])),
                header=alt.Header(title=None, labelLimit=140),
            ),
            columns=-(-maps // -(-maps // _PER_ROW)),
        )
        .resolve_scale(x="independent", y="independent")
    )  # fmt: skip
    return chart


def between_chart(table: pd.DataFrame, names: Sequence[str], first: str, second: str) -> Layers:
    """Return where an image lies between two classes, one row per gate.

    Args:
        table: of `cached.live.between_classes`.
        names: label of each gate.
        first: name of the class at 0.
        second: name of the class at 1.
    """
    kinds = {"first": f"images of {first}", "second": f"images of {second}"}
    ranges = pd.concat(
        [
            pd.DataFrame(
                {
                    "gate": names,
                    "class": label,
                    **{
                        quantile: table[f"{side}_{quantile}"]
                        for quantile in ("p05", "p25", "median", "p75", "p95")
                    },
                }
            )
            for side, label in kinds.items()
        ]
    )
    image = pd.DataFrame({"gate": names, "position": table["position"], "class": "this image"})
    color = alt.Color(
        "class:N",
        scale=alt.Scale(domain=[*kinds.values(), "this image"], range=[FIRST, SECOND, IMAGE]),
        legend=alt.Legend(title=None, orient="top", labelLimit=300),
    )
    y = alt.Y("gate:N", sort=list(names), title=None, axis=alt.Axis(labelLimit=220, grid=True))
    offset = alt.YOffset("class:N", sort=[*kinds.values()])
    tooltip = [
        alt.Tooltip("gate:N"),
        alt.Tooltip("class:N"),
        *(alt.Tooltip(f"{q}:Q", format=".3f") for q in ("p05", "p25", "median", "p75", "p95")),
    ]
    title = f"position: 0 is the mean of {first}, 1 that of {second}"
    base = alt.Chart(ranges).encode(y=y, yOffset=offset, color=color, tooltip=tooltip)
    thin = base.mark_rule(strokeWidth=1.5).encode(alt.X("p05:Q", title=title), alt.X2("p95:Q"))
    thick = base.mark_rule(strokeWidth=6).encode(alt.X("p25:Q"), alt.X2("p75:Q"))
    marks = (
        alt.Chart(image)
        .mark_point(shape="diamond", filled=True, size=90, opacity=1)
        .encode(
            alt.X("position:Q"),
            y=y,
            color=color,
            tooltip=[alt.Tooltip("gate:N"), alt.Tooltip("position:Q", format=".3f")],
        )
    )
    return alt.layer(thin, thick, marks).properties(height=max(140, 30 * len(names) + 60))


def between_figure(table: pd.DataFrame, names: Sequence[str], first: str, second: str) -> Figure:
    """Draw what `between_chart` shows; the arguments are the same."""
    first, second = drawable_names([first, second])
    with style():
        figure = Figure((8, 0.32 * len(names) + 1.2), layout="constrained")
        ax = figure.subplots()
        y = np.arange(len(names))
        for side, color, shift, label in (
            ("first", FIRST, -0.15, first), ("second", SECOND, 0.15, second),
        ):  # fmt: skip
            for low, high, width in (("p05", "p95", 1.2), ("p25", "p75", 4.5)):
                ax.hlines(
                    y + shift, table[f"{side}_{low}"], table[f"{side}_{high}"], color=color,
                    linewidth=width, label=f"images of {label}" if low == "p25" else "",
                )  # fmt: skip
        ax.plot(table["position"], y, "D", color=IMAGE, markersize=5, label="this image")
        ax.set_yticks(y, drawable_names(list(names)))
        ax.invert_yaxis()
        ax.set_xlabel(f"position: 0 is the mean of {first}, 1 that of {second}")
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def probability_figure(table: pd.DataFrame) -> Figure:
    """Draw what `bars` or `paired_bars` shows; the argument is the same."""
    classes = list(dict.fromkeys(table["class"]))
    states = list(dict.fromkeys(table["state"])) if "state" in table else [""]
    with style():
        figure = Figure((7, 0.3 * len(classes) * len(states) + 0.9), layout="constrained")
        ax = figure.subplots()
        high = 0.8 / len(states)
        for place, state in enumerate(states):
            some = table[table["state"] == state] if state else table
            y = np.arange(len(classes)) + (place - (len(states) - 1) / 2) * high
            colors = {OWN: "#9aa0a6", EDITED: IMAGE}
            ax.barh(y, some["probability"], high, color=colors.get(state, SECOND), label=state)
        ax.set_yticks(np.arange(len(classes)), drawable_names(classes))
        ax.invert_yaxis()
        ax.set_xlim(0, 1)
        ax.set_xlabel("probability")
        if len(states) > 1:
            ax.legend(loc="lower right")
    return figure
