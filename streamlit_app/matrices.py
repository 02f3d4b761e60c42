"""Matrices of classes: a chart of some rows and columns, and a picture of all for many classes.

Charts are Vega-Lite as plain dictionaries: to build and check the same chart with Altair takes
longer than everything else on the page.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from attnscope.plots.axes import label_axis
from attnscope.plots.images import draw_colorbar, show
from attnscope.plots.theme import drawable_names, style

TRUE, PREDICTED = "true", "predicted"
WHOLE = 40
"""Up to this number of classes the chart shows all of them; otherwise this many at a time."""
_NUMBERS = 15  # classes up to which the chart has a number in each cell
_SIDE = 360  # pixels of the picture of all classes
_GRAY = "#9AA3B5"


@dataclass(frozen=True)
class Look:
    """How the values of a matrix are colored and written."""

    title: str
    """What the values are, for the legend."""
    low: float
    high: float
    scheme: str
    """Name of the colors in Vega."""
    cmap: str
    """Name of the same colors in matplotlib."""
    form: str
    """Format of numbers, of D3."""
    reverse: bool = False
    """Whether the colors of Vega are those of matplotlib from the other end."""


@dataclass(frozen=True)
class Window:
    """Some consecutive rows and columns of a matrix."""

    rows: slice
    columns: slice


def stretches(classes: int) -> list[str]:
    """Return the stretches of classes that a window can show: ``1-40``, ``41-80`` ..."""
    return [f"{i + 1}-{min(i + WHOLE, classes)}" for i in range(0, classes, WHOLE)]


def stretch(text: str) -> slice:
    """Return the positions of one of `stretches`."""
    first, last = text.split("-")
    return slice(int(first) - 1, int(last))


def cells(classes: Sequence[str], window: Window, columns: dict[str, NDArray[Any]]) -> pd.DataFrame:
    """Return one row for each cell of a window.

    Args:
        classes: names in the order of the rows and columns.
        window: the rows and columns.
        columns: name -> ``(K, K)``, in the same order.
    """
    names = np.array(classes, dtype=object)
    true, predicted = names[window.rows], names[window.columns]
    return pd.DataFrame(
        {TRUE: np.repeat(true, len(predicted)), PREDICTED: np.tile(predicted, len(true))}
        | {name: values[window.rows, window.columns].ravel() for name, values in columns.items()}
    )


def chart(
    classes: Sequence[str],
    window: Window,
    look: Look,
    value: str,
    tooltips: dict[str, tuple[str, str]],
) -> dict[str, Any]:
    """Return the chart of `cells`; a click on a cell selects its two classes as ``cell``.

    Args:
        classes: names in the order of the rows and columns.
        window: the rows and columns.
        look: colors and formats.
        value: column of `cells` that is shown.
        tooltips: column of `cells` -> its title and its format.
    """
    rows, columns = list(classes[window.rows]), list(classes[window.columns])
    most = max(len(rows), len(columns))
    step = max(12, min(46, 480 // most))
    few = most <= _NUMBERS
    axis = {
        "domain": False, "ticks": False, "labelOverlap": False, "labelFlush": False,
        "labelLimit": 110 if few else 80, "labelFontSize": 12 if few else 10,
    }  # fmt: skip
    gap = {"paddingInner": 0.04 if few else 0, "paddingOuter": 0}
    x = {
        "field": PREDICTED, "type": "nominal", "title": "predicted class",
        "scale": {"domain": columns, **gap},
        "axis": {**axis, "orient": "top", "labelAngle": -45 if few else -90},
    }  # fmt: skip
    y = {
        "field": TRUE, "type": "nominal", "title": "true class",
        "scale": {"domain": rows, **gap}, "axis": axis,
    }  # fmt: skip
    known = f"isValid(datum['{value}'])"
    color = {
        "field": value, "type": "quantitative",
        "scale": {
            "scheme": look.scheme, "domain": [look.low, look.high], "reverse": look.reverse
        },
        "legend": {
            "title": look.title, "format": look.form, "orient": "bottom",
            "gradientLength": 220, "titleLimit": 400,
        },
    }  # fmt: skip
    shown = [{"field": TRUE, "title": "true"}, {"field": PREDICTED, "title": "predicted"}]
    shown += [
        {"field": name, "type": "quantitative", "title": title, "format": form}
        for name, (title, form) in tooltips.items()
    ]
    place = {"x": x, "y": y}
    select = {"type": "point", "fields": [TRUE, PREDICTED], "toggle": False}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "rect", "cursor": "pointer", "invalid": "show"},
            "params": [{"name": "cell", "select": select}],
            "encoding": {**place, "color": color, "tooltip": shown},
        },
        {
            "mark": {"type": "rect", "filled": False, "stroke": "#d62728", "strokeWidth": 3},
            "encoding": {
                **place,
                "opacity": {"condition": {"param": "cell", "empty": False, "value": 1}, "value": 0},
            },
        },
    ]
    if few:
        # The number stands on a color of the scale, whatever the theme is.
        middle = (look.low + look.high) / 2
        if look.low < 0:
            on_light = f"abs(datum['{value}']) < {0.55 * look.high}"
        else:
            on_light = f"datum['{value}'] > {middle}"
        layers.append(
            {
                "mark": {"type": "text", "fontSize": 11},
                "transform": [{"filter": f"{known} && datum['{value}'] != 0"}],
                "encoding": {
                    **place,
                    "text": {"field": value, "type": "quantitative", "format": look.form},
                    "color": {"condition": {"test": on_light, "value": "#1b2430"},
                              "value": "white"},
                },
            }
        )  # fmt: skip
    return {
        "layer": layers,
        "width": {"step": step},
        "height": {"step": step},
        "autosize": {"type": "pad"},
        "config": {
            "view": {"stroke": None},
            "scale": {"invalid": {"color": {"value": _GRAY}}},
        },
    }


def picture(values: NDArray[np.float64], look: Look) -> bytes:
    """Return all cells of a matrix as PNG.

    Where there are more classes than pixels, a pixel shows the cell that is farthest from 0.

    Args:
        values: ``(K, K)``; NaN is gray.
        look: colors.
    """
    pool = -(-len(values) // _SIDE)
    if pool > 1:
        side = -(-len(values) // pool) * pool
        padded = np.full((side, side), np.nan)
        padded[: len(values), : len(values)] = values
        tiles = padded.reshape(side // pool, pool, side // pool, pool).swapaxes(1, 2)
        of_pixel = tiles.reshape(side // pool, side // pool, pool**2)
        size = np.where(np.isnan(of_pixel), -1, np.abs(of_pixel))
        values = np.take_along_axis(of_pixel, size.argmax(2)[..., None], 2)[..., 0]
    colors = matplotlib.colormaps[look.cmap]
    shares = (values - look.low) / ((look.high - look.low) or 1)
    index = np.where(np.isnan(shares), 255, (shares.clip(0, 1) * 254).round()).astype(np.uint8)
    palette = (colors(np.linspace(0, 1, 255))[:, :3] * 255).round().astype(np.uint8)
    gray = np.frombuffer(bytes.fromhex(_GRAY[1:]), np.uint8)[None]
    times = max(1, 2 * _SIDE // len(index))  # a browser blurs what it enlarges
    image = Image.fromarray(index.repeat(times, 0).repeat(times, 1), "P")
    image.putpalette(np.concatenate([palette, gray]).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def blocks(classes: Sequence[str], numbers: NDArray[np.int64], noun: str) -> pd.DataFrame:
    """Return one row for each window of `map_chart`, with the sum of what it contains.

    Args:
        classes: names in the order of the rows and columns.
        numbers: what is summed, ``(K, K)``.
        noun: what the numbers are.
    """
    size, parts = len(classes), stretches(len(classes))
    starts = np.arange(0, size, WHOLE)
    sums = np.add.reduceat(np.add.reduceat(numbers, starts, 0), starts, 1)
    ends = np.minimum(starts + WHOLE, size)
    spans = [
        f"{classes[int(first)]} to {classes[int(end) - 1]}"
        for first, end in zip(starts, ends, strict=True)
    ]
    count = len(parts)
    return pd.DataFrame(
        {
            "rows": np.repeat(parts, count),
            "columns": np.tile(parts, count),
            "from row": np.repeat(starts, count),
            "to row": np.repeat(ends, count),
            "from column": np.tile(starts, count),
            "to column": np.tile(ends, count),
            "true classes": np.repeat(spans, count),
            "predicted classes": np.tile(spans, count),
            noun: sums.ravel(),
        }
    )


def map_chart(classes: int, png: bytes, chosen: tuple[str, str], noun: str) -> dict[str, Any]:
    """Return a picture of the whole matrix over `blocks`; a click selects one as ``block``.

    Args:
        classes: number of classes.
        png: of `picture`.
        chosen: rows and columns of the window that has a frame.
        noun: as in `blocks`.
    """
    scale = {"domain": [0, classes], "nice": False, "zero": False}
    none = {"axis": None, "scale": scale, "type": "quantitative"}
    down = {**none, "scale": {**scale, "reverse": True}}
    place = {
        "x": {"field": "from column", **none, "title": None}, "x2": {"field": "to column"},
        "y": {"field": "from row", **down, "title": None}, "y2": {"field": "to row"},
    }  # fmt: skip
    is_chosen = f"datum.rows == '{chosen[0]}' && datum.columns == '{chosen[1]}'"
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    middle = {"values": [{"middle": classes / 2}]}
    select = {"type": "point", "fields": ["rows", "columns"], "toggle": False}
    hover = {"type": "point", "fields": ["rows", "columns"], "on": "pointerover",
             "clear": "pointerout"}  # fmt: skip
    strength = {"condition": {"param": "hover", "empty": False, "value": 1}, "value": 0}
    return {
        "width": _SIDE, "height": _SIDE, "autosize": {"type": "pad"},
        "config": {"view": {"stroke": "#888888"}},
        "layer": [
            {
                "data": middle,
                "mark": {"type": "image", "width": {"expr": "width"}, "height": {"expr": "height"},
                         "aspect": False, "url": url, "smooth": False},
                "encoding": {"x": {"field": "middle", **none}, "y": {"field": "middle", **down}},
            },
            {
                "mark": {"type": "rect", "cursor": "pointer", "fillOpacity": 0, "fill": "black",
                         "stroke": "#d62728", "strokeWidth": 1.5},
                "params": [{"name": "block", "select": select}, {"name": "hover", "select": hover}],
                "encoding": {
                    **place, "strokeOpacity": strength,
                    "tooltip": [{"field": name} for name in ("true classes", "predicted classes")]
                    + [{"field": noun, "type": "quantitative"}],
                },
            },
            {
                "transform": [{"filter": is_chosen}],
                "mark": {"type": "rect", "filled": False, "stroke": "#d62728", "strokeWidth": 2.5},
                "encoding": place,
            },
        ],
    }  # fmt: skip


def figure(
    rows: Sequence[str], columns: Sequence[str], values: NDArray[np.float64], look: Look, title: str
) -> Figure:
    """Draw a matrix for a file."""
    with style():
        size = float(np.clip(1.9 + 0.22 * max(values.shape), 4.2, 10))
        drawn = Figure(figsize=(size + 0.9, size), layout="constrained")
        ax = drawn.subplots()
        show(ax, values, look.low, look.high, look.cmap)
        ax.set_aspect("equal")
        label_axis(ax.yaxis, drawable_names(rows))
        label_axis(ax.xaxis, drawable_names(columns))
        ax.set_xlabel("predicted class")
        ax.set_ylabel("true class")
        draw_colorbar(ax, look.title, [ax])
        drawn.suptitle(drawable_names([title])[0])
    return drawn
