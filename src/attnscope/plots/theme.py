"""The look of all plots: settings, colors, color maps, fonts, and characters that fonts have.

Color maps: cividis for gates and shares, viridis for Grad-CAM, a diverging map centered at 0 for
signed values. Functions that draw take the color scale as an argument, because only the caller
knows which panels are compared.
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
from matplotlib import font_manager

GATE_MAP = "cividis"
GRAD_CAM_MAP = "viridis"
SIGNED_MAP = "RdBu_r"
NETWORK_COLORS = ("#0072B2", "#D55E00")
"""Colors of the first and the second network of a comparison."""
PROBE_COLOR = "#009E73"
"""Color of what a gate says about the class, next to those of replaced gates."""
NULL_COLOR = "#8C8C8C"
"""Color of null values, next to those that were found."""
INK = "#222222"
EMPTY = "#E4E4E4"
"""Color of a cell without a value."""

# Paul Tol's muted scheme, which color-blind readers can tell apart, and a dark gray.
_CLASS_COLORS = (
    "#332288", "#CC6677", "#117733", "#DDAA33", "#88CCEE",
    "#882255", "#44AA99", "#999933", "#AA4499", "#555555",
)  # fmt: skip

# DejaVu comes with matplotlib and has no Chinese, Japanese or Korean characters. These fonts do.
_CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK TC", "Noto Sans CJK KR", "Noto Sans SC",
    "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
    "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC", "PingFang HK",
    "Hiragino Sans GB", "Hiragino Sans", "Heiti SC", "Heiti TC", "Malgun Gothic", "Yu Gothic",
    "AR PL UMing CN", "AR PL UKai CN", "Arial Unicode MS",
)  # fmt: skip

_style_lock = threading.RLock()


@contextmanager
def style() -> Iterator[None]:
    """Set matplotlib's settings for a block: use it both to make and to save figures.

    Fonts are embedded when a figure is saved. matplotlib's settings are global, so the threads of
    the dashboard take turns.
    """
    settings: dict[Any, Any] = {
        "font.family": list(_families()),
        "font.size": 8.5,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.labelsize": 8.5,
        "axes.labelcolor": INK,
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
        "text.color": INK,
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
    """Return one color for each class; up to 10 classes the colors are easy to distinguish."""
    if count <= len(_CLASS_COLORS):
        return list(_CLASS_COLORS[:count])
    golden = (math.sqrt(5) - 1) / 2  # steps of the golden ratio give neighbors different hues
    colors = []
    for i in range(count):
        rgb = colorsys.hls_to_rgb(i * golden % 1, (0.35, 0.5, 0.65)[i % 3], 0.55)
        colors.append("#" + "".join(f"{round(255 * part):02X}" for part in rgb))
    return colors


def drawable_names(names: Sequence[str]) -> list[str]:
    """Return the names in characters that the installed fonts have.

    A character that no font has becomes a box, and the name gets its number in front, so that the
    names stay distinct. Other names do not change.
    """
    boxed = [drawable(name) for name in names]
    pairs = enumerate(zip(names, boxed, strict=True))
    return [name if box == name else f"{number} {box}" for number, (name, box) in pairs]


def drawable(text: str) -> str:
    """Replace each character that no installed font has by a box."""
    missing = set(missing_characters([text]))
    return "".join("□" if c in missing else c for c in text)


def missing_characters(texts: Sequence[str]) -> str:
    """Return the characters in ``texts`` that no font of `style` has, in order, each once."""
    known = _drawable_characters()
    return "".join(dict.fromkeys(c for text in texts for c in text if ord(c) not in known))


@lru_cache(maxsize=1)
def _families() -> tuple[str, ...]:
    # matplotlib warns at each text about a family that is not installed.
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _CJK_FONTS if name in installed))


@lru_cache(maxsize=1)
def _drawable_characters() -> frozenset[int]:
    known: set[int] = set()
    for family in _families():
        file = font_manager.findfont(font_manager.FontProperties(family=family))
        known |= set(font_manager.get_font(file).get_charmap())
    return frozenset(known)
