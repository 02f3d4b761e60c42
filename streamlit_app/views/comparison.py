"""Two networks on the same images: accuracy, confusion, gates, Grad-CAM and single images; or two
configurations over several seeds.

This file has more than 400 lines, because it is one page whose views share their tables and files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import addressed
import background
import cached
import downloads
import numpy as np
import pandas as pd
import streamlit as st
from cached import Run, compare
from cached.compare import EVERY, NEITHER, ONLY_A, ONLY_B
from cached.confusion import BY_NUMBER, BY_SIMILARITY
from matrices import PREDICTED, TRUE
from matrix_panel import Panel
from widgets import (
    browse,
    choose_class,
    chosen_run,
    in_percent,
    literal,
    page_of,
    percent,
    row_of_controls,
    section,
    show_grid,
    show_plot,
    table_height,
)

from attnscope.kinds import PER_CHANNEL
from attnscope.plots import PLOTS, needs, plots_of
from attnscope.plots.builtin.per_class_accuracy import no_difference_sentence
from attnscope.plots.subjects import Comparison, SeedComparison
from attnscope.plots.text import as_plain_points
from attnscope.statistics.inference import LEVEL, significant

IMAGES = 6
_CELLS = 1_000  # that the table of differences shows
NETWORKS, SEEDS = "Two networks", "Two configurations over seeds"
_TEST = "p"  # stands for the columns of a test
_CI = "95% confidence interval of the difference, in percentage points: "


def _show(name: str, a: Run, b: Run) -> bool:
    return show_plot(PLOTS[name], partial(cached.comparison, a, b), of=_files(a, b))


def _files(a: Run, b: Run) -> str:
    """Return what names of downloaded files say of the two networks."""
    return f"{a.label}_{b.label}"


def _interval(table: pd.DataFrame, low: str = "low", high: str = "high") -> pd.Series[str]:
    """Return the interval of each row as text, in percentage points."""
    ends = (table[end].map(as_plain_points) for end in (low, high))
    first, last = ends
    return (first + " to " + last).where(table[low].notna(), "–")


def _accuracy(a: Run, b: Run) -> None:
    if not background.ready(f"accuracy {a.key} {b.key}", partial(compare.accuracy, a, b)):
        return
    comparison = compare.accuracy(a, b)
    whole = comparison.iloc[0]
    columns = st.columns(4)
    columns[0].metric("Accuracy (first)", percent(whole["accuracy_a"]), border=True)
    columns[1].metric("Accuracy (second)", percent(whole["accuracy_b"]), border=True)
    columns[2].metric(
        "Difference (second − first)", f"{100 * whole['difference']:+.2f} points", border=True,
        help=f"In percentage points; 95% CI {_interval(comparison).iloc[0]} (Bonett and Price, "
        "over images).",
    )  # fmt: skip
    columns[3].metric(
        "p (McNemar)", f"{whole['p']:.3g}", border=True,
        help="McNemar's exact test on the images that only one network classifies correctly. Null "
        "hypothesis: such an image is equally likely to be either network's. It "
        "compares these two trained networks and says nothing about other seeds.",
    )  # fmt: skip
    _name_different(comparison, no_difference_sentence(comparison.iloc[1:]))
    _show("per_class_accuracy", a, b)
    _show_classes(
        comparison, "McNemar", "Second minus first network.", ["95% CI", "only_a", "only_b", _TEST],
        {"95% CI": ("low", "high", "Bonett and Price's, over the images of the class.")},
    )  # fmt: skip


def _show_classes(
    comparison: pd.DataFrame,
    test: str,
    difference: str,
    order: Sequence[str],
    intervals: Mapping[str, tuple[str, str, str]],
) -> None:
    """Show the table of accuracies, over all images and for each class.

    Args:
        comparison: of two networks, or of two configurations over seeds.
        test: name of the test that gives p.
        difference: what the difference is.
        order: the columns behind the difference: intervals, other columns, and `_TEST`.
        intervals: title -> columns of both ends, and how the interval is computed.
    """
    shares = {"accuracy_a": "Accuracy (first)", "accuracy_b": "Accuracy (second)"}
    ends = {title: _interval(comparison, *found[:2]) for title, found in intervals.items()}
    behind = [name for each in order for name in (("p", "p_holm") if each == _TEST else (each,))]
    st.dataframe(
        in_percent(comparison, [*shares, "difference"]).assign(**ends),
        hide_index=True,
        height=table_height(len(comparison)),
        column_order=["class", "count", *shares, "difference", *behind],
        column_config={
            "class": "Class",
            "count": "Images",
            "difference": st.column_config.NumberColumn(
                "Difference (points)", format="%+.2f", help=difference
            ),
            "only_a": "Only first correct",
            "only_b": "Only second correct",
            "p": st.column_config.NumberColumn(f"p ({test})", format="%.3g"),
            "p_holm": st.column_config.NumberColumn(
                "p (Holm)", format="%.3g", help="Corrected over the classes."
            ),
            **{
                name: st.column_config.NumberColumn(label, format="%.2f%%")
                for name, label in shares.items()
            },
            **{
                title: st.column_config.TextColumn(title, help=f"{_CI}{how}")
                for title, (_, _, how) in intervals.items()
            },
        },
    )


def _name_different(comparison: pd.DataFrame, otherwise: str) -> None:
    """Name the classes with a significant difference, or say that there is none."""
    differs = comparison.iloc[1:]
    differs = differs[significant(differs["p_holm"])]
    if not len(differs):
        st.info(otherwise)
        return
    names = ", ".join(literal(name) for name in differs["class"].head(30))
    more = f" and {len(differs) - 30} more" if len(differs) > 30 else ""
    st.warning(
        f"Classes with a significant difference in accuracy (p < {LEVEL:g} after Holm's "
        f"correction): {names}{more}."
    )


@section
def _confusion(a: Run, b: Run) -> None:
    if not background.ready(f"confusion {a.key} {b.key}", partial(compare.confusion_table, a, b)):
        return
    compare.confusion_table(a, b)  # raises InputError if the recordings are of different images
    classes = a.recording.classes
    by = addressed.segmented_control(
        st, "Order of the classes", [BY_NUMBER, BY_SIMILARITY], "order",
        help="By similarity: classes that the first network often confuses are neighbors.",
    )  # fmt: skip
    names = [classes[k] for k in cached.confusion.order(a, by)]
    panel = Panel("confusion_difference", _files(a, b), names)
    window = panel.window()
    if window is None:
        return
    cells, look = compare.confusion_cells(a, b, by)
    tooltips = {
        "value": ("difference", "+.2%"),
        "count_a": ("images, first", ","),
        "count_b": ("images, second", ","),
        "rate_a": ("rate, first", ".2%"),
        "rate_b": ("rate, second", ".2%"),
    }
    st.caption(
        "How much more often (red) or less often (blue) the second network predicts a class for "
        "the images of a true class. On the diagonal, where predictions are correct, red is an "
        "improvement; elsewhere, blue is."
    )
    with st.container(horizontal=True, gap="medium"):
        left = st.container(width="content") if panel.many else None
        with st.container(width="content"):
            panel.offer_window(window, look, panel.chart(window, look, cells, tooltips))
        if left is None:
            with st.container(width="stretch"):
                _differences(a, b, panel)
    if left is not None:
        with left:  # after the window, of which it shows the place
            changed = np.abs(cells["count_b"] - cells["count_a"])
            panel.overview(
                compare.confusion_overview(a, b, by), changed, "changed predictions",
                lambda: (cells["value"], look), lambda: compare.confusion_table(a, b),
            )  # fmt: skip
        _differences(a, b, panel)
    _images_of_cell(a, b)


def _largest(a: Run, b: Run) -> pd.DataFrame:
    table = compare.confusion_table(a, b)
    order = np.argsort(-table["difference"].abs().to_numpy(), kind="stable")
    return table.iloc[order[:_CELLS]]


def _difference_clicked(a: Run, b: Run, panel: Panel) -> None:
    chosen = st.session_state["differences"]["selection"]["cells"]
    if chosen:
        cell = _largest(a, b).iloc[chosen[0][0]]
        panel.choose(cell[TRUE], cell[PREDICTED])


def _differences(a: Run, b: Run, panel: Panel) -> None:
    st.markdown("**Largest differences.** Click one to see its images.")
    table = _largest(a, b)
    st.dataframe(
        in_percent(table, ["difference"]).assign(interval=_interval(table)), hide_index=True,
        key="differences", on_select=partial(_difference_clicked, a, b, panel),
        selection_mode="single-cell", height=table_height(len(table), 13),
        column_order=[TRUE, PREDICTED, "count_a", "count_b", "difference", "interval"],
        column_config={
            TRUE: "True",
            PREDICTED: "Predicted",
            "count_a": st.column_config.NumberColumn(
                "First", width=55, help="Images of the true class that the first network predicts "
                "as this class.",
            ),
            "count_b": st.column_config.NumberColumn(
                "Second", width=65, help="The same of the second network."
            ),
            "difference": st.column_config.NumberColumn(
                "Points", format="%+.1f", width=60,
                help="Difference of the two rates, second minus first, in percentage points.",
            ),
            "interval": st.column_config.TextColumn(
                "95% CI", width=100, help=f"{_CI}Bonett and Price's, over the images of the true "
                "class. It is not corrected for the number of pairs.",
            ),
        },
    )  # fmt: skip
    whole = compare.confusion_table(a, b)
    if len(whole) > _CELLS:
        st.caption(
            f"The {_CELLS:,} largest of {len(whole):,} differences; the file has all of them."
        )
    name = downloads.file_name("confusion_differences", _files(a, b))
    downloads.offer(name, table=lambda: compare.confusion_table(a, b))


def _images_of_cell(a: Run, b: Run) -> None:
    """Show the images that exactly one of the networks puts into the chosen cell."""
    classes = a.recording.classes
    left, right = st.columns(2)
    true = choose_class(a, left, "True class", TRUE, "Choose one")
    predicted = choose_class(a, right, "Predicted class", PREDICTED, "Choose one")
    if addressed.is_unknown(TRUE, PREDICTED):
        return
    if true is None or predicted is None:
        st.info("Click a cell of the matrix, or choose two classes above, to see the images.")
        return
    as_class = [
        (run.recording.labels == classes.index(true))
        & (run.recording.predictions == classes.index(predicted))
        for run in (a, b)
    ]
    rows = np.flatnonzero(as_class[0] != as_class[1]).tolist()
    st.markdown(
        f"Images of class {literal(true)} that exactly one of the networks predicts as "
        f"{literal(predicted)}:"
    )
    _side_by_side(a, b, rows, f"cell {a.key} {b.key} {true!r} {predicted!r}")


def _gates(a: Run, b: Run) -> None:
    _show("gates_over_depth", a, b)
    st.subheader("Channel gates of each class", anchor=False)
    wanted = addressed.toggle(
        st, "Compare the class profiles", "profiles",
        help="A class profile is the mean of each channel over the images of a class. The "
        "comparison resamples images, which takes seconds (`docs/reference/metrics.md`).",
    )  # fmt: skip
    if not wanted:
        return
    st.caption(
        "Distance of the mean channel gates of each class from the mean over all classes (root "
        "mean square over channels). The channels of two networks do not correspond to each other, "
        "so single channels are not compared."
    )
    if not _plots_that_need(PER_CHANNEL, a, b):
        return
    left, right = st.columns([3, 2], gap="large")
    left.dataframe(
        cached.compare_profiles(a, b),
        hide_index=True,
        column_config={
            "gate": "Gate",
            "class": "Class",
            "distance_a": st.column_config.NumberColumn("Distance (first)", format="%.4f"),
            "distance_b": st.column_config.NumberColumn("Distance (second)", format="%.4f"),
        },
    )
    right.dataframe(
        cached.compare_class_order(a, b),
        hide_index=True,
        column_config={
            "gate": "Gate",
            "spearman": st.column_config.NumberColumn(
                "Spearman (distances)", format="%.3f",
                help="How similarly the two networks order the classes by distance. Images that "
                "both share, and classes of few images, make the orders agree by themselves.",
            ),
        },
        column_order=["gate", "spearman"],
    )  # fmt: skip


def _grad_cam(a: Run, b: Run) -> None:
    st.caption(
        "Agreement between the Grad-CAM maps of the two networks for the same image. The gray "
        "marks show the agreement with the Grad-CAM of another image, as a reference."
    )
    if not _plots_that_need(needs.GRAD_CAM, a, b):
        return
    if a.recording.grad_cam_layers and b.recording.grad_cam_layers:  # otherwise the plot says so
        _grad_cam_table(a, b)
    st.subheader("Spatial gate and Grad-CAM", anchor=False)
    st.caption("Agreement of the last spatial gate of each network with its own Grad-CAM.")
    _show("per_class_agreement", a, b)


def _grad_cam_table(a: Run, b: Run) -> None:
    numbers = {
        "spearman": "Spearman",
        "null_spearman": "Spearman (other image)",
        "iou": "IoU",
        "null_iou": "IoU (other image)",
    }
    st.dataframe(
        cached.compare_grad_cam(a, b),
        hide_index=True,
        column_order=["class", *numbers, "scored"],
        height=table_height(1 + len(a.recording.classes)),
        column_config={
            name: st.column_config.NumberColumn(label, format="%.3f")
            for name, label in numbers.items()
        }
        | {"class": "Class", "scored": "Images scored"},
    )


def _images(a: Run, b: Run) -> None:
    if not background.ready(f"accuracy {a.key} {b.key}", partial(compare.accuracy, a, b)):
        return
    compare.accuracy(a, b)  # raises InputError if the recordings are of different images
    _chosen_images(a, b)


def _all(a: Run, b: Run) -> None:
    browse(
        {plot.name: partial(cached.comparison, a, b) for plot in plots_of(Comparison)},
        "pair_figure",
        _files(a, b),
    )


def _plots_that_need(what: str, a: Run, b: Run) -> bool:
    """Show some plots, and return whether the results of all are there."""
    shown = [_show(plot.name, a, b) for plot in plots_of(Comparison) if plot.asks(what)]
    return all(shown)


@section
def _chosen_images(a: Run, b: Run) -> None:
    place = row_of_controls()
    names = a.recording.classes
    only = choose_class(a, place, "True class", TRUE, "All classes", width=220)
    which = addressed.segmented_control(place, "Images", [EVERY, ONLY_A, ONLY_B, NEITHER], "which")
    if addressed.is_unknown(TRUE):
        return
    wanted = compare.rows_where(a, b, which)
    if only is not None:
        wanted &= a.recording.labels == names.index(only)
    rows = np.flatnonzero(wanted).tolist()
    _side_by_side(a, b, rows, f"side {a.key} {b.key} {only!r} {which}")


def _side_by_side(a: Run, b: Run, rows: list[int], key: str) -> None:
    """Show images with the predictions and the Grad-CAM of both networks, one page at a time."""
    st.subheader(f"{len(rows):,} {'image' if len(rows) == 1 else 'images'}", anchor=False)
    if not rows:
        return
    shown = page_of(rows, key, IMAGES)
    show_grid(compare.side_by_side(a, b, shown))
    text = (
        "Each row is one image. Its label gives the number of the image, the true class and, after "
        "the arrows, the classes predicted by the first and the second network, with the "
        "probability of each."
    )
    if a.recording.grad_cam_layers or b.recording.grad_cam_layers:
        text += (
            " Grad-CAM is shown after the ReLU, for the predicted class. Each network has its own "
            "color scale."
        )
    st.caption(text)
    downloads.offer(
        downloads.file_name("images", _files(a, b)),
        table=lambda: _listed(a, b, rows),
    )


def _listed(a: Run, b: Run, rows: list[int]) -> pd.DataFrame:
    """Return all of these images as a table."""
    names = np.array(a.recording.classes, dtype=object)
    table = {
        "row": rows,
        "path": a.recording.rows["path"].to_numpy()[rows],
        "true": names[a.recording.labels[rows]],
    }
    for run, side in ((a, "a"), (b, "b")):
        table[f"predicted_{side}"] = names[run.recording.predictions[rows]]
        table[f"confidence_{side}"] = cached.confidence(run)[rows]
    return pd.DataFrame(table)


def _two_networks(run: Run, found: dict[str, Run]) -> None:
    others = compare.others(run, found)
    if not others:
        st.info(
            "A comparison needs two recordings of the same images, and this folder contains one "
            "recording."
        )
        return
    asked = "other" in st.query_params
    first = None if asked else compare.first_match(run, found, others)  # it can take a while
    if first is None and not asked:
        st.info("No other recording in this folder is of the same images.")
        return
    label = addressed.named_selectbox(
        st.sidebar, "Compare with", others, "other", "recording", default=first
    )
    if label is None:
        return
    other = found[label]
    st.markdown(f"First network {literal(run.label)}, second network {literal(other.label)}.")
    views = {
        "Accuracy": _accuracy, "Confusion": _confusion, "Gates": _gates, "Grad-CAM": _grad_cam,
        "Images": _images, "All figures": _all,
    }  # fmt: skip
    view = addressed.segmented_control(
        st, "View", list(views), "comparison_view", label_visibility="collapsed"
    )
    views[view](run, other)


@section
def _over_seeds(kinds: dict[str, list[Run]]) -> None:
    """Compare two configurations over the seeds that both have."""
    firsts = [name for name, kind in kinds.items() if _partners(kinds, kind)]
    left, right = st.columns(2)
    name_a = addressed.named_selectbox(
        left, "First configuration", firsts, "first", "configuration"
    )
    if name_a is None:
        return
    partners = _partners(kinds, kinds[name_a])
    name_b = addressed.named_selectbox(
        right, "Second configuration", partners, "second", "configuration", scope=name_a
    )
    if name_b is None:
        return
    a, b, seeds = compare.seed_pairs(kinds[name_a], kinds[name_b])
    alone = len(kinds[name_a]) + len(kinds[name_b]) - 2 * len(seeds)
    text = f"Seeds of both: {', '.join(str(seed) for seed in seeds)}."
    if alone:
        text += f" {alone} {'recording has' if alone == 1 else 'recordings have'} no partner."
    st.caption(
        f"{text} Each pair of networks has the same seed; the seed is the sampling unit of the "
        "differences."
    )
    keys = " ".join(run.key for run in (*a, *b))
    if not background.ready(f"over seeds {keys}", partial(compare.over_seeds, a, b)):
        return
    comparison = compare.over_seeds(a, b)
    whole = comparison.iloc[0]
    columns = st.columns(4)
    columns[0].metric("Mean accuracy (first)", percent(whole["accuracy_a"]), border=True)
    columns[1].metric("Mean accuracy (second)", percent(whole["accuracy_b"]), border=True)
    columns[2].metric(
        "Difference (second − first)", f"{100 * whole['difference']:+.2f} points", border=True,
        help=f"In percentage points; 95% CI over seeds {_interval(comparison).iloc[0]}.",
    )  # fmt: skip
    columns[3].metric(
        "p (paired t test)", "–" if np.isnan(whole["p"]) else f"{whole['p']:.3g}", border=True,
        help="Paired t test over the seeds. Null hypothesis: the mean difference is 0.",
    )  # fmt: skip
    none = f"The difference is significant for no class, with {len(seeds)} seeds of each."
    _name_different(comparison, none)
    names = (name_a, name_b)
    files = f"{name_a}_{name_b}"
    for plot in plots_of(SeedComparison):
        show_plot(plot, partial(cached.seeds, a, b, names), of=files)
    over_seeds, over_images = "95% CI over seeds", "95% CI over images"
    _show_classes(
        comparison, "t test", "Second minus first, mean over seeds.",
        [over_seeds, _TEST, over_images],
        {
            over_seeds: ("low", "high", "Student's, over the seeds."),
            over_images: (
                "image_low", "image_high", "bootstrap over images, for these networks only."
            ),
        },
    )  # fmt: skip


def _partners(kinds: dict[str, list[Run]], kind: list[Run]) -> list[str]:
    return [name for name, other in kinds.items() if compare.can_pair(kind, other)]


run = chosen_run()
found, _ = cached.runs()
st.title("Comparison")
kinds, problems = compare.configurations(found)
for line in problems:
    st.caption(f"Configurations over seeds are not compared: {literal(line)}")
what = NETWORKS
if any(_partners(kinds, kind) for kind in kinds.values()):
    what = addressed.segmented_control(st, "Compare", [NETWORKS, SEEDS], "compare")
if what == SEEDS:
    _over_seeds(kinds)
else:
    _two_networks(run, found)
