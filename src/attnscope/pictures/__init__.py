"""Pictures by name: figures, laid out, with a caption that is computed from the same numbers.

``FIGURES``, ``COMPARISONS`` and ``USAGE`` are the names. Figures are
``matplotlib.figure.Figure``, never pyplot's.
"""

from attnscope.pictures.common import Picture, Unavailable
from attnscope.pictures.comparison import COMPARISONS, accuracy_sentence
from attnscope.pictures.network import FIGURES
from attnscope.pictures.usage import (
    USAGE,
    joint_of,
    seed_differences,
    seed_usage,
    seeds_sentence,
    usage_of,
    usages_of,
)

__all__ = [
    "COMPARISONS",
    "FIGURES",
    "USAGE",
    "Picture",
    "Unavailable",
    "accuracy_sentence",
    "joint_of",
    "seed_differences",
    "seed_usage",
    "seeds_sentence",
    "usage_of",
    "usages_of",
]
