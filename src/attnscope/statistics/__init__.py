"""Statistics of recordings: a recording in, a table out. No state, no torch.

Conventions that hold for every statistic:

- The image is the sampling unit of every test and interval, unless the docstring says otherwise.
- Class columns hold class names and refer to the true class. Channel columns hold channel numbers.
- Gates are listed in the order in which they act. ``depth`` is the position of a gate in that order
  and starts at 1.
- Accuracies, shares and probabilities lie between 0 and 1.
- A value that cannot be computed is NaN, and the docstring says when.

``docs/reference/metrics.md`` gives the formula, the unit, the source and the null hypothesis of
each number.

`STATISTICS` holds all statistics by name, including those of other packages. The decorator
`statistic` adds one.
"""

from attnscope.statistics.comparison import (
    compare_accuracy,
    compare_class_order,
    compare_grad_cam,
    compare_profiles,
)
from attnscope.statistics.confusion import (
    compare_confusion,
    confused_pairs,
    order_by_confusion,
)
from attnscope.statistics.control_task import probe_selectivity
from attnscope.statistics.copies import image_copies
from attnscope.statistics.effects import edit_contrast, replacement_effects
from attnscope.statistics.geometry import class_distances, compare_gates, compare_geometry
from attnscope.statistics.localization import (
    attribution_localization,
    localization,
    localization_summary,
)
from attnscope.statistics.logits import gate_logits
from attnscope.statistics.maps import (
    agreement_summary,
    class_mean_grad_cam,
    class_mean_maps,
    map_agreement,
)
from attnscope.statistics.misclassification import error_position_summary, error_positions
from attnscope.statistics.predictions import (
    calibration,
    calibration_error,
    calibration_summary,
    class_metrics,
    confusion_matrix,
    misclassified,
)
from attnscope.statistics.probe import linear_probe
from attnscope.statistics.probe_gain import probe_gain
from attnscope.statistics.profiles import channel_effects, class_profiles, gate_profiles, gate_state
from attnscope.statistics.registry import STATISTICS, statistic
from attnscope.statistics.seed_usage import usage_over_seeds
from attnscope.statistics.seeds import compare_seeds, disagreements, group_by_kind
from attnscope.statistics.selectivity import class_selectivity, permuted_channel_effects
from attnscope.statistics.states import channel_states, image_states, state_sweep
from attnscope.statistics.usage import decode_gates, gate_usage, joint_usage
from attnscope.statistics.variance import between_class_variance

__all__ = [
    "STATISTICS",
    "agreement_summary",
    "attribution_localization",
    "between_class_variance",
    "calibration",
    "calibration_error",
    "calibration_summary",
    "channel_effects",
    "channel_states",
    "class_distances",
    "class_mean_grad_cam",
    "class_mean_maps",
    "class_metrics",
    "class_profiles",
    "class_selectivity",
    "compare_accuracy",
    "compare_class_order",
    "compare_confusion",
    "compare_gates",
    "compare_geometry",
    "compare_grad_cam",
    "compare_profiles",
    "compare_seeds",
    "confused_pairs",
    "confusion_matrix",
    "decode_gates",
    "disagreements",
    "edit_contrast",
    "error_position_summary",
    "error_positions",
    "gate_logits",
    "gate_profiles",
    "gate_state",
    "gate_usage",
    "group_by_kind",
    "image_copies",
    "image_states",
    "joint_usage",
    "linear_probe",
    "localization",
    "localization_summary",
    "map_agreement",
    "misclassified",
    "order_by_confusion",
    "permuted_channel_effects",
    "probe_gain",
    "probe_selectivity",
    "replacement_effects",
    "state_sweep",
    "statistic",
    "usage_over_seeds",
]
