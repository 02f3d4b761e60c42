"""One function a picture: frames or arrays and an Axes in, the Axes out.

Nothing is computed here but the layout of the picture, and nothing is saved. Callers make a
``matplotlib.figure.Figure`` inside ``style()``; pyplot is never imported, since its figures live on
in a global list. Frames are those of ``attnscope.statistics``.

Colours: cividis for gates and shares, viridis for Grad-CAM, a centred map for signed values. A
scale is always handed in, because only the caller knows which panels are compared.
"""

from __future__ import annotations

import colorsys
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

GATE_MAP = "cividis"
GRAD_CAM_MAP = "viridis"
SIGNED_MAP = "RdBu_r"
NETWORK_COLORS = ("#0072B2", "#D55E00")
"""The first and the second network of a comparison."""

_NULL_COLOR = "#8C8C8C"
_INK = "#222222"
_EMPTY = "#E4E4E4"
_STATES = {
    "saturated_low": ("saturated at the lower bound", "#332288"),
    "saturated_high": ("saturated at the upper bound", "#CC6677"),
    "stuck": ("stuck at the midpoint", "#DDAA33"),
    "constant": ("constant over images", "#777777"),
}
_MEASURES = {"spearman": "Spearman correlation", "iou": "IoU of the top 20 %"}
_CURVES = {"loss": "loss", "accuracy": "accuracy"}

# Paul Tol's muted scheme, which colour-blind readers can tell apart, and a dark grey.
_CLASS_COLORS = (
    "#332288", "#CC6677", "#117733", "#DDAA33", "#88CCEE",
    "#882255", "#44AA99", "#999933", "#AA4499", "#555555",
)  # fmt: skip

# DejaVu comes with matplotlib and has no Chinese, Japanese or Korean; any of these may.
_CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK TC", "Noto Sans CJK KR", "Noto Sans SC",
    "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
    "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC", "PingFang HK",
    "Hiragino Sans GB", "Hiragino Sans", "Heiti SC", "Heiti TC", "Malgun Gothic", "Yu Gothic",
    "AR PL UMing CN", "AR PL UKai CN", "Arial Unicode MS",
)  # fmt: skip

_style_lock = threading.RLock()


# ------------------------------------------------------------------------------ style and words


@contextmanager
def style() -> Iterator[None]:
    """Settings under which figures are both made and saved (fonts are embedded when saving).

    matplotlib's settings are global, so threads of a dashboard take turns.
    """
    settings: dict[Any, Any] = {
        "font.family": list(_families()),
        "font.size": 8.5,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.labelsize": 8.5,
        "axes.labelcolor": _INK,
        "axes.edgecolor": "#888888",
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": True,
        "figure.titlesize": 10.5,
        "figure.facecolor": "white",
        "grid.color": "#E2E2E2",
        "grid.linewidth": 0.6,
        "image.interpolation": "nearest",
        "legend.fontsize": 8,
        "legend.frameon": False,
        "lines.linewidth": 1.5,
        "pdf.fonttype": 42,  # TrueType: text stays text, and journals accept it
        "ps.fonttype": 42,
        "text.color": _INK,
        "text.parse_math": False,  # a class may be called "$10 to $20"
        "xtick.color": "#444444",
        "ytick.color": "#444444",
        "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
    }
    with _style_lock, matplotlib.rc_context(settings):
        yield


def class_colors(count: int) -> list[str]:
    """One colour a class: told apart easily up to 10; beyond, hues that alternate in lightness."""
    if count <= len(_CLASS_COLORS):
        return list(_CLASS_COLORS[:count])
    golden = (math.sqrt(5) - 1) / 2  # steps of the golden ratio keep neighbours far apart
    colors = []
    for i in range(count):
        rgb = colorsys.hls_to_rgb(i * golden % 1, (0.35, 0.5, 0.65)[i % 3], 0.55)
        colors.append("#" + "".join(f"{round(255 * part):02X}" for part in rgb))
    return colors


def drawable_names(names: Sequence[str]) -> list[str]:
    """The names as figures can write them.

    A name with characters that no installed font has gets boxes for them and its number in front,
    so that it can still be told from the others; nothing else changes.
    """
    drawn = []
    for number, name in enumerate(names):
        missing = set(missing_characters([name]))
        boxed = "".join("□" if c in missing else c for c in name)
        drawn.append(f"{number} {boxed}" if missing else name)
    return drawn


def missing_characters(texts: Sequence[str]) -> str:
    """The characters in ``texts`` that no font of ``style()`` has, in order and without repeats."""
    known = _drawable_characters()
    return "".join(dict.fromkeys(c for text in texts for c in text if ord(c) not in known))


def short_names(gates: Sequence[str]) -> list[str]:
    """Names of gates without the parts that all of them share.

    ``layer1.0.attention.channel, layer1.1.attention.channel`` become ``layer1.0, layer1.1``. In
    names of unlike length only what they share at either end is left out.
    """
    parts = [name.split(".") for name in dict.fromkeys(gates)]
    if len(parts) < 2:
        return list(gates)
    if len({len(p) for p in parts}) == 1:
        kept = [i for i, shared in enumerate(zip(*parts, strict=True)) if len(set(shared)) > 1]
        return [".".join(name.split(".")[i] for i in kept) for name in gates]
    shortest = min(len(p) for p in parts)
    end = 0
    while end < shortest - 1 and len({p[-1 - end] for p in parts}) == 1:
        end += 1
    start = 0
    while start < shortest - 1 - end and len({p[start] for p in parts}) == 1:
        start += 1
    return [".".join(name.split(".")[start : len(name.split(".")) - end]) for name in gates]


# --------------------------------------------------------------------------------- pictures, maps


def draw_note(ax: Axes, text: str) -> Axes:
    """Says in words why there is nothing to draw."""
    ax.set_axis_off()
    ax.text(
        0.5,
        0.5,
        text,
        ha="center",
        va="center",
        wrap=True,
        color="#555555",
        fontsize=10,
        transform=ax.transAxes,
    )
    return ax


def draw_image(ax: Axes, image: NDArray[np.uint8], title: str = "") -> Axes:
    """A picture, ``(H, W, 3)`` uint8, pixel for pixel."""
    ax.imshow(image, interpolation="nearest")
    _bare(ax, title)
    return ax


def draw_map(
    ax: Axes,
    values: NDArray[Any],
    *,
    low: float,
    high: float,
    title: str = "",
    cmap: str = GATE_MAP,
) -> Axes:
    """A map ``(h, w)`` on the scale from ``low`` to ``high``; cells are not interpolated."""
    _show(ax, values, low, high, cmap)
    ax.set_aspect("equal")
    _bare(ax, title)
    return ax


def draw_overlay(
    ax: Axes,
    image: NDArray[np.uint8],
    heat: NDArray[Any],
    *,
    low: float,
    high: float,
    title: str = "",
    cmap: str = GRAD_CAM_MAP,
) -> Axes:
    """A map over a picture: ``heat`` ``(h, w)`` on its scale, over ``image`` ``(H, W, 3)`` in grey.

    The picture loses its colours so that every colour seen is the map's. The map is interpolated to
    the picture's pixels, for the eye only, and is the more opaque the higher it is.
    """
    height, width = image.shape[:2]
    grey = image.astype(np.float64) @ (0.299, 0.587, 0.114)
    ax.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.imshow(
        heat,
        cmap=cmap,
        vmin=low,
        vmax=high,
        alpha=0.15 + 0.65 * np.clip((heat - low) / (high - low), 0, 1),
        interpolation="bilinear",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )
    _bare(ax, title)
    return ax


def draw_blank_reason(ax: Axes, text: str) -> Axes:
    """Says on a map why it is of one colour."""
    ax.text(
        0.5,
        0.5,
        text,
        transform=ax.transAxes,
        ha="center",
        va="center",
        fontsize=6,
        color="white",
        bbox={"facecolor": "#00000088", "edgecolor": "none", "boxstyle": "round,pad=0.3"},
    )
    return ax


def draw_colorbar(shown: Axes, label: str, beside: Sequence[Axes]) -> Colorbar:
    """The colour bar of the last image of ``shown``, beside ``beside``, with both ends as ticks."""
    figure = shown.figure
    assert isinstance(figure, Figure)
    image = shown.images[-1]
    # A mappable of its own: a bar takes over the transparency of an overlay otherwise.
    colors = ScalarMappable(image.norm, image.cmap)
    places = [ax.get_position() for ax in beside]
    height = (max(p.y1 for p in places) - min(p.y0 for p in places)) * figure.get_figheight()
    length = min(height, 2.6)
    bar = figure.colorbar(
        colors,
        ax=list(beside),
        label=label,
        shrink=length / height,
        aspect=length / 0.13,  # 0.13 inches wide, however tall the figure
        anchor=(0.0, 1.0),
        pad=0.01,
    )
    low, high = image.get_clim()
    inner = [t for t in MaxNLocator(4).tick_values(low, high) if low < t < high]
    ticks = [low, *(t for t in inner if min(t - low, high - t) > 0.12 * (high - low)), high]
    bar.set_ticks(ticks, labels=[f"{t:.3g}".replace("-", "−") for t in ticks])
    bar.outline.set_visible(False)
    return bar


# ------------------------------------------------------------------------------------- one network


def draw_training_curves(
    ax: Axes, metrics: pd.DataFrame, quantity: str, steps: pd.DataFrame | None = None
) -> Axes:
    """Training and validation over epochs, and single batches of the training behind them.

    Args:
        ax: where.
        metrics: a run's ``metrics.csv``, one row an epoch.
        quantity: ``loss``, ``accuracy`` or ``learning_rate``.
        steps: its ``steps.csv``, one row for some of the steps.
    """
    epochs = metrics["epoch"].to_numpy()
    marker = "o" if len(epochs) <= 30 else None
    if steps is not None and len(steps):
        at = steps["step"] / (metrics["step"].iloc[0] / epochs[0])
        color, width = (NETWORK_COLORS[0], 0.6) if quantity in _CURVES else (_INK, 1.2)
        alpha = 0.35 if quantity in _CURVES else 1.0
        label = "training, one batch" if quantity in _CURVES else None
        ax.plot(at, steps[quantity], color=color, linewidth=width, alpha=alpha, label=label)
    if quantity in _CURVES:
        for part, color in zip(("train", "validation"), NETWORK_COLORS, strict=True):
            ax.plot(
                epochs,
                metrics[f"{part}_{quantity}"],
                color=color,
                marker=marker,
                markersize=3,
                label="training" if part == "train" else part,
            )
        ax.legend(loc="best")
    else:
        if steps is None or not len(steps):
            ax.plot(epochs, metrics[quantity], color=_INK, marker=marker, markersize=3)
        ax.set_ylim(bottom=0)
    if quantity == "accuracy":
        ax.yaxis.set_major_formatter(_as_percent)
    at_end = "" if steps is not None and len(steps) else " at the end of the epoch"
    ax.set_title(_CURVES.get(quantity, f"learning rate{at_end}"))
    ax.set_xlabel("epochs done")
    ax.set_xlim(0, epochs[-1] * 1.02)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y")
    return ax


def draw_confusion_matrix(ax: Axes, counts: pd.DataFrame) -> Axes:
    """Colour is the share of the true class; up to 12 classes count and share stand in the cells.

    Args:
        ax: where.
        counts: index the true, columns the predicted class. The row of a class without images is
            grey.
    """
    numbers = counts.to_numpy(dtype=np.float64)
    totals = numbers.sum(1, keepdims=True)
    shares = np.divide(numbers, totals, out=np.full_like(numbers, np.nan), where=totals > 0)
    shown = _show(ax, shares, 0, 1, GATE_MAP)
    ax.set_aspect("equal")
    size = len(counts)
    if size <= 12:
        for i in range(size):
            for j in range(size):
                if not np.isfinite(shares[i, j]):
                    continue
                dark = _is_dark(shown.cmap(shown.norm(shares[i, j])))
                text = f"{numbers[i, j]:.0f}"
                if numbers[i, j]:
                    text += f"\n{100 * shares[i, j]:.1f} %"
                ax.text(
                    j,
                    i,
                    text,
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color=("#9AA3B5" if not numbers[i, j] else "white") if dark else _INK,
                )
    _label(ax.yaxis, list(counts.index))
    _label(ax.xaxis, list(counts.columns))
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    return ax


def draw_channel_gates(
    ax: Axes,
    profiles: pd.DataFrame,
    *,
    low: float,
    high: float,
    order: Sequence[int] | None = None,
    title: str = "",
) -> Axes:
    """Class × channel: the mean gate.

    Args:
        ax: where.
        profiles: of ``class_profiles``: class, channel, mean ...
        low: lower end of the scale.
        high: upper end of the scale.
        order: channel numbers from left to right; by number when not given.
        title: of the panel.
    """
    means = _wide(profiles, "channel", "mean")
    return _draw_class_channel(ax, means, order, low, high, GATE_MAP, title)


def draw_channel_differences(
    ax: Axes,
    profiles: pd.DataFrame,
    *,
    limit: float,
    order: Sequence[int] | None = None,
    title: str = "",
) -> Axes:
    """Class × channel: the mean gate minus the channel's mean over the classes, on ±``limit``.

    What sets classes apart is small beside what sets channels apart, and is not seen in
    `draw_channel_gates`. Arguments are the same.
    """
    means = _wide(profiles, "channel", "mean")
    return _draw_class_channel(ax, means - means.mean(), order, -limit, limit, SIGNED_MAP, title)


def draw_gate_profiles(
    ax: Axes,
    profiles: pd.DataFrame,
    *,
    highlight: Sequence[str] | None = None,
    centred: bool = False,
) -> Axes:
    """Mean gate of each class over depth, with its 95 % interval.

    Args:
        ax: where.
        profiles: of ``gate_profiles``, one kind only: gate, class, mean, low, high ...
        highlight: classes in colour; the others are grey. All, when there are 10 or fewer.
        centred: subtract each gate's mean over the classes, to see what sets classes apart.
    """
    gates, classes = _unique(profiles["gate"]), _unique(profiles["class"])
    if highlight is None:
        highlight = classes[:10]
    x = np.arange(len(gates))
    tables = {c: _wide(profiles, "gate", c)[gates] for c in ("mean", "low", "high")}
    middle = tables["mean"].mean() if centred else 0.0
    colors = dict(zip(highlight, class_colors(max(len(highlight), 1)), strict=False))
    others = [c for c in classes if c not in colors]
    for i, name in enumerate(others):
        ax.plot(
            x,
            (tables["mean"].loc[name] - middle).to_numpy(),
            color="#BBBBBB",
            linewidth=0.6,
            label=f"{len(others)} other classes" if i == 0 else None,
        )
    for name, color in colors.items():
        mean, low, high = ((tables[c].loc[name] - middle).to_numpy() for c in tables)
        ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        ax.plot(x, mean, color=color, marker="o", markersize=3, linewidth=1.2, label=_trim(name))
    if centred:
        ax.axhline(0, color=_INK, linewidth=0.6)
    _label(ax.xaxis, short_names(gates))
    ax.set_xlim(-0.4, len(gates) - 0.6)
    ax.set_ylabel("mean gate − mean over classes" if centred else "mean gate")
    ax.grid(axis="y")
    return ax


def draw_gate_state(ax: Axes, state: pd.DataFrame, *, high: float) -> Axes:
    """Shares of saturated, stuck and constant gates over depth, as bars from 0 to ``high``.

    Args:
        ax: where.
        state: of ``gate_state``, one kind only.
        high: upper end of the scale, a share of 1.
    """
    x, width = np.arange(len(state)), 0.2
    for i, (column, (label, color)) in enumerate(_STATES.items()):
        values = state[column].to_numpy()
        ax.bar(x + (i - 1.5) * width, values, width, color=color, label=label)
    ax.set_ylim(0, high)
    ax.set_xlim(-0.6, len(state) - 0.4)
    ax.yaxis.set_major_formatter(_as_percent)
    _label(ax.xaxis, short_names(list(state["gate"])))
    ax.set_ylabel("share")
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    return ax


def draw_map_agreement(ax: Axes, summary: pd.DataFrame, measure: str) -> Axes:
    """Spatial gate against Grad-CAM over depth, beside what knows nothing of the image.

    Args:
        ax: where.
        summary: of ``agreement_summary``; of each gate the first row (all images) is the
            large mark, with its interval, each class a small one.
        measure: ``spearman`` or ``iou``.
    """
    gates = _unique(summary["gate"])
    place = {gate: i for i, gate in enumerate(gates)}
    # By place, not by name: a class may be called "all".
    of_all = ~summary.duplicated("gate")
    whole, parts = summary[of_all], summary[~of_all]
    at = whole["gate"].map(place).to_numpy()
    own, own_at = NETWORK_COLORS[0], at - 0.24
    faint = float(np.clip(5 * len(gates) / max(len(parts), 1), 0.1, 0.35))  # many are a cloud
    small_at = parts["gate"].map(place).to_numpy() - 0.24
    ax.scatter(small_at, parts[measure], s=9, color=own, alpha=faint, linewidths=0)
    low, high = whole[f"{measure}_low"], whole[f"{measure}_high"]
    ax.vlines(own_at, low, high, color=own, linewidth=1.6)
    label = "Grad-CAM of the same image, 95 % interval (small: per class)"
    ax.plot(own_at, whole[measure], "o", markersize=6.5, color=own, label=label)
    for null, shift, marker, label in (
        ("null", 0, "s", "null: Grad-CAM of another image"),
        ("same_class", 0.16, "^", "null: of another image of the same class"),
        ("centre", 0.32, "P", "null: a Gaussian in the middle"),
    ):
        ax.plot(
            at + shift,
            whole[f"{null}_{measure}"],
            marker=marker,
            linestyle="none",
            markersize=5.5,
            label=label,
            markerfacecolor="white",
            markeredgecolor=_NULL_COLOR,
        )
    _measure_axis(ax.yaxis, ax, measure)
    _label(ax.xaxis, short_names(gates))
    ax.set_xlim(-0.6, len(gates) - 0.4)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    return ax


# ------------------------------------------------------------------------------------ two networks


def draw_per_class_accuracy(ax: Axes, comparison: pd.DataFrame, names: tuple[str, str]) -> Axes:
    """Both networks' accuracy on each class, joined by a line.

    Args:
        ax: where.
        comparison: of ``compare_accuracy``; the first row is all classes together.
        names: of the two networks.
    """
    y = np.arange(len(comparison))
    a, b = (comparison[f"accuracy_{side}"].to_numpy() for side in "ab")
    ax.hlines(y, np.fmin(a, b), np.fmax(a, b), color="#C4C4C4", linewidth=2, zorder=1)
    # The second mark is smaller, so that the first is still seen where both are equal.
    for values, name, color, form in zip(
        (a, b), names, NETWORK_COLORS, (("o", 7), ("s", 4)), strict=True
    ):
        ax.plot(
            values, y, marker=form[0], linestyle="none", markersize=form[1], color=color, label=name
        )
    _rows(ax, list(comparison["class"]))
    ax.xaxis.set_major_formatter(_as_percent)
    ax.set_xlabel("accuracy")
    return ax


def draw_disagreements(ax: Axes, comparison: pd.DataFrame, names: tuple[str, str]) -> Axes:
    """Images that only one network gets right, and the p value of McNemar's exact test.

    Args:
        ax: where.
        comparison: of ``compare_accuracy``; the first row is all classes together, with its plain
            p, and the others have Holm's.
        names: of the two networks.
    """
    y = np.arange(len(comparison))
    # The row of all classes is so much longer that it would flatten the others: it is drawn in
    # words only.
    for column, sign, color in zip(("only_a", "only_b"), (-1, 1), NETWORK_COLORS, strict=True):
        counts = comparison[column].to_numpy(dtype=np.float64)
        ax.barh(y[1:], sign * counts[1:], 0.7, color=color)
    ax.axvline(0, color=_INK, linewidth=0.6)
    most = comparison[["only_a", "only_b"]].iloc[1:].to_numpy().max(initial=1)
    ax.set_xlim(-1.1 * most, 1.1 * most)
    first = comparison.iloc[0]
    ax.text(
        0,
        0,
        f"{first['only_a']:.0f}   |   {first['only_b']:.0f}",
        ha="center",
        va="center",
        fontsize=7.5,
    )
    step = _thinning(ax.yaxis, len(comparison), 9)
    for i, p in enumerate(comparison["p_holm"].to_numpy(dtype=np.float64)):
        if i % step == 0 or p < 0.05:
            ax.text(
                1.02,
                i,
                _p_value(p),
                transform=ax.get_yaxis_transform(),
                va="center",
                fontsize=7,
                fontweight="bold" if p < 0.05 else "normal",
                color=_INK if p < 0.05 else "#777777",
            )
    _rows(ax, list(comparison["class"]))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    ax.set_xlabel(f"images that only {names[0]} (left) or only {names[1]} (right) gets right")
    return ax


def draw_class_distances(
    ax: Axes, distances: pd.DataFrame, column: str, *, high: float, title: str = ""
) -> Axes:
    """Class × gate: how far the class's profile lies from the mean profile, from 0 to ``high``.

    Args:
        ax: where.
        distances: of ``compare_profiles``.
        column: ``distance_a`` or ``distance_b``.
        high: upper end of the scale.
        title: of the panel.
    """
    table = _wide(distances, "gate", column)[_unique(distances["gate"])]
    _show(ax, table.to_numpy(dtype=np.float64), 0, high, GATE_MAP)
    ax.set_aspect("auto")
    _label(ax.yaxis, list(table.index))
    _label(ax.xaxis, short_names(list(table.columns)))
    ax.set_title(title)
    return ax


def draw_class_order(ax: Axes, order: pd.DataFrame) -> Axes:
    """How alike two networks order the classes by distance: Spearman's correlation per gate.

    Args:
        ax: where.
        order: of ``compare_class_order``: gate, spearman, p. Full bars have p < 0.05.
    """
    x = np.arange(len(order))
    values = order["spearman"].to_numpy(dtype=np.float64)
    sure = order["p"].to_numpy(dtype=np.float64) < 0.05
    bars = ax.bar(x, np.nan_to_num(values), 0.65, edgecolor="#44546A", linewidth=0.9)
    for bar, full in zip(bars, sure, strict=True):
        bar.set_facecolor("#44546A" if full else "white")
    ax.axhline(0, color=_INK, linewidth=0.6)
    ax.set_ylim(-1, 1)
    ax.set_xlim(-0.6, len(order) - 0.4)
    _label(ax.xaxis, short_names(list(order["gate"])))
    ax.set_ylabel("Spearman correlation")
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    return ax


def draw_per_class_grad_cam(ax: Axes, comparison: pd.DataFrame, measure: str) -> Axes:
    """Agreement of two networks' Grad-CAM per class, beside the null of another image's.

    Args:
        ax: where.
        comparison: of ``compare_grad_cam``; the first row is all classes together.
        measure: ``spearman`` or ``iou``.
    """
    y = np.arange(len(comparison))
    own, null = (comparison[c].to_numpy() for c in (measure, f"null_{measure}"))
    ax.hlines(y, np.fmin(own, null), np.fmax(own, null), color="#DDDDDD", linewidth=1.5, zorder=1)
    ax.plot(own, y, "o", color=NETWORK_COLORS[0], markersize=5, label="the same image")
    ax.plot(
        null,
        y,
        "s",
        color=_NULL_COLOR,
        markerfacecolor="white",
        markersize=4.5,
        label="null: another image",
    )
    _rows(ax, list(comparison["class"]))
    _measure_axis(ax.xaxis, ax, measure)
    return ax


def draw_per_class_agreement(
    ax: Axes, summaries: Sequence[pd.DataFrame | None], names: tuple[str, str]
) -> Axes:
    """Agreement of a spatial gate with Grad-CAM per class, of one network or of two.

    Args:
        ax: where.
        summaries: of ``agreement_summary`` the rows of one gate, of each network; the first row is
            all images together. None for a network that has none.
        names: of the two networks.
    """
    there = [(side, summary) for side, summary in enumerate(summaries) if summary is not None]
    classes: list[str] = []
    for side, summary in there:
        classes = list(summary["class"])
        y = np.arange(len(classes)) + (0.18 * (2 * side - 1) if len(there) == 2 else 0.0)
        own = summary["spearman"].to_numpy(float)
        ends = (summary[f"spearman_{end}"].to_numpy(float) for end in ("low", "high"))
        spread = np.abs(np.nan_to_num(np.array([end - own for end in ends])))
        color, form = NETWORK_COLORS[side], "os"[side]
        ax.errorbar(own, y, xerr=spread, fmt="none", ecolor=color, elinewidth=1.2)
        ax.plot(own, y, form, color=color, markersize=4.5, label=f"{names[side]}, 95 % interval")
        ax.plot(
            summary["null_spearman"].to_numpy(float),
            y,
            form,
            color=_NULL_COLOR,
            markerfacecolor="white",
            markersize=4,
            zorder=1.9,  # behind the intervals, which it may lie on
            label=f"{names[side]}, null: Grad-CAM of another image",
        )
    _rows(ax, classes)
    _measure_axis(ax.xaxis, ax, "spearman")
    return ax


# ------------------------------------------------------------------------------ decodable and used


def draw_decoding(ax: Axes, decoding: pd.DataFrame, measure: str) -> Axes:
    """What a gate could tell about the class, over depth, above the band of permuted labels.

    Args:
        ax: where.
        decoding: of ``decode_gates``.
        measure: ``balanced_accuracy`` or ``omega_squared``.
    """
    prefix = "" if measure == "balanced_accuracy" else "omega_"
    x = np.arange(len(decoding))
    low, high = (decoding[f"{prefix}null_{end}"].to_numpy(float) for end in ("low", "high"))
    # A band may be thinner than a line: its edge keeps it seen.
    ax.bar(
        x,
        high - low,
        0.8,
        low,
        color="#D5D5D5",
        edgecolor=_NULL_COLOR,
        linewidth=0.8,
        label="null: permuted labels, 95 %",
    )
    if measure == "balanced_accuracy":
        # Beside the gate's own mark, so that all intervals are seen.
        for name, form, shift, label in (
            ("input", "v", 0.2, "of what the gate got (pooled input)"),
            ("untrained", "^", -0.2, "of the gate, untrained"),
        ):
            value = decoding[f"{name}_accuracy"]
            if value.notna().any():
                spread = [value - decoding[f"{name}_low"], decoding[f"{name}_high"] - value]
                ax.errorbar(
                    x + shift, value, yerr=np.maximum(np.nan_to_num(spread), 0), fmt=form,
                    color="#777777", markersize=4, elinewidth=0.8, label=label,
                )  # fmt: skip
    _draw_intervals(ax, x, decoding, measure, f"{prefix}low", f"{prefix}high", 0, "of the gate")
    ax.set_ylabel({"balanced_accuracy": "balanced accuracy"}.get(measure, "ω² of the class"))
    lowest = float(np.nanmin([*low, *decoding[f"{prefix}low"], 0]))
    # A band around 0 would lie under the frame.
    room = 0.03 * ax.get_ylim()[1] if lowest < 0 else 0
    ax.set_ylim(lowest - room, None)
    if measure == "balanced_accuracy":
        ax.yaxis.set_major_formatter(_as_percent)
    return _over_gates(ax, list(decoding["gate"]))


def draw_usage(ax: Axes, usage: pd.DataFrame) -> Axes:
    """What the network loses without the class in a gate, and without its dependence on the image.

    Args:
        ax: where.
        usage: of ``gate_usage``.
    """
    x = np.arange(len(usage))
    ax.axhline(0, color=_INK, linewidth=0.8)
    for side, (column, label) in enumerate(
        (
            ("class", "gate of another class instead of the same class"),
            ("dynamic", "mean gate instead of the image's own"),
        )
    ):
        _draw_intervals(
            ax, x + 0.22 * (2 * side - 1), usage, f"{column}_value", f"{column}_low",
            f"{column}_high", side, label, sure=usage["p_used" if side == 0 else "p_dynamic"],
        )  # fmt: skip
    ax.set_ylabel("accuracy lost, points")
    ax.yaxis.set_major_formatter(_as_points)
    return _over_gates(ax, list(usage["gate"]))


def draw_border(ax: Axes, after: int) -> Axes:
    """A line after so many gates, where those that are replaced together begin."""
    ax.axvline(after - 0.5, color=_INK, linewidth=0.6, linestyle=":")
    return ax


def draw_margins_moved(ax: Axes, usage: pd.DataFrame) -> Axes:
    """As ``draw_usage``, in units of the logits: finer than what changes which class is named.

    Args:
        ax: where.
        usage: of ``gate_usage`` or ``usage_over_seeds``.
    """
    x = np.arange(len(usage))
    ax.axhline(0, color=_INK, linewidth=0.8)
    for side, (name, p) in enumerate(
        (("class_margin", "p_margin"), ("dynamic_margin", "p_dynamic_margin"))
    ):
        ends = f"{name}_low", f"{name}_high"
        at = x + 0.22 * (2 * side - 1)
        _draw_intervals(ax, at, usage, name, *ends, side, "", sure=usage[p])
    ax.set_ylabel("margin lost, logits")
    return _over_gates(ax, list(usage["gate"]))


def draw_reading_over_seeds(ax: Axes, frame: pd.DataFrame) -> Axes:
    """How well the class can be read from each gate, mean over trainings, above chance.

    Args:
        ax: where.
        frame: of ``usage_over_seeds``.
    """
    x = np.arange(len(frame))
    ax.hlines(
        frame["chance"], x - 0.4, x + 0.4, color=_NULL_COLOR, linewidth=1.5, label="chance"
    )  # fmt: skip
    _draw_intervals(
        ax, x, frame, "balanced_accuracy", "balanced_low", "balanced_high", 0, "of the gate"
    )
    ax.set_ylabel("balanced accuracy")
    ax.set_ylim(0, None)
    ax.yaxis.set_major_formatter(_as_percent)
    return _over_gates(ax, list(frame["gate"]))


def draw_trainings(ax: Axes, usages: Sequence[pd.DataFrame], columns: Sequence[str]) -> Axes:
    """Each training's own number beside the mean over them.

    Args:
        ax: where ``draw_reading_over_seeds`` or ``draw_usage`` has drawn.
        usages: of ``gate_usage``, one a training.
        columns: one, or the two that ``draw_usage`` draws.
    """
    for k, column in enumerate(columns):
        shift = 0.22 * (2 * k - 1) if len(columns) == 2 else 0.0
        for usage in usages:
            x = np.arange(len(usage)) + shift + 0.09
            label = "each training" if k == 0 and usage is usages[0] else None
            ax.plot(x, usage[column], ".", color="#777777", markersize=3.5, label=label)
    return ax


def draw_static_gates(
    ax: Axes, effects: pd.DataFrame, own: float, sure: Sequence[bool], labels: Sequence[str]
) -> Axes:
    """The accuracy that is kept when gates are their mean, with paired intervals.

    Args:
        ax: where.
        effects: of ``replacement_effects``, the rows of one edit.
        own: accuracy of the unedited network.
        sure: for each row, whether the change counts as a loss.
        labels: for each row.
    """
    y = np.arange(len(effects))
    kept = effects["accuracy"].to_numpy(float)
    low, high = (own + effects[end].to_numpy(float) for end in ("low", "high"))
    ax.axvline(own, color=_INK, linewidth=0.9, label="own gates")
    for chosen, face in ((True, NETWORK_COLORS[1]), (False, "white")):
        rows = np.array(sure) == chosen
        if rows.any():
            # The interval is not centred at the change: it may end at it.
            spread = [np.maximum(kept - low, 0)[rows], np.maximum(high - kept, 0)[rows]]
            ax.errorbar(
                kept[rows], y[rows], xerr=spread, fmt="o", color=NETWORK_COLORS[1],
                markerfacecolor=face, markersize=5, elinewidth=1.2, capsize=2,
                label="lost" if chosen else "no loss seen",
            )  # fmt: skip
    ax.set_ylim(len(effects) - 0.4, -0.6)
    _label(ax.yaxis, list(labels))
    # As many digits as tell the ticks apart: what is lost may be tenths of a point.
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    ax.set_xlabel("accuracy kept")
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    return ax


def draw_seed_differences(ax: Axes, frame: pd.DataFrame, names: tuple[str, str]) -> Axes:
    """Per class, how much more accurate the second kind of network is, over seeds.

    Args:
        ax: where.
        frame: of ``compare_seeds``; the first row is all classes together.
        names: of the two kinds.
    """
    y = np.arange(len(frame))
    ax.axvline(0, color=_INK, linewidth=0.8)
    middle = frame["difference"].to_numpy(float)
    ax.hlines(
        y, frame["image_low"], frame["image_high"], color="#C4C4C4", linewidth=5,
        label="95 % over images, these networks",
    )  # fmt: skip
    spread = [middle - frame["low"].to_numpy(float), frame["high"].to_numpy(float) - middle]
    sure = frame["p_holm"].to_numpy(float) < 0.05
    seeds = "95 % over seeds" if frame["seeds"].max() > 1 else "one training of each"
    for chosen, label in ((False, seeds), (True, "95 % over seeds, and p < 0.05 (Holm)")):
        rows = sure == chosen
        if rows.any():
            ax.errorbar(
                middle[rows], y[rows], xerr=np.nan_to_num(np.array(spread)[:, rows]), fmt="o",
                color=NETWORK_COLORS[0], markerfacecolor=NETWORK_COLORS[0] if chosen else "white",
                markersize=5, elinewidth=1.2, capsize=2, label=label,
            )  # fmt: skip
    _rows(ax, list(frame["class"]))
    ax.xaxis.set_major_formatter(_as_points)
    ax.set_xlabel(f"accuracy: {names[1]} minus {names[0]}, points")
    return ax


def _draw_intervals(
    ax: Axes,
    x: NDArray[Any],
    frame: pd.DataFrame,
    value: str,
    low: str,
    high: str,
    side: int,
    label: str,
    sure: pd.Series[Any] | None = None,
) -> None:
    """Marks with their intervals; where p is given, only those below 0.05 are filled."""
    middle = frame[value].to_numpy(float)
    spread = np.array([middle - frame[low].to_numpy(float), frame[high].to_numpy(float) - middle])
    full = np.ones(len(x), bool) if sure is None else sure.to_numpy(float) < 0.05
    color, form = NETWORK_COLORS[side], "os"[side]
    ax.errorbar(
        x, middle, yerr=np.maximum(np.nan_to_num(spread), 0), fmt="none", color=color,
        elinewidth=1.2, capsize=2,
    )  # fmt: skip
    # The label is that of a filled mark, whether there is one or not.
    ax.plot(x[full], middle[full], form, color=color, markersize=5, label=label or None)
    ax.plot(x[~full], middle[~full], form, color=color, markerfacecolor="white", markersize=5)


def _over_gates(ax: Axes, gates: list[str]) -> Axes:
    _label(ax.xaxis, short_names(gates))
    ax.set_xlim(-0.6, len(gates) - 0.4)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    return ax


# ----------------------------------------------------------------------------------------- helpers


@lru_cache(maxsize=1)
def _families() -> tuple[str, ...]:
    # A family that is not installed would be complained about at every text.
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _CJK_FONTS if name in installed))


@lru_cache(maxsize=1)
def _drawable_characters() -> frozenset[int]:
    known: set[int] = set()
    for family in _families():
        file = font_manager.findfont(font_manager.FontProperties(family=family))
        known |= set(font_manager.get_font(file).get_charmap())
    return frozenset(known)


def _show(ax: Axes, values: NDArray[Any], low: float, high: float, cmap: str) -> Any:
    """An image on a stated scale; what is not a number is grey, not the colour of a value."""
    colors = matplotlib.colormaps[cmap].with_extremes(bad=_EMPTY)
    ax.spines[:].set_visible(False)
    return ax.imshow(values, cmap=colors, vmin=low, vmax=high, interpolation="nearest")


def _draw_class_channel(
    ax: Axes,
    table: pd.DataFrame,
    order: Sequence[int] | None,
    low: float,
    high: float,
    cmap: str,
    title: str,
) -> Axes:
    if order is not None:
        table = table[list(order)]
    _show(ax, table.to_numpy(dtype=np.float64), low, high, cmap)
    ax.set_aspect("auto")
    _label(ax.yaxis, list(table.index))
    last = table.shape[1] - 1
    ax.set_xticks([0, last // 2, last] if last > 1 else range(last + 1))
    if order is not None:  # positions are ranks, and channel numbers would be mistaken for them
        ax.set_xticklabels([str(int(t) + 1) for t in ax.get_xticks()])
    ax.set_title(title)
    return ax


def _wide(frame: pd.DataFrame, columns: str, values: str) -> pd.DataFrame:
    """Class × ``columns``, both in the order in which the frame has them."""
    # pivot_table would average rows that are there twice; pivot refuses them.
    table = frame.pivot(index="class", columns=columns, values=values)  # noqa: PD010
    return table.reindex(index=_unique(frame["class"]), columns=_unique(frame[columns]))


def _unique(column: pd.Series[Any]) -> list[Any]:
    return list(dict.fromkeys(column))


def _bare(ax: Axes, title: str) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.set_title(title, loc="center", fontsize=7.5, pad=3)


def _rows(ax: Axes, classes: list[str]) -> None:
    """Classes from top to bottom, the first (all together) set apart by a line."""
    ax.set_ylim(len(classes) - 0.4, -0.6)
    _label(ax.yaxis, classes)
    ax.axhline(0.5, color="#888888", linewidth=0.6)
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)


def _label(axis: Axis, texts: Sequence[str]) -> None:
    """A label at 0, 1, 2 ..., first smaller and then thinned evenly where they would overlap."""
    size = 7.5 if _thinning(axis, len(texts), 10) == 1 else 6.0
    step = _thinning(axis, len(texts), size + 1.5)
    places = range(0, len(texts), step)
    horizontal = isinstance(axis, XAxis)
    slanted = horizontal and max((len(texts[i]) for i in places), default=0) > 2
    axis.set_ticks(
        list(places),
        labels=[_trim(texts[i]) for i in places],
        rotation=45 if slanted else 0,
        ha=("right" if slanted else "center") if horizontal else "right",
        rotation_mode="anchor" if slanted else "default",
        fontsize=size,
    )


def _thinning(axis: Axis, count: int, points: float) -> int:
    """Every how manieth label fits, at so many points a label."""
    ax = axis.axes
    assert isinstance(ax, Axes)
    box = ax.get_window_extent()
    size = box.width if isinstance(axis, XAxis) else box.height
    return math.ceil(count * points / max(1.0, size / ax.figure.dpi * 72))


def _trim(text: str, length: int = 22) -> str:
    clean = " ".join(str(text).split())
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def _measure_axis(axis: Axis, ax: Axes, measure: str) -> None:
    if measure == "spearman":
        line = ax.axvline if isinstance(axis, XAxis) else ax.axhline
        line(0, color=_INK, linewidth=0.6)
    axis.set_label_text(_MEASURES[measure])


def _as_percent(share: float, position: float) -> str:
    """A tick label; what matplotlib calls a formatter function."""
    return f"{100 * share:.3g} %"


def _as_points(difference: float, position: float) -> str:
    """A tick label for a difference of two shares."""
    return f"{100 * difference:.3g}".replace("-", "−")


def _p_value(p: float) -> str:
    if not np.isfinite(p):
        return "no test"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _is_dark(color: tuple[float, ...]) -> bool:
    return bool(np.dot(color[:3], (0.299, 0.587, 0.114)) < 0.55)
