"""What can be decoded from a gate, compared with what the network uses."""

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

USED = "class is used"
HARMS = "class is used and lowers accuracy"
MEAN_KNOWN = "class information found; mean ablation lowers accuracy"
MOVES = "class changes the margins; no effect on accuracy detected"
UNUSED = "class is decodable; no use detected"
MEAN = "no class information found; mean ablation lowers accuracy"
NOTHING = "no class information found; no use detected"
CONSTANT = "constant"
VERDICTS = (USED, HARMS, MEAN_KNOWN, MOVES, UNUSED, MEAN, NOTHING, CONSTANT)
"""The verdicts of `gate_usage`."""


@statistic("Class information in each gate: linear probe and share of variance.")
def decode_gates(
    recording: Recording,
    untrained: Recording | None = None,
    probe_permutations: int = 200,
    permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure the class information in each gate: linear probe and share of variance.

    Null hypotheses, intervals and sources are those of `linear_probe` and `between_class_variance`.

    Args:
        recording: recording of one network. The pooled inputs are probed as a control if it has
            them.
        untrained: recording of the same network before training, as a second control.
        probe_permutations: number of permutations of the labels for the probe, which is fitted for
            each.
        permutations: number of permutations of the labels for the share of variance.
        seed: seed of halves and permutations.

    Returns:
        One row per gate, with the columns of `linear_probe` and:

        - ``input_accuracy``, ``input_low``, ``input_high``: balanced accuracy of the same probe on
          the gate's pooled input, with its 95% CI; NaN if that was not recorded.
        - ``untrained_accuracy``, ``untrained_low``, ``untrained_high``: balanced accuracy of the
          same probe on the gate of the untrained network, with its 95% CI; NaN without
          ``untrained``.
        - ``untrained_clipped``: number of clipped values in that probe.
        - ``omega_squared``, ``omega_low``, ``omega_high``, ``omega_null_low``, ``omega_null_high``,
          ``omega_p``: omega², its 95% CI, its null band and its p from `between_class_variance`.
        - ``constant``: whether every unit of the gate has the same value for all images.

    Raises:
        InputError: as raised by `linear_probe` and `between_class_variance`.
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
    """Return a column of another probe, gate by gate; NaN for a gate that it lacks."""
    known = {} if control is None else dict(control[["gate", column]].to_numpy())
    return [known.get(gate, np.nan) for gate in probe["gate"]]


@statistic(
    "Whether the class can be decoded from each gate, and whether the network uses it.",
    takes=("decoding", "outcomes"),
)
def gate_usage(
    decoding: pd.DataFrame, outcomes: pd.DataFrame, level: float = LEVEL
) -> pd.DataFrame:
    """Compare, for each gate, whether the class can be decoded with whether the network uses it.

    - Decodable: the linear probe is better than with permuted labels (``p_max`` of `linear_probe`,
      corrected over the gates).
    - Used: resample ablation with a gate of another class lowers accuracy relative to a gate of the
      same class (``class_value`` above 0; exact McNemar test, Holm-corrected over the gates). If it
      raises accuracy, the class information in the gate lowers accuracy. A gate that is used holds
      class information even if a linear probe does not find it.
    - Changes the margins: the same contrast for the margins (``class_margin``; paired t test,
      Holm-corrected over the gates). Margins are sensitive; ``margin_std`` puts their size in
      perspective.
    - Dynamic: accuracy with the image's own gate minus accuracy under mean ablation
      (``dynamic_value``; tested like ``class_value``), and the same for the margins.

    Null hypothesis of each p: the respective difference is 0. Sources and intervals (95%) are those
    of `edit_contrast`. "No use detected" does not mean "not used": the intervals show how large an
    effect may still be.

    Args:
        decoding: table of `decode_gates`.
        outcomes: table of `attnscope.interventions.replace_gates`.
        level: significance level of the verdicts, after correction.

    Returns:
        One row per gate:

        - ``gate``, ``kind``, ``depth``
        - ``balanced_accuracy``, ``chance``: of the probe, and its mean under permuted labels; 0 to
          1.
        - ``p_read``: ``p_max`` of the probe.
        - ``class_value``, ``class_low``, ``class_high``, ``p_used``: effect on accuracy, -1 to 1.
        - ``class_margin``, ``class_margin_low``, ``class_margin_high``, ``p_margin``: effect on the
          margin, in units of the logits.
        - ``dynamic_value``, ``dynamic_low``, ``dynamic_high``, ``p_dynamic``: effect on accuracy.
        - ``dynamic_margin``, ``dynamic_margin_low``, ``dynamic_margin_high``, ``p_dynamic_margin``:
          effect on the margin.
        - ``margin_std``: standard deviation over images of the margins of the unedited network, the
          same for all gates.
        - ``verdict``: one of `VERDICTS`, the first that applies in the order constant, `USED`,
          `HARMS`, `MEAN_KNOWN`, `MOVES`, `UNUSED`, `MEAN`, `NOTHING`.

        p values and intervals are NaN as in `edit_contrast`; a NaN p is not significant.

    Raises:
        InputError: the outcomes lack an edit, a column or a gate.
    """
    known = list(decoding["gate"])
    used = _used(outcomes)
    for gate in known:
        if gate not in used.index:
            raise InputError(
                "AS711",
                f"the outcomes have no gate '{gate}'; pass the decoding and the outcomes of the "
                "same network",
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


@statistic(
    "What the network uses of gates that are replaced together, block by block.",
    takes=("outcomes",),
)
def joint_usage(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Measure what the network uses of gates that are replaced together.

    The targets are the blocks with several gates, and all gates of the network. Gates can
    substitute for each other: then the replacement of a single gate shows no effect. Every gate of
    a target is taken from the same other image. Tests, null hypotheses and intervals are those of
    `gate_usage`.

    Args:
        outcomes: table of `attnscope.interventions.replace_gates`.

    Returns:
        One row per target of several gates; no rows for a network with one gate:

        - ``gate``: ``block PATH`` or ``all``.
        - ``kind``: ``block`` or ``all``.
        - the columns of `gate_usage` from ``class_value`` to ``margin_std``. p values are
          Holm-corrected over the blocks; ``all`` is a test of its own.

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
    """Return what a target of `attnscope.interventions.replace_gates` is: gate, block or all."""
    if target == "all":
        return target
    return "block" if target.startswith("block ") else "gate"


def _used(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return the contrasts of class and own gate for each target, with uncorrected p values."""
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
    """Correct each column of p values over the rows by Holm's method."""
    ps = [column for column in map(str, used) if column.startswith("p_")]
    return used.assign(**{p: holm(used[p].to_numpy(np.float64)) for p in ps})


@statistic("What the network uses of its gates, averaged over seeds.", takes=("usages",))
def usage_over_seeds(usages: Sequence[pd.DataFrame], level: float = LEVEL) -> pd.DataFrame:
    """Summarize `gate_usage` over several seeds of one configuration, gate by gate.

    The sampling unit is the seed: each number is the mean over the seeds, its interval is Student's
    t interval (95%), and p is that of the t test. Null hypothesis: the mean is 0. An effect that is
    present in every seed can be significant even if its size varies. An effect that is present in a
    single seed only is not significant here, but is counted in the last five columns. The results
    are conditional on the scored images and on the donor images, which are the same for all seeds
    on the same data.

    Args:
        usages: tables of `gate_usage`, one per seed. Tables of `joint_usage` lack the columns about
            decoding and depth; both can be concatenated into one table.
        level: significance level of the counts, after correction.

    Returns:
        One row per gate:

        - ``gate``, ``kind``, ``depth``
        - ``seeds``: number of seeds.
        - ``balanced_accuracy``, ``balanced_low``, ``balanced_high``, ``chance``
        - ``class_value``, ``class_low``, ``class_high``, ``p_used``
        - ``class_margin``, ``class_margin_low``, ``class_margin_high``, ``p_margin``
        - ``dynamic_value``, ``dynamic_low``, ``dynamic_high``, ``p_dynamic``
        - ``dynamic_margin``, ``dynamic_margin_low``, ``dynamic_margin_high``, ``p_dynamic_margin``
        - ``margin_std``: mean over the seeds.
        - ``reads``, ``uses``, ``harms``, ``moves``, ``needs_own``: number of seeds in which, by the
          test of that seed alone, the class can be decoded, is used, lowers accuracy, changes the
          margins, and the image's own gate is better than its mean.

        Columns have the units of `gate_usage`. p values are Holm-corrected over the gates and over
        the blocks; that of ``all`` is not corrected. Intervals and p values are NaN with one seed,
        and if all seeds give the same number.

    Raises:
        InputError: there are no tables, or they are of different gates.
    """
    if not usages:
        raise InputError(
            "AS712", "the list of usage tables is empty; pass at least one table of gate_usage"
        )
    first = usages[0]
    for other in usages[1:]:
        if list(other["gate"]) != list(first["gate"]):
            odd = sorted(set(first["gate"]) ^ set(other["gate"]))
            what = f"only one of two has the gate '{odd[0]}'" if odd else "their order differs"
            raise InputError(
                "AS713",
                f"the usage tables are of different gates: {what}; pass tables of one kind of "
                "network",
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
