"""All experiments on one network, as one set of outcomes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from attnscope import layout
from attnscope.errors import InputError
from attnscope.interventions.ablation import ablate_channels, gates_to_choose_in
from attnscope.interventions.erasing import erase
from attnscope.interventions.randomization import expect_seeds, randomize_gates
from attnscope.interventions.replacement import replace_gates
from attnscope.interventions.setup import InterventionSetup
from attnscope.recording.outcomes import Outcomes, add_outcomes, read_outcomes, write_outcomes
from attnscope.recording.recording import Recording
from attnscope.statistics.effects import replacement_effects
from attnscope.statistics.usage import decode_gates

EXPERIMENTS = ("decode", "replace", "ablate", "erase", "randomize")

_TAKES = {"ablate": (10, 50), "erase": (5, 100), "randomize": (2, 250)}
"""Experiments that run the network many times an image take one of so many scored images, but at
least so many, if there are."""


def intervene(
    setup: InterventionSetup,
    seeds: Sequence[Recording] = (),
    *,
    untrained: Recording | None = None,
    experiments: Sequence[str] = EXPERIMENTS,
    progress: bool = True,
) -> Outcomes:
    """Runs experiments on one network, each with its usual settings.

    Of the images that the setup scores, ``ablate`` takes a tenth, ``erase`` a fifth and
    ``randomize`` half, but not less than 50, 100 and 250, where there are as many.

    Args:
        setup: the network and its images.
        seeds: recordings of other trainings, for `randomize_gates`.
        untrained: that of the network before any training, for `decode_gates`.
        experiments: of `EXPERIMENTS`. ``ablate`` is left out for a network without channel gates of
            several values.
        progress: whether to show a bar for each.

    Raises:
        InputError: an experiment is not known, or as the experiments.
    """
    _expect(setup, seeds, experiments)
    takes = {name: max(least, len(setup.scored) // n) for name, (n, least) in _TAKES.items()}
    tables: dict[str, pd.DataFrame] = {}
    replacement = None
    if "decode" in experiments:
        tables["decoding"] = decode_gates(setup.recording, untrained, seed=setup.seed)
    if "replace" in experiments:
        replacement = replace_gates(setup, progress=progress)
        tables["effects"] = replacement_effects(replacement, seed=setup.seed)
    if "ablate" in experiments and gates_to_choose_in(setup):
        tables["ablation"] = ablate_channels(setup, images=takes["ablate"], progress=progress)
    if "erase" in experiments:
        erased = erase(setup, images=takes["erase"], progress=progress)
        tables["erasing_areas"], tables["erasing_curves"] = erased.areas, erased.curves
    if "randomize" in experiments:
        tables["randomization"] = randomize_gates(
            setup, seeds, images=takes["randomize"], progress=progress
        )
    made = {name: _controls(name, seeds, untrained) for name in experiments}
    controls = {name: ids for name, ids in made.items() if ids}
    about = {**_about(setup), "experiments": list(experiments), "controls": controls}
    return Outcomes(about, replacement, tables)


def intervene_in(
    folder: Path,
    setup: InterventionSetup,
    seeds: Sequence[Recording] = (),
    *,
    untrained: Recording | None = None,
    experiments: Sequence[str] = EXPERIMENTS,
    progress: bool = True,
) -> Outcomes:
    """Runs experiments as `intervene` does, and writes each as soon as it ends.

    Those that the folder holds already are not made again, so that what was interrupted goes on;
    but for those that were made with other seeds, or another untrained network, than are given now.

    Args:
        folder: of the outcomes; new, or of the same recording, images and seed.
        setup: as for `intervene`, and so the rest.
        seeds: as there.
        untrained: as there.
        experiments: as there.
        progress: as there.

    Returns:
        All that the folder holds now.

    Raises:
        InputError: as `intervene`; or the folder holds something else, or all of them.
    """
    _expect(setup, seeds, experiments)
    left = list(experiments)
    if os.path.lexists(folder):
        if not (folder / layout.ABOUT).is_file():
            raise InputError(
                f"{folder} is no folder of interventions; take another with --out or remove it"
            )
        about, known = _about(setup), read_outcomes(folder).about
        if any(known.get(key) != about[key] for key in _SAME):
            raise InputError(
                f"{folder} is of another recording, other images or another seed; take another "
                "folder or remove it"
            )
        made, with_what = known.get("experiments", []), known.get("controls", {})
        for name in experiments:
            now = _controls(name, seeds, untrained)
            if name in made and (not now or now == with_what.get(name)):
                left.remove(name)
        if not left:
            raise InputError(f"{folder} holds these experiments already; remove it to repeat them")
    for name in left:
        outcomes = intervene(
            setup, seeds, untrained=untrained, experiments=[name], progress=progress
        )
        (add_outcomes if os.path.lexists(folder) else write_outcomes)(folder, outcomes)
    return read_outcomes(folder)


_SAME = ("recording", "images", "seed")


def _controls(
    name: str, seeds: Sequence[Recording], untrained: Recording | None
) -> list[str | None]:
    """Which recordings beside the network's own an experiment takes."""
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
    """Refuses what would else be refused after the hours that the first experiments take."""
    unknown = [name for name in experiments if name not in EXPERIMENTS]
    if unknown:
        raise InputError(
            f"experiment '{unknown[0]}' is not known; take of {', '.join(EXPERIMENTS)}"
        )
    if "randomize" in experiments:
        expect_seeds(setup, seeds)
