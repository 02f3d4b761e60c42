"""Whether the class can be decoded from the gates, and whether the network uses them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import addressed
import cached
import downloads
import pandas as pd
import streamlit as st
from cached import Intervened, Run
from widgets import chosen_run, literal, percent, section, show_plot, table_height
from widgets_jobs import job_panel, start_button

from attnscope.dashboard.folds import Folded, find_folds
from attnscope.plots import Plot, Unavailable, plots_for, subjects
from attnscope.plots.text import as_count, as_points, with_minus
from attnscope.recording.places import outcomes_folder, run_of
from attnscope.report.advice import intervene_command
from attnscope.shell import shell_command
from attnscope.statistics.noninferiority import fewest_images

_QUICK_EDITS = ("mean", "constant", "swap_any")  # a gate is used if the best constant costs
_QUICK_IMAGES = 180
INTERVENTIONS, CONSTANTS = "Interventions", "Constants in place of gates"

_OTHER_TABLES = {
    "constants": "Constants: the best one of each gate, chosen on images that are not scored",
    "ablation": "Ablation: channels replaced by their mean, compared with random channels",
    "erasing_areas": "Deletion and insertion: pixels deleted or restored in the order of a map",
    "randomization": "Randomization: parameters reinitialized, compared with other seeds",
}


@section
def _plot(intervened: Intervened, plot: Plot[Any, Any]) -> None:
    show_plot(plot, partial(cached.usage_plot, intervened))


@section
def _verdicts(intervened: Intervened) -> None:
    try:
        usage = cached.gate_usage(intervened)
    except Unavailable:
        return  # the plot above shows the reason
    st.subheader("Verdict per gate")
    st.caption(
        "Probe accuracy: balanced accuracy of a linear probe that predicts the class from the "
        "gate; chance: the same with permuted labels. Removal: accuracy with the image's own "
        "gate minus accuracy with the best constant, in percentage points, and the log loss that "
        "the constant adds (nats), each at its best temperature, so that a change in confidence "
        "alone does not count. Resample: the same for the gate of any other image. Misinformation: "
        "accuracy with the gate of another image of the same class minus accuracy with that of "
        "another class; matched: with donors of about equal brightness and contrast. Oracle: "
        "accuracy with the mean gate of the true class minus accuracy with the own gate. A gate is "
        "called used only if removal costs: accuracy is significantly lower or log loss higher. "
        "The intervals in parentheses are 95% CIs, which are not corrected; verdicts rest on p "
        "values after Holm's correction over all gates and blocks, and over accuracy and "
        f"log loss. The log loss of the network is {usage['own_log_loss'].max():.3g} nats. If "
        "no use is detected, a loss of the percentage points in the column Detectable would "
        "have been seen with a power of 80%, if no image is gained."
    )
    effects = {
        title: [_effect(row, columns, unit) for _, row in usage.iterrows()]
        for title, unit, columns in (
            ("Removal (points)", 100, ("removal_value", "removal_low", "removal_high")),
            (
                "Removal (log loss, nats)",
                1,
                ("removal_log_loss", "removal_log_loss_low", "removal_log_loss_high"),
            ),
            ("Resample (points)", 100, ("resample_value", "resample_low", "resample_high")),
            (
                "Misinformation (points)",
                100,
                ("misinformation_value", "misinformation_low", "misinformation_high"),
            ),
            ("Matched (points)", 100, ("matched_value", "matched_low", "matched_high")),
            ("Oracle (points)", 100, ("oracle_value", "oracle_low", "oracle_high")),
        )
        if usage[columns[0]].notna().any()
    }
    st.dataframe(
        pd.DataFrame(
            {
                "Gate": usage["gate"],
                "Verdict": usage["verdict"],
                "Probe accuracy": 100 * usage["balanced_accuracy"],
                "Chance": 100 * usage["chance"],
                **effects,
                "Detectable (points)": 100 * usage["detectable"],
            }
        ),
        hide_index=True,
        column_config={
            name: st.column_config.NumberColumn(format="%.1f%%")
            for name in ("Probe accuracy", "Chance")
        }
        | {"Detectable (points)": st.column_config.NumberColumn(format="%.1f")},
        height=table_height(len(usage), 18),
    )
    downloads.offer("verdicts", table=partial(cached.gate_usage, intervened))


def _effect(row: pd.Series, columns: tuple[str, str, str], unit: float) -> str:
    """Write a value with its interval, or that it was not measured."""
    digits = 2 if unit == 100 else 3  # points, or nats
    value, low, high = (round(unit * float(row[column]), digits) + 0.0 for column in columns)
    if value != value:
        return "not measured"
    interval = f" ({low:+.{digits}f} to {high:+.{digits}f})" if low == low else " (no interval)"
    return f"{value:+.{digits}f}{interval}".replace("-", "\N{MINUS SIGN}")


@section
def _other_tables(intervened: Intervened) -> None:
    for name, title in _OTHER_TABLES.items():
        if name in intervened.outcomes.tables:
            with st.expander(title):
                st.dataframe(intervened.outcomes.table(name), hide_index=True)


def _is_full(intervened: Intervened) -> bool:
    """Return whether gates were also replaced by those of the same class and of other classes."""
    made = intervened.outcomes.replacement
    return made is not None and {"swap_same", "swap_other"} <= set(made["edit"])


def _inside(place: Path) -> bool:
    """Return whether something would be written inside the dashboard's folder."""
    return place.resolve().is_relative_to(cached.folder().resolve())


def _target(run: Run) -> tuple[Path, list[str]]:
    """Return what commands work on, and the options that name the split."""
    place = run_of(run.recording.folder)
    split = run.recording.folder.resolve().name
    if place is None:
        return run.recording.folder, []
    return place, [] if split == "test" else ["--split", split]


@section
def _measure(run: Run, command: str, is_quick_done: bool) -> None:
    """Offer to run the interventions, quickly or in full."""
    target, options = _target(run)
    if not _inside(outcomes_folder(run.recording.folder)):
        st.markdown("Run them with this command, then reload this page:")
        st.code(command, language="sh")
        return
    if not is_quick_done:
        _measure_quickly(run, target, options)
    with st.container(border=True):
        st.markdown(
            "**In full**: also by gates of images of the same class and of other classes, and on "
            "more images. It says whether the network is sensitive to the gate of another class."
        )
        start_button(
            "Measure in full", f"Interventions on {run.label}",
            ["intervene", target, *options], target,
        )  # fmt: skip
    st.caption("Or in a terminal, with the options that you need:")
    st.code(command, language="sh")


def _measure_quickly(run: Run, target: Path, options: list[str]) -> None:
    images = min(_QUICK_IMAGES, max(1, len(run.recording) // 2))
    with st.container(border=True):
        st.markdown(
            f"**Quickly**, in minutes: gates are replaced by their mean, by the best constant and "
            f"by the gate of another image, on {images} images."
        )
        start_button(
            "Measure quickly",
            f"Interventions on {run.label}",
            ["intervene", target, *options, "--edits", *_QUICK_EDITS, "--images", str(images)],
            target,
            kind="primary",
        )


@section
def _folds(run: Run) -> None:
    """Show the folded networks that were made of this one, and offer to make one."""
    st.subheader(
        "Folded networks",
        help="A fold replaces gates by constants, which are multiplied into the layers beside them "
        "where possible. The network becomes smaller and faster. See docs/explanation/fold.md.",
    )
    found = find_folds(cached.folder(), run.recording)
    for each in found:
        _fold(each)
    target, _ = _target(run)
    name = target.resolve().name
    st.markdown(
        "A fold writes a new, smaller network beside this one."
        if found
        else "No folded network in this folder was made from this one."
    )
    tested, every = st.columns(2, gap="large")
    with tested, st.container(border=True):
        st.markdown(
            "**Gates that pass a test**: one half of the validation images orders the gates, and "
            "the other half tests that less than one percentage point of accuracy is lost. That "
            f"half must have at least {fewest_images(0.01)} images."
        )
        _fold_button(
            "Fold what passes the test", f"Fold of {run.label}", target, f"{name}-folded-tested", []
        )
    with every, st.container(border=True):
        st.markdown(
            "**All gates**, whatever it costs: nothing is tested, and the loss is measured once on "
            "the test images."
        )
        _fold_button(
            "Fold all gates", f"Fold of all gates of {run.label}", target, f"{name}-folded",
            ["--gates", "all"],
        )  # fmt: skip


def _fold_button(label: str, title: str, target: Path, name: str, options: list[str]) -> None:
    out = cached.folder() / name
    words = ["fold", target, "--out", out, *options]
    if not _inside(target) or target.resolve() == cached.folder().resolve():
        st.code(shell_command("fold", target, "--out", f"{target}-folded", *options))
    elif out.exists():
        st.caption(f"{literal(name)} is in this folder already. Remove it to make it again.")
    else:
        start_button(label, title, words, target)


def _fold(folded: Folded) -> None:
    before, after = folded.parameters
    with st.container(border=True):
        st.markdown(f"**{literal(folded.folder.name)}**")
        gates, accuracy, loss, size = st.columns(4)
        gates.metric("Folded gates", f"{len(folded.gates)} of {folded.total}")
        if folded.losses is not None:
            found = folded.losses
            accuracy.metric(
                f"Accuracy ({found.split})", percent(found.after),
                f"{as_points(found.after - found.before)} points", delta_color="off",
                delta_arrow="off",
                help=f"On {found.images:,} images that chose no gate; before the fold it was "
                f"{percent(found.before)}. {percent(found.agreement)} of the predictions stay.",
            )  # fmt: skip
            loss.metric(
                "Loss (points)",
                with_minus(f"{found.loss:.2f}"),
                with_minus(f"95% CI {found.low:.2f} to {found.high:.2f}"),
                delta_color="off", delta_arrow="off",
                help="Loss of accuracy in percentage points on the same images, with its 95% "
                "confidence interval.",
            )  # fmt: skip
        size.metric(
            "Parameters", f"{after:,}", f"{after - before:+,}".replace("-", "\N{MINUS SIGN}"),
            delta_color="off", delta_arrow="off",
            help=f"{before:,} before the fold. {folded.stored_values:,} values of constants are "
            "stored beside the parameters.",
        )  # fmt: skip
        if folded.tolerance is None:
            st.warning(
                "Nothing was tested: the gates were named, so that no test says how much accuracy "
                "is lost at most on other images."
            )
        else:
            st.caption(
                f"The gates were chosen by a test on validation images: together they lose less "
                f"than {folded.tolerance:g} percentage points of accuracy, with 95% confidence."
            )
        missing = folded.total - len(folded.gates)
        if missing:
            st.caption(f"{as_count(missing, 'gate')} still depend on the image.")


def _interventions(run: Run, command: str | None) -> None:
    """Show the interventions, or offer to start them."""
    intervened = cached.interventions(run)
    if intervened is None:
        how = "Start them here" if command else "Run them with attnscope.interventions in Python"
        st.info(
            "There are no interventions on this recording, or the recording has changed since. "
            f"Interventions run the network again and take minutes. {how}."
        )
        if command:
            _measure(run, command, False)
        return
    if intervened.outcomes.replacement is None and intervened.outcomes.tables.keys() <= {
        "decoding"
    }:
        st.info(
            "No gate has been replaced yet. If attnscope intervene is running now, reload this "
            "page when it has finished."
        )
        if command:
            _measure(run, command, False)
        return
    for plot in plots_for(subjects.Intervened(run.recording, intervened.outcomes)):
        _plot(intervened, plot)
    _verdicts(intervened)
    _other_tables(intervened)
    if command and not _is_full(intervened):
        with st.expander("Measure more", icon=":material/add:"):
            _measure(run, command, True)


run = chosen_run()
st.title("Decodable and used")
st.markdown(
    f"{literal(run.label)}: how well the class can be decoded from each gate, and how much "
    "accuracy the network loses when the gate is replaced."
)
if not run.recording.gates:
    st.info("This network has no gates.")
    st.stop()
if not run.recording.has_accuracy:
    st.info(f"Interventions measure the accuracy, and there are {run.recording.no_accuracy}.")
    st.stop()
command = intervene_command(run.recording)
view = INTERVENTIONS
if command:
    view = addressed.segmented_control(
        st, "View", [INTERVENTIONS, CONSTANTS], "usage_view", label_visibility="collapsed"
    )
job_panel()
if view == INTERVENTIONS:
    _interventions(run, command)
else:
    _folds(run)
