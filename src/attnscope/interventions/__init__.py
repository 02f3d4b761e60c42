"""Measure what a network does when its gates are changed.

`attnscope.intervene` runs experiments on a run or a recording, and `attnscope.plan_interventions`
says beforehand what they cost. This package contains their parts.
An `InterventionSetup` holds a network, its recording, the images that are scored and the donors.
Each experiment takes it and returns a data frame. No image influences its own measurement: the mean
gates and the gates of other images come from the donors.
"""

from attnscope.interventions.ablation import ablate_channels
from attnscope.interventions.combinations import measure_pairs, measure_sufficiency
from attnscope.interventions.concepts import erase_class
from attnscope.interventions.donors import DEFAULT_EDITS, REPLACEMENTS
from attnscope.interventions.erasing import Erasing, erase
from attnscope.interventions.plan import Cost, Plan, plan_experiments
from attnscope.interventions.randomization import randomize_gates
from attnscope.interventions.replacement import replace_gates
from attnscope.interventions.setup import InterventionSetup
from attnscope.interventions.study import (
    DEFAULT_EXPERIMENTS,
    EXPERIMENTS,
    run_experiments,
    run_experiments_in,
)
from attnscope.lazy import renamed_names

__all__ = [
    "DEFAULT_EDITS",
    "DEFAULT_EXPERIMENTS",
    "EXPERIMENTS",
    "REPLACEMENTS",
    "Cost",
    "Erasing",
    "InterventionSetup",
    "Plan",
    "ablate_channels",
    "erase",
    "erase_class",
    "measure_pairs",
    "measure_sufficiency",
    "plan_experiments",
    "randomize_gates",
    "replace_gates",
    "run_experiments",
    "run_experiments_in",
]

__getattr__ = renamed_names(
    __name__, {"intervene": "run_experiments", "intervene_in": "run_experiments_in"}
)
