"""Run several experiments on one network and collect their outcomes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from attnscope import layout
from attnscope.errors import InputError
from attnscope.files import StrPath
from attnscope.interventions.ablation import ablatable_gates, ablate_channels
from attnscope.interventions.erasing import erase
from attnscope.interventions.randomization import expect_seeds, randomize_gates
from attnscope.interventions.replacement import replace_gates
from attnscope.interventions.setup import InterventionSetup
from attnscope.lazy import renamed_names
from attnscope.recording.outcomes import Outcomes, add_outcomes, read_outcomes, write_outcomes
from attnscope.recording.recording import Recording
from attnscope.statistics.effects import replacement_effects
from attnscope.statistics.usage import decode_gates

EXPERIMENTS = ("decode", "replace", "ablate", "erase", "randomize")
"""Names of all experiments, in the order in which they are run."""

_SUBSAMPLES = {"ablate": (10, 50), "erase": (5, 100), "randomize": (2, 250)}
"""Experiment -> (divisor, minimum): experiments that run the network many times for each image use
only a part of the scored images, but at least the minimum if there are that many."""


def run_experiments(
    setup: InterventionSetup,
    seeds: Sequence[Recording] = (),
    *,
    untrained: Recording | None = None,
    experiments: Sequence[str] = EXPERIMENTS,
    progress: bool = True,
) -> Outcomes:
    """Run experiments on one network, each with its default settings.

    ``ablate`` uses a tenth of the scored images, ``erase`` a fifth and ``randomize`` half, but at
    least 50, 100 and 250 if there are that many.

    Args:
        setup: The network and its images.
        seeds: Recordings of other seeds, for `randomize_gates`.
        untrained: The recording of the untrained network, for `decode_gates`.
        experiments: Some of `EXPERIMENTS`. ``ablate`` is left out for a network that has no
            channel gate with several values.
        progress: Whether to show a progress bar for each experiment.

    Returns:
        The outcomes, which are not written to files.

    Raises:
        InputError: An experiment is unknown (AS813), or an experiment cannot be run.
    """
    _expect(setup, seeds, experiments)
    counts = {name: max(least, len(setup.scored) // n) for name, (n, least) in _SUBSAMPLES.items()}
    tables: dict[str, pd.DataFrame] = {}
    replacement = None
    if "decode" in experiments:
        tables["decoding"] = decode_gates(setup.recording, untrained, seed=setup.seed)
    if "replace" in experiments:
        replacement = replace_gates(setup, progress=progress)
        tables["effects"] = replacement_effects(replacement, seed=setup.seed)
    if "ablate" in experiments and ablatable_gates(setup):
        tables["ablation"] = ablate_channels(setup, images=counts["ablate"], progress=progress)
    if "erase" in experiments:
        erased = erase(setup, images=counts["erase"], progress=progress)
        tables["erasing_areas"], tables["erasing_curves"] = erased.areas, erased.curves
    if "randomize" in experiments:
        tables["randomization"] = randomize_gates(
            setup, seeds, images=counts["randomize"], progress=progress
        )
    ids_of = {name: _controls(name, seeds, untrained) for name in experiments}
    controls = {name: ids for name, ids in ids_of.items() if ids}
    about = {**_about(setup), "experiments": list(experiments), "controls": controls}
    return Outcomes(about, replacement, tables)


def run_experiments_in(
    folder: StrPath,
    setup: InterventionSetup,
    seeds: Sequence[Recording] = (),
    *,
    untrained: Recording | None = None,
    experiments: Sequence[str] = EXPERIMENTS,
    progress: bool = True,
) -> Outcomes:
    """Run experiments as `run_experiments` does, and write each as soon as it ends.

    Experiments whose outcomes are already in the folder are not repeated, so that an interrupted
    call can be continued. An experiment is repeated if ``seeds`` or ``untrained`` differ from those
    with which it was run.

    Args:
        folder: The output folder: new, or with outcomes of the same recording, scored images and
            seed.
        setup: As for `run_experiments`.
        seeds: As for `run_experiments`.
        untrained: As for `run_experiments`.
        experiments: As for `run_experiments`.
        progress: As for `run_experiments`.

    Returns:
        All outcomes in the folder.

    Raises:
        InputError: As `run_experiments`; or the folder holds something else (AS810), outcomes of
            another recording, other images or another seed (AS811).
    """
    _expect(setup, seeds, experiments)
    folder = Path(folder)
    remaining = list(experiments)
    if os.path.lexists(folder):
        if not (folder / layout.ABOUT).is_file():
            raise InputError(
                "AS810",
                f"{folder} exists but has no outcomes of interventions; choose another folder with "
                "--out, or remove it",
            )
        about, known = _about(setup), read_outcomes(folder).about
        if any(known.get(key) != about[key] for key in _IDENTITY):
            raise InputError(
                "AS811",
                f"{folder} has outcomes of another recording, other scored images or another seed; "
                "choose another folder with --out, or remove it",
            )
        made, controls = known.get("experiments", []), known.get("controls", {})
        for name in experiments:
            now = _controls(name, seeds, untrained)
            if name in made and (not now or now == controls.get(name)):
                remaining.remove(name)
    for name in remaining:
        outcomes = run_experiments(
            setup, seeds, untrained=untrained, experiments=[name], progress=progress
        )
        (add_outcomes if os.path.lexists(folder) else write_outcomes)(folder, outcomes)
    return read_outcomes(folder)


_IDENTITY = ("recording", "images", "seed")
"""Keys that must be equal for outcomes to be written into one folder."""


def _controls(
    name: str, seeds: Sequence[Recording], untrained: Recording | None
) -> list[str | None]:
    """Return the ids of the other recordings that an experiment uses."""
    if name == "randomize":
        return [recording.id for recording in seeds]
    return [untrained.id] if name == "decode" and untrained is not None else []


def _about(setup: InterventionSetup) -> dict[str, Any]:
    recording = setup.recording
    return {
        "name": recording.name,
        "split": recording.split,
        "recording": recording.id,
        "images": len(setup.scored),
        "of": len(recording),
        "classes": recording.classes,
        "seed": setup.seed,
    }


def _expect(
    setup: InterventionSetup, seeds: Sequence[Recording], experiments: Sequence[str]
) -> None:
    """Raise an `InputError` now for what would else fail after hours of other experiments."""
    unknown = [name for name in experiments if name not in EXPERIMENTS]
    if unknown:
        raise InputError(
            "AS813",
            f"the experiment '{unknown[0]}' is unknown; choose from {', '.join(EXPERIMENTS)}",
        )
    if "randomize" in experiments:
        expect_seeds(setup, seeds)


__getattr__ = renamed_names(
    __name__, {"intervene": "run_experiments", "intervene_in": "run_experiments_in"}
)
