"""Figures by name, their files, and one self-contained HTML page.

``FIGURES`` and ``COMPARISONS`` are the names. Each makes a ``Picture``: figures and a caption that
is computed from the same numbers. Figures are ``matplotlib.figure.Figure``, never pyplot's.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from attnscope import figures, statistics
from attnscope.errors import InputError
from attnscope.files import read_json, write_bytes
from attnscope.gate_info import Gate
from attnscope.recording import Recording

DPI = 170
"""Of the PNG files."""
SEED = 0
"""Of every choice of images."""
LEVEL = 0.05
"""Below it a p value, corrected for the number of tests, counts as a difference."""

_REPORT_DPI = 120  # the page carries every picture in itself
_GATES_A_PAGE = 8
_CLASSES_A_PAGE = 20
_MAP_COLUMNS = 16
_GRID_ROWS = 10
_MISTAKES = 12
_log = logging.getLogger(__name__)


class Unavailable(InputError):
    """A figure that this recording cannot have; the message says what is missing."""


@dataclass(frozen=True)
class Picture:
    """Figures of one name, with what they show in words."""

    figures: list[Figure]
    """Usually one; more where one page would not be legible."""
    caption: str
    """Sentences with the numbers."""


# ------------------------------------------------------------------------------------ the commands


def write_figures(folder: Path, out: Path | None = None) -> list[Path]:
    """Writes every figure of a recording as PNG and PDF.

    Args:
        folder: a run (its test part is taken) or a recording.
        out: where to; ``figures`` in the run when not given.

    Returns:
        The files. A figure that the recording cannot have is left out, and the log says so.

    Raises:
        InputError: there is no recording, or it cannot be read.
    """
    recording = Recording(folder)
    if out is None:
        run = _run_folder(recording)
        out = (run or recording.folder) / "figures"
        if run and recording.folder.name != "test":
            out = out / recording.folder.name
    _tell_missing_characters([recording])
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in FIGURES.items():
        with figures.style():
            try:
                picture = make(recording)
            except Unavailable as reason:
                _log.warning("%s left out: %s", name, reason)
                continue
            written += _write_picture(picture, out, name)
    return written


def write_comparison(folder_a: Path, folder_b: Path, out: Path) -> list[Path]:
    """Writes every figure of a comparison as PNG and PDF.

    Args:
        folder_a: a run or a recording.
        folder_b: another, of the same images in the same order.
        out: where to.

    Raises:
        InputError: a recording cannot be read, or the two are not of the same images.
    """
    a, b = Recording(folder_a), Recording(folder_b)
    _tell_missing_characters([a, b])
    pictures: list[Path] = []
    for name, make in COMPARISONS.items():
        with figures.style():
            picture = make(a, b)
            out.mkdir(parents=True, exist_ok=True)  # not before it is known that they compare
            pictures += _write_picture(picture, out, name)
    return pictures


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Writes one HTML page about one or more runs, with every picture in it.

    Args:
        folders: runs or recordings. Of several, the first is compared with each of the others.
        out: the page.

    Raises:
        InputError: no folder is given, or a recording cannot be read.
    """
    if not folders:
        raise InputError("a report needs at least one run; give its folder")
    recordings = [Recording(folder) for folder in folders]
    _tell_missing_characters(recordings)
    context = {
        "title": "Attention gates of " + ", ".join(r.name for r in recordings),
        "comparisons": [_compare(recordings[0], other) for other in recordings[1:]],
        "runs": [_describe(recording) for recording in recordings],
    }
    template = package_files("attnscope").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": _percent,
        "points": _points,
        "p_value": _p_number,
        "number": _number,
    }
    page = environment.from_string(template).render(context)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, page.encode())
    return out


def render(figure: Figure, file_format: str, dpi: int) -> bytes:
    """The figure as the bytes of a ``png`` or ``pdf`` file; call it inside ``figures.style()``."""
    # Without dates and versions the same numbers give the same bytes.
    metadata = {"Software": None} if file_format == "png" else {"CreationDate": None}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file_format, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------- one network


def _training_curves(recording: Recording) -> Picture:
    metrics, steps = _read_metrics(recording), _read_steps(recording)
    figure = Figure(figsize=(9.5, 2.9), layout="constrained")
    for ax, quantity in zip(
        figure.subplots(1, 3), ("loss", "accuracy", "learning_rate"), strict=True
    ):
        figures.draw_training_curves(ax, metrics, quantity, steps)
    figure.suptitle(f"Training of {_name(recording)}")
    last, best = metrics.iloc[-1], _highest(metrics, "validation_accuracy")
    return Picture(
        [figure],
        f"{len(metrics)} epochs, {last['step']:,.0f} steps, {last['seconds'] / 60:,.1f} minutes at "
        f"{metrics['images_per_second'].median():,.0f} images per second (median). Validation "
        f"accuracy {_percent(last['validation_accuracy'])} after the last epoch, highest "
        f"{_percent(best['validation_accuracy'])} after epoch {best['epoch']:.0f}; training "
        f"accuracy {_percent(last['train_accuracy'])}, on augmented images.",
    )


def _training_images(recording: Recording) -> Picture:
    run = _run_folder(recording)
    file = run / "training_images.safetensors" if run else None
    if run is None or file is None or not file.is_file():
        raise Unavailable(f"{recording.folder} lies in no run with a training_images.safetensors")
    try:
        arrays = load_file(file)
        images = arrays["images"].transpose(0, 2, 3, 1)
        labels = arrays["labels"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); train again") from None
    classes = figures.drawable_names(read_json(run / "config.json").get("classes", []))
    columns = 8
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(8.5, 0.5 + 1.15 * rows), layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(images) :]:
        ax.set_axis_off()
    for ax, image, label in zip(axes, images, labels, strict=False):
        figures.draw_image(ax, image, _short(classes[label] if label < len(classes) else label))
    figure.suptitle(f"Training images as {_name(recording)} gets them, un-normalised")
    size = f"{images.shape[2]} × {images.shape[1]}"
    return Picture(
        [figure],
        f"{len(images)} training images of {size} pixels after augmentation, with the "
        "normalisation undone.",
    )


def _confusion_matrix(recording: Recording) -> Picture:
    counts = statistics.confusion_matrix(recording)
    size = float(np.clip(1.9 + 0.5 * len(counts), 4.2, 9))
    figure = Figure(figsize=(size + 0.9, size), layout="constrained")
    shown = counts.set_axis(_names(recording), axis=0).set_axis(_names(recording), axis=1)
    ax = figures.draw_confusion_matrix(figure.subplots(), shown)
    figures.draw_colorbar(ax, "share of the true class", [ax])
    figure.suptitle(f"Confusion matrix of {_title(recording)}")
    numbers = counts.to_numpy().astype(float)
    right, total = np.trace(numbers), numbers.sum()
    caption = f"Accuracy {_percent(right / total)}: {right:,.0f} of {total:,.0f} images."
    wrong = numbers - np.diag(np.diag(numbers))
    if wrong.any():
        i, j = np.unravel_index(wrong.argmax(), wrong.shape)
        caption += (
            f" The commonest mistake is {recording.classes[i]} taken for {recording.classes[j]}: "
            f"{wrong[i, j]:,.0f} images, {_percent(wrong[i, j] / numbers[i].sum())} of that class."
        )
    empty = [c for c, row in zip(recording.classes, numbers, strict=True) if not row.any()]
    if empty:
        caption += f" Classes without images, in grey: {', '.join(empty)}."
    return Picture([figure], caption)


def _channel_gates(recording: Recording) -> Picture:
    gates = recording.gates_of_kind("channel")
    if not gates:
        return _note_picture(recording, "Channel gates", _no_gate(recording, "channel"))
    profiles = {g.name: statistics.class_profiles(recording, g.name) for g in gates}
    effects = {g.name: statistics.channel_effects(recording, g.name) for g in gates}
    means = np.concatenate([p["mean"].to_numpy(dtype=float) for p in profiles.values()])
    low, high = _range(means)
    centred = [
        (p["mean"] - p.groupby("channel")["mean"].transform("mean")).abs().max()
        for p in profiles.values()
    ]
    limit = float(np.nanmax([*centred, 1e-6]))
    rows_height = float(np.clip(0.35 + 0.085 * len(recording.classes), 0.75, 2.2))
    pages = []
    for first in range(0, len(gates), _GATES_A_PAGE):
        page = gates[first : first + _GATES_A_PAGE]
        figure = Figure(figsize=(9.5, 1.1 + (rows_height + 0.42) * len(page)), layout="constrained")
        axes = figure.subplots(len(page), 2, squeeze=False)
        for (left, right), gate in zip(axes, page, strict=True):
            ranked = effects[gate.name].sort_values(
                "omega_squared", ascending=False, na_position="last", kind="stable"
            )
            order = ranked["channel"].tolist()
            frame = _with_drawn_names(profiles[gate.name], recording)
            title = f"{gate.name}   ({gate.channels} channels)"
            figures.draw_channel_gates(
                left, frame, low=low, high=high, order=order, title=_short(title, 60)
            )
            figures.draw_channel_differences(
                right,
                frame,
                limit=limit,
                order=order,
                title=f"largest ω² {_number(ranked['omega_squared'].max())}",
            )
            right.set_yticklabels([])
        for ax in axes[-1]:
            ax.set_xlabel("channels, from the most to the least class-dependent (rank by ω²)")
        figures.draw_colorbar(axes[0, 0], f"mean gate ({_bounds(gates)})", list(axes[:, 0]))
        figures.draw_colorbar(axes[0, 1], "mean gate − mean over classes", list(axes[:, 1]))
        figure.suptitle(f"Channel gates per class: {_title(recording)}")
        pages.append(figure)
    found = pd.concat(effects.values(), keys=effects.keys(), names=["gate", None]).reset_index()
    different = int((found["p_by"] < LEVEL).sum())
    constant = int(found["constant"].sum())
    caption = (
        f"Class means of {len(found):,} channels in {len(gates)} gates, all on one scale from "
        f"{low:.3g} to {high:.3g} ({_bounds(gates)}). Left: the mean gate; right: what remains "
        f"when the channel's mean over the classes is taken away, at most {limit:.3g}. "
        f"{_channels(different)} ({_percent(different / len(found))}) with class-dependent means "
        f"(Benjamini-Yekutieli within each gate, p < {LEVEL})"
    )
    if found["omega_squared"].notna().any():
        best = _highest(found, "omega_squared")
        caption += (
            f"; the strongest is channel {best['channel']} of {best['gate']}, "
            f"ω² = {best['omega_squared']:.2f}"
        )
    return Picture(pages, f"{caption}. Constant over all images: {_channels(constant)}.")


def _gate_profiles(recording: Recording) -> Picture:
    profiles = statistics.gate_profiles(recording)
    if profiles.empty:
        return _note_picture(recording, "Mean gate per class over depth", _no_gate(recording))
    kinds = list(dict.fromkeys(profiles["kind"]))
    middle = profiles.groupby("gate", sort=False)["mean"].transform("mean")
    spread = profiles.assign(departure=(profiles["mean"] - middle).abs())
    highlight = None
    if len(recording.classes) > _GRID_ROWS:
        ranked = spread.groupby(["kind", "class"], sort=False)["departure"].max().reset_index()
        leading = ranked.sort_values("departure", ascending=False).groupby("kind").head(4)
        highlight = list(dict.fromkeys(leading["class"]))[:_GRID_ROWS]
    drawn = dict(zip(recording.classes, _names(recording), strict=True))
    shown = [drawn[c] for c in highlight] if highlight is not None else None
    figure = Figure(figsize=(max(9.5, 4.6 * len(kinds) + 1.4), 6), layout="constrained")
    axes = figure.subplots(2, len(kinds), squeeze=False, sharex="col")
    for column, kind in zip(axes.T, kinds, strict=True):
        frame = _with_drawn_names(profiles[profiles["kind"] == kind], recording)
        for ax, centred in zip(column, (False, True), strict=True):
            figures.draw_gate_profiles(ax, frame, highlight=shown, centred=centred)
        column[0].set_title(f"{kind} gates")
        column[0].tick_params(labelbottom=False)
        column[1].set_xlabel("gate, in the order in which they act")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    figure.suptitle(f"Mean gate per class over depth: {_title(recording)}")
    ends = profiles.groupby("gate", sort=False)["mean"].agg(["min", "max"])
    widest = (ends["max"] - ends["min"]).idxmax()
    here = profiles[profiles["gate"] == widest]
    least, most = _lowest(here, "mean"), _highest(here, "mean")
    caption = (
        "Above the mean gate of the images of each class with its 95 % interval, below the same "
        f"minus the mean over classes. Classes are furthest apart at {widest}: "
        f"{least['class']} {least['mean']:.3f}, {most['class']} {most['mean']:.3f}."
    )
    if highlight is not None:
        caption += " In colour: of each kind of gate the four classes that depart most."
    if "spatial" not in kinds:
        caption += f" {_no_gate(recording, 'spatial')}"
    return Picture([figure], caption)


def _gate_state(recording: Recording) -> Picture:
    state = statistics.gate_state(recording)
    if state.empty:
        return _note_picture(recording, "State of the gates", _no_gate(recording))
    kinds = list(dict.fromkeys(state["kind"]))
    shares = ["saturated_low", "saturated_high", "stuck", "constant"]
    high = min(1.05, max(0.05, 1.1 * float(np.nanmax(state[shares].to_numpy(dtype=float)))))
    figure = Figure(figsize=(9.5, 0.9 + 2.4 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), 1, squeeze=False).ravel()
    for ax, kind in zip(axes, kinds, strict=True):
        figures.draw_gate_state(ax, state[state["kind"] == kind], high=high)
        ax.set_title(f"{kind} gates")
    axes[-1].set_xlabel("gate, in the order in which they act")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"State of the gates: {_title(recording)}")
    words = {
        "saturated_low": "saturated at the lower bound",
        "saturated_high": "saturated at the upper bound",
        "stuck": "stuck within 0.02 of the midpoint of the bounds",
        "constant": "constant (a channel over all images, a map over all pixels)",
    }
    parts = []
    for column, text in words.items():
        top = _highest(state, column)
        where = f"at most {_percent(top[column])}, in {top['gate']}" if top[column] else "none"
        parts.append(f"{text}: {where}")
    return Picture([figure], f"Shares of gate values. {'; '.join(parts).capitalize()}.")


def _spatial_maps(recording: Recording) -> Picture:
    gates, left_out = _some_gates(recording.gates_of_kind("spatial"))
    maps = {g.name: statistics.class_mean_maps(recording, g.name) for g in gates}
    cams = statistics.class_mean_grad_cam(recording, "predicted") if _has_cam(recording) else None
    if not gates:
        return _class_grad_cam(recording, cams)
    low, high = _range(np.concatenate([m.ravel() for m in maps.values()]))
    top = _top(cams) if cams is not None else 1.0
    short = figures.short_names([g.name for g in gates])
    columns = len(gates) + (cams is not None)
    names, pages = _names(recording), []
    for first in range(0, len(names), _CLASSES_A_PAGE):
        page = range(first, min(first + _CLASSES_A_PAGE, len(names)))
        figure = Figure(
            figsize=(max(5.5, 2 + 0.82 * columns), 1.0 + 0.78 * len(page)), layout="compressed"
        )
        axes = figure.subplots(len(page), columns, squeeze=False)
        for row, i in zip(axes, page, strict=True):
            for ax, gate, text in zip(row, gates, short, strict=False):
                title = (
                    f"{_short(text, 16)}\n{gate.grid[0]} × {gate.grid[1]}" if gate.grid else text
                )
                figures.draw_map(
                    ax, maps[gate.name][i], low=low, high=high, title=title if i == first else ""
                )
            if cams is not None:
                size = f"{cams.shape[1]} × {cams.shape[2]}"
                title = f"Grad-CAM\n{size}" if i == first else ""
                figures.draw_map(
                    row[-1], cams[i], low=0, high=top, title=title, cmap=figures.GRAD_CAM_MAP
                )
            _row_name(row[0], names[i])
        figures.draw_colorbar(
            axes[0, 0], f"mean spatial gate ({_bounds(gates)})", list(axes[:, : len(gates)].ravel())
        )
        if cams is not None:
            figures.draw_colorbar(axes[0, -1], "mean Grad-CAM after its ReLU", list(axes[:, -1]))
        figure.suptitle(f"Spatial gates, mean per class: {_title(recording)}")
        pages.append(figure)
    caption = (
        "Mean spatial gate of the images of each class, in the order in which the gates act; "
        f"every map on one scale from {low:.3g} to {high:.3g} ({_bounds(gates)}), cells not "
        f"interpolated. {left_out}"
    )
    if cams is not None:
        caption += (
            f"Grad-CAM of the predicted class after its ReLU, unscaled, from 0 to {top:.3g}; an "
            "image with a steep logit weighs more."
        )
    return Picture(pages, caption.strip())


def _class_grad_cam(recording: Recording, cams: NDArray[np.float64] | None) -> Picture:
    """What stands in for spatial maps where a network has none: words, and Grad-CAM."""
    text = _no_gate(recording, "spatial")
    if cams is None:
        return _note_picture(recording, "Spatial maps", f"{text} No Grad-CAM was recorded.")
    names, top = _names(recording), _top(cams)
    columns = min(10, max(5, -(-len(names) // 10)), len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(max(6.0, 1 + 1.1 * columns), 0.8 + 1.2 * rows), layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    for ax, cam, name in zip(axes, cams, names, strict=False):
        figures.draw_map(
            ax, cam, low=0, high=top, title=_short(name, 16), cmap=figures.GRAD_CAM_MAP
        )
    figures.draw_colorbar(axes[0], "Grad-CAM after its ReLU", list(axes))
    figure.suptitle(f"{_drawable(text)}\nMean Grad-CAM per class instead")
    return Picture(
        [figure],
        f"{text} Instead: mean Grad-CAM of the predicted class after its ReLU, unscaled, from 0 to "
        f"{top:.3g}, over the images of each class; an image with a steep logit weighs more.",
    )


def _attention_grid(recording: Recording) -> Picture:
    gates, left_out = _some_gates(recording.gates_of_kind("spatial"))
    rows, how = _sample(recording)
    maps = {
        g.name: np.concatenate([recording.gate(g.name, slice(i, i + 1)) for i in rows])
        for g in gates
    }
    cams = _cams(recording, rows)
    low, high = _range(np.concatenate([m.ravel() for m in maps.values()])) if gates else (0.0, 1.0)
    top = _top(cams) if cams is not None else 1.0
    short = figures.short_names([g.name for g in gates])
    columns = 1 + len(gates) + 2 * (cams is not None)
    figure = Figure(
        figsize=(max(5.5, 2 + 0.82 * columns), 1.0 + 0.78 * len(rows)), layout="compressed"
    )
    axes = figure.subplots(len(rows), columns, squeeze=False)
    names = _names(recording)
    for row, i in enumerate(rows):
        first, image = row == 0, recording.image(i)
        figures.draw_image(axes[row, 0], image, "image" if first else "")
        _row_name(axes[row, 0], names[recording.labels[i]])
        for ax, gate, text in zip(axes[row, 1:], gates, short, strict=False):
            figures.draw_map(
                ax,
                maps[gate.name][row],
                low=low,
                high=high,
                title=_short(text, 16) if first else "",
            )
        if cams is not None:
            figures.draw_map(
                axes[row, -2], cams[row], low=0, high=top, title="Grad-CAM" if first else "",
                cmap=figures.GRAD_CAM_MAP,
            )  # fmt: skip
            figures.draw_overlay(
                axes[row, -1], image, cams[row], low=0, high=top, title="overlay" if first else ""
            )
            if not cams[row].any():
                figures.draw_blank_reason(axes[row, -2], "nowhere\nabove 0")
    if gates:
        figures.draw_colorbar(
            axes[0, 1],
            f"spatial gate ({_bounds(gates)})",
            list(axes[:, 1 : 1 + len(gates)].ravel()),
        )
    if cams is not None:
        figures.draw_colorbar(axes[0, -2], "Grad-CAM after its ReLU", list(axes[:, -2:].ravel()))
    what = "Image, spatial gates and Grad-CAM" if gates else "Image and Grad-CAM (no spatial gates)"
    figure.suptitle(f"{what}: {_title(recording)}\n{how}", wrap=True)
    caption = f"{how[0].upper()}{how[1:]}. "
    if gates:
        caption += (
            f"Spatial gates raw, on one scale from {low:.3g} to {high:.3g} ({_bounds(gates)}). "
            f"{left_out}"
        )
    else:
        caption += f"{_no_gate(recording, 'spatial')} "
    if cams is not None:
        blank = int((~cams.any(axis=(1, 2))).sum())
        caption += (
            f"Grad-CAM of the predicted class after its ReLU, all images on one scale from 0 to "
            f"{top:.3g}, the largest value shown; {blank} of {len(rows)} are nowhere above 0. In "
            "the overlay it is interpolated to the picture."
        )
    else:
        caption += "No Grad-CAM was recorded."
    return Picture([figure], caption)


def _map_agreement(recording: Recording) -> Picture:
    gates = recording.gates_of_kind("spatial")
    heading = "Spatial gates and Grad-CAM"
    if not gates:
        text = f"{_no_gate(recording, 'spatial')} There is no map to set beside Grad-CAM."
        return _note_picture(recording, heading, text)
    if not _has_cam(recording):
        return _note_picture(recording, heading, "No Grad-CAM was recorded to compare with.")
    summary = statistics.agreement_summary(recording, "predicted", SEED)
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, measure in zip(axes, ("spearman", "iou"), strict=True):
        figures.draw_map_agreement(ax, summary, measure)
        ax.set_xlabel("gate, in the order in which they act")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(f"Agreement of spatial gates with Grad-CAM: {_title(recording)}")
    whole = summary.groupby("gate", sort=False).first()
    lines = [
        f"{gate}: Spearman {row['spearman']:.2f} (null {row['null_spearman']:.2f}), IoU "
        f"{row['iou']:.2f} (null {row['null_iou']:.2f})"
        for gate, row in whole.iterrows()
    ]
    unscored = int(whole["constant"].sum())
    return Picture(
        [figure],
        "Per image, at the coarser grid: large marks are means over all images, small ones over "
        "those of a class; the null pairs a map with the Grad-CAM of another image. IoU is of the "
        f"top 20 % of cells. {'; '.join(lines)}. {unscored:,} maps could not be scored because "
        "they, or the Grad-CAM, are constant.",
    )


def _misclassified(recording: Recording) -> Picture:
    wrong = statistics.misclassified(recording)
    if wrong.empty:
        return _note_picture(
            recording,
            "Misclassified images",
            f"None of the {len(recording):,} images is misclassified.",
        )
    shown = wrong.head(_MISTAKES)
    rows = shown["row"].tolist()
    cams = _cams(recording, rows)
    top = _top(cams) if cams is not None else 1.0
    names = dict(zip(recording.classes, _names(recording), strict=True))
    columns = 6
    bands = -(-len(rows) // columns)
    panels = 1 if cams is None else 2
    figure = Figure(figsize=(9.5, 0.5 + bands * (0.42 + 1.4 * panels)), layout="compressed")
    axes = figure.subplots(bands * panels, columns, squeeze=False)
    for ax in axes.ravel():
        ax.set_axis_off()
    heat_axes: list[Axes] = []
    true, said = ([names[c] for c in shown[column]] for column in ("label", "prediction"))
    for k, sure in enumerate(shown["confidence"]):
        band, column = divmod(k, columns)
        ax = axes[band * panels, column]
        image = recording.image(rows[k])
        figures.draw_image(
            ax, image, f"is {_short(true[k])}\nsaid {_short(said[k])}, {_percent(sure)}"
        )
        ax.set_axis_on()
        if cams is not None:
            below = axes[band * panels + 1, column]
            figures.draw_overlay(below, image, cams[k], low=0, high=top)
            below.set_axis_on()
            if not cams[k].any():
                figures.draw_blank_reason(below, "nowhere above 0")
            heat_axes.append(below)
    if heat_axes:
        figures.draw_colorbar(heat_axes[0], "Grad-CAM after its ReLU", list(axes.ravel()))
    figure.suptitle(f"The most confident mistakes of {_title(recording)}")
    caption = (
        f"{len(wrong):,} of {len(recording):,} images are misclassified "
        f"({_percent(len(wrong) / len(recording))}); shown are the {len(shown)} with the highest "
        f"confidence, from {_percent(shown['confidence'].max())} down to "
        f"{_percent(shown['confidence'].min())}."
    )
    if cams is not None:
        caption += (
            " Below each: Grad-CAM of the predicted class after its ReLU, all on one scale from 0 "
            f"to {top:.3g}, interpolated to the picture."
        )
    return Picture([figure], caption)


# ------------------------------------------------------------------------------------ two networks


def _per_class_accuracy(a: Recording, b: Recording) -> Picture:
    comparison = statistics.compare_accuracy(a, b)
    names = _two_names(a, b)
    drawn = _with_drawn_names(comparison, a)
    figure = Figure(figsize=(9.5, 1.9 + _row_height(comparison)), layout="constrained")
    left, right = figure.subplots(1, 2)
    figures.draw_per_class_accuracy(left, drawn, names)
    figures.draw_disagreements(right, drawn, names)
    right.set_yticklabels([])
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    figure.suptitle(f"Accuracy per class: {names[0]} and {names[1]}")
    return Picture([figure], accuracy_sentence(comparison, a.name, b.name))


def _per_class_gates(a: Recording, b: Recording) -> Picture:
    names = _two_names(a, b)
    if not {g.name for g in a.gates_of_kind("channel")} & {
        g.name for g in b.gates_of_kind("channel")
    }:
        figure = Figure(figsize=(7, 2), layout="constrained")
        text = f"{a.name} and {b.name} have no channel gate of the same name to compare."
        figures.draw_note(figure.subplots(), _drawable(text))
        return Picture([figure], text)
    distances = statistics.compare_profiles(a, b)
    order = statistics.compare_class_order(a, b)
    columns = ["distance_a", "distance_b"]
    high = max(float(np.nanmax(distances[columns].to_numpy(dtype=float))), 1e-6)
    height = max(2.4, 0.11 * len(a.classes) + 1)
    figure = Figure(figsize=(9.5, height + 3), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[height, 1.6])
    top = [figure.add_subplot(grid[0, i]) for i in range(2)]
    drawn = _with_drawn_names(distances, a)
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
    names = _two_names(a, b)
    if not (_has_cam(a) and _has_cam(b)):
        without = " and ".join(r.name for r in (a, b) if not _has_cam(r))
        text = f"No Grad-CAM was recorded for {without}."
        figure = Figure(figsize=(7, 2), layout="constrained")
        figures.draw_note(figure.subplots(), _drawable(text))
        return Picture([figure], text)
    comparison = statistics.compare_grad_cam(a, b, "predicted", SEED)
    drawn = _with_drawn_names(comparison, a)
    figure = Figure(figsize=(9.5, 1.9 + _row_height(comparison)), layout="constrained")
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
        f"{name_a} is right on {_percent(whole['accuracy_a'])} of {whole['count']:,.0f} images, "
        f"{name_b} on {_percent(whole['accuracy_b'])}; {whole['only_a']:,.0f} images only "
        f"{name_a} gets right, {whole['only_b']:,.0f} only {name_b} (exact McNemar, "
        f"{_p(whole['p'])}: {found}). "
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
        f"{row['class']} ({_percent(row['accuracy_a'])} and {_percent(row['accuracy_b'])}, "
        f"{_p(row['p_holm'])})"
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
            top = _highest(distances, column)
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
    least = _lowest(classes, "spearman")
    most = _highest(classes, "spearman")
    return text + (
        f" Least alike: {least['class']} ({least['spearman']:.2f}); most: {most['class']} "
        f"({most['spearman']:.2f})."
    )


FIGURES: dict[str, Callable[[Recording], Picture]] = {
    "training_curves": _training_curves,
    "training_images": _training_images,
    "confusion_matrix": _confusion_matrix,
    "channel_gates": _channel_gates,
    "gate_profiles": _gate_profiles,
    "gate_state": _gate_state,
    "spatial_maps": _spatial_maps,
    "attention_grid": _attention_grid,
    "map_agreement": _map_agreement,
    "misclassified": _misclassified,
}
"""What one recording is shown by. Each raises `Unavailable` where the recording cannot have it."""

COMPARISONS: dict[str, Callable[[Recording, Recording], Picture]] = {
    "per_class_accuracy": _per_class_accuracy,
    "per_class_gates": _per_class_gates,
    "per_class_grad_cam": _per_class_grad_cam,
}
"""What two recordings of the same images are compared by."""


# ---------------------------------------------------------------------------------------- the page


def _describe(recording: Recording) -> dict[str, Any]:
    pictures, left_out = [], []
    for name, make in FIGURES.items():
        with figures.style():
            try:
                pictures.append(_embed(name, make(recording)))
            except Unavailable as reason:
                _log.warning("%s left out: %s", name, reason)
                left_out.append(f"{name}: {reason}")
    right = int((recording.labels == recording.predictions).sum())
    about = {key: value for key, value in recording.about.items() if value is not None}
    return {
        "name": recording.name,
        "folder": str(recording.folder),
        "accuracy": right / len(recording),
        "right": right,
        "count": len(recording),
        "classes": len(recording.classes),
        "calibration_error": statistics.calibration_error(recording),
        "gates": _gate_counts(recording),
        "about": {key.replace("_", " "): _plain(value) for key, value in about.items()},
        "metrics": statistics.class_metrics(recording).to_dict("records"),
        "pictures": pictures,
        "left_out": left_out,
    }


def _compare(a: Recording, b: Recording) -> dict[str, Any]:
    names = _two_names(a, b)
    found: dict[str, Any] = {"a": names[0], "b": names[1], "problem": "", "pictures": []}
    try:
        accuracy = statistics.compare_accuracy(a, b)
    except InputError as problem:  # the rest of the page is still true
        _log.warning("no comparison of %s and %s: %s", a.name, b.name, problem)
        return {**found, "problem": str(problem)}
    for name, make in COMPARISONS.items():
        with figures.style():
            found["pictures"].append(_embed(name, make(a, b)))
    found["level"] = LEVEL
    found["has_grad_cam"] = _has_cam(a) and _has_cam(b)
    if found["has_grad_cam"]:  # both frames have all images first, then the classes in their order
        cams = statistics.compare_grad_cam(a, b, "predicted", SEED)
        accuracy = accuracy.assign(grad_cam=cams["spearman"])
    found["accuracy"] = accuracy.to_dict("records")
    return found


def _embed(name: str, picture: Picture) -> dict[str, Any]:
    title = name.replace("_", " ").replace("grad cam", "Grad-CAM")
    return {
        "title": title[:1].upper() + title[1:],
        "caption": picture.caption,
        "images": [
            base64.b64encode(render(figure, "png", _REPORT_DPI)).decode()
            for figure in picture.figures
        ],
    }


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return str(value)


# ----------------------------------------------------------------------------------------- helpers


def _write_picture(picture: Picture, out: Path, name: str) -> list[Path]:
    written = []
    for number, figure in enumerate(picture.figures, start=1):
        stem = name if number == 1 else f"{name}_{number}"
        for ending in ("png", "pdf"):
            write_bytes(out / f"{stem}.{ending}", render(figure, ending, DPI))
            figure.set_layout_engine("none")  # laid out once: the second file has the same places
            written.append(out / f"{stem}.{ending}")
    return written


def _tell_missing_characters(recordings: Sequence[Recording]) -> None:
    texts = [text for r in recordings for text in (*r.classes, r.name)]
    missing = figures.missing_characters(texts)
    if missing:
        _log.warning(
            "no installed font has %s (%d characters); figures show boxes and the number of the "
            "class. Install a font that has them, e.g. fonts-noto-cjk",
            missing[:10],
            len(missing),
        )


def _run_folder(recording: Recording) -> Path | None:
    folder = recording.folder.resolve()
    return folder.parent.parent if folder.parent.name == "recordings" else None


def _read_metrics(recording: Recording) -> pd.DataFrame:
    run = _run_folder(recording)
    if run is None or not (run / "metrics.csv").is_file():
        raise Unavailable(f"{recording.folder} lies in no run with a metrics.csv")
    file = run / "metrics.csv"
    metrics = _read_numbers(
        file,
        "epoch", "step", "train_loss", "train_accuracy", "validation_loss",
        "validation_accuracy", "learning_rate", "images_per_second", "seconds",
    )  # fmt: skip
    if metrics.empty:
        raise Unavailable(f"{file} has no epoch yet")
    return metrics


def _read_steps(recording: Recording) -> pd.DataFrame | None:
    """None where the training was too short to log a step, or is older than the file."""
    run = _run_folder(recording)
    if run is None or not (run / "steps.csv").is_file():
        return None
    return _read_numbers(run / "steps.csv", "step", "loss", "accuracy", "learning_rate")


def _read_numbers(file: Path, *columns: str) -> pd.DataFrame:
    try:
        return pd.read_csv(file)[list(columns)].astype(float)
    except (ValueError, KeyError) as error:
        raise InputError(f"{file} cannot be read ({error}); train again") from None


def _note_picture(recording: Recording, heading: str, text: str) -> Picture:
    figure = Figure(figsize=(7, 2), layout="constrained")
    figures.draw_note(figure.subplots(), _drawable(text))
    figure.suptitle(f"{heading}: {_title(recording)}")
    return Picture([figure], text)


def _no_gate(recording: Recording, kind: str = "") -> str:
    has = ", ".join(_gate_counts(recording))
    if not has:
        return f"{recording.name} has no gates at all."
    return f"{recording.name} has no {kind} gates (its gates: {has})."


def _gate_counts(recording: Recording) -> list[str]:
    kinds = dict.fromkeys(gate.kind for gate in recording.gates)
    return [f"{len(recording.gates_of_kind(kind))} {kind}" for kind in kinds]


def _some_gates(gates: list[Gate]) -> tuple[list[Gate], str]:
    """At most as many gates as there are columns, evenly over depth, and a sentence about it."""
    if len(gates) <= _MAP_COLUMNS:
        return gates, ""
    chosen = np.linspace(0, len(gates) - 1, _MAP_COLUMNS).round().astype(int)
    return [gates[i] for i in chosen], f"{_MAP_COLUMNS} of {len(gates)} gates, evenly over depth. "


def _sample(recording: Recording) -> tuple[list[int], str]:
    """Rows to show: one correctly classified image a class, and how they were chosen."""
    random = np.random.default_rng(SEED)
    right = recording.labels == recording.predictions
    classes = np.unique(recording.labels[right])
    if not len(classes):
        some = np.sort(random.permutation(len(recording))[:_GRID_ROWS])
        return (
            some.tolist(),
            f"{len(some)} images drawn with seed {SEED}; none is classified rightly",
        )
    if len(classes) > _GRID_ROWS:
        classes = np.sort(random.permutation(classes)[:_GRID_ROWS])
    rows = [
        int(random.choice(np.flatnonzero(right & (recording.labels == label)))) for label in classes
    ]
    return rows, f"one correctly classified image of {len(rows)} classes, drawn with seed {SEED}"


def _has_cam(recording: Recording) -> bool:
    return bool(recording.grad_cam_layers)


def _cams(recording: Recording, rows: Sequence[int]) -> NDArray[np.float32] | None:
    """Grad-CAM of the predicted class after its ReLU, ``(len(rows), h, w)``."""
    if not _has_cam(recording):
        return None
    maps = [recording.grad_cam(rows=slice(i, i + 1)) for i in rows]
    return np.maximum(np.concatenate(maps), 0)


def _range(values: NDArray[Any]) -> tuple[float, float]:
    """The ends of a scale that all values share; never of width 0."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return (low, high) if high - low > 1e-6 else (low - 0.01, high + 0.01)


def _top(values: NDArray[Any]) -> float:
    return max(float(np.nanmax(values)), 1e-6)


def _bounds(gates: list[Gate]) -> str:
    low, high = min(g.lo for g in gates), max(g.hi for g in gates)
    return f"bounds {low:g} to {high:g}"


def _highest(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    return frame.iloc[int(np.nanargmax(frame[column].to_numpy(dtype=float)))]


def _lowest(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    return frame.iloc[int(np.nanargmin(frame[column].to_numpy(dtype=float)))]


def _names(recording: Recording) -> list[str]:
    return figures.drawable_names(recording.classes)


def _with_drawn_names(frame: pd.DataFrame, recording: Recording) -> pd.DataFrame:
    drawn = dict(zip(recording.classes, _names(recording), strict=True))
    return frame.assign(**{"class": [drawn.get(name, name) for name in frame["class"]]})


def _drawable(text: str) -> str:
    missing = set(figures.missing_characters([text]))
    return "".join("□" if c in missing else c for c in text)


def _name(recording: Recording) -> str:
    return _short(_drawable(recording.name), 40)


def _two_names(a: Recording, b: Recording) -> tuple[str, str]:
    names = _name(a), _name(b)
    return names if names[0] != names[1] else (f"{names[0]} (first)", f"{names[1]} (second)")


def _title(recording: Recording) -> str:
    part = recording.about.get("part")
    images = f"{len(recording):,} images"
    return (
        f"{_name(recording)} ({_drawable(str(part))}, {images})"
        if part
        else (f"{_name(recording)} ({images})")
    )


def _row_name(ax: Axes, name: str) -> None:
    ax.set_ylabel(_short(name), rotation=0, ha="right", va="center", labelpad=4, fontsize=7.5)


def _row_height(frame: pd.DataFrame) -> float:
    return max(1.6, (0.23 if len(frame) <= 40 else 0.13) * len(frame))


def _short(text: object, length: int = 18) -> str:
    clean = " ".join(str(text).split())
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def _channels(count: int) -> str:
    return f"{count:,} channel{'' if count == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if np.isfinite(share) else "–"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "−") if np.isfinite(difference) else "–"


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−") if np.isfinite(value) else "–"


def _p(p: float) -> str:
    number = _p_number(p)
    return f"p {number}" if number.startswith("<") else f"p = {number}"


def _p_number(p: float) -> str:
    if not np.isfinite(p):
        return "no test"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
