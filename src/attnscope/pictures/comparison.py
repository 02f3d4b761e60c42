"""Pictures of two networks on the same images, by name, and what they say in words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from attnscope import figures, statistics
from attnscope.pictures.common import (
    LEVEL,
    SEED,
    Picture,
    as_p,
    as_percent,
    drawable,
    has_grad_cam,
    highest,
    lowest,
    row_height,
    two_names,
    with_drawn_names,
)
from attnscope.recording import Recording


def _per_class_accuracy(a: Recording, b: Recording) -> Picture:
    comparison = statistics.compare_accuracy(a, b)
    names = two_names(a, b)
    drawn = with_drawn_names(comparison, a)
    figure = Figure(figsize=(9.5, 1.9 + row_height(comparison)), layout="constrained")
    left, right = figure.subplots(1, 2)
    figures.draw_per_class_accuracy(left, drawn, names)
    figures.draw_disagreements(right, drawn, names)
    right.set_yticklabels([])
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    figure.suptitle(f"Accuracy per class: {names[0]} and {names[1]}")
    return Picture([figure], accuracy_sentence(comparison, a.name, b.name))


def _per_class_gates(a: Recording, b: Recording) -> Picture:
    names = two_names(a, b)
    if not {g.name for g in a.gates_of_kind("channel")} & {
        g.name for g in b.gates_of_kind("channel")
    }:
        figure = Figure(figsize=(7, 2), layout="constrained")
        text = f"{a.name} and {b.name} have no channel gate of the same name to compare."
        figures.draw_note(figure.subplots(), drawable(text))
        return Picture([figure], text)
    distances = statistics.compare_profiles(a, b)
    order = statistics.compare_class_order(a, b)
    columns = ["distance_a", "distance_b"]
    high = max(float(np.nanmax(distances[columns].to_numpy(dtype=float))), 1e-6)
    height = max(2.4, 0.11 * len(a.classes) + 1)
    figure = Figure(figsize=(9.5, height + 3), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[height, 1.6])
    top = [figure.add_subplot(grid[0, i]) for i in range(2)]
    drawn = with_drawn_names(distances, a)
    for ax, column, name in zip(top, columns, names, strict=True):
        figures.draw_class_distances(ax, drawn, column, high=high, title=name)
    top[1].set_yticklabels([])
    figures.draw_colorbar(top[0], "distance to the mean profile", top)
    below = figure.add_subplot(grid[1, :])
    figures.draw_class_order(below, order)
    below.set_title(f"do both order the classes alike? (filled: p < {LEVEL}, not corrected)")
    figure.suptitle(f"Class profiles of the channel gates: {names[0]} and {names[1]}")
    caption = (
        "Root mean square over channels of class profile minus mean profile, both networks on one "
        f"scale from 0 to {high:.3g}. {gates_sentence(distances, order, a.name, b.name)}"
    )
    return Picture([figure], caption)


def _per_class_grad_cam(a: Recording, b: Recording) -> Picture:
    names = two_names(a, b)
    if not (has_grad_cam(a) and has_grad_cam(b)):
        without = " and ".join(r.name for r in (a, b) if not has_grad_cam(r))
        text = f"No Grad-CAM was recorded for {without}."
        figure = Figure(figsize=(7, 2), layout="constrained")
        figures.draw_note(figure.subplots(), drawable(text))
        return Picture([figure], text)
    comparison = statistics.compare_grad_cam(a, b, "predicted", SEED)
    drawn = with_drawn_names(comparison, a)
    figure = Figure(figsize=(9.5, 1.9 + row_height(comparison)), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, measure in zip(axes, ("spearman", "iou"), strict=True):
        figures.draw_per_class_grad_cam(ax, drawn, measure)
    axes[1].set_yticklabels([])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
    figure.suptitle(f"Agreement of Grad-CAM: {names[0]} and {names[1]}")
    return Picture([figure], grad_cam_sentence(comparison))


def accuracy_sentence(comparison: pd.DataFrame, name_a: str, name_b: str) -> str:
    """What a frame of ``compare_accuracy`` says about all classes and about each."""
    whole, classes = comparison.iloc[0], comparison.iloc[1:]
    found = "the networks differ" if whole["p"] < LEVEL else "no difference found"
    text = (
        f"{name_a} is right on {as_percent(whole['accuracy_a'])} of {whole['count']:,.0f} images, "
        f"{name_b} on {as_percent(whole['accuracy_b'])}; {whole['only_a']:,.0f} images only "
        f"{name_a} gets right, {whole['only_b']:,.0f} only {name_b} (exact McNemar, "
        f"{as_p(whole['p'])}: {found}). "
    )
    different = classes[classes["p_holm"] < LEVEL]
    tests = int(classes["p_holm"].notna().sum())
    if different.empty:
        least = f", the smallest is {classes['p_holm'].min():.3f}" if tests else ""
        return text + (
            f"No class differs: of {tests} classes none has p < {LEVEL} after Holm's "
            f"correction{least}."
        )
    each = [
        f"{row['class']} ({as_percent(row['accuracy_a'])} and {as_percent(row['accuracy_b'])}, "
        f"{as_p(row['p_holm'])})"
        for _, row in different.sort_values("p_holm", kind="stable").iterrows()
    ]
    verb = "differs" if len(each) == 1 else "differ"
    return (
        text + f"{len(each)} of {tests} classes {verb} after Holm's correction: {', '.join(each)}."
    )


def gates_sentence(distances: pd.DataFrame, order: pd.DataFrame, name_a: str, name_b: str) -> str:
    """What the frames of ``compare_profiles`` and ``compare_class_order`` say."""
    parts = []
    for column, name in (("distance_a", name_a), ("distance_b", name_b)):
        if distances[column].notna().any():
            top = highest(distances, column)
            parts.append(
                f"in {name} it is {top['class']} at {top['gate']} that lies furthest "
                f"({top[column]:.3g})"
            )
    sure = order[order["p"] < LEVEL]
    middle = order["spearman"].median()
    text = "; ".join(parts)
    text = text[:1].upper() + text[1:] + ". " if text else ""
    return text + (
        f"The two order the classes with Spearman {middle:.2f} (median over {len(order)} gates); "
        f"{len(sure)} of {len(order)} gates have p < {LEVEL}, not corrected."
    )


def grad_cam_sentence(comparison: pd.DataFrame) -> str:
    """What a frame of ``compare_grad_cam`` says about all classes, and its extremes."""
    whole, classes = comparison.iloc[0], comparison.iloc[1:].dropna(subset=["spearman"])
    text = (
        f"Over {whole['scored']:,.0f} images the two Grad-CAMs of an image correlate with Spearman "
        f"{whole['spearman']:.2f}, those of different images with {whole['null_spearman']:.2f}; "
        f"their top 20 % overlap with IoU {whole['iou']:.2f} (null {whole['null_iou']:.2f})."
    )
    if classes.empty:
        return text
    least = lowest(classes, "spearman")
    most = highest(classes, "spearman")
    return text + (
        f" Least alike: {least['class']} ({least['spearman']:.2f}); most: {most['class']} "
        f"({most['spearman']:.2f})."
    )


COMPARISONS: dict[str, Callable[[Recording, Recording], Picture]] = {
    "per_class_accuracy": _per_class_accuracy,
    "per_class_gates": _per_class_gates,
    "per_class_grad_cam": _per_class_grad_cam,
}
"""What two recordings of the same images are compared by."""
