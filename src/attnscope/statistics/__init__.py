"""What a recording says, as data frames: recordings in, a DataFrame out, no state, no torch.

The image is the sampling unit. Classes are named and are the true ones; channels are numbers; gates
come in the order in which they act, and ``depth`` is a gate's place in that order, from 1.
``docs/metrics.md`` gives the formula, the unit, the source and the null of each number.
"""

from attnscope.statistics.comparison import (
    compare_accuracy,
    compare_class_order,
    compare_grad_cam,
    compare_profiles,
)
from attnscope.statistics.maps import (
    agreement_summary,
    class_mean_grad_cam,
    class_mean_maps,
    map_agreement,
)
from attnscope.statistics.predictions import (
    calibration,
    calibration_error,
    class_metrics,
    confusion_matrix,
    misclassified,
)
from attnscope.statistics.profiles import (
    channel_effects,
    class_profiles,
    gate_profiles,
    gate_state,
)

__all__ = [
    "agreement_summary",
    "calibration",
    "calibration_error",
    "channel_effects",
    "class_mean_grad_cam",
    "class_mean_maps",
    "class_metrics",
    "class_profiles",
    "compare_accuracy",
    "compare_class_order",
    "compare_grad_cam",
    "compare_profiles",
    "confusion_matrix",
    "gate_profiles",
    "gate_state",
    "map_agreement",
    "misclassified",
]
