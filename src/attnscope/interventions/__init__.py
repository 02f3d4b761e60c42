"""What a network does when its gates are others: from "the gate differs" to "and it is used".

An `InterventionSetup` holds a network, its recording and the images that are scored. Each
experiment takes it and returns a data frame. The images of a recording that are not scored give
the means and the gates of other images, so that no image is measured by itself.
"""

from attnscope.interventions.ablation import ablate_channels
from attnscope.interventions.erasing import Erasing, erase
from attnscope.interventions.randomization import randomize_gates
from attnscope.interventions.replacement import replace_gates
from attnscope.interventions.setup import InterventionSetup
from attnscope.interventions.study import EXPERIMENTS, intervene, intervene_in

__all__ = [
    "EXPERIMENTS",
    "Erasing",
    "InterventionSetup",
    "ablate_channels",
    "erase",
    "intervene",
    "intervene_in",
    "randomize_gates",
    "replace_gates",
]
