"""How far spatial gates agree with Grad-CAM, over depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.kinds import MAP
from attnscope.plots import needs
from attnscope.plots.axes import IN_ORDER, measure_axis, over_gates
from attnscope.plots.frames import unique
from attnscope.plots.maps import SEED
from attnscope.plots.registry import Plot, register_plot
from attnscope.plots.subjects import Identity, identity
from attnscope.plots.theme import NETWORK_COLORS, NULL_COLOR
from attnscope.plots.titles import title_of
from attnscope.recording.recording import Recording

_NULLS = (
    ("null", 0, "s", "null: Grad-CAM of another image"),
    ("same_class", 0.16, "^", "null: of another image of the same class"),
    ("center", 0.32, "P", "null: a Gaussian in the middle"),
)
"""Columns of the summary, how far to the right of the gate they stand, marks and labels."""


@dataclass(frozen=True)
class MapAgreement:
    """Scores of every spatial gate."""

    of: Identity
    summary: pd.DataFrame
    """Of `attnscope.statistics.agreement_summary`."""


def compute(recording: Recording) -> MapAgreement:
    """Scores every spatial gate against Grad-CAM of the predicted class."""
    summary = statistics.agreement_summary(recording, "predicted", SEED)
    return MapAgreement(identity(recording), summary)


def draw(ax: Axes, summary: pd.DataFrame, measure: str) -> Axes:
    """Spatial gate against Grad-CAM over depth, beside what knows nothing of the image.

    Args:
        ax: where.
        summary: of `MapAgreement`; of each gate the first row (all images) is the large mark, with
            its interval, each class a small one.
        measure: ``spearman`` or ``iou``.
    """
    gates = unique(summary["gate"])
    place = {gate: i for i, gate in enumerate(gates)}
    # By place, not by name: a class may be called "all".
    of_all = ~summary.duplicated("gate")
    whole, parts = summary[of_all], summary[~of_all]
    at = whole["gate"].map(place).to_numpy()
    own, own_at = NETWORK_COLORS[0], at - 0.24
    faint = float(np.clip(5 * len(gates) / max(len(parts), 1), 0.1, 0.35))  # many are a cloud
    small_at = parts["gate"].map(place).to_numpy() - 0.24
    ax.scatter(small_at, parts[measure], s=9, color=own, alpha=faint, linewidths=0)
    low, high = whole[f"{measure}_low"], whole[f"{measure}_high"]
    ax.vlines(own_at, low, high, color=own, linewidth=1.6)
    label = "Grad-CAM of the same image, 95 % interval (small: per class)"
    ax.plot(own_at, whole[measure], "o", markersize=6.5, color=own, label=label)
    for null, shift, marker, label in _NULLS:
        ax.plot(
            at + shift,
            whole[f"{null}_{measure}"],
            marker=marker,
            linestyle="none",
            markersize=5.5,
            label=label,
            markerfacecolor="white",
            markeredgecolor=NULL_COLOR,
        )
    measure_axis(ax.yaxis, ax, measure)
    return over_gates(ax, gates)


def lay_out(shown: MapAgreement) -> list[Figure]:
    """A panel for each measure."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, measure in zip(axes, ("spearman", "iou"), strict=True):
        draw(ax, shown.summary, measure).set_xlabel(IN_ORDER)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(f"Agreement of spatial gates with Grad-CAM: {title_of(shown.of)}")
    return [figure]


def caption(shown: MapAgreement) -> str:
    """How many gates agree more with their own image's Grad-CAM, and the scores of each."""
    whole = shown.summary.groupby("gate", sort=False).first()
    lines = [
        f"{gate}: Spearman {row['spearman']:.2f} (null {row['null_spearman']:.2f}), IoU "
        f"{row['iou']:.2f} (null {row['null_iou']:.2f})"
        for gate, row in whole.iterrows()
    ]
    above = int((whole["above_null_low"] > 0).sum())
    central = int((whole["center_spearman"] > whole["spearman"]).sum())
    unscored = int(whole["constant"].sum())
    return (
        f"{above} of {len(whole)} spatial gates agree more with the Grad-CAM of their own image "
        "than with that of another one (the 95 % interval of the difference is above 0); "
        f"{central} agree more with a Gaussian in the middle of the image than with it. Per image, "
        "at the coarser grid: large marks are means over all images, small ones over those of a "
        f"class. IoU is of the top 20 % of cells. {'; '.join(lines)}. {unscored:,} maps could not "
        "be scored because they, or the Grad-CAM, are constant."
    )


register_plot(
    Plot(
        name="map_agreement",
        title="Map agreement",
        about="How far spatial gates agree with Grad-CAM, over depth, beside three nulls.",
        subject=Recording,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        needs=(
            needs.gates(MAP, "There is no map to set beside Grad-CAM."),
            needs.grad_cam("No Grad-CAM was recorded to compare with."),
        ),
        heading="Spatial gates and Grad-CAM",
        place=90,
    )
)
