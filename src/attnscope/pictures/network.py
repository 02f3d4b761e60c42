"""Pictures of one network, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from attnscope import figures, statistics
from attnscope.errors import InputError
from attnscope.files import read_json
from attnscope.kinds import Gate
from attnscope.pictures.common import (
    LEVEL,
    SEED,
    Picture,
    Unavailable,
    as_number,
    as_percent,
    class_names,
    drawable,
    has_grad_cam,
    highest,
    lowest,
    name_of,
    no_gate,
    note_picture,
    run_folder,
    shorten,
    title_of,
    with_drawn_names,
)
from attnscope.recording.recording import Recording

_GATES_A_PAGE = 8
_CLASSES_A_PAGE = 20
_MAP_COLUMNS = 16
_GRID_ROWS = 10
_MISTAKES = 12


def _training_curves(recording: Recording) -> Picture:
    metrics, steps = _read_metrics(recording), _read_steps(recording)
    figure = Figure(figsize=(9.5, 2.9), layout="constrained")
    for ax, quantity in zip(
        figure.subplots(1, 3), ("loss", "accuracy", "learning_rate"), strict=True
    ):
        figures.draw_training_curves(ax, metrics, quantity, steps)
    figure.suptitle(f"Training of {name_of(recording)}")
    last, best = metrics.iloc[-1], highest(metrics, "validation_accuracy")
    return Picture(
        [figure],
        f"{len(metrics)} epochs, {last['step']:,.0f} steps, {last['seconds'] / 60:,.1f} minutes at "
        f"{metrics['images_per_second'].median():,.0f} images per second (median). Validation "
        f"accuracy {as_percent(last['validation_accuracy'])} after the last epoch, highest "
        f"{as_percent(best['validation_accuracy'])} after epoch {best['epoch']:.0f}; training "
        f"accuracy {as_percent(last['train_accuracy'])}, on augmented images.",
    )


def _training_images(recording: Recording) -> Picture:
    run = run_folder(recording)
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
        figures.draw_image(ax, image, shorten(classes[label] if label < len(classes) else label))
    figure.suptitle(f"Training images as {name_of(recording)} gets them, un-normalised")
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
    shown = counts.set_axis(class_names(recording), axis=0).set_axis(class_names(recording), axis=1)
    ax = figures.draw_confusion_matrix(figure.subplots(), shown)
    figures.draw_colorbar(ax, "share of the true class", [ax])
    figure.suptitle(f"Confusion matrix of {title_of(recording)}")
    numbers = counts.to_numpy().astype(float)
    right, total = np.trace(numbers), numbers.sum()
    caption = f"Accuracy {as_percent(right / total)}: {right:,.0f} of {total:,.0f} images."
    wrong = numbers - np.diag(np.diag(numbers))
    if wrong.any():
        i, j = np.unravel_index(wrong.argmax(), wrong.shape)
        caption += (
            f" The commonest mistake is {recording.classes[i]} taken for {recording.classes[j]}: "
            f"{wrong[i, j]:,.0f} images, {as_percent(wrong[i, j] / numbers[i].sum())} of that "
            "class."
        )
    empty = [c for c, row in zip(recording.classes, numbers, strict=True) if not row.any()]
    if empty:
        caption += f" Classes without images, in grey: {', '.join(empty)}."
    return Picture([figure], caption)


def _channel_gates(recording: Recording) -> Picture:
    gates = recording.gates_of_kind("channel")
    if not gates:
        return note_picture(recording, "Channel gates", no_gate(recording, "channel"))
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
            frame = with_drawn_names(profiles[gate.name], recording)
            title = f"{gate.name}   ({gate.channels} channels)"
            figures.draw_channel_gates(
                left, frame, low=low, high=high, order=order, title=shorten(title, 60)
            )
            figures.draw_channel_differences(
                right,
                frame,
                limit=limit,
                order=order,
                title=f"largest ω² {as_number(ranked['omega_squared'].max())}",
            )
            right.set_yticklabels([])
        for ax in axes[-1]:
            ax.set_xlabel("channels, from the most to the least class-dependent (rank by ω²)")
        figures.draw_colorbar(axes[0, 0], f"mean gate ({_bounds(gates)})", list(axes[:, 0]))
        figures.draw_colorbar(axes[0, 1], "mean gate − mean over classes", list(axes[:, 1]))
        figure.suptitle(f"Channel gates per class: {title_of(recording)}")
        pages.append(figure)
    found = pd.concat(effects.values(), keys=effects.keys(), names=["gate", None]).reset_index()
    different = int((found["p_by"] < LEVEL).sum())
    constant = int(found["constant"].sum())
    caption = (
        f"Class means of {len(found):,} channels in {len(gates)} gates, all on one scale from "
        f"{low:.3g} to {high:.3g} ({_bounds(gates)}). Left: the mean gate; right: what remains "
        f"when the channel's mean over the classes is taken away, at most {limit:.3g}. "
        f"{_channels(different)} ({as_percent(different / len(found))}) with class-dependent means "
        f"(Benjamini-Yekutieli within each gate, p < {LEVEL})"
    )
    if found["omega_squared"].notna().any():
        best = highest(found, "omega_squared")
        caption += (
            f"; the strongest is channel {best['channel']} of {best['gate']}, "
            f"ω² = {best['omega_squared']:.2f}"
        )
    return Picture(pages, f"{caption}. Constant over all images: {_channels(constant)}.")


def _gate_profiles(recording: Recording) -> Picture:
    profiles = statistics.gate_profiles(recording)
    if profiles.empty:
        return note_picture(recording, "Mean gate per class over depth", no_gate(recording))
    kinds = list(dict.fromkeys(profiles["kind"]))
    middle = profiles.groupby("gate", sort=False)["mean"].transform("mean")
    spread = profiles.assign(departure=(profiles["mean"] - middle).abs())
    highlight = None
    if len(recording.classes) > _GRID_ROWS:
        ranked = spread.groupby(["kind", "class"], sort=False)["departure"].max().reset_index()
        leading = ranked.sort_values("departure", ascending=False).groupby("kind").head(4)
        highlight = list(dict.fromkeys(leading["class"]))[:_GRID_ROWS]
    drawn = dict(zip(recording.classes, class_names(recording), strict=True))
    shown = [drawn[c] for c in highlight] if highlight is not None else None
    figure = Figure(figsize=(max(9.5, 4.6 * len(kinds) + 1.4), 6), layout="constrained")
    axes = figure.subplots(2, len(kinds), squeeze=False, sharex="col")
    for column, kind in zip(axes.T, kinds, strict=True):
        frame = with_drawn_names(profiles[profiles["kind"] == kind], recording)
        for ax, centred in zip(column, (False, True), strict=True):
            figures.draw_gate_profiles(ax, frame, highlight=shown, centred=centred)
        of_path = " (the first path's)" if kind == "branch" else ""
        column[0].set_title(f"{kind} gates{of_path}")
        column[0].tick_params(labelbottom=False)
        column[1].set_xlabel("gate, in the order in which they act")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    figure.suptitle(f"Mean gate per class over depth: {title_of(recording)}")
    ends = profiles.groupby("gate", sort=False)["mean"].agg(["min", "max"])
    widest = (ends["max"] - ends["min"]).idxmax()
    here = profiles[profiles["gate"] == widest]
    least, most = lowest(here, "mean"), highest(here, "mean")
    caption = (
        "Above the mean gate of the images of each class with its 95 % interval, below the same "
        f"minus the mean over classes. Classes are furthest apart at {widest}: "
        f"{least['class']} {least['mean']:.3f}, {most['class']} {most['mean']:.3f}."
    )
    if highlight is not None:
        caption += " In colour: of each kind of gate the four classes that depart most."
    if "spatial" not in kinds:
        caption += f" {no_gate(recording, 'spatial')}"
    return Picture([figure], caption)


def _gate_state(recording: Recording) -> Picture:
    state = statistics.gate_state(recording)
    if state.empty:
        return note_picture(recording, "State of the gates", no_gate(recording))
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
    figure.suptitle(f"State of the gates: {title_of(recording)}")
    words = {
        "saturated_low": "saturated at the lower bound",
        "saturated_high": "saturated at the upper bound",
        "stuck": "stuck within 0.02 of the midpoint of the bounds",
        "constant": "constant (a channel over all images, a map over all pixels)",
    }
    parts = []
    for column, text in words.items():
        top = highest(state, column)
        where = f"at most {as_percent(top[column])}, in {top['gate']}" if top[column] else "none"
        parts.append(f"{text}: {where}")
    return Picture([figure], f"Shares of gate values. {'; '.join(parts).capitalize()}.")


def _spatial_maps(recording: Recording) -> Picture:
    gates, left_out = _some_gates(recording.gates_of_kind("spatial"))
    maps = {g.name: statistics.class_mean_maps(recording, g.name) for g in gates}
    cams = (
        statistics.class_mean_grad_cam(recording, "predicted") if has_grad_cam(recording) else None
    )
    if not gates:
        return _class_grad_cam(recording, cams)
    low, high = _range(np.concatenate([m.ravel() for m in maps.values()]))
    top = _top(cams) if cams is not None else 1.0
    short = figures.short_names([g.name for g in gates])
    columns = len(gates) + (cams is not None)
    names, pages = class_names(recording), []
    for first in range(0, len(names), _CLASSES_A_PAGE):
        page = range(first, min(first + _CLASSES_A_PAGE, len(names)))
        figure = Figure(
            figsize=(max(5.5, 2 + 0.82 * columns), 1.0 + 0.78 * len(page)), layout="compressed"
        )
        axes = figure.subplots(len(page), columns, squeeze=False)
        for row, i in zip(axes, page, strict=True):
            for ax, gate, text in zip(row, gates, short, strict=False):
                title = (
                    f"{shorten(text, 16)}\n{gate.grid[0]} × {gate.grid[1]}" if gate.grid else text
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
        figure.suptitle(f"Spatial gates, mean per class: {title_of(recording)}")
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
    text = no_gate(recording, "spatial")
    if cams is None:
        return note_picture(recording, "Spatial maps", f"{text} No Grad-CAM was recorded.")
    names, top = class_names(recording), _top(cams)
    columns = min(10, max(5, -(-len(names) // 10)), len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(max(6.0, 1 + 1.1 * columns), 0.8 + 1.2 * rows), layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    for ax, cam, name in zip(axes, cams, names, strict=False):
        figures.draw_map(
            ax, cam, low=0, high=top, title=shorten(name, 16), cmap=figures.GRAD_CAM_MAP
        )
    figures.draw_colorbar(axes[0], "Grad-CAM after its ReLU", list(axes))
    figure.suptitle(f"{drawable(text)}\nMean Grad-CAM per class instead")
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
    names = class_names(recording)
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
                title=shorten(text, 16) if first else "",
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
    figure.suptitle(f"{what}: {title_of(recording)}\n{how}", wrap=True)
    caption = f"{how[0].upper()}{how[1:]}. "
    if gates:
        caption += (
            f"Spatial gates raw, on one scale from {low:.3g} to {high:.3g} ({_bounds(gates)}). "
            f"{left_out}"
        )
    else:
        caption += f"{no_gate(recording, 'spatial')} "
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
        text = f"{no_gate(recording, 'spatial')} There is no map to set beside Grad-CAM."
        return note_picture(recording, heading, text)
    if not has_grad_cam(recording):
        return note_picture(recording, heading, "No Grad-CAM was recorded to compare with.")
    summary = statistics.agreement_summary(recording, "predicted", SEED)
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, measure in zip(axes, ("spearman", "iou"), strict=True):
        figures.draw_map_agreement(ax, summary, measure)
        ax.set_xlabel("gate, in the order in which they act")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(f"Agreement of spatial gates with Grad-CAM: {title_of(recording)}")
    whole = summary.groupby("gate", sort=False).first()
    lines = [
        f"{gate}: Spearman {row['spearman']:.2f} (null {row['null_spearman']:.2f}), IoU "
        f"{row['iou']:.2f} (null {row['null_iou']:.2f})"
        for gate, row in whole.iterrows()
    ]
    above = int((whole["above_null_low"] > 0).sum())
    central = int((whole["centre_spearman"] > whole["spearman"]).sum())
    unscored = int(whole["constant"].sum())
    return Picture(
        [figure],
        f"{above} of {len(whole)} spatial gates agree more with the Grad-CAM of their own image "
        "than with that of another one (the 95 % interval of the difference is above 0); "
        f"{central} agree more with a Gaussian in the middle of the image than with it. Per image, "
        "at the coarser grid: large marks are means over all images, small ones over those of a "
        f"class. IoU is of the top 20 % of cells. {'; '.join(lines)}. {unscored:,} maps could not "
        "be scored because they, or the Grad-CAM, are constant.",
    )


def _misclassified(recording: Recording) -> Picture:
    wrong = statistics.misclassified(recording)
    if wrong.empty:
        return note_picture(
            recording,
            "Misclassified images",
            f"None of the {len(recording):,} images is misclassified.",
        )
    shown = wrong.head(_MISTAKES)
    rows = shown["row"].tolist()
    cams = _cams(recording, rows)
    top = _top(cams) if cams is not None else 1.0
    names = dict(zip(recording.classes, class_names(recording), strict=True))
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
            ax, image, f"is {shorten(true[k])}\nsaid {shorten(said[k])}, {as_percent(sure)}"
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
    figure.suptitle(f"The most confident mistakes of {title_of(recording)}")
    caption = (
        f"{len(wrong):,} of {len(recording):,} images are misclassified "
        f"({as_percent(len(wrong) / len(recording))}); shown are the {len(shown)} with the highest "
        f"confidence, from {as_percent(shown['confidence'].max())} down to "
        f"{as_percent(shown['confidence'].min())}."
    )
    if cams is not None:
        caption += (
            " Below each: Grad-CAM of the predicted class after its ReLU, all on one scale from 0 "
            f"to {top:.3g}, interpolated to the picture."
        )
    return Picture([figure], caption)


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


def _read_metrics(recording: Recording) -> pd.DataFrame:
    run = run_folder(recording)
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
    run = run_folder(recording)
    if run is None or not (run / "steps.csv").is_file():
        return None
    return _read_numbers(run / "steps.csv", "step", "loss", "accuracy", "learning_rate")


def _read_numbers(file: Path, *columns: str) -> pd.DataFrame:
    try:
        return pd.read_csv(file)[list(columns)].astype(float)
    except (ValueError, KeyError) as error:
        raise InputError(f"{file} cannot be read ({error}); train again") from None


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


def _cams(recording: Recording, rows: Sequence[int]) -> NDArray[np.float32] | None:
    """Grad-CAM of the predicted class after its ReLU, ``(len(rows), h, w)``."""
    if not has_grad_cam(recording):
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


def _row_name(ax: Axes, name: str) -> None:
    ax.set_ylabel(shorten(name), rotation=0, ha="right", va="center", labelpad=4, fontsize=7.5)


def _channels(count: int) -> str:
    return f"{count:,} channel{'' if count == 1 else 's'}"
