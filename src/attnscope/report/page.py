"""A self-contained HTML page about one or more recordings."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from importlib.resources import files as package_files
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from attnscope import statistics
from attnscope.errors import InputError, first_line
from attnscope.files import StrPath, expect_file, write_bytes
from attnscope.layout import METHODS_SUFFIX
from attnscope.plots import Plot, Unavailable, plots_of
from attnscope.plots.maps import SEED
from attnscope.plots.subjects import (
    Comparison,
    Intervened,
    SeedComparison,
    Seeds,
    gate_counts,
    has_grad_cam,
)
from attnscope.plots.text import (
    as_interval,
    as_number,
    as_p_number,
    as_percent,
    as_plain_points,
    as_points,
)
from attnscope.plots.titles import two_names
from attnscope.plots.verdict_table import verdict_table
from attnscope.progress import progress_bar
from attnscope.recording.outcomes import Outcomes, find_outcomes
from attnscope.recording.places import distinct_names
from attnscope.recording.recording import Recording
from attnscope.report.advice import intervene_command
from attnscope.report.citing import Methods
from attnscope.report.files import lines_of, plots_of_recording, render, warn_missing_characters
from attnscope.report.methods import Run as Described
from attnscope.report.methods import Shown, methods_of
from attnscope.statistics.inference import LEVEL, significant
from attnscope.statistics.predictions import CALIBRATION_MEASURES
from attnscope.writing import writing

DPI = 120
"""Resolution of the figures, all of which are embedded in the page."""

_KEYS = {
    "part": "split",  # of recordings that version 0.1 wrote
    "weights_sha256": "weights (SHA-256)",
    "training_sha256": "training settings (SHA-256)",
}
"""Keys of `Recording.about` -> what the page calls them."""

_log = logging.getLogger(__name__)


def write_report(folders: Sequence[StrPath], out: StrPath, *, methods: bool = False) -> Path:
    """Write one HTML page about one or more runs, with all figures embedded.

    It ends with a methods paragraph for a paper and its BibTeX, made from what was run.

    Args:
        folders: runs or recordings. The first is compared with each of the others, and
            configurations with several seeds are compared with each other.
        out: the file of the page.
        methods: also write the methods paragraph as Markdown and its references as BibTeX, beside
            the page: ``NAME-methods.md`` (with citations that pandoc reads) and ``NAME.bib``.

    Returns:
        ``out``.

    Raises:
        InputError: no run is given, ``out`` is a folder or cannot be created, another process is
            writing it (AS118), or a recording cannot be read.
    """
    if not folders:
        raise InputError(
            "AS914",
            "a report got no run; give at least one run folder: attnscope report RUN",
        )
    out = Path(out)
    beside = {
        "markdown": out.with_name(f"{out.stem}{METHODS_SUFFIX}"),
        "bibtex": out.with_suffix(".bib"),
    }
    for file in (out, *(beside.values() if methods else ())):
        expect_file(file)
    with writing(out):
        page, said = _page_of([Recording(folder) for folder in folders])
        write_bytes(out, page.encode(errors="backslashreplace"))
        if methods:
            write_bytes(beside["markdown"], said.markdown().encode())
            write_bytes(beside["bibtex"], said.bibtex().encode())
    return out


def _page_of(recordings: Sequence[Recording]) -> tuple[str, Methods]:
    """Return the page about some recordings, and how they were made."""
    warn_missing_characters(recordings)
    kinds = _kinds(recordings)
    names = distinct_names([r.name for r in recordings], [r.folder for r in recordings])
    drawn = _Drawn()
    context = {
        "title": "Attention gates: " + ", ".join(names),
        "level": LEVEL,
        "seeds": _use_in_kinds(kinds, drawn),
        "kinds": _compare_kinds(kinds, drawn),
        "comparisons": [
            _compare(Comparison(recordings[0], other), drawn) for other in recordings[1:]
        ],
        "runs": [
            {"name": name, **_describe(recording, drawn)}
            for name, recording in zip(names, recordings, strict=True)
        ],
    }
    said = methods_of(
        [
            Described(name, recording, _outcomes_of(recording))
            for name, recording in zip(names, recordings, strict=True)
        ],
        drawn.shown,
    )
    context |= {"methods": said.plain(), "bibtex": said.bibtex()}
    template = package_files("attnscope.report").joinpath("page.html.jinja")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": as_percent,
        "points": as_points,
        "plain_points": as_plain_points,
        "p_value": as_p_number,
        "number": as_number,
    }
    page = environment.from_string(template.read_text(encoding="utf-8")).render(context)
    return page, said


class _Drawn:
    """The figures that are embedded in the page."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []

    def embed(self, plot: Plot[Any, Any], subject: object) -> dict[str, Any]:
        """Draw a plot, and return its title, caption and figures for the template.

        Raises:
            Unavailable: the subject cannot have the plot.
            InputError: something that the plot needs cannot be read.
        """
        result = plot.result(subject)
        figures = [
            base64.b64encode(render(figure, "png", DPI)).decode() for figure in plot.figures(result)
        ]
        self.shown.append(Shown(plot.name, result))
        return {"title": plot.title, "caption": plot.words(result), "images": figures}


def _outcomes_of(recording: Recording) -> Outcomes | None:
    """Return the interventions; None if there are none, or if they cannot be read."""
    try:
        return find_outcomes(recording)
    except InputError:  # the log has said so
        return None


def _describe(recording: Recording, drawn: _Drawn) -> dict[str, Any]:
    wanted = plots_of_recording(recording)
    intervened = [subject for _, subject in wanted if isinstance(subject, Intervened)]
    figures = []
    left_out: dict[str, str] = {}
    coded: dict[str, str] = {}  # the same with the codes of the errors, for the log
    command = intervene_command(recording)
    if not intervened and command:
        reason = f"there are no interventions on this recording; run them with: {command}"
        left_out |= {
            plot.name: reason
            for plot in plots_of(Intervened)
            if not any(need.asked_for for need in plot.needs)  # other experiments make these
        }
    with progress_bar(len(wanted), "figure", alone=False) as bar:
        for plot, subject in wanted:
            try:
                figures.append(drawn.embed(plot, subject))
            except Unavailable as problem:
                left_out[plot.name] = first_line(problem)
                coded[plot.name] = str(problem)
            bar.update()
    for line in lines_of(coded):
        _log.warning("left out: %s", line)
    numbers: dict[str, Any] = {}
    if recording.has_accuracy:
        right = int((recording.labels == recording.predictions).sum())
        numbers = {
            "accuracy": right / len(recording),
            "right": right,
            "calibration": _calibration(recording),
            "metrics": statistics.class_metrics(recording).to_dict("records"),
        }
    else:
        left_out["accuracy"] = f"there are {recording.no_accuracy}"
    about = {key: value for key, value in recording.about.items() if value is not None}
    about |= recording.preparation
    return {
        "folder": str(recording.folder),
        "numbers": numbers,
        "count": len(recording),
        "classes": len(recording.classes),
        "gates": gate_counts(recording),
        "about": {_KEYS.get(k, k.replace("_", " ")): _lines(v) for k, v in about.items()},
        "figures": figures,
        "left_out": lines_of(left_out),
        "verdicts": verdict_table(intervened[0].outcomes).to_dict("records") if intervened else [],
    }


def _calibration(recording: Recording) -> list[dict[str, str]]:
    """Return each measure of the calibration with its interval, as text."""
    return [
        {
            "measure": CALIBRATION_MEASURES[row["measure"]],
            "value": as_number(row["value"]),
            "interval": as_interval(row["low"], row["high"]),
        }
        for _, row in statistics.calibration_summary(recording).iterrows()
    ]


def _kinds(recordings: Sequence[Recording]) -> dict[str, list[Recording]]:
    """Return the configurations; nothing if none has several seeds."""
    try:
        kinds = statistics.group_by_kind(recordings)
    except InputError as problem:
        _log.warning("the report has no comparison over seeds: %s", problem)
        return {}
    return kinds if max(map(len, kinds.values())) > 1 else {}


def _compare_kinds(kinds: Mapping[str, Sequence[Recording]], drawn: _Drawn) -> list[dict[str, Any]]:
    """Compare each pair of configurations over their seeds."""
    found = []
    for a, b in combinations(kinds, 2):
        about: dict[str, Any] = {"a": a, "b": b, "problem": "", "figures": []}
        subject = SeedComparison((a, b), kinds[a], kinds[b])
        try:
            about["figures"] += [drawn.embed(plot, subject) for plot in plots_of(SeedComparison)]
        except InputError as problem:  # the rest of the page does not depend on it
            _log.warning("the report does not compare %s and %s over seeds: %s", a, b, problem)
            about["problem"] = first_line(problem)
        found.append(about)
    return found


def _use_in_kinds(kinds: Mapping[str, Sequence[Recording]], drawn: _Drawn) -> list[dict[str, Any]]:
    """Draw the usage over seeds of each configuration for which all seeds have interventions."""
    found = []
    for kind, seeds in kinds.items():
        try:
            outcomes = [made for made in map(find_outcomes, seeds) if made is not None]
            if len(seeds) < 2 or len(outcomes) < len(seeds):
                continue
            subject = Seeds(kind, seeds, outcomes)
            figures = [drawn.embed(plot, subject) for plot in plots_of(Seeds)]
            found.append({"kind": kind, "figures": figures})
        except InputError as problem:  # the section of each run says what is missing
            _log.warning("the usage of %s over its seeds is left out: %s", kind, problem)
    return found


def _compare(pair: Comparison, drawn: _Drawn) -> dict[str, Any]:
    a, b = pair.a, pair.b
    names = two_names(*pair.names)
    found: dict[str, Any] = {"a": names[0], "b": names[1], "problem": "", "figures": []}
    try:
        accuracy = pair.accuracy
    except InputError as problem:  # the rest of the page does not depend on it
        _log.warning("the report does not compare %s and %s: %s", *pair.names, problem)
        return {**found, "problem": first_line(problem)}
    left_out: dict[str, str] = {}
    for plot in plots_of(Comparison):
        try:
            found["figures"].append(drawn.embed(plot, pair))
        except Unavailable as missing:
            left_out[plot.name] = first_line(missing)
    found["left_out"] = lines_of(left_out)
    for line in found["left_out"]:
        _log.warning("left out of the comparison: %s", line)
    found["has_grad_cam"] = has_grad_cam(a) and has_grad_cam(b)
    if found[
        "has_grad_cam"
    ]:  # both tables start with all images, then the classes in the same order
        cams = statistics.compare_grad_cam(a, b, "predicted", SEED)
        accuracy = accuracy.assign(grad_cam=cams["spearman"])
    differs = pd.Series(significant(accuracy["p_holm"]), accuracy.index)
    found["accuracy"] = accuracy.assign(differs=differs).to_dict("records")
    return found


def _lines(value: object) -> list[str]:
    """Return a value of `Recording.about` as one or more lines: a list has one for each item."""
    if isinstance(value, list):
        return [_plain(item) for item in value] or ["none"]
    return [_plain(value)]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value) or "none"
    return str(value)
