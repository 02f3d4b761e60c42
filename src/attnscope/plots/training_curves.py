"""Loss, accuracy and learning rate while the network was trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attnscope.errors import InputError
from attnscope.layout import METRICS
from attnscope.plots import needs
from attnscope.plots.axes import percent_tick
from attnscope.plots.frames import highest
from attnscope.plots.registry import Plot, Unavailable, register_plot
from attnscope.plots.text import as_percent
from attnscope.plots.theme import INK, NETWORK_COLORS
from attnscope.plots.titles import name_of
from attnscope.recording.recording import Recording
from attnscope.runs import Run

_QUANTITIES = ("loss", "accuracy", "learning_rate")


@dataclass(frozen=True)
class TrainingCurves:
    """How a training went."""

    name: str
    metrics: pd.DataFrame
    """A run's ``metrics.csv``, one row for each epoch."""
    steps: pd.DataFrame | None
    """Its ``steps.csv``, one row for some of the steps; None where the training was too short to
    log one."""


def compute(recording: Recording) -> TrainingCurves:
    """Reads what the training logged."""
    run = Run.holding(recording)
    assert run is not None  # else the need for its file is not met
    metrics = _read_numbers(
        run.metrics_file,
        "epoch", "step", "train_loss", "train_accuracy", "validation_loss",
        "validation_accuracy", "learning_rate", "images_per_second", "seconds",
    )  # fmt: skip
    if metrics.empty:
        raise Unavailable(f"{run.metrics_file} has no epoch yet")
    steps = None
    if run.steps_file.is_file():
        steps = _read_numbers(run.steps_file, "step", "loss", "accuracy", "learning_rate")
    return TrainingCurves(recording.name, metrics, steps)


def draw(ax: Axes, metrics: pd.DataFrame, quantity: str, steps: pd.DataFrame | None = None) -> Axes:
    """Training and validation over epochs, and single batches of the training behind them.

    Args:
        ax: where.
        metrics: of `TrainingCurves`.
        quantity: ``loss``, ``accuracy`` or ``learning_rate``.
        steps: of `TrainingCurves`.
    """
    epochs = metrics["epoch"].to_numpy()
    marker = "o" if len(epochs) <= 30 else None
    validated = quantity != "learning_rate"
    if steps is not None and len(steps):
        at = steps["step"] / (metrics["step"].iloc[0] / epochs[0])
        color, width = (NETWORK_COLORS[0], 0.6) if validated else (INK, 1.2)
        alpha = 0.35 if validated else 1.0
        label = "training, one batch" if validated else None
        ax.plot(at, steps[quantity], color=color, linewidth=width, alpha=alpha, label=label)
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
        ax.legend(loc="best")
    else:
        if steps is None or not len(steps):
            ax.plot(epochs, metrics[quantity], color=INK, marker=marker, markersize=3)
        ax.set_ylim(bottom=0)
    if quantity == "accuracy":
        ax.yaxis.set_major_formatter(percent_tick)
    at_end = "" if steps is not None and len(steps) else " at the end of the epoch"
    ax.set_title(quantity if validated else f"learning rate{at_end}")
    ax.set_xlabel("epochs done")
    ax.set_xlim(0, epochs[-1] * 1.02)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y")
    return ax


def lay_out(curves: TrainingCurves) -> list[Figure]:
    """One panel for each quantity."""
    figure = Figure(figsize=(9.5, 2.9), layout="constrained")
    for ax, quantity in zip(figure.subplots(1, 3), _QUANTITIES, strict=True):
        draw(ax, curves.metrics, quantity, curves.steps)
    figure.suptitle(f"Training of {name_of(curves.name)}")
    return [figure]


def caption(curves: TrainingCurves) -> str:
    """How long it took, and how good it became."""
    metrics = curves.metrics
    last, best = metrics.iloc[-1], highest(metrics, "validation_accuracy")
    return (
        f"{len(metrics)} epochs, {last['step']:,.0f} steps, {last['seconds'] / 60:,.1f} minutes at "
        f"{metrics['images_per_second'].median():,.0f} images per second (median). Validation "
        f"accuracy {as_percent(last['validation_accuracy'])} after the last epoch, highest "
        f"{as_percent(best['validation_accuracy'])} after epoch {best['epoch']:.0f}; training "
        f"accuracy {as_percent(last['train_accuracy'])}, on augmented images."
    )


def _read_numbers(file: Path, *columns: str) -> pd.DataFrame:
    try:
        return pd.read_csv(file)[list(columns)].astype(float)
    except (ValueError, KeyError) as error:
        raise InputError(f"{file} cannot be read ({error}); train again") from None


register_plot(
    Plot(
        name="training_curves",
        title="Training curves",
        about="Loss, accuracy and learning rate over the epochs of the training.",
        subject=Recording,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        needs=(needs.run_file(METRICS),),
        place=10,
    )
)
