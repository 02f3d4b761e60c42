"""What a gate could tell about the class beside what the network uses of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.recording.recording import Recording
from attnscope.statistics.effects import OWN, edit_contrast
from attnscope.statistics.inference import LEVEL, holm, paired_interval, significant
from attnscope.statistics.probe import linear_probe
from attnscope.statistics.registry import statistic
from attnscope.statistics.variance import between_class_variance

USED = "its class is used"
HARMS = "its class acts, and costs accuracy"
MEAN_KNOWN = "knows the class; its mean does worse, its class not seen to change accuracy"
MOVES = "its class moves the margins, accuracy not seen to change"
UNUSED = "knows the class, no use of it seen"
MEAN = "no class seen in it, but its mean does worse"
NOTHING = "no class seen in it, no use of it seen"
CONSTANT = "constant"
VERDICTS = (USED, HARMS, MEAN_KNOWN, MOVES, UNUSED, MEAN, NOTHING, CONSTANT)


@statistic("What each gate could tell about the class.")
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
        of the same probe on the gate's pooled input, and on the gate of the untrained network, with
        input_low, input_high, untrained_low, untrained_high (95 %, as the probe's), and
        untrained_clipped, its share of clipped values, NaN where that was not recorded; of
        `between_class_variance` omega_squared, omega_low, omega_high, omega_null_low,
        omega_null_high, omega_p; and constant: whether each unit of the gate has one value for all
        images.

    Raises:
        InputError: as those two.
    """
    probe = linear_probe(recording, probe_permutations, seed)
    variance = between_class_variance(recording, permutations, seed)
    units = [recording.gate(gate.name, slice(0, 1)).size for gate in recording.gates]
    for column in ("low", "high", "null_low", "null_high", "p"):
        probe[f"omega_{column}"] = variance[column]
    controls = {
        "input": linear_probe(recording, 1, seed, of="pooled_input")
        if recording.pooled_inputs
        else None,
        "untrained": None if untrained is None else linear_probe(untrained, 1, seed),
    }
    for name, control in controls.items():
        for end, column in (("accuracy", "balanced_accuracy"), ("low", "low"), ("high", "high")):
            probe[f"{name}_{end}"] = _of_gates(control, column, probe)
    probe["untrained_clipped"] = _of_gates(controls["untrained"], "clipped", probe)
    probe["omega_squared"] = variance["omega_squared"]
    probe["constant"] = variance["constant"].to_numpy() == np.array(units)
    return probe


def _of_gates(control: pd.DataFrame | None, column: str, probe: pd.DataFrame) -> list[float]:
    """A column of another probe, gate by gate; NaN for a gate that it lacks."""
    known = {} if control is None else dict(control[["gate", column]].to_numpy())
    return [known.get(gate, np.nan) for gate in probe["gate"]]


@statistic(
    "What each gate tells about the class, beside what the network uses of it.",
    takes=("decoding", "outcomes"),
)
def gate_usage(
    decoding: pd.DataFrame, outcomes: pd.DataFrame, level: float = LEVEL
) -> pd.DataFrame:
    """For each gate: can the class be read from it, and does the network use that?

    Read: the linear probe beats permuted labels (``p_max`` of `linear_probe`, corrected over the
    gates). Used: with another image's gate the network is right more often if that image is of the
    same class (``class_value``, exact McNemar, Holm over the gates); where it is right less often,
    the class acts and does harm. Finer: whether the class of the other image moves the margins
    (``class_margin``, paired t, Holm over the gates), by however little: ``margin_std`` is what to
    hold it against. What is used is there, also where no linear probe reads it. Beside them
    ``dynamic_value``: accuracy with the image's own gate above that with the data set's mean,
    tested as ``class_value``.

    "No use seen" is not "no use": the intervals say how large one might still be.

    Args:
        decoding: of `decode_gates`.
        outcomes: of `attnscope.interventions.replace_gates`.
        level: below it a corrected p counts.

    Returns:
        One row a gate: gate, kind, depth, balanced_accuracy, chance (the mean under permuted
        labels), p_read, class_value, class_low, class_high, p_used, class_margin,
        class_margin_low, class_margin_high, p_margin, dynamic_value, dynamic_low, dynamic_high,
        p_dynamic, dynamic_margin, dynamic_margin_low, dynamic_margin_high, p_dynamic_margin,
        margin_std (standard deviation over the images of the unedited network's margins, the same
        for all gates), verdict (one of `VERDICTS`).

    Raises:
        InputError: the outcomes lack an edit, a column or a gate.
    """
    known = list(decoding["gate"])
    used = _used(outcomes)
    for gate in known:
        if gate not in used.index:
            raise InputError(
                f"the outcomes say nothing of the gate '{gate}'; replace the gates of the network "
                "that was decoded"
            )
    read = decoding.set_index("gate").loc[known]
    frame = pd.DataFrame(
        {
            "gate": known,
            "kind": read["kind"].to_numpy(),
            "depth": read["depth"].to_numpy(),
            "balanced_accuracy": read["balanced_accuracy"].to_numpy(),
            "chance": read["null"].to_numpy(),
            "p_read": read["p_max"].to_numpy(),
        }
    ).join(_corrected(used.loc[known]).reset_index(drop=True))
    constant = read["constant"].to_numpy(bool)
    reads, acts, moves, own = (
        significant(frame[p], level) for p in ("p_read", "p_used", "p_margin", "p_dynamic")
    )
    value = frame["class_value"].to_numpy()
    own &= frame["dynamic_value"].to_numpy() > 0
    frame["verdict"] = np.select(
        [constant, acts & (value > 0), acts, (reads | moves) & own, moves, reads, own],
        [CONSTANT, USED, HARMS, MEAN_KNOWN, MOVES, UNUSED, MEAN],
        NOTHING,
    )
    return frame


@statistic("What the network uses of gates that are replaced together.", takes=("outcomes",))
def joint_usage(outcomes: pd.DataFrame) -> pd.DataFrame:
    """As `gate_usage`, of gates that are replaced together: those of a block, and all of them.

    Gates that stand in for each other show nothing one by one: what one lost another still tells.
    Every gate of a target is that of the same other image.

    Args:
        outcomes: of `attnscope.interventions.replace_gates`.

    Returns:
        One row a target of several gates: gate (``block PATH`` or ``all``), kind (``block`` or
        ``all``), then the columns of `gate_usage` from class_value to margin_std. Holm's correction
        is over the blocks; ``all`` is one question of its own. No row for a network of one gate.

    Raises:
        InputError: the outcomes lack an edit or a column.
    """
    used = _used(outcomes)
    kinds = pd.Series([target_kind(str(target)) for target in used.index], used.index)
    parts = [
        _corrected(used[kinds == kind]).assign(kind=kind)
        for kind in ("block", "all")
        if (kinds == kind).any()
    ]
    if not parts:
        return pd.DataFrame(columns=["gate", "kind", *used.columns])
    frame = pd.concat(parts).rename_axis("gate").reset_index()
    return frame[["gate", "kind", *used.columns]]


def target_kind(target: str) -> str:
    """What a target of `attnscope.interventions.replace_gates` is: gate, block or all."""
    if target == "all":
        return target
    return "block" if target.startswith("block ") else "gate"


def _used(outcomes: pd.DataFrame) -> pd.DataFrame:
    """What the class in each target, and its dependence on the image, are worth; p as they are."""
    swap = edit_contrast(outcomes, "swap_other", "swap_same").set_index("target")
    dynamic = edit_contrast(outcomes, "mean", OWN).set_index("target")
    both = swap.index.intersection(dynamic.index, sort=False)
    swap, dynamic = swap.loc[both], dynamic.loc[both]
    frame = pd.DataFrame(index=both)
    for name, p, contrast in (("class", "used", swap), ("dynamic", "dynamic", dynamic)):
        frame[f"{name}_value"] = contrast["change"]
        frame[f"{name}_low"], frame[f"{name}_high"] = contrast["low"], contrast["high"]
        frame[f"p_{p}"] = contrast["p"]
        for column, end in (("", "change"), ("_low", "low"), ("_high", "high")):
            frame[f"{name}_margin{column}"] = contrast[f"margin_{end}"]
        frame["p_margin" if name == "class" else "p_dynamic_margin"] = contrast["p_margin"]
    frame["margin_std"] = outcomes.loc[outcomes["edit"] == OWN, "margin"].std()
    return frame


def _corrected(used: pd.DataFrame) -> pd.DataFrame:
    """With Holm's correction over the rows, column by column."""
    ps = [column for column in map(str, used) if column.startswith("p_")]
    return used.assign(**{p: holm(used[p].to_numpy(np.float64)) for p in ps})


@statistic("What the network uses of its gates, over seeds.", takes=("usages",))
def usage_over_seeds(usages: Sequence[pd.DataFrame], level: float = LEVEL) -> pd.DataFrame:
    """What `gate_usage` says of several trainings of one kind of network, gate by gate.

    What is sampled is the training: each number is the mean over the trainings, its interval
    Student's t (95 %), p that of the t test whose null is a mean of 0, as in `compare_seeds`. An
    effect that every training has, in another strength each, is seen so; one of a single training
    is not, and is counted beside it. All of them are given the images that were scored and the
    other images whose gates were lent, which are the same for trainings on the same data.

    Args:
        usages: of `gate_usage`, one a training; or of `joint_usage`, and then what is read and how
            deep is not there; or both in one frame.
        level: below it a corrected p of one training counts.

    Returns:
        One row a gate: gate, kind, depth, seeds (how many trainings), balanced_accuracy,
        balanced_low, balanced_high, chance; class_value, class_low, class_high, p_used;
        class_margin, class_margin_low, class_margin_high, p_margin; dynamic_value, dynamic_low,
        dynamic_high, p_dynamic; dynamic_margin, dynamic_margin_low, dynamic_margin_high,
        p_dynamic_margin (each p Holm-corrected over the gates, or over the blocks; that of ``all``
        as it is); margin_std (mean over the trainings); reads, uses, harms, moves, needs_own: in
        how many trainings, each by its own test, the class is read, is used, does harm, moves the
        margins, and the image's own gate is better than the mean. Where all trainings give the same
        number, its interval and p are NaN, as with one training.

    Raises:
        InputError: there is none, or they are of other gates.
    """
    if not usages:
        raise InputError("there is no training to sum up; give one table of gate_usage or more")
    first = usages[0]
    for other in usages[1:]:
        if list(other["gate"]) != list(first["gate"]):
            raise InputError(
                "the trainings have other gates; sum up trainings of one kind of network"
            )
    frame = first[[c for c in ("gate", "kind", "depth") if c in first]].reset_index(drop=True)
    frame["seeds"] = len(usages)
    together = frame["kind"].where(frame["kind"].isin(("block", "all")), "gate").to_numpy()

    def stack(column: str) -> NDArray[np.float64]:
        return np.stack([usage[column].to_numpy(np.float64) for usage in usages])

    for name, column, p in (
        ("balanced", "balanced_accuracy", ""),
        ("class", "class_value", "p_used"),
        ("class_margin", "class_margin", "p_margin"),
        ("dynamic", "dynamic_value", "p_dynamic"),
        ("dynamic_margin", "dynamic_margin", "p_dynamic_margin"),
    ):
        if column not in first:
            continue
        found = [paired_interval(values) for values in stack(column).T]
        frame[column] = [each["difference"] for each in found]
        for end in ("low", "high"):
            frame[f"{name}_{end}"] = [each[end] for each in found]
        if p:
            corrected = np.array([each["p"] for each in found])
            for kind in set(together):
                corrected[together == kind] = holm(corrected[together == kind])
            frame[p] = corrected
    for column in ("chance", "margin_std"):
        if column in first:
            frame[column] = stack(column).mean(0)
    acts, value = significant(stack("p_used"), level), stack("class_value")
    if "p_read" in first:
        frame["reads"] = significant(stack("p_read"), level).sum(0)
    frame["uses"] = (acts & (value > 0)).sum(0)
    frame["harms"] = (acts & (value < 0)).sum(0)
    frame["moves"] = significant(stack("p_margin"), level).sum(0)
    own = significant(stack("p_dynamic"), level) & (stack("dynamic_value") > 0)
    frame["needs_own"] = own.sum(0)
    return frame
