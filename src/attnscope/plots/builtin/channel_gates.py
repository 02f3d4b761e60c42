"""Channel gates per class: the mean gate of each channel, and how the classes differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.kinds import PER_CHANNEL, Gate
from attnscope.plots import needs
from attnscope.plots.axes import label_axis
from attnscope.plots.choosing import choice_note, most_different
from attnscope.plots.frames import highest, wide
from attnscope.plots.images import bounds_of, draw_colorbar, shared_scale, show
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Identity, identity
from attnscope.plots.tables import stacked
from attnscope.plots.text import (
    as_count,
    as_number,
    as_p,
    as_p_number,
    as_percent,
    as_score,
    shorten,
)
from attnscope.plots.theme import GATE_MAP, SIGNED_MAP
from attnscope.plots.titles import drawn_names, title_of, with_drawn_names
from attnscope.plots.views import noun_of, size_of, view_note
from attnscope.recording.recording import Recording
from attnscope.statistics.inference import FEWEST, LEVEL, significant

GATES_A_PAGE = 8
PERMUTATIONS = 199
"""Number of permutations of the labels, so that p is at least 0.005."""
FEWER_PERMUTATIONS = 39
"""The same for a large recording, so that p is at least 0.025 and can still be below 0.05."""
_LARGE = 2**25
"""Number of recorded values of all gates together above which a recording is large here."""
_CLASSES = 40  # that are drawn, if there are many


@dataclass(frozen=True)
class ChannelGates:
    """Class profiles of every channel gate, and the effect of the class on each channel."""

    of: Identity
    classes: Sequence[str]
    gates: Sequence[Gate]
    profiles: Mapping[str, pd.DataFrame]
    """Gate -> `attnscope.statistics.class_profiles`."""
    effects: Mapping[str, pd.DataFrame]
    """Gate -> `tested_effects`."""
    chosen: Sequence[int] | None = None
    """Numbers of the classes that are drawn; None for all."""
    permutations: int = PERMUTATIONS
    """Number of permutations of the labels in `effects`."""

    @property
    def drawn(self) -> Sequence[int]:
        """Numbers of the classes that are drawn."""
        return range(len(self.classes)) if self.chosen is None else self.chosen

    @property
    def scale(self) -> tuple[float, float]:
        """The color scale of all means."""
        return shared_scale(p["mean"].to_numpy(dtype=float) for p in self.profiles.values())

    @property
    def limit(self) -> float:
        """The largest distance of a class mean from the channel's mean over the classes."""
        apart = [
            (p["mean"] - p.groupby("channel")["mean"].transform("mean")).abs().max()
            for p in self.profiles.values()
        ]
        return float(np.nanmax([*apart, 1e-6]))


def compute(recording: Recording) -> ChannelGates:
    """Compute profiles and effects of every channel gate; choose classes if there are many."""
    gates, classes = recording.gates_with(PER_CHANNEL), recording.classes
    profiles = {gate.name: statistics.class_profiles(recording, gate.name) for gate in gates}
    means = (frame["mean"].to_numpy(np.float64) for frame in profiles.values())
    return ChannelGates(
        identity(recording),
        classes,
        gates,
        profiles,
        {gate.name: tested_effects(recording, gate.name) for gate in gates},
        most_different(means, len(classes), _CLASSES),
        permutations_for(recording),
    )


def permutations_for(recording: Recording) -> int:
    """Return the number of permutations of the labels: fewer for a large recording."""
    values = sum(
        int(np.prod(recording.channel(gate.name, slice(0, 0)).shape[1:]))
        for gate in recording.gates_with(PER_CHANNEL)
    )
    return FEWER_PERMUTATIONS if values * len(recording) > _LARGE else PERMUTATIONS


def tested_effects(recording: Recording, gate: str) -> pd.DataFrame:
    """Return ``channel_effects`` with the p values of ``permuted_channel_effects``."""
    effects = statistics.channel_effects(recording, gate)
    tested = statistics.permuted_channel_effects(recording, gate, permutations_for(recording))
    return effects.assign(p=tested["p"], p_max=tested["p_max"])


def draw(
    ax: Axes,
    profiles: pd.DataFrame,
    *,
    low: float,
    high: float,
    order: Sequence[int] | None = None,
    only: Sequence[str] | None = None,
    title: str = "",
) -> Axes:
    """Draw the mean gate, class × channel.

    Args:
        ax: the Axes to draw on.
        profiles: `attnscope.statistics.class_profiles`: class, channel, mean ...
        low: lower end of the color scale.
        high: upper end of the color scale.
        order: channel numbers from left to right. Default: ascending.
        only: the classes to draw. Default: all.
        title: title of the panel.
    """
    means = wide(profiles, "channel", "mean")
    return _draw_classes(ax, means, order, only, (low, high), GATE_MAP, title)


def draw_differences(
    ax: Axes,
    profiles: pd.DataFrame,
    *,
    limit: float,
    order: Sequence[int] | None = None,
    only: Sequence[str] | None = None,
    title: str = "",
) -> Axes:
    """Draw the mean gate minus the channel's mean over the classes, class × channel.

    Differences between classes are small compared with differences between channels, and `draw`
    does not show them. The color scale goes from -``limit`` to ``limit``; the other arguments are
    those of `draw`.
    """
    means = wide(profiles, "channel", "mean")
    apart = means - means.mean()
    return _draw_classes(ax, apart, order, only, (-limit, limit), SIGNED_MAP, title)


def lay_out(shown: ChannelGates) -> list[Figure]:
    """Draw a row for each gate, with one color scale for all pages."""
    (low, high), limit = shown.scale, shown.limit
    rows_height = float(np.clip(0.35 + 0.085 * len(shown.drawn), 0.75, 2.2))
    names = drawn_names(shown.classes)
    only = [names[shown.classes[i]] for i in shown.drawn]
    pages = []
    for first in range(0, len(shown.gates), GATES_A_PAGE):
        page = shown.gates[first : first + GATES_A_PAGE]
        figure = Figure(figsize=(9.5, 1.1 + (rows_height + 0.42) * len(page)), layout="constrained")
        axes = figure.subplots(len(page), 2, squeeze=False)
        for (left, right), gate in zip(axes, page, strict=True):
            ranked = shown.effects[gate.name].sort_values(
                "omega_squared", ascending=False, na_position="last", kind="stable"
            )
            order = ranked["channel"].tolist()
            frame = with_drawn_names(shown.profiles[gate.name], shown.classes)
            size = size_of(gate, frame["channel"].nunique())
            title = shorten(f"{gate.name}   ({size})", 60)
            draw(left, frame, low=low, high=high, order=order, only=only, title=title)
            title = _title_of_best(ranked.iloc[0])
            draw_differences(right, frame, limit=limit, order=order, only=only, title=title)
            right.set_yticklabels([])
        for ax in axes[-1]:
            ax.set_xlabel(
                "channels, by decreasing share of variance\nbetween classes (omega squared)"
            )
        draw_colorbar(axes[0, 0], f"mean gate ({bounds_of(shown.gates)})", list(axes[:, 0]))
        draw_colorbar(axes[0, 1], "mean gate − mean over classes", list(axes[:, 1]))
        what = noun_of(shown.gates, PER_CHANNEL, plural=True).capitalize()
        figure.suptitle(f"{what} per class: {title_of(shown.of)}")
        pages.append(figure)
    return pages


def _title_of_best(best: pd.Series[Any]) -> str:
    """Name the channel with the largest share of variance between classes, and the share."""
    if np.isnan(best["omega_squared"]):
        return "share of variance between classes: not known for any channel"
    share = as_number(best["omega_squared"])
    return f"largest share of variance: {share} (channel {best['channel']})"


def table(shown: ChannelGates) -> pd.DataFrame:
    """Return the class profiles, with the effect of the class on each channel."""
    return stacked(
        {
            gate: profiles.merge(shown.effects[gate], on="channel", how="left")
            for gate, profiles in shown.profiles.items()
        },
        "gate",
    )


def caption(shown: ChannelGates) -> str:
    """Count the channels that depend on the class and those that are constant."""
    low, high = shown.scale
    effects = shown.effects
    found = pd.concat(effects.values(), keys=effects.keys(), names=["gate", None]).reset_index()
    constant = int(found["constant"].sum())
    text = (
        f"Mean gate of each class for {len(found):,} channels in "
        f"{as_count(len(shown.gates), 'gate')}, over {as_count(shown.of.images, 'image')}. Left: "
        f"the mean gate, on one color scale from {low:.3g} to {high:.3g} "
        f"({bounds_of(shown.gates)}). Right: the same minus the channel's mean over the classes, "
        f"at most ±{shown.limit:.3g}. {_tested(shown, found)}"
    )
    if found["omega_squared"].notna().any():
        best = highest(found, "omega_squared")
        text += (
            f". The share of variance between classes (omega squared) is largest in channel "
            f"{best['channel']} of {best['gate']}: {as_score(best['omega_squared'])}"
        )
        if np.isfinite(best["p_max"]):
            text += (
                f", {as_p(best['p_max'])} (corrected; with {shown.permutations} permutations, p is "
                f"at least {as_p_number(1 / (shown.permutations + 1))})"
            )
    verb = "is" if constant == 1 else "are"
    text += f". {as_count(constant, 'channel')} {verb} constant over all images."
    note = choice_note(shown.classes, shown.drawn, "whose mean gates differ most from the mean")
    return " ".join(filter(None, [text, note, view_note(shown.gates, PER_CHANNEL)]))


def _tested(shown: ChannelGates, found: pd.DataFrame) -> str:
    """Count the channels whose class means differ, among those that were tested; without a stop.

    Args:
        shown: the result.
        found: its effects, one below the other.
    """
    tested = int(found["p_max"].notna().sum())
    if not tested and found["constant"].all():
        return "No channel is tested, because none varies"
    counts = next(iter(shown.profiles.values())).groupby("class", sort=False)["count"].first()
    large, few = int((counts >= FEWEST).sum()), f"classes of fewer than {FEWEST} images"
    if not tested:
        return (
            "Whether the class means differ is not tested: too few images per class (the test "
            f"leaves out {few}, and {large} of {len(counts)} "
            f"{'is' if large == 1 else 'are'} larger)"
        )
    different = int(significant(found["p_max"]).sum())
    text = (
        f"The class means are found to differ in {different} of "
        f"{as_count(tested, 'tested channel')} ({as_percent(different / tested)}; permuted Welch "
        f"test, p < {LEVEL} corrected over the channels of each gate, not over gates{_few(shown)})"
    )
    if small := len(counts) - large:
        text += f". The test leaves out {few}: {small} of {len(counts)}"
    return text


def _few(shown: ChannelGates) -> str:
    """Say how many permutations there were if they are fewer than usual."""
    if shown.permutations == PERMUTATIONS:
        return ""
    return f", with {shown.permutations} permutations because the recording is large"


def _draw_classes(
    ax: Axes,
    table: pd.DataFrame,
    order: Sequence[int] | None,
    only: Sequence[str] | None,
    scale: tuple[float, float],
    cmap: str,
    title: str,
) -> Axes:
    if order is not None:
        table = table[list(order)]
    if only is not None:
        table = table.loc[list(only)]
    show(ax, table.to_numpy(dtype=np.float64), *scale, cmap)
    ax.set_aspect("auto")
    label_axis(ax.yaxis, list(table.index))
    last = table.shape[1] - 1
    ax.set_xticks([0, last // 2, last] if last > 1 else range(last + 1))
    if order is not None:  # positions are ranks, not channel numbers
        ax.set_xticklabels([str(int(t) + 1) for t in ax.get_xticks()])
    ax.set_title(title)
    return ax


register_plot(
    Plot(
        name="channel_gates",
        title="Channel gates",
        about="The mean gate of each channel for each class, and how the classes differ.",
        subject=Recording,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=table,
        needs=(needs.gates(PER_CHANNEL),),
        place=40,
    )
)
