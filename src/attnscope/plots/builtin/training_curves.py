"""Loss, accuracy and learning rate during training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attnscope.errors import InputError, first_line
from attnscope.layout import METRICS
from attnscope.plots import needs
from attnscope.plots.axes import percent_tick
from attnscope.plots.frames import highest
from attnscope.plots.registry import Plot, Unavailable, register_plot
from attnscope.plots.tables import stacked
from attnscope.plots.text import as_count, as_percent
from attnscope.plots.theme import INK, NETWORK_COLORS
from attnscope.plots.titles import name_of
from attnscope.recording.recording import Recording
from attnscope.runs import Run

_QUANTITIES = ("loss", "accuracy", "learning_rate")


@dataclass(frozen=True)
class TrainingCurves:
    """The training log of a run."""

    name: str
    metrics: pd.DataFrame
    """``metrics.csv`` of the run, one row for each epoch."""
    steps: pd.DataFrame | None
    """``steps.csv`` of the run, one row for some of the steps; None if training was too short."""


def compute(recording: Recording) -> TrainingCurves:
    """Read the training log."""
    run = Run.holding(recording)
    assert run is not None  # otherwise the need of its file is not met
    metrics = _read_numbers(
        run.metrics_file,
        "epoch", "step", "train_loss", "train_accuracy", "validation_loss",
        "validation_accuracy", "learning_rate", "images_per_second", "seconds",
    )  # fmt: skip
    if metrics.empty:
        raise Unavailable(
            "AS911",
            f"{run.metrics_file} has no epoch yet; draw it after the first epoch of training",
        )
    steps = None
    if run.steps_file.is_file():
        steps = _read_numbers(run.steps_file, "step", "loss", "accuracy", "learning_rate")
    return TrainingCurves(recording.name, metrics, steps)


def draw(ax: Axes, metrics: pd.DataFrame, quantity: str, steps: pd.DataFrame | None = None) -> Axes:
    """Draw training and validation over epochs, with single batches behind them.

    Args:
        ax: the Axes to draw on.
        metrics: of `TrainingCurves`.
        quantity: ``loss``, ``accuracy`` or ``learning_rate``.
        steps: of `TrainingCurves`.
    """
    epochs = metrics["epoch"].to_numpy()
    marker = "o" if len(epochs) <= 30 else None
    validated = quantity != "learning_rate"
    if steps is not None and len(steps):
        at = steps["step"] / (metrics["step"].iloc[0] / epochs[0])
        dot = "." if len(steps) < 3 else None  # a line through one point is invisible
        color, width = (NETWORK_COLORS[0], 0.6) if validated else (INK, 1.2)
        alpha = 0.35 if validated else 1.0
        label = "training (single batches)" if validated else None
        ax.plot(
            at, steps[quantity], color=color, linewidth=width, alpha=alpha, label=label, marker=dot
        )
    if validated:
        for split, color in zip(("train", "validation"), NETWORK_COLORS, strict=True):
            ax.plot(
                epochs,
                metrics[f"{split}_{quantity}"],
                color=color,
                marker=marker,
                markersize=3,
                label="training" if split == "train" else split,
            )
    else:
        if steps is None or not len(steps):
            ax.plot(epochs, metrics[quantity], color=INK, marker=marker, markersize=3)
        ax.set_ylim(bottom=0)
    if quantity == "accuracy":
        ax.yaxis.set_major_formatter(percent_tick)
    at_end = "" if steps is not None and len(steps) else " at the end of the epoch"
    ax.set_title(quantity if validated else f"learning rate{at_end}")
    ax.set_xlabel("epoch")
    ax.set_xlim(0, epochs[-1] * 1.02)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y")
    return ax


def lay_out(curves: TrainingCurves) -> list[Figure]:
    """Draw one panel for each quantity."""
    figure = Figure(figsize=(9.5, 3.1), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, quantity in zip(axes, _QUANTITIES, strict=True):
        draw(ax, curves.metrics, quantity, curves.steps)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"Training: {name_of(curves.name)}")
    return [figure]


def table(shown: TrainingCurves) -> pd.DataFrame:
    """Return both logs."""
    logs = {"epochs": shown.metrics, "steps": shown.steps}
    return stacked({name: log for name, log in logs.items() if log is not None}, "log")


def caption(curves: TrainingCurves) -> str:
    """Say how long training took, and the accuracy that it reached."""
    metrics = curves.metrics
    last, best = metrics.iloc[-1], highest(metrics, "validation_accuracy")
    seconds = float(last["seconds"])
    duration = f"{seconds / 60:,.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
    top = ""
    if best["epoch"] != last["epoch"]:
        top = (
            f" and highest after epoch {best['epoch']:.0f} "
            f"({as_percent(best['validation_accuracy'])})"
        )
    return (
        f"Loss, accuracy and learning rate over {as_count(len(metrics), 'epoch')} "
        f"({last['step']:,.0f} steps) in {duration}, at a median of "
        f"{metrics['images_per_second'].median():,.0f} images per second. Validation accuracy is "
        f"{as_percent(last['validation_accuracy'])} after the last epoch{top}; training accuracy "
        f"is {as_percent(last['train_accuracy'])} on augmented images, on average over the last "
        "epoch while the weights changed."
    )


def _read_numbers(file: Path, *columns: str) -> pd.DataFrame:
    try:
        return pd.read_csv(file)[list(columns)].astype(float)
    except (ValueError, KeyError) as error:
        raise InputError(
            "AS912",
            f"{file} cannot be read ({first_line(error)}); restore it or train the run again",
        ) from None


register_plot(
    Plot(
        name="training_curves",
        title="Training curves",
        about="Loss, accuracy and learning rate over the epochs of training.",
        subject=Recording,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=table,
        needs=(needs.run_file(METRICS),),
        place=10,
    )
)
