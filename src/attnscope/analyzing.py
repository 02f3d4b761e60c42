"""`analyze`: everything about one network, from its images to a report, in stages.

The stages are capture, statistics, interventions, figures and report. ``analysis.json`` says for
which recording and interventions each stage was finished, so that a repeated call continues. A
little more than 400 lines, because all stages and their settings are read together.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attnscope import __version__, layout
from attnscope.capturing.run import capture_once
from attnscope.capturing.settings import CaptureSettings
from attnscope.data.load import DataSettings
from attnscope.data.normalization import Normalization
from attnscope.errors import InputError, first_line
from attnscope.files import StrPath, read_json, sha256_of, write_json
from attnscope.interventions.run import intervene
from attnscope.networks.known import NetworkSource
from attnscope.networks.targets import is_run, no_target
from attnscope.plots import PLOTS
from attnscope.progress import stages
from attnscope.recording.masking import add_masks, expect_masks
from attnscope.recording.masks import MaskFacts
from attnscope.recording.outcomes import Outcomes, find_outcomes
from attnscope.recording.places import (
    file_beside,
    folder_around,
    folder_beside,
    is_captured,
    masks_file,
    outcomes_folder,
)
from attnscope.recording.recording import Recording
from attnscope.report import lines_of, write_figures, write_report, write_tables
from attnscope.runs import Run
from attnscope.sources import Source
from attnscope.statistics import STATISTICS
from attnscope.training.devices import choose_device
from attnscope.writing import writing

_UNANSWERED = ("AS640", "AS648", "AS806", "AS807", "AS808", "AS825")
"""What interventions lack: a network that can be opened again, class labels, gates, full precision,
images, class scores. Other errors, such as changed weights, are the user's to repair."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Analysis:
    """What `analyze` made."""

    recording: Recording
    """The recording."""
    folder: Path
    """The folder of the recording and of all that was made of it, for the dashboard."""
    report: Path | None
    """The HTML page; None if the stage was skipped."""
    reused: tuple[str, ...]
    """The stages that an earlier call had finished."""
    left_out: tuple[str, ...]
    """One line for each stage that cannot answer for this network, with the reason."""
    masks: MaskFacts | None = None
    """What is known of the masks that were given; None without any."""

    def __repr__(self) -> str:
        shown = "no report" if self.report is None else str(self.report)
        return f"<Analysis of {self.recording.name!r}: {shown}, {len(self.left_out)} left out>"

    @property
    def outcomes(self) -> Outcomes | None:
        """The outcomes of interventions; None if there are none."""
        return find_outcomes(self.recording)


@dataclass(frozen=True)
class AnalysisSettings:
    """The settings of `analyze` that do not name a network or its images.

    Raises:
        InputError: AS102, a stage is unknown.
    """

    skip: Sequence[str] = ()
    """Stages to leave out: some of `OPTIONAL_STAGES`."""
    images: int | None = None
    """Number of images for interventions; None: the default of `attnscope.intervene`."""
    minutes: float | None = None
    """Time for interventions, from which the default of ``images`` follows; None: that of
    `attnscope.intervene`."""
    batch_size: int | None = None
    """Batch size; None: the defaults of `attnscope.capture` and `attnscope.intervene`."""
    output: str | int | None = None
    """As for `attnscope.capture`."""
    device: str = "auto"
    compile: bool = False
    """As for `attnscope.capture`."""
    data: str | None = None
    """The data source with the new place of the images of a run or a recording."""
    masks: StrPath | None = None
    """As for `attnscope.recording.masking.add_masks`."""

    def __post_init__(self) -> None:
        for name in self.skip:
            if name not in OPTIONAL_STAGES:
                raise InputError(
                    "AS102",
                    f"the stage '{name}' is unknown; choose from {', '.join(OPTIONAL_STAGES)}",
                )


def analyze(
    target: Run | Recording | str | os.PathLike[str],
    out: StrPath | None = None,
    *,
    data: str | DataSettings | None = None,
    weights: StrPath | None = None,
    normalization: Normalization | None = None,
    output: str | int | None = None,
    split: str = "test",
    skip: Sequence[str] = (),
    images: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    compile: bool = False,
    masks: StrPath | None = None,
    progress: bool = True,
) -> Analysis:
    """Capture a network, and write statistics, interventions, figures and a report.

    Stages that an earlier call finished are not repeated. A stage that cannot answer for the
    network, such as interventions without class scores, is left out with a line of the log.

    Args:
        target: A network (``timm:NAME``, ``torchvision:NAME`` or ``package.module:callable``), a
            run, or a recording.
        out: For a network: the folder for everything. It has the form of a run folder. What is made
            of a run or a recording is written there.
        data: For a network: the source of the images, such as ``folder:PATH``, or settings. For a
            run or a recording: the source with the new place of its images, if they have moved.
        weights: For a network: its weights. Default: those that it is built with.
        normalization: For a network: the normalization of its images, if it is known. Default: that
            of the network, else that of the training split.
        output: For a network: as for `attnscope.capture`.
        split: ``train``, ``validation`` or ``test``. Not used for a recording.
        skip: Stages to leave out: some of ``statistics``, ``interventions``, ``figures`` and
            ``report``.
        images: Number of images for interventions. Default: that of `attnscope.intervene`.
        minutes: Time for interventions in minutes, from which the default of ``images`` follows.
            Default: that of `attnscope.intervene`.
        batch_size: Batch size. Default: 128 for the capture, and that of `attnscope.intervene`.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        compile: Compile the network for the capture, as for `attnscope.capture`. It changes nothing
            if there is a recording already.
        masks: Masks or boxes of the objects in the images, for whether the maps lie on them: a
            folder, a JSON or CSV file, or ``ink``, as for `attnscope.recording.masking.add_masks`.
        progress: Whether to show a progress bar.

    Returns:
        The recording, and what was made of it.

    Raises:
        InputError: An argument cannot be used (AS102, AS957) or is missing (AS958), the folder has
            a recording that was made with other settings (AS644), or the network or its images
            cannot be opened or have changed since they were recorded.
    """
    settings = AnalysisSettings(
        skip, images, minutes, batch_size, output, device, compile, masks=masks
    )
    if isinstance(target, Recording | Run):
        target = target.folder
    of_network = {"out": out, "data": data, "weights": weights, "normalization": normalization}
    given = [name for name, value in of_network.items() if value is not None]
    if names_network(str(target)):
        for name in ("data", "out"):
            if name not in given:
                raise InputError("AS958", f"a network needs {name}; pass {name}= as well")
        assert data is not None
        assert out is not None
        network = NetworkSource(
            str(target), None if weights is None else Path(weights), normalization=normalization
        )
        settings_of_data = DataSettings(data) if isinstance(data, str) else data
        source = Source(network, settings_of_data, split)
        return analyze_source(source, recording_place(Path(out), split), settings, progress)
    place = data if isinstance(data, str) else None
    for name in given:
        if name != "data" or place is None:
            raise InputError("AS957", f"{name} cannot be used with a run or a recording; omit it")
    found = find_recorded(Path(target), split, data=place)
    return analyze_source(*found, replace(settings, data=place), progress)


def names_network(target: str) -> bool:
    """Return whether a target is a network, and neither a run nor a recording."""
    return not is_run(target)


def recording_place(out: Path, split: str) -> Path:
    """Return the folder of the recording of a split in the folder of an analysis."""
    return out / layout.RECORDINGS / split


def find_recorded(
    folder: Path,
    split: str,
    *,
    data: str | None = None,
    data_root: Path | None = None,
    skip_unreadable: bool = False,
    allow_changed_data: bool = False,
) -> tuple[Source | None, Path]:
    """Return the source of a run or recording, and the folder of the recording.

    Args:
        folder: A run, whose recording may not exist yet; a recording; or the folder of an analysis.
        split: The split of a run or an analysis.
        data: As for `Run.source`, and so are the other arguments.
        data_root: See ``data``.
        skip_unreadable: See ``data``.
        allow_changed_data: See ``data``.

    Returns:
        The source, and the folder. The source of what is no run is None, because a recording names
        it itself.

    Raises:
        InputError: AS530 or AS531, the folder is none of these.
    """
    if is_captured(folder):
        return None, folder
    place = recording_place(folder, split)
    if is_captured(place) and not (folder / layout.CONFIG).is_file():
        return None, place
    if folder.is_file():
        raise InputError("AS530", f"{folder} {no_target(folder)}")
    if not folder.is_dir():
        raise InputError(
            "AS530",
            f"{folder} does not exist; give a run, a recording, or a network as timm:NAME, "
            "torchvision:NAME, folded:FOLDER or package.module:callable",
        )
    run = Run(folder)
    source = run.source(
        split,
        data=data,
        data_root=data_root,
        skip_unreadable=skip_unreadable,
        allow_changed_data=allow_changed_data,
    )
    return source, place


def analyze_source(
    source: Source | None, folder: Path, settings: AnalysisSettings, progress: bool = True
) -> Analysis:
    """Do what `analyze` does.

    Args:
        source: The network and the images; None if the recording exists.
        folder: The folder of the recording, which may not exist yet.
        settings: The other settings.
        progress: Whether to show a progress bar.

    Raises:
        InputError: As `analyze`; AS118, another process analyzes the same network.
    """
    chosen = [name for name in OPTIONAL_STAGES if name not in settings.skip]
    reused = ["capture"] if is_captured(folder) else []
    left_out: list[str] = []
    if settings.compile and (source is None or reused):
        _log.warning("the network is not compiled, because it was captured before")
    if settings.masks is not None:
        expect_masks(settings.masks)
    alone = writing(file_beside(folder, layout.ANALYSIS))
    with alone, stages(1 + len(chosen), progress) as shown:
        with shown.stage("capture"):
            if source is None:
                recording = Recording(folder)
            else:
                recording = capture_once(
                    source,
                    folder,
                    CaptureSettings(
                        batch_size=settings.batch_size or 128,
                        output=settings.output,
                        compile=settings.compile,
                    ),
                    device=choose_device(settings.device),
                    progress=progress,
                    again="interventions" in chosen,
                )
        facts = None
        if settings.masks is not None:
            facts = add_masks(recording, settings.masks).facts
            for line in facts.notes:
                _log.warning("%s", line)
        for name in chosen:
            stage = _STAGES[name]
            with shown.stage(name):
                finished = _finished(name, stage, recording, settings)
                if finished is None:
                    missing = stage.make(recording, settings, progress)
                    _finish(name, stage, recording, settings, missing)
                else:
                    missing = finished
                    reused.append(name)
                for line in missing:
                    _log.warning("%s", line)
                left_out += missing
    report = file_beside(folder, layout.REPORT)
    return Analysis(
        recording,
        folder_around(folder),
        report if "report" in chosen else None,
        tuple(reused),
        tuple(left_out),
        facts,
    )


@dataclass(frozen=True)
class _Stage:
    """A stage after the capture."""

    make: Callable[[Recording, AnalysisSettings, bool], list[str]]
    """Writes the results. Returns one line for each thing that cannot be answered."""
    place: Callable[[Path], Path]
    """Folder of the recording -> file or folder of the results."""
    depends_on: Callable[[Recording, AnalysisSettings], list[Any]]
    """What else the results depend on, as JSON values, beside the recording."""


def _write_statistics(recording: Recording, _: AnalysisSettings, __: bool) -> list[str]:
    left_out = write_tables(recording, folder_beside(recording.folder, layout.STATISTICS))
    return [f"statistics {line}" for line in lines_of(left_out)]


def _intervene(recording: Recording, settings: AnalysisSettings, progress: bool) -> list[str]:
    names = ("images", "minutes", "batch_size", "data")
    given = {name: getattr(settings, name) for name in names}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        intervene(recording, device=settings.device, progress=progress, **options)
    except InputError as reason:
        if reason.code not in _UNANSWERED:
            raise
        return [f"interventions are left out: {first_line(reason)}"]
    return []


def _write_figures(recording: Recording, _: AnalysisSettings, __: bool) -> list[str]:
    write_figures(recording.folder)
    return []  # the figures that are left out are named in the log and in the report


def _write_report(recording: Recording, _: AnalysisSettings, __: bool) -> list[str]:
    write_report([recording.folder], file_beside(recording.folder, layout.REPORT))
    return []


def _plotted(recording: Recording, _: AnalysisSettings) -> list[Any]:
    about = outcomes_folder(recording.folder) / layout.ABOUT
    made = sha256_of(about) if about.is_file() else None
    return [list(PLOTS), made, *_masks(recording)]


def _masks(recording: Recording) -> list[str]:
    """Return the hash of the masks; nothing if there are none."""
    file = masks_file(recording.folder)
    return [sha256_of(file)] if file.is_file() else []


_STAGES = {
    "statistics": _Stage(
        _write_statistics,
        lambda folder: folder_beside(folder, layout.STATISTICS),
        lambda recording, settings: [list(STATISTICS), *_masks(recording)],
    ),
    "interventions": _Stage(
        _intervene,
        lambda folder: outcomes_folder(folder) / layout.ABOUT,
        lambda recording, settings: [
            settings.images,
            *([] if settings.minutes is None else [settings.minutes]),
        ],
    ),
    "figures": _Stage(
        _write_figures, lambda folder: folder_beside(folder, layout.FIGURES), _plotted
    ),
    "report": _Stage(_write_report, lambda folder: file_beside(folder, layout.REPORT), _plotted),
}
OPTIONAL_STAGES = tuple(_STAGES)
"""Names of the stages after the capture, in their order."""


def _finished(
    name: str, stage: _Stage, recording: Recording, settings: AnalysisSettings
) -> list[str] | None:
    """Return what a finished stage left out; None if it is not finished, or for something else."""
    known = _read(recording).get(name)
    if not isinstance(known, dict) or known.get("of") != _identity(stage, recording, settings):
        return None
    left_out = [str(line) for line in known.get("left_out", [])]
    answered = stage.place(recording.folder).exists()
    return left_out if answered or left_out else None


def _finish(
    name: str, stage: _Stage, recording: Recording, settings: AnalysisSettings, missing: list[str]
) -> None:
    """Note that a stage is finished."""
    entry = {"of": _identity(stage, recording, settings), "left_out": missing}
    file = file_beside(recording.folder, layout.ANALYSIS)
    write_json(file, {**_read(recording), name: entry})


def _read(recording: Recording) -> dict[str, Any]:
    file = file_beside(recording.folder, layout.ANALYSIS)
    try:
        value = read_json(file) if file.is_file() else {}
    except InputError:  # then all stages are repeated
        value = {}
    return value if isinstance(value, dict) else {}


def _identity(stage: _Stage, recording: Recording, settings: AnalysisSettings) -> str:
    """Return a hash of everything that the results of a stage depend on."""
    manifest = sha256_of(recording.folder / layout.MANIFEST)
    values = [__version__, manifest, stage.depends_on(recording, settings)]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
