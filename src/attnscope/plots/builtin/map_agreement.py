"""Agreement of the spatial gates with Grad-CAM, over depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import statistics
from attnscope.kinds import MAP, Gate
from attnscope.plots import needs
from attnscope.plots.axes import IN_ORDER, measure_axis, over_gates
from attnscope.plots.frames import highest, unique
from attnscope.plots.maps import SEED
from attnscope.plots.registry import Plot, Unavailable, register_plot
from attnscope.plots.subjects import Identity, identity
from attnscope.plots.text import as_count, as_interval, as_score
from attnscope.plots.theme import NETWORK_COLORS, NULL_COLOR
from attnscope.plots.titles import title_of
from attnscope.plots.views import noun_of, view_note
from attnscope.recording.recording import Recording
from attnscope.statistics.agreement import top_count
from attnscope.statistics.maps import comparable_gates

_NULLS = (
    ("null", 0, "s", "null: Grad-CAM of another image"),
    ("same_class", 0.16, "^", "null: Grad-CAM of another image of the same class"),
    ("center", 0.32, "P", "null: Gaussian at the image center"),
)
"""Columns of the summary, horizontal offsets from the gate, markers and labels."""
_FEW_CELLS = 16
"""Number of cells of Grad-CAM below which the caption warns of coarse scores."""


@dataclass(frozen=True)
class MapAgreement:
    """Scores of every spatial gate."""

    of: Identity
    summary: pd.DataFrame
    """`attnscope.statistics.agreement_summary`, without intervals of the classes."""
    gates: Sequence[Gate] = ()
    """The gates that are scored."""
    left_out: Sequence[str] = ()
    """Names of the gates that have other positions than Grad-CAM."""
    grid: tuple[int, int] = (0, 0)
    """Rows and columns of Grad-CAM."""


def compute(recording: Recording) -> MapAgreement:
    """Score every spatial gate against Grad-CAM of the predicted class.

    Raises:
        Unavailable: no gate has rows and columns.
    """
    gates = comparable_gates(recording)
    left_out = [gate.name for gate in recording.gates_with(MAP) if gate not in gates]
    if not gates:
        raise Unavailable("AS904", _other_positions(left_out).removesuffix("."))
    summary = statistics.agreement_summary(recording, "predicted", SEED, class_intervals=False)
    rows, columns = recording.grad_cam(rows=slice(0, 0)).shape[1:]
    return MapAgreement(identity(recording), summary, gates, left_out, (rows, columns))


def draw(ax: Axes, summary: pd.DataFrame, measure: str) -> Axes:
    """Draw the agreement of each spatial gate with Grad-CAM over depth, with three nulls.

    A null without a score is not drawn: a grid with at most two cells per side has no center.

    Args:
        ax: the Axes to draw on.
        summary: of `MapAgreement`; the first row of each gate (all images) is a large mark with
            its interval, each class is a small mark.
        measure: ``spearman`` or ``iou``.
    """
    gates = unique(summary["gate"])
    place = {gate: i for i, gate in enumerate(gates)}
    # By position, not by name: a class may be called "all".
    of_all = ~summary.duplicated("gate")
    whole, parts = summary[of_all], summary[~of_all]
    at = whole["gate"].map(place).to_numpy()
    own, own_at = NETWORK_COLORS[0], at - 0.24
    faint = float(
        np.clip(5 * len(gates) / max(len(parts), 1), 0.1, 0.35)
    )  # many marks form a cloud
    small_at = parts["gate"].map(place).to_numpy() - 0.24
    ax.scatter(small_at, parts[measure], s=9, color=own, alpha=faint, linewidths=0)
    low, high = whole[f"{measure}_low"], whole[f"{measure}_high"]
    ax.vlines(own_at, low, high, color=own, linewidth=1.6)
    label = "Grad-CAM of the same image, 95% CI (small marks: classes)"
    ax.plot(own_at, whole[measure], "o", markersize=6.5, color=own, label=label)
    for null, shift, marker, label in _NULLS:
        if whole[f"{null}_{measure}"].isna().all():
            continue
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
    """Draw a panel for each measure."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, measure in zip(axes, ("spearman", "iou"), strict=True):
        draw(ax, shown.summary, measure).set_xlabel(IN_ORDER)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(
        f"Agreement of {noun_of(shown.gates, MAP, plural=True)} with Grad-CAM: {title_of(shown.of)}"
    )
    return [figure]


def caption(shown: MapAgreement) -> str:
    """Count the gates that agree with Grad-CAM of the same image, and list their scores."""
    whole = shown.summary.groupby("gate", sort=False).first()
    scored = int(whole["scored"].max())
    unscored = int(whole["constant"].sum())
    what = noun_of(shown.gates, MAP, plural=True)
    text = (
        f"Agreement of each {noun_of(shown.gates, MAP)} with Grad-CAM of the predicted class, per "
        "image at the coarser of the two resolutions. Large marks are means over all images with "
        "95% CIs, small marks are means over the images of one class; IoU compares the top 20% of "
        f"cells. {_cells(shown.grid)} Up to {as_count(scored, 'image')} are scored. "
        f"{_above_null(whole, what)}{_beside_center(whole)}"
    )
    if whole["spearman"].notna().any():
        best = highest(whole.reset_index(), "spearman")
        text += (
            f" The agreement is highest at {best['gate']}: Spearman {as_score(best['spearman'])} "
            f"({as_interval(best['spearman_low'], best['spearman_high'], as_score)}; null "
            f"{as_score(best['null_spearman'])}), IoU {as_score(best['iou'])} "
            f"({as_interval(best['iou_low'], best['iou_high'], as_score)}; null "
            f"{as_score(best['null_iou'])})."
        )
    text += f" {unscored:,} maps are excluded because the gate or Grad-CAM is constant."
    return f"{text} {view_note(shown.gates, MAP)}{_other_positions(shown.left_out)}".rstrip()


def _cells(grid: tuple[int, int]) -> str:
    """Name the grid of Grad-CAM, and warn if it is coarse."""
    rows, columns = grid
    text = f"Grad-CAM has {rows}×{columns} cells"
    if rows * columns >= _FEW_CELLS:
        return f"{text}."
    top = as_count(top_count(rows * columns), "cell")
    return f"{text}, so that the top 20% is {top}, and the scores are coarse."


def _above_null(whole: pd.DataFrame, what: str) -> str:
    """Count the gates that agree more with the same image, among those that can be compared.

    Args:
        whole: the rows of `MapAgreement` for all images.
        what: what the gates are called.
    """
    low = whole["above_null_low"].dropna()
    if low.empty:
        return (
            f"Whether {what} agree more with the Grad-CAM of the same image than with that of "
            "another image is not tested: too few images are scored."
        )
    text = (
        f"{int((low > 0).sum())} of {len(low)} {what} agree more with the Grad-CAM of the same "
        "image than with that of another image (95% CI of the difference in Spearman correlation "
        "above 0, not corrected)."
    )
    if untested := len(whole) - len(low):
        text += f" Not tested, because too few images are scored: {as_count(untested, 'gate')}."
    return text


def _beside_center(whole: pd.DataFrame) -> str:
    """Count the gates that agree more with the center than with Grad-CAM; starts with a space."""
    compared = whole[whole["center_spearman"].notna()]
    without = int((whole["scored"] > 0).sum()) - len(compared)
    if compared.empty:
        return (
            " A grid with at most two cells per side has no center, so that no gate is compared "
            "with a Gaussian at the image center."
            if without
            else ""
        )
    central = int((compared["center_spearman"] > compared["spearman"]).sum())
    text = (
        " The mean correlation with a Gaussian at the image center is higher than that with "
        f"Grad-CAM at {central} of {len(compared)} (not tested)."
    )
    if without:
        text += (
            f" Not compared with the Gaussian: {as_count(without, 'gate')}, whose grid has at most "
            "two cells per side and so no center."
        )
    return text


def _other_positions(names: Sequence[str]) -> str:
    """Return a sentence that names the gates that cannot be compared; empty if there are none."""
    if not names:
        return ""
    verb = "varies" if len(names) == 1 else "vary"
    return (
        f"{', '.join(names)} {verb} along a sequence or along frames, and Grad-CAM along rows and "
        "columns, so they cannot be compared."
    )


register_plot(
    Plot(
        name="map_agreement",
        title="Map agreement",
        about="Agreement of the spatial gates with Grad-CAM, over depth, with three nulls.",
        subject=Recording,
        compute=compute,
        draw=draw,
        lay_out=lay_out,
        caption=caption,
        table=attrgetter("summary"),
        needs=(
            needs.gates(MAP),
            needs.grad_cam(),
        ),
        place=90,
    )
)
