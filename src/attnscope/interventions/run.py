"""Run interventions on a run or a recording: what ``attnscope intervene`` does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from attnscope.errors import InputError
from attnscope.interventions.setup import InterventionSetup
from attnscope.interventions.study import EXPERIMENTS, run_experiments_in
from attnscope.networks.memory import channels_last
from attnscope.recording.outcomes import Outcomes
from attnscope.recording.places import outcomes_folder
from attnscope.recording.recording import Recording
from attnscope.recording.verification import without_code
from attnscope.runs import Run, open_recording, open_untrained
from attnscope.statistics.comparison import expect_same_images
from attnscope.training.devices import choose_device


def intervene(
    target: Run | Recording | str | os.PathLike[str],
    *,
    split: str = "test",
    experiments: Sequence[str] = (),
    images: int = 1000,
    seed: int = 0,
    seed_runs: Sequence[Run | Recording | str | os.PathLike[str]] = (),
    out: str | os.PathLike[str] | None = None,
    data_root: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> Outcomes:
    """Replace, swap, ablate and randomize the gates of a network, and measure the effects.

    The effects are measured on a stratified sample of the recorded images. All other images are
    donors: they supply mean gates and the gates of other images. Each experiment is written as soon
    as it ends, and experiments whose results are already in the output folder are not repeated. If
    the run has a recording of the untrained network, ``decode`` uses it as a control.

    Args:
        target: A run with a recording, a recording whose network and images can be opened again,
            or the path of either.
        split: The recorded split of a run: ``train``, ``validation`` or ``test``. Not used for the
            target if the target is a recording.
        experiments: Some of ``decode``, ``replace``, ``ablate``, ``erase`` and ``randomize``.
            Default: all of them.
        images: Approximate number of images on which effects are measured, at most half of each
            class. ``ablate`` uses a tenth of them, ``erase`` a fifth and ``randomize`` half, but
            at least 50, 100 and 250 if there are that many.
        seed: Random seed.
        seed_runs: Runs or recordings of the same configuration with other seeds, which are the
            reference for ``randomize``.
        out: Output folder. Default: ``RUN/interventions/SPLIT``, or ``RECORDING-interventions``
            for a recording outside a run.
        data_root: Folder of the data sets of torchvision. Default: where they were before.
        batch_size: Batch size.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, or a torch device.
        progress: Whether to show a progress bar for each experiment.

    Returns:
        All outcomes in the output folder, including those of earlier calls.

    Raises:
        InputError: The target has no usable recording, its files have changed (AS824), its network
            or images cannot be opened, an option is out of range, or the output folder holds
            something else (AS810, AS811).
        TypeError: The target is neither a run, a recording nor a path.
    """
    recording = _open(target, split)
    _expect_intact(recording)
    place = choose_device(str(device))
    setup = InterventionSetup(
        channels_last(recording.network().to(place)),
        recording.images(None if data_root is None else Path(data_root)),
        recording,
        normalization=recording.source().network.normalization,
        images=images,
        seed=seed,
        batch_size=batch_size,
    )
    untrained = open_untrained(recording)
    if untrained is not None:
        _expect_intact(untrained)
        expect_same_images(recording, untrained)
    if isinstance(experiments, str):
        experiments = (experiments,)
    return run_experiments_in(
        outcomes_folder(recording.folder) if out is None else Path(out),
        setup,
        [_open(run, split) for run in seed_runs],
        untrained=untrained,
        experiments=experiments or EXPERIMENTS,
        progress=progress,
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
            "AS824", f"{without_code(problems[0])}{more}; capture {recording.folder} again"
        )
