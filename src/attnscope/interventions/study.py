"""All experiments on one network, as one set of outcomes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from attnscope.errors import InputError
from attnscope.interventions.ablation import ablate_channels
from attnscope.interventions.bench import Bench
from attnscope.interventions.erasing import erase
from attnscope.interventions.randomization import expect_seeds, randomize_gates
from attnscope.interventions.replacement import replace_gates
from attnscope.outcomes import Outcomes
from attnscope.recording import Recording
from attnscope.statistics.effects import replacement_effects
from attnscope.statistics.usage import decode_gates

EXPERIMENTS = ("decode", "replace", "ablate", "erase", "randomize")


def intervene(
    bench: Bench,
    seeds: Sequence[Recording] = (),
    *,
    untrained: Recording | None = None,
    experiments: Sequence[str] = EXPERIMENTS,
    progress: bool = True,
) -> Outcomes:
    """Runs experiments on one network, each with its usual settings.

    Args:
        bench: the network and its images.
        seeds: recordings of other trainings, for `randomize_gates`.
        untrained: that of the network before any training, for `decode_gates`.
        experiments: of `EXPERIMENTS`. ``ablate`` is left out for a network without channel gates.
        progress: whether to show a bar for each.

    Raises:
        InputError: an experiment is not known, or as the experiments.
    """
    unknown = [name for name in experiments if name not in EXPERIMENTS]
    if unknown:
        raise InputError(
            f"experiment '{unknown[0]}' is not known; take of {', '.join(EXPERIMENTS)}"
        )
    if "randomize" in experiments:  # before the hours that the others take
        expect_seeds(bench, seeds)
    tables: dict[str, pd.DataFrame] = {}
    replacement = None
    if "decode" in experiments:
        tables["decoding"] = decode_gates(bench.recording, untrained, seed=bench.seed)
    if "replace" in experiments:
        replacement = replace_gates(bench, progress=progress)
        tables["effects"] = replacement_effects(replacement, seed=bench.seed)
    if "ablate" in experiments and any(gate.kind == "channel" for gate in bench.gates):
        tables["ablation"] = ablate_channels(bench, progress=progress)
    if "erase" in experiments:
        erased = erase(bench, progress=progress)
        tables["erasing_areas"], tables["erasing_curves"] = erased.areas, erased.curves
    if "randomize" in experiments:
        tables["randomization"] = randomize_gates(bench, seeds, progress=progress)
    recording = bench.recording
    about = {
        "name": recording.name,
        "part": recording.about.get("part"),
        "recording": recording.id,
        "images": len(bench.scored),
        "of": len(recording),
        "classes": recording.classes,
        "seed": bench.seed,
        "experiments": list(experiments),
    }
    return Outcomes(about, replacement, tables)
