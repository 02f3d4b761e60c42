"""What a gate could tell about the class beside what the network uses of it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from attnscope.errors import InputError
from attnscope.recording import Recording
from attnscope.statistics.comparison import holm
from attnscope.statistics.effects import OWN, edit_contrast
from attnscope.statistics.probe import linear_probe
from attnscope.statistics.variance import between_class_variance

USED = "its class is used"
IMAGE_KNOWN = "knows the class; the image's own gate is used, its class not seen to be"
UNUSED = "knows the class, no use of it seen"
IMAGE = "no class seen in it, but the image's own gate is used"
NOTHING = "no class seen in it, no use of it seen"
CONSTANT = "constant"
VERDICTS = (USED, IMAGE_KNOWN, UNUSED, IMAGE, NOTHING, CONSTANT)


def decode_gates(
    recording: Recording,
    untrained: Recording | None = None,
    probe_permutations: int = 200,
    permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """What each gate could tell about the class: the linear probe, and shares of variance.

    Args:
        recording: what to read; with pooled inputs, if they are to be a control.
        untrained: that of the same network before any training, as another control.
        probe_permutations: of the probe, which fits anew for each.
        permutations: of the shares of variance.
        seed: of halves and permutations.

    Returns:
        The columns of `linear_probe`; input_accuracy and untrained_accuracy, the balanced accuracy
        of the same probe on the gate's pooled input, and on the gate of the untrained network, NaN
        where that was not recorded; of `between_class_variance` omega_squared, omega_low,
        omega_high, omega_null_low, omega_null_high, omega_p; and constant: whether each unit of the
        gate has one value for all images.

    Raises:
        InputError: as those two.
    """
    probe = linear_probe(recording, probe_permutations, seed)
    variance = between_class_variance(recording, permutations, seed)
    units = [recording.gate(gate.name, slice(0, 1)).size for gate in recording.gates]
    for column in ("low", "high", "null_low", "null_high", "p"):
        probe[f"omega_{column}"] = variance[column]
    controls = {
        "input_accuracy": linear_probe(recording, 1, seed, of="pooled_input")
        if recording.pooled_inputs
        else None,
        "untrained_accuracy": None if untrained is None else linear_probe(untrained, 1, seed),
    }
    for column, control in controls.items():
        known = {} if control is None else dict(control[["gate", "balanced_accuracy"]].to_numpy())
        probe[column] = [known.get(gate, np.nan) for gate in probe["gate"]]
    probe["omega_squared"] = variance["omega_squared"]
    probe["constant"] = variance["constant"].to_numpy() == np.array(units)
    return probe


def gate_usage(decoding: pd.DataFrame, outcomes: pd.DataFrame, level: float = 0.05) -> pd.DataFrame:
    """For each gate: can the class be read from it, and does the network use that?

    Read: the linear probe beats permuted labels (``p_max`` of `linear_probe`, corrected over the
    gates). Used: with another image's gate the network is right more often if that image is of the
    same class (``class_value``, exact McNemar, Holm over the gates). What is used is there, also
    where no linear probe reads it. Beside it ``dynamic_value``: accuracy with the image's own gate
    above that with the data set's mean, tested likewise.

    "No use seen" is not "no use": the intervals say how large one might still be. And a network may
    use a class in a gate by ways that no accuracy on these images shows; ``class_margin`` is finer.

    Args:
        decoding: of `decode_gates`.
        outcomes: of `attnscope.interventions.replace_gates`.
        level: below it a corrected p counts.

    Returns:
        One row a gate: gate, kind, depth, balanced_accuracy, chance (the mean under permuted
        labels), p_read, class_value, class_low, class_high, p_used, class_margin,
        class_margin_low, class_margin_high, dynamic_value, dynamic_low, dynamic_high, p_dynamic,
        verdict (one of `VERDICTS`).

    Raises:
        InputError: the outcomes lack an edit, a column or a gate.
    """
    swap = edit_contrast(outcomes, "swap_other", "swap_same").set_index("target")
    dynamic = edit_contrast(outcomes, "mean", OWN).set_index("target")
    known = list(decoding["gate"])
    for gate in known:
        if gate not in swap.index or gate not in dynamic.index:
            raise InputError(
                f"the outcomes say nothing of the gate '{gate}'; replace the gates of the network "
                "that was decoded"
            )
    read = decoding.set_index("gate").loc[known]
    swap, dynamic = swap.loc[known], dynamic.loc[known]
    frame = pd.DataFrame(
        {
            "gate": known,
            "kind": read["kind"].to_numpy(),
            "depth": read["depth"].to_numpy(),
            "balanced_accuracy": read["balanced_accuracy"].to_numpy(),
            "chance": read["null"].to_numpy(),
            "p_read": read["p_max"].to_numpy(),
            "class_value": swap["change"].to_numpy(),
            "class_low": swap["low"].to_numpy(),
            "class_high": swap["high"].to_numpy(),
            "p_used": holm(swap["p"].to_numpy(np.float64)),
            "class_margin": swap["margin_change"].to_numpy(),
            "class_margin_low": swap["margin_low"].to_numpy(),
            "class_margin_high": swap["margin_high"].to_numpy(),
            "dynamic_value": dynamic["change"].to_numpy(),
            "dynamic_low": dynamic["low"].to_numpy(),
            "dynamic_high": dynamic["high"].to_numpy(),
            "p_dynamic": holm(dynamic["p"].to_numpy(np.float64)),
        }
    )
    constant = read["constant"].to_numpy(bool)
    reads = frame["p_read"].to_numpy() < level
    used = (frame["p_used"].to_numpy() < level) & (frame["class_value"].to_numpy() > 0)
    own = (frame["p_dynamic"].to_numpy() < level) & (frame["dynamic_value"].to_numpy() > 0)
    frame["verdict"] = np.select(
        [constant, used, reads & own, reads, own],
        [CONSTANT, USED, IMAGE_KNOWN, UNUSED, IMAGE],
        NOTHING,
    )
    return frame
