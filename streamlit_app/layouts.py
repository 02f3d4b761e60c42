"""How the drawings of ``attnscope.figures`` are laid out on the pages; each comes as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from attnscope import figures

DPI = 144
"""Twice the pixels that a page shows, so that letters are sharp on fine screens."""

PICTURE = 192
"""Least side of a picture in a gallery, in pixels: small ones are enlarged pixel for pixel here,
because a browser would blur them."""


@dataclass(frozen=True)
class Column:
    """One column of `map_grid`: a map for each of the rows."""

    title: str
    maps: NDArray[np.float32]
    low: float
    high: float
    over: bool
    """Draw it over the row's picture, as Grad-CAM is; otherwise by itself."""


def enlarged(image: NDArray[np.uint8]) -> bytes:
    """A picture as PNG, pixel for pixel, no side below `PICTURE`."""
    times = max(1, -(-PICTURE // min(image.shape[:2])))
    buffer = io.BytesIO()
    Image.fromarray(image.repeat(times, 0).repeat(times, 1)).save(buffer, "png")
    return buffer.getvalue()


def overlay(
    image: NDArray[np.uint8], heat: NDArray[np.float32], low: float, high: float, cmap: str
) -> bytes:
    """A map over a picture, as large as `enlarged` would make the picture."""
    height, width = image.shape[:2]
    scale = PICTURE / min(height, width) / DPI

    def draw(figure: Figure) -> None:
        ax = figure.add_axes((0, 0, 1, 1))
        figures.draw_overlay(ax, image, heat, low=low, high=high, cmap=cmap)

    return _png(width * scale, height * scale, draw, layout="none")


def training(metrics: pd.DataFrame) -> bytes:
    """Loss, accuracy and learning rate over the epochs."""

    def draw(figure: Figure) -> None:
        quantities = ("loss", "accuracy", "learning_rate")
        for ax, quantity in zip(figure.subplots(1, 3), quantities, strict=True):
            figures.draw_training_curves(ax, metrics, quantity)

    return _png(11, 2.6, draw)


def channels(
    profiles: pd.DataFrame, low: float, high: float, order: Sequence[int] | None, ranked: str
) -> bytes:
    """Mean gate of class × channel, and below it what sets the classes apart."""
    profiles = _drawable(profiles)
    middle = profiles.groupby("channel")["mean"].transform("mean")
    limit = float(np.nanmax((profiles["mean"] - middle).abs(), initial=1e-6))
    tall = 0.75 + 0.17 * min(profiles["class"].nunique(), 30)

    def draw(figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1)
        title = "Mean gate, on the scale of its bounds"
        figures.draw_channel_gates(top, profiles, low=low, high=high, order=order, title=title)
        figures.draw_colorbar([top], "gate")
        title = "The same minus the channel's mean over the classes, on the scale of the largest"
        figures.draw_channel_differences(bottom, profiles, limit=limit, order=order, title=title)
        figures.draw_colorbar([bottom], "difference")
        bottom.set_xlabel(ranked)

    return _png(11, 2 * tall, draw)


def depth(profiles: pd.DataFrame, state: pd.DataFrame) -> bytes:
    """One kind of gate over depth: class means, what sets classes apart, and the gates' state."""
    profiles = _drawable(profiles)
    shares = state[["saturated_low", "saturated_high", "stuck", "constant"]].to_numpy(np.float64)

    def draw(figure: Figure) -> None:
        left, middle, right = figure.subplots(1, 3)
        figures.draw_gate_profiles(left, profiles)
        left.set_title("Mean gate of each class")
        figures.draw_gate_profiles(middle, profiles, centred=True)
        middle.set_title("What sets the classes apart")
        figures.draw_gate_state(right, state, high=max(0.1, float(np.nanmax(shares)) * 1.05))
        right.set_title("Saturated, stuck and constant gates")
        for ax in (left, right):
            handles, labels = ax.get_legend_handles_labels()
            figure.legend(
                handles, labels, loc=f"outside lower {'left' if ax is left else 'right'}",
                ncols=6 if ax is left else 2,
            )  # fmt: skip

    return _png(12.5, 4, draw)


def agreement(summary: pd.DataFrame) -> bytes:
    """Spatial gates against Grad-CAM over depth, by rank correlation and by overlap."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2)
        for ax, measure in zip(axes, ("spearman", "iou"), strict=True):
            figures.draw_map_agreement(ax, summary, measure)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)

    return _png(11, 3.4, draw)


def map_grid(
    names: Sequence[str], pictures: Sequence[NDArray[np.uint8]], columns: Sequence[Column]
) -> bytes:
    """A row for each name: the picture, when there are pictures, and a map of each column."""
    shift = 1 if len(pictures) else 0

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(names), shift + len(columns), squeeze=False)
        for i, name in enumerate(names):
            if shift:
                figures.draw_image(axes[i, 0], pictures[i], title="" if i else "picture")
            for j, column in enumerate(columns, start=shift):
                title, heat = "" if i else column.title, column.maps[i]
                limits = {"low": column.low, "high": column.high}
                if column.over:
                    figures.draw_overlay(axes[i, j], pictures[i], heat, **limits, title=title)
                elif column.title.startswith("Grad-CAM"):
                    cmap = figures.GRAD_CAM_MAP
                    figures.draw_map(axes[i, j], heat, **limits, title=title, cmap=cmap)
                else:
                    figures.draw_map(axes[i, j], heat, **limits, title=title)
            axes[i, 0].set_ylabel(
                name, rotation=0, ha="right", va="center", fontsize=7.5, labelpad=6
            )
        gates = [j for j, c in enumerate(columns, start=shift) if not c.title.startswith("Grad")]
        cams = [j for j, c in enumerate(columns, start=shift) if c.title.startswith("Grad")]
        for which, label in ((cams, "Grad-CAM after the ReLU"), (gates, "gate")):
            if which:
                figures.draw_colorbar(
                    [axes[0, which[0]], *(a for a in axes.flat if a is not axes[0, which[0]])], label
                )

    wide = shift + len(columns)
    side = min(1.35, 11 / wide)
    return _png(side * wide + 2.6, (side + 0.05) * len(names) + 0.3, draw)


def accuracy_comparison(comparison: pd.DataFrame, names: tuple[str, str]) -> bytes:
    """Per-class accuracy of two networks, and the images on which they disagree."""
    comparison, (first, second) = _drawable(comparison), figures.drawable_names(names)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        figures.draw_per_class_accuracy(left, comparison, (first, second))
        figures.draw_disagreements(right, comparison, (first, second))
        right.set_yticklabels([])
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=2)

    return _png(11, 1.2 + 0.24 * min(len(comparison), 60), draw)


def gate_comparison(distances: pd.DataFrame, order: pd.DataFrame, names: tuple[str, str]) -> bytes:
    """How far classes' profiles lie from the mean profile, in two networks."""
    distances, labels = _drawable(distances), figures.drawable_names(names)
    both = distances[["distance_a", "distance_b"]].to_numpy(np.float64)
    high = float(np.nanmax(both, initial=1e-6))

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 3)
        for ax, side, name in zip(axes, "ab", labels, strict=False):
            figures.draw_class_distances(ax, distances, f"distance_{side}", high=high, title=name)
        figures.draw_colorbar(axes[:2], "distance from the mean profile")
        figures.draw_class_order(axes[2], order)
        axes[2].set_title("Do both order the classes alike?")

    return _png(12.5, 1.6 + 0.2 * min(distances["class"].nunique(), 40), draw)


def grad_cam_comparison(comparison: pd.DataFrame) -> bytes:
    """Agreement of two networks' Grad-CAM per class, by rank correlation and by overlap."""
    comparison = _drawable(comparison)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2, sharey=True)
        for ax, measure in zip(axes, ("spearman", "iou"), strict=True):
            figures.draw_per_class_grad_cam(ax, comparison, measure)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)

    return _png(11, 1.2 + 0.24 * min(len(comparison), 60), draw)


def _drawable(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with class names as figures can write them."""
    names = list(dict.fromkeys(frame["class"]))
    drawn = dict(zip(names, figures.drawable_names(names), strict=True))
    return frame.assign(**{"class": frame["class"].map(drawn)})


def _png(
    width: float, height: float, draw: Callable[[Figure], None], layout: str = "constrained"
) -> bytes:
    with figures.style():
        figure = Figure((width, height), layout=layout)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
