"""Files of pictures, and one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from importlib.resources import files as package_files
from itertools import combinations
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from attnscope import figures, statistics
from attnscope.errors import InputError
from attnscope.files import write_bytes
from attnscope.pictures import (
    COMPARISONS,
    FIGURES,
    USAGE,
    Picture,
    Unavailable,
    joint_of,
    seed_differences,
    seed_usage,
    usage_of,
    usages_of,
)
from attnscope.pictures.common import (
    LEVEL,
    SEED,
    as_number,
    as_p_number,
    as_percent,
    as_points,
    gate_counts,
    has_grad_cam,
    intervene_command,
    run_folder,
    two_names,
)
from attnscope.recording.outcomes import Outcomes, outcomes_folder, read_outcomes
from attnscope.recording.recording import Recording

DPI = 170
"""Of the PNG files."""

_REPORT_DPI = 120  # the page carries every picture in itself
_log = logging.getLogger(__name__)


def write_figures(folder: Path, out: Path | None = None) -> list[Path]:
    """Writes every figure of a recording, and of its interventions, as PNG and PDF.

    Args:
        folder: a run (its test part is taken) or a recording.
        out: where to; ``figures`` in the run when not given.

    Returns:
        The files. A figure that the recording cannot have is left out, and the log says so.

    Raises:
        InputError: there is no recording, or it cannot be read.
    """
    recording = Recording(folder)
    if out is None:
        run = run_folder(recording)
        out = (run or recording.folder) / "figures"
        if run and recording.folder.name != "test":
            out = out / recording.folder.name
    _tell_missing_characters([recording])
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in makers(recording).items():
        with figures.style():
            try:
                picture = make()
            except Unavailable as reason:
                _log.warning("%s left out: %s", name, reason)
                continue
            written += _write_picture(picture, out, name)
    return written


def write_comparison(folder_a: Path, folder_b: Path, out: Path) -> list[Path]:
    """Writes every figure of a comparison as PNG and PDF.

    Args:
        folder_a: a run or a recording.
        folder_b: another, of the same images in the same order.
        out: where to.

    Raises:
        InputError: a recording cannot be read, or the two are not of the same images.
    """
    a, b = Recording(folder_a), Recording(folder_b)
    _tell_missing_characters([a, b])
    pictures: list[Path] = []
    for name, make in COMPARISONS.items():
        with figures.style():
            picture = make(a, b)
            out.mkdir(parents=True, exist_ok=True)  # not before it is known that they compare
            pictures += _write_picture(picture, out, name)
    return pictures


def write_pictures(pictures: Mapping[str, Picture], out: Path) -> list[Path]:
    """Writes pictures as PNG and PDF, each by its name.

    Args:
        pictures: by name; made inside ``figures.style()``.
        out: where to.
    """
    out.mkdir(parents=True, exist_ok=True)
    with figures.style():
        return [
            file
            for name, picture in pictures.items()
            for file in _write_picture(picture, out, name)
        ]


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Writes one HTML page about one or more runs, with every picture in it.

    Args:
        folders: runs or recordings. Of several, the first is compared with each of the others; and
            kinds of network of which there are several seeds with one another.
        out: the page.

    Raises:
        InputError: no folder is given, or a recording cannot be read.
    """
    if not folders:
        raise InputError("a report needs at least one run; give its folder")
    recordings = [Recording(folder) for folder in folders]
    _tell_missing_characters(recordings)
    kinds = _kinds(recordings)
    context = {
        "title": "Attention gates of " + ", ".join(r.name for r in recordings),
        "seeds": _use_in_kinds(kinds),
        "kinds": _compare_kinds(kinds),
        "comparisons": [_compare(recordings[0], other) for other in recordings[1:]],
        "runs": [_describe(recording) for recording in recordings],
    }
    template = package_files("attnscope").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": as_percent,
        "points": as_points,
        "p_value": as_p_number,
        "number": as_number,
    }
    page = environment.from_string(template).render(context)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, page.encode())
    return out


def makers(recording: Recording) -> dict[str, Callable[[], Picture]]:
    """What makes each picture of a recording, by name; those of its interventions first, if any.

    Each is called inside ``figures.style()``, and may raise `Unavailable`. Interventions that
    cannot be read are left out, with a warning.
    """
    found: dict[str, Callable[[], Picture]] = {}
    try:
        outcomes = find_outcomes(recording)
    except InputError as problem:  # what the recording alone shows is still true
        _log.warning("figures of interventions left out: %s", problem)
        outcomes = None
    if outcomes is not None:  # what a reader asks first
        found |= {name: partial(make, recording, outcomes) for name, make in USAGE.items()}
    return found | {name: partial(make, recording) for name, make in FIGURES.items()}


def render(figure: Figure, file_format: str, dpi: int) -> bytes:
    """The figure as the bytes of a ``png`` or ``pdf`` file; call it inside ``figures.style()``."""
    # Without dates and versions the same numbers give the same bytes.
    metadata = {"Software": None} if file_format == "png" else {"CreationDate": None}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file_format, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def _describe(recording: Recording) -> dict[str, Any]:
    pictures, left_out = [], []
    wanted = makers(recording)
    command = intervene_command(recording)
    if not wanted.keys() & USAGE.keys() and recording.gates and command:
        left_out.append(
            "decodable_and_used and static_gates: there are no interventions on this recording as "
            f"it is now; make them with {command}"
        )
    for name, make in wanted.items():
        with figures.style():
            try:
                pictures.append(_embed(name, make()))
            except Unavailable as reason:
                _log.warning("%s left out: %s", name, reason)
                left_out.append(f"{name}: {reason}")
    right = int((recording.labels == recording.predictions).sum())
    about = {key: value for key, value in recording.about.items() if value is not None}
    return {
        "name": recording.name,
        "folder": str(recording.folder),
        "accuracy": right / len(recording),
        "right": right,
        "count": len(recording),
        "classes": len(recording.classes),
        "calibration_error": statistics.calibration_error(recording),
        "gates": gate_counts(recording),
        "about": {key.replace("_", " "): _plain(value) for key, value in about.items()},
        "metrics": statistics.class_metrics(recording).to_dict("records"),
        "pictures": pictures,
        "left_out": left_out,
        "verdicts": _verdicts(recording) if wanted.keys() & USAGE.keys() else [],
    }


def _verdicts(recording: Recording) -> list[dict[Hashable, Any]]:
    """What became of each gate, in words; nothing where an experiment is missing."""
    outcomes = find_outcomes(recording)
    assert outcomes is not None  # there are figures of them
    try:
        return usage_of(outcomes)[["gate", "kind", "verdict"]].to_dict("records")
    except Unavailable:  # the figures have said so
        return []


def _kinds(recordings: Sequence[Recording]) -> dict[str, list[Recording]]:
    """Kinds of network; nothing where no kind has several seeds."""
    try:
        kinds = statistics.group_by_kind(recordings)
    except InputError as problem:
        _log.warning("no comparison over seeds: %s", problem)
        return {}
    return kinds if max(map(len, kinds.values())) > 1 else {}


def _compare_kinds(kinds: Mapping[str, Sequence[Recording]]) -> list[dict[str, Any]]:
    """Each two kinds of network over their seeds."""
    found = []
    for a, b in combinations(kinds, 2):
        about: dict[str, Any] = {"a": a, "b": b, "problem": "", "pictures": []}
        try:
            with figures.style():
                picture = seed_differences(kinds[a], kinds[b], (a, b))
                about["pictures"].append(_embed("seed_differences", picture))
        except InputError as problem:  # the rest of the page is still true
            _log.warning("no comparison of %s and %s over seeds: %s", a, b, problem)
            about["problem"] = str(problem)
        found.append(about)
    return found


def _use_in_kinds(kinds: Mapping[str, Sequence[Recording]]) -> list[dict[str, Any]]:
    """What is used over the seeds, of each kind of which all seeds were intervened on."""
    found = []
    for kind, seeds in kinds.items():
        try:
            outcomes = [made for made in map(find_outcomes, seeds) if made is not None]
            if len(seeds) < 2 or len(outcomes) < len(seeds):
                continue
            with figures.style():
                usages = usages_of(seeds, outcomes)
                picture = seed_usage(usages, [joint_of(made) for made in outcomes], kind)
                found.append({"kind": kind, "pictures": [_embed("usage_over_seeds", picture)]})
        except InputError as problem:  # each run's part says what is missing
            _log.warning("usage_over_seeds of %s left out: %s", kind, problem)
    return found


def find_outcomes(recording: Recording) -> Outcomes | None:
    """The interventions on a recording, if there are any; those on an older one are left out.

    Raises:
        InputError: they cannot be read.
    """
    folder = outcomes_folder(recording.folder)
    if not folder.is_dir():
        return None
    outcomes = read_outcomes(folder)
    if recording.id is None or outcomes.about.get("recording") != recording.id:
        _log.warning(
            "%s left out: it is not of %s as it is now; remove it and run attnscope intervene",
            folder,
            recording.folder,
        )
        return None
    return outcomes


def _compare(a: Recording, b: Recording) -> dict[str, Any]:
    names = two_names(a, b)
    found: dict[str, Any] = {"a": names[0], "b": names[1], "problem": "", "pictures": []}
    try:
        accuracy = statistics.compare_accuracy(a, b)
    except InputError as problem:  # the rest of the page is still true
        _log.warning("no comparison of %s and %s: %s", a.name, b.name, problem)
        return {**found, "problem": str(problem)}
    for name, make in COMPARISONS.items():
        with figures.style():
            found["pictures"].append(_embed(name, make(a, b)))
    found["level"] = LEVEL
    found["has_grad_cam"] = has_grad_cam(a) and has_grad_cam(b)
    if found["has_grad_cam"]:  # both frames have all images first, then the classes in their order
        cams = statistics.compare_grad_cam(a, b, "predicted", SEED)
        accuracy = accuracy.assign(grad_cam=cams["spearman"])
    found["accuracy"] = accuracy.to_dict("records")
    return found


def _embed(name: str, picture: Picture) -> dict[str, Any]:
    title = name.replace("_", " ").replace("grad cam", "Grad-CAM")
    return {
        "title": title[:1].upper() + title[1:],
        "caption": picture.caption,
        "images": [
            base64.b64encode(render(figure, "png", _REPORT_DPI)).decode()
            for figure in picture.figures
        ],
    }


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def _write_picture(picture: Picture, out: Path, name: str) -> list[Path]:
    written = []
    for number, figure in enumerate(picture.figures, start=1):
        stem = name if number == 1 else f"{name}_{number}"
        for ending in ("png", "pdf"):
            write_bytes(out / f"{stem}.{ending}", render(figure, ending, DPI))
            figure.set_layout_engine("none")  # laid out once: the second file has the same places
            written.append(out / f"{stem}.{ending}")
    return written


def _tell_missing_characters(recordings: Sequence[Recording]) -> None:
    texts = [text for r in recordings for text in (*r.classes, r.name)]
    missing = figures.missing_characters(texts)
    if missing:
        _log.warning(
            "no installed font has %s (%d characters); figures show boxes and the number of the "
            "class. Install a font that has them, e.g. fonts-noto-cjk",
            missing[:10],
            len(missing),
        )
