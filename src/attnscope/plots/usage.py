"""Usage of gates: tables from interventions, and their drawings over the gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.errors import InputError, first_line
from attnscope.plots import needs
from attnscope.plots.axes import IN_ORDER, over_gates, points_tick
from attnscope.plots.intervals import draw_intervals, filled_mark
from attnscope.plots.registry import Unavailable
from attnscope.plots.text import short_names
from attnscope.plots.theme import INK
from attnscope.recording.outcomes import REPLACED, Outcomes
from attnscope.recording.recording import Recording
from attnscope.statistics.comparison import expect_same_images
from attnscope.statistics.questions import MATCHED, MISINFORMATION, REMOVAL, RESAMPLE
from attnscope.statistics.verdicts import target_kind

_SERIES = (
    (REMOVAL, 0, "o", "best constant instead of the image's own gate"),
    (RESAMPLE, 0, "^", "gate of any other image instead of the image's own gate"),
    (MISINFORMATION, 1, "s", "gate of another class instead of the same class"),
    (MATCHED, 1, "D", "the same, donors of about equal brightness and contrast"),
)
"""Question, number of the color, marker, and label."""
_WIDTH = 0.6
"""Distance of the first series of a gate from its last."""


def usage_of(outcomes: Outcomes) -> pd.DataFrame:
    """Return `attnscope.statistics.gate_usage` of the outcomes.

    Smallest effects of interest are those that were stated when the interventions were run.

    Raises:
        Unavailable: an experiment that it needs is missing.
    """
    return _summarize(
        outcomes,
        lambda made: statistics.gate_usage(
            outcomes.table("decoding"),
            made,
            smallest_effect=outcomes.about.get("smallest_effect"),
            smallest_log_loss=outcomes.about.get("smallest_log_loss"),
        ),
    )


def joint_of(outcomes: Outcomes) -> pd.DataFrame:
    """Return `attnscope.statistics.joint_usage` of the outcomes.

    Raises:
        Unavailable: an experiment that it needs is missing.
    """
    return _summarize(
        outcomes,
        lambda made: statistics.joint_usage(
            made,
            smallest_effect=outcomes.about.get("smallest_effect"),
            smallest_log_loss=outcomes.about.get("smallest_log_loss"),
        ),
    )


def usages_of(recordings: Sequence[Recording], outcomes: Sequence[Outcomes]) -> list[pd.DataFrame]:
    """Return `usage_of` of several seeds, which can be averaged.

    Raises:
        InputError: the seeds were scored on different images; or as `usage_of`.
    """
    for recording, made in zip(recordings, outcomes, strict=True):
        expect_same_images(recordings[0], recording)
        for what in ("images", "seed"):
            if made.about[what] != outcomes[0].about[what]:
                raise InputError(
                    "AS907",
                    f"the interventions on {recording.name} have {what} {made.about[what]}, those "
                    f"on {recordings[0].name} have {outcomes[0].about[what]}; run them with the "
                    "same --images and --seed",
                )
    return [usage_of(made) for made in outcomes]


def draw_usage(ax: Axes, usage: pd.DataFrame) -> Axes:
    """Draw the accuracy that is lost by each replacement of a gate: removal and misinformation.

    Args:
        ax: the Axes to draw on.
        usage: `attnscope.statistics.gate_usage` or ``usage_over_seeds``.
    """
    _draw_series(ax, usage, "{}_value", "{}_low", "{}_high", "p_{}", has_labels=True)
    ax.set_ylabel("accuracy lost\n(percentage points)")
    ax.yaxis.set_major_formatter(points_tick)
    return over_gates(ax, list(usage["gate"]))


def draw_log_losses(ax: Axes, usage: pd.DataFrame) -> Axes:
    """Draw the same as `draw_usage` for the log loss, which changes before predictions do.

    Args:
        ax: the Axes to draw on.
        usage: `attnscope.statistics.gate_usage` or ``usage_over_seeds``.
    """
    _draw_series(ax, usage, "{}_log_loss", "{}_log_loss_low", "{}_log_loss_high", "p_{}_log_loss")
    ax.set_ylabel("log loss added (nats)")
    return over_gates(ax, list(usage["gate"]))


def series_of(usage: pd.DataFrame) -> list[tuple[str, float]]:
    """Return the questions that are drawn, each with its horizontal offset from the gate."""
    asked = [name for name, *_ in _SERIES if usage[f"{name}_value"].notna().any()]
    shifts = np.linspace(-_WIDTH / 2, _WIDTH / 2, len(asked)) if len(asked) > 1 else [0.0]
    return [(name, float(shift)) for name, shift in zip(asked, shifts, strict=False)]


def _draw_series(
    ax: Axes,
    usage: pd.DataFrame,
    value: str,
    low: str,
    high: str,
    p: str,
    *,
    has_labels: bool = False,
) -> None:
    """Draw each question that was asked; the columns have a place for its name."""
    ax.axhline(0, color=INK, linewidth=0.8)
    styles = {name: (side, form, label) for name, side, form, label in _SERIES}
    for name, shift in series_of(usage):
        side, form, label = styles[name]
        draw_intervals(
            ax,
            np.arange(len(usage)) + shift,
            usage,
            value.format(name),
            low=low.format(name),
            high=high.format(name),
            side=side,
            form=form,
            label=label if has_labels else "",
            p=p.format(name),
        )


def draw_border(ax: Axes, after: int) -> Axes:
    """Draw a line after the single gates, before those that are replaced jointly."""
    ax.axvline(after - 0.5, color=INK, linewidth=0.6, linestyle=":")
    return ax


def one_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Draw one legend below the figure with each entry of several Axes once.

    The last entry says what filled marks mean.
    """
    shown = {
        label: handle
        for ax in axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    handles = [*shown.values(), filled_mark()]
    names = [*shown, str(handles[-1].get_label())]
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=7)


def accuracy_above_log_loss(
    table: pd.DataFrame,
    draw: Callable[[Axes, pd.DataFrame, str], Axes],
    titles: tuple[str, str],
    title: str,
) -> list[Figure]:
    """Draw a panel for accuracy and one for log loss, over the same gates.

    Args:
        table: one row per gate.
        draw: draws the table on Axes; its last argument is ``accuracy`` or ``log_loss``.
        titles: titles of the panels.
        title: title of the figure.
    """
    width = float(np.clip(2.5 + 0.42 * len(table), 6.5, 14))
    figure = Figure(figsize=(width, 5.6), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    for ax, measure, text in zip(axes, ("accuracy", "log_loss"), titles, strict=True):
        draw(ax, table, measure)
        ax.set_title(text)
    axes[0].tick_params(labelbottom=False)
    axes[1].set_xlabel(IN_ORDER)
    one_legend(figure, list(axes))
    figure.suptitle(title)
    return [figure]


def with_joint(usage: pd.DataFrame, joint: pd.DataFrame) -> pd.DataFrame:
    """Return one table of single gates and of gates replaced jointly, with short names."""
    drawn = pd.concat([usage, joint], ignore_index=True) if len(joint) else usage
    return drawn.assign(gate=short_targets(list(drawn["gate"])))


def short_targets(targets: list[str]) -> list[str]:
    """Shorten the names of targets: gates, blocks, and all gates, each kind by itself."""
    blocks = [target for target in targets if target_kind(target) == "block"]
    gates = [target for target in targets if target_kind(target) == "gate"]
    paths = [block.removeprefix("block ") for block in blocks]
    names = {"all": "all"} | dict(zip(gates, short_names(gates), strict=True))
    for block, short in zip(blocks, short_names(paths), strict=True):
        names[block] = f"block {short}"
    return [names[target] for target in targets]


def _summarize(outcomes: Outcomes, table: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    if outcomes.replacement is None:
        raise Unavailable("AS906", needs.without_outcome(outcomes, REPLACED))
    try:
        return table(outcomes.replacement)
    except InputError as reason:
        raise Unavailable(reason.code, first_line(reason)) from None
