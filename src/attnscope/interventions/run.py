"""Run interventions on a run or a recording: what ``attnscope intervene`` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from attnscope import layout
from attnscope.errors import InputError
from attnscope.hashes import without_code
from attnscope.interventions.donors import DEFAULT_EDITS, expect_edits
from attnscope.interventions.few_images import advise_images
from attnscope.interventions.plan import Plan, images_within, plan_experiments, time_network
from attnscope.interventions.setup import InterventionSetup, scored_rows
from attnscope.interventions.study import (
    DEFAULT_EXPERIMENTS,
    expect_experiments,
    remaining,
    run_experiments_in,
)
from attnscope.networks.memory import channels_last
from attnscope.recording.outcomes import Outcomes, read_outcomes
from attnscope.recording.pieces import unfinished
from attnscope.recording.places import capture_again, outcomes_folder
from attnscope.recording.recording import Recording
from attnscope.runs import Run, open_recording, open_untrained
from attnscope.statistics.comparison import expect_same_images
from attnscope.training.devices import choose_device

DEFAULT_IMAGES = 250
"""Number of images that are scored by default, if they fit into the time."""
DEFAULT_MINUTES = 3.0
"""Time for ``replace`` from which the number of images follows."""
_FEWEST_IMAGES = 20
"""With fewer images no effect can be found, however long they take."""
_EARLIER_IMAGES = 1000
"""Default of version 0.1, whose outcomes do not say how many images were asked for."""


def intervene(
    target: Run | Recording | str | os.PathLike[str],
    *,
    split: str = "test",
    experiments: Sequence[str] = (),
    edits: Sequence[str] = (),
    images: int | None = None,
    minutes: float = DEFAULT_MINUTES,
    seed: int = 0,
    seed_runs: Sequence[Run | Recording | str | os.PathLike[str]] = (),
    out: str | os.PathLike[str] | None = None,
    data: str | None = None,
    data_root: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    device: str | torch.device = "auto",
    smallest_effect: float | None = None,
    smallest_log_loss: float | None = None,
    progress: bool = True,
) -> Outcomes:
    """Replace, swap, ablate and randomize the gates of a network, and measure the effects.

    The effects are measured on a stratified sample of the recorded images. All other images are
    donors: they supply mean gates and the gates of other images. A few forwards are timed first,
    and what each experiment costs is printed to stderr; `plan_interventions` returns it. Each
    experiment is written as soon as it ends, and experiments and edits whose results are already in
    the output folder are not repeated. An interrupted call is continued by the same call. If the
    run has recordings of untrained networks, ``decode`` uses them as a control.

    Args:
        target: A run with a recording, a recording whose network and images can be opened again,
            or the path of either.
        split: The recorded split of a run: ``train``, ``validation`` or ``test``. Not used for the
            target if the target is a recording.
        experiments: Some of ``decode``, ``replace``, ``concept``, ``sufficiency``, ``pairs``,
            ``ablate``, ``erase`` and ``randomize``. Default: ``decode`` and ``replace``.
        edits: The edits of ``replace``: some of ``neutral``, ``mean``, ``median``, ``constant``,
            ``predicted``, ``true``, ``random``, ``swap_any``, ``swap_same``, ``swap_other``,
            ``matched_same`` and ``matched_other``. Default: ``mean``, ``constant``, the three
            swaps and the two matched ones.
        images: Approximate number of images on which effects are measured, at most half of each
            class. Default: that of the output folder, else 250, or fewer if ``replace`` would take
            longer than ``minutes``, but at least 20. ``ablate`` uses a tenth of them, ``erase`` a
            fifth, ``concept`` and ``randomize`` half, but at least 50, 100, 100 and 250 if there
            are that many.
        minutes: Time for ``replace`` from which the default of ``images`` follows.
        seed: Random seed.
        seed_runs: Runs or recordings of the same configuration with other seeds, which are the
            reference for ``randomize``.
        out: Output folder. Default: ``RUN/interventions/SPLIT``, or ``RECORDING-interventions``
            for a recording outside a run.
        data: The data source with the place where the images are now, such as ``folder:PATH``, if
            they have moved.
        data_root: Folder of the data sets of torchvision. Default: where they were before.
        batch_size: Batch size.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, or a torch device.
        smallest_effect: The smallest change in accuracy that matters, in percentage points. With
            it, a gate is called not needed if removal is shown to change less. State it before
            looking at the results. It is stored with them. Default: that of the output folder.
        smallest_log_loss: The same for the log loss, in nats.
        progress: Whether to print what the experiments cost, and to show a progress bar.

    Returns:
        All outcomes in the output folder, including those of earlier calls.

    Raises:
        InputError: The target has no usable recording, its files have changed (AS824), its network
            or images cannot be opened, an option is out of range, the output folder holds something
            else (AS810, AS811), or an unfinished call had other settings (AS634).
        TypeError: The target is neither a run, a recording nor a path.
    """
    stated = _stated(smallest_effect, smallest_log_loss)
    known = _prepare(
        target, split, experiments, edits, images, minutes, seed, seed_runs, out, data, data_root,
        batch_size, device, is_timed=progress,
    )  # fmt: skip
    if progress and known.plan is not None:
        print("\n".join(known.plan.lines()), file=sys.stderr, flush=True)
    return run_experiments_in(
        known.folder,
        known.setup,
        known.seeds,
        untrained=known.untrained,
        experiments=known.experiments,
        edits=known.edits,
        plan=known.plan,
        stated=stated,
        progress=progress,
    )


def plan_interventions(
    target: Run | Recording | str | os.PathLike[str],
    *,
    split: str = "test",
    experiments: Sequence[str] = (),
    edits: Sequence[str] = (),
    images: int | None = None,
    minutes: float = DEFAULT_MINUTES,
    seed: int = 0,
    seed_runs: Sequence[Run | Recording | str | os.PathLike[str]] = (),
    out: str | os.PathLike[str] | None = None,
    data: str | None = None,
    data_root: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    device: str | torch.device = "auto",
) -> Plan:
    """Return what `intervene` with the same arguments would still have to do, and how long.

    A few forwards of the network are timed. Nothing is written.

    Args:
        target: As for `intervene`.
        split: As for `intervene`.
        experiments: As for `intervene`.
        edits: As for `intervene`.
        images: As for `intervene`.
        minutes: As for `intervene`.
        seed: As for `intervene`.
        seed_runs: As for `intervene`.
        out: As for `intervene`.
        data: As for `intervene`.
        data_root: As for `intervene`.
        batch_size: As for `intervene`.
        device: As for `intervene`.

    Returns:
        The plan. It has no costs if all experiments are finished.

    Raises:
        InputError: As `intervene`.
        TypeError: As `intervene`.
    """
    known = _prepare(
        target, split, experiments, edits, images, minutes, seed, seed_runs, out, data, data_root,
        batch_size, device, is_timed=True,
    )  # fmt: skip
    assert known.plan is not None
    return known.plan


@dataclass(frozen=True)
class _Prepared:
    """Everything that `run_experiments_in` takes."""

    folder: Path
    setup: InterventionSetup
    seeds: Sequence[Recording]
    untrained: Sequence[Recording]
    experiments: Sequence[str]
    edits: Sequence[str]
    plan: Plan | None
    """None if nothing was timed."""


def _prepare(
    target: Run | Recording | str | os.PathLike[str],
    split: str,
    experiments: Sequence[str],
    edits: Sequence[str],
    images: int | None,
    minutes: float,
    seed: int,
    seed_runs: Sequence[Run | Recording | str | os.PathLike[str]],
    out: str | os.PathLike[str] | None,
    data: str | None,
    data_root: str | os.PathLike[str] | None,
    batch_size: int,
    device: str | torch.device,
    *,
    is_timed: bool,
) -> _Prepared:
    """Open everything, choose the number of images, and plan what is not finished."""
    experiments = _names(experiments) or DEFAULT_EXPERIMENTS
    expect_experiments(experiments)
    for experiment, given, what in (
        ("replace", edits, "edits (--edits)"),
        ("randomize", seed_runs, "runs of other seeds (--seed-runs)"),
    ):
        if given and experiment not in experiments:
            raise InputError(
                "AS828",
                f"{what} are given, but the experiment {experiment} is not run; leave them out, or "
                f"run {', '.join((*experiments, experiment))} (--experiments)",
            )
    edits = _names(edits) or DEFAULT_EDITS
    expect_edits(edits)
    if not minutes > 0:
        raise InputError("AS826", f"the time is {minutes} minutes; it must be above 0, usually 3")
    recording = _open(target, split)
    _expect_intact(recording)
    folder = outcomes_folder(recording.folder) if out is None else Path(out)
    network = channels_last(recording.network().to(choose_device(str(device))))
    dataset = recording.images(None if data_root is None else Path(data_root), data)
    normalization = recording.source().network.normalization

    def make_setup(count: int) -> InterventionSetup:
        return InterventionSetup(
            network,
            dataset,
            recording,
            normalization=normalization,
            images=count,
            seed=seed,
            batch_size=batch_size,
        )

    chosen = images if images is not None else _images_of(folder, recording, seed)
    setup = make_setup(DEFAULT_IMAGES if chosen is None else chosen)
    timing, notes = None, []
    if chosen is None:
        timing = time_network(setup)
        count = images_within(setup, timing, edits, 60 * minutes)
        count = max(count, min(_FEWEST_IMAGES, len(setup.scored)))
        if count < len(setup.scored):
            notes.append(
                f"replace is measured on {count} instead of {len(setup.scored)} images, about as "
                f"many as {minutes:g} minutes hold; change it with --images or --minutes"
            )
            setup = make_setup(count)
    elif images is None and minutes != DEFAULT_MINUTES:
        notes.append(
            f"{folder} has outcomes on {len(setup.scored)} images, which are used again: "
            f"{minutes:g} minutes have no effect; choose the number of images with --images and "
            "another folder"
        )
    untrained = open_untrained(recording)
    for draw in untrained:
        _expect_intact(draw)
        expect_same_images(recording, draw)
    seeds = [_open(run, split) for run in seed_runs]
    plan = None
    if is_timed:
        todo = remaining(
            folder, setup, seeds, untrained=untrained, experiments=experiments, edits=edits
        )
        plan = Plan((), len(setup.scored), str(setup.device))
        if todo:
            of_replace = todo.get("replace", edits)
            if "replace" in todo:
                most = len(recording) // 2  # the others supply the replacement gates
                tests = 2 * len(setup.targets())  # accuracy and log loss of each are corrected
                advice = advise_images(len(setup.scored), tests, most)
                notes += [] if advice is None else [advice]
            notes += [f"{name}: continues what was interrupted" for name in unfinished(folder)]
            plan = plan_experiments(setup, list(todo), edits=of_replace, timing=timing, notes=notes)
    return _Prepared(folder, setup, seeds, untrained, experiments, edits, plan)


def _stated(smallest_effect: float | None, smallest_log_loss: float | None) -> dict[str, float]:
    """Return the smallest effects of interest as they are stored: a share, and nats.

    Raises:
        InputError: One is out of range (AS829).
    """
    stated = {}
    if smallest_effect is not None:
        if not 0 < smallest_effect < 100:
            raise InputError(
                "AS829",
                f"the smallest effect of interest is {smallest_effect:g} percentage points; it "
                "must be above 0 and below 100, such as 0.5",
            )
        stated["smallest_effect"] = smallest_effect / 100
    if smallest_log_loss is not None:
        if not 0 < smallest_log_loss < float("inf"):
            raise InputError(
                "AS829",
                f"the smallest change in log loss of interest is {smallest_log_loss:g} nats; it "
                "must be above 0, such as 0.02",
            )
        stated["smallest_log_loss"] = smallest_log_loss
    return stated


def _names(given: Sequence[str]) -> Sequence[str]:
    return (given,) if isinstance(given, str) else tuple(given)


def _images_of(folder: Path, recording: Recording, seed: int) -> int | None:
    """Return how many images an earlier call asked for, so that this one scores the same images.

    Returns:
        None if there was no earlier call.

    Raises:
        InputError: The folder does not say it (AS811).
    """
    for plan in unfinished(folder).values():
        if isinstance(plan.get("requested_images"), int):
            return int(plan["requested_images"])
    if not (folder / layout.ABOUT).is_file():
        return None
    about = read_outcomes(folder).about
    if isinstance(about.get("requested_images"), int):
        return int(about["requested_images"])
    # Outcomes of version 0.1 say how many images were scored.
    scored = int(about.get("images", 0))
    for images in (scored, _EARLIER_IMAGES):  # that version counted copies as other images
        if images and len(scored_rows(recording, images, seed)) == scored:
            return images
    raise InputError(
        "AS811",
        f"{folder} was made on {scored} images, and does not say how many were asked for; name the "
        "number with --images, or choose another folder with --out",
    )


def _open(target: Run | Recording | str | os.PathLike[str], split: str) -> Recording:
    if isinstance(target, Recording):
        return target
    if isinstance(target, Run):
        return target.recording(split)
    if isinstance(target, (str, os.PathLike)):
        return open_recording(Path(target), split)
    raise TypeError(
        f"expected a Run, a Recording or the path of one, but got {type(target).__name__}"
    )


def _expect_intact(recording: Recording) -> None:
    """Raise an `InputError` if files of a recording have changed since they were written."""
    problems = recording.verify()
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(
            "AS824", f"{without_code(problems[0])}{more}; {capture_again(recording.folder)}"
        )
