"""Pictures of two networks on the same images, by name, and what they say in words."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnscope import figures, statistics
from attnscope.pictures.common import (
    LEVEL,
    SEED,
    Picture,
    as_number,
    as_p,
    as_percent,
    class_names,
    drawable,
    has_grad_cam,
    highest,
    lowest,
    no_gate,
    row_height,
    shorten,
    two_names,
    with_drawn_names,
)
from attnscope.recording.recording import Recording
from attnscope.statistics.comparison import expect_same_images

_ALONE = 6  # images shown of those that one network alone gets right, for each network


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


def _per_class_agreement(a: Recording, b: Recording) -> Picture:
    expect_same_images(a, b)
    names = two_names(a, b)
    short = _short(names)
    drawn: list[pd.DataFrame | None] = []
    lines, sentences = [], []
    for recording, name, label in zip((a, b), names, short, strict=True):
        drawn.append(None)
        gates = recording.gates_of_kind("spatial")
        missing = [] if gates else [no_gate(recording, "spatial")]
        if not has_grad_cam(recording):
            missing.append(f"No Grad-CAM was recorded for {recording.name}.")
        if not missing:
            summary = statistics.agreement_summary(recording, "predicted", SEED)
            summary = summary[summary["gate"] == gates[-1].name]
            sentences.append(agreement_sentence(summary, name))
            if summary["scored"].iloc[0]:
                lines.append(f"{label}: {gates[-1].name}, its last spatial gate")
                drawn[-1] = with_drawn_names(summary, a)
            else:
                lines.append(sentences[-1])
        lines += missing
        sentences += missing
    there = [summary for summary in drawn if summary is not None]
    if not there:
        figure = Figure(figsize=(7, 2), layout="constrained")
        figures.draw_note(figure.subplots(), _in_lines(sentences, 75))
        return Picture([figure], " ".join(sentences))
    # Each class has a line for each network.
    height = 2.0 + (0.6 + 0.4 * len(there)) * row_height(there[0])
    figure = Figure(figsize=(7.5, height), layout="constrained")
    ax = figures.draw_per_class_agreement(figure.subplots(), drawn, short)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=len(there))
    title = f"Spatial gate and Grad-CAM, per class: {names[0]} and {names[1]}"
    figure.suptitle(_in_lines([title, *lines], 85))
    if len(there) == 2:
        sentences.append("Whether the networks differ in this is not tested.")
    return Picture(
        [figure],
        "The last spatial gate of a network beside its Grad-CAM of the predicted class after the "
        "ReLU, image by image at the coarser grid; means over the images of a class, with 95 % "
        f"intervals over images. {' '.join(sentences)}",
    )


def _disagreements(a: Recording, b: Recording) -> Picture:
    picture = disagreements(a, b, two_names(a, b))
    if picture.figures:
        return picture
    figure = Figure(figsize=(7, 2), layout="constrained")
    figures.draw_note(figure.subplots(), picture.caption)
    return Picture([figure], picture.caption)


def disagreements(a: Recording, b: Recording, names: tuple[str, str]) -> Picture:
    """The images that one network alone gets right, and where both networks look in them.

    Args:
        a, b: recordings of the same images.
        names: of the two, as figures can write them.

    Returns:
        A picture without a figure where there is no such image; its caption says so.

    Raises:
        InputError: the recordings are not of the same images.
    """
    different = statistics.disagreements(a, b)
    # Some of each network: where one is much better, few of the other's would be among the first.
    alone = [different[different["right"] == side] for side in "ab"]
    shown = [each.head(_ALONE).to_dict("records") for each in alone]
    caption = disagreements_sentence(different, int((a.right & b.right).sum()), len(a), names)
    if different.empty:
        return Picture([], caption)
    counts = " and ".join(str(len(images) or "none") for images in shown)
    caption += f" Shown are {counts}, those first of which both networks are most certain."
    short = _short(names)
    rows = [int(image["row"]) for images in shown for image in images]
    strips, told, missing = _strips(a, b, rows, names, short)
    panels = 1 + len(strips)
    bands = [(name, images) for name, images in zip(short, shown, strict=True) if images]
    columns = max(len(images) for images in shown)
    width = max(5.5, 2 + 1.25 * columns)
    text = [f"Right in one network alone: {names[0]} and {names[1]}", *missing]
    title = _in_lines(text, int(11 * width))
    height = 0.3 + 0.2 * (1 + title.count("\n")) + len(bands) * (0.5 + 1.25 * panels)
    figure = Figure(figsize=(width, height), layout="compressed")
    axes = figure.subplots(len(bands) * panels, columns, squeeze=False)
    for ax in axes.ravel():
        ax.set_axis_off()
    drawn = dict(zip(a.classes, class_names(a), strict=True))
    for band, (name, images) in enumerate(bands):
        grid = axes[band * panels : (band + 1) * panels]
        for column, image in zip(grid.T, images, strict=False):
            for ax in column:
                ax.set_axis_on()
            said = image["prediction_b" if image["right"] == "a" else "prediction_a"]
            words = f"is {shorten(drawn[image['label']])}\ntaken for {shorten(drawn[said], 14)}"
            picture = a.image(int(image["row"]))
            figures.draw_image(column[0], picture, words)
            for ax, strip in zip(column[1:], strips, strict=True):
                heat = strip.maps[int(image["row"])]
                if not strip.grad_cam:
                    figures.draw_map(ax, heat, low=strip.low, high=strip.high)
                    continue
                figures.draw_overlay(ax, picture, heat, low=strip.low, high=strip.high)
                if not heat.any():
                    figures.draw_blank_reason(ax, "nowhere above 0")
        grid[0, 0].set_ylabel(f"only {name}\nis right", fontsize=7)
        for row, strip in zip(grid[1:], strips, strict=True):
            row[0].set_ylabel(strip.name, fontsize=7)
            figures.draw_colorbar(row[0], "", list(row))
    figure.suptitle(title)
    return Picture([figure], " ".join([caption, *told, *missing]))


class _Strip(NamedTuple):
    """A map of each image that is shown, all on one scale."""

    name: str
    maps: dict[int, NDArray[Any]]
    """Row of the recording -> ``(h, w)``."""
    low: float
    high: float
    grad_cam: bool
    """Grad-CAM lies over the picture; a gate stands by itself, where its low values are seen."""


def _strips(
    a: Recording, b: Recording, rows: Sequence[int], names: tuple[str, str], short: tuple[str, str]
) -> tuple[list[_Strip], list[str], list[str]]:
    """Both networks' Grad-CAM and last spatial gates; what these are; what is missing."""
    cams, gates, missing = [], [], []
    cam_scales, gate_scales = [], []
    for recording, name, label in zip((a, b), names, short, strict=True):
        if has_grad_cam(recording):
            maps = {i: np.maximum(recording.grad_cam(rows=slice(i, i + 1))[0], 0) for i in rows}
            top = max(1e-6, *(float(heat.max()) for heat in maps.values()))
            cams.append(_Strip(f"Grad-CAM\n{label}", maps, 0, top, grad_cam=True))
            cam_scales.append(f"{name} from 0 to {top:.3g}")
        else:
            missing.append(f"No Grad-CAM was recorded for {recording.name}.")
        spatial = recording.gates_of_kind("spatial")
        if spatial:
            gate = spatial[-1]
            maps = {i: recording.spatial(gate.name, slice(i, i + 1))[0] for i in rows}
            values = np.concatenate([each.ravel() for each in maps.values()])
            gates.append(
                _Strip(f"last spatial gate\n{label}", maps, gate.lo, gate.hi, grad_cam=False)
            )
            gate_scales.append(
                f"{gate.name} of {name}, bounds {gate.lo:g} to {gate.hi:g}, here "
                f"{values.min():.3g} to {values.max():.3g}"
            )
        else:
            missing.append(no_gate(recording, "spatial"))
    told = []
    if cams:
        # Two networks' Grad-CAM have no common unit, and here they name different classes.
        told.append(
            "Grad-CAM after its ReLU is of the class that the network itself names, so that the "
            f"two explain different classes; each has its own scale: {'; '.join(cam_scales)}."
        )
    if gates:
        told.append(f"Last spatial gates, raw on their own bounds: {'; '.join(gate_scales)}.")
    return [*cams, *gates], told, missing


def _short(names: tuple[str, str]) -> tuple[str, str]:
    """What stands beside a row or in a legend, and still tells the two apart."""
    a, b = (shorten(name) for name in names)
    return (a, b) if a != b else ("the first", "the second")


def _in_lines(texts: Sequence[str], width: int) -> str:
    """A title and sentences below it, in lines of so many characters at most."""
    return "\n".join(
        line
        for text in texts
        for line in textwrap.wrap(drawable(text), width, break_on_hyphens=False)
    )


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


def agreement_sentence(summary: pd.DataFrame, name: str) -> str:
    """What the rows of one gate of ``agreement_summary`` say of all images and of the classes."""
    whole, classes = summary.iloc[0], summary.iloc[1:]
    if not whole["scored"]:
        return (
            f"{name}: none of {whole['constant']:,.0f} images could be scored, since "
            f"{whole['gate']} or the Grad-CAM is constant in each."
        )
    scored = classes[classes["scored"] > 0]
    above = int((scored["above_null_low"] > 0).sum())
    below = int((scored["above_null_high"] < 0).sum())
    least, most = lowest(scored, "spearman"), highest(scored, "spearman")
    return (
        f"{name}, {whole['gate']}: Spearman {as_number(whole['spearman'])} over "
        f"{whole['scored']:,.0f} images (95 % {as_number(whole['spearman_low'])} to "
        f"{as_number(whole['spearman_high'])}), with the Grad-CAM of another image "
        f"{as_number(whole['null_spearman'])}. Of {len(scored)} classes {above or 'none'} "
        f"{'is' if above < 2 else 'are'} above that null and {below or 'none'} below it (95 % "
        "interval of the difference, not corrected); lowest is "
        f"{least['class']} ({as_number(least['spearman'])}), highest {most['class']} "
        f"({as_number(most['spearman'])}). Not scored, since gate or Grad-CAM is constant: "
        f"{int(whole['constant']) or 'none'}."
    )


def disagreements_sentence(
    different: pd.DataFrame, both: int, images: int, names: tuple[str, str]
) -> str:
    """How many images one network alone gets right; also that there is none.

    Args:
        different: of ``statistics.disagreements``.
        both: how many both get right.
        images: of how many.
        names: of the two networks.
    """
    if different.empty:
        return (
            f"Of {images:,} images none is right in one network alone: {names[0]} and {names[1]} "
            f"are right in the same {both:,}."
        )
    only_a, only_b = (int((different["right"] == side).sum()) for side in "ab")
    return (
        f"Of {images:,} images {names[0]} alone gets {f'{only_a:,}' if only_a else 'none'} right, "
        f"{names[1]} alone {f'{only_b:,}' if only_b else 'none'}."
    )


COMPARISONS: dict[str, Callable[[Recording, Recording], Picture]] = {
    "per_class_accuracy": _per_class_accuracy,
    "per_class_gates": _per_class_gates,
    "per_class_grad_cam": _per_class_grad_cam,
    "per_class_agreement": _per_class_agreement,
    "disagreements": _disagreements,
}
"""What two recordings of the same images are compared by."""
