"""What can be decoded from a gate, compared with what the network uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from attnscope.errors import InputError
from attnscope.recording.recording import Recording
from attnscope.statistics.control_task import probe_selectivity
from attnscope.statistics.inference import LEVEL, significant
from attnscope.statistics.probe import decoding_p, linear_probe
from attnscope.statistics.probe_gain import probe_gain, several
from attnscope.statistics.questions import ask
from attnscope.statistics.registry import statistic
from attnscope.statistics.variance import between_class_variance
from attnscope.statistics.verdicts import target_kind, verdicts

_CONTROL_COLUMNS = ["control_accuracy", "control_low", "control_high"]
_CONTROL_COLUMNS += ["selectivity", "selectivity_low", "selectivity_high"]


@statistic("Class information in each gate: linear probe and share of variance.")
def decode_gates(
    recording: Recording,
    untrained: Recording | Sequence[Recording] | None = None,
    probe_permutations: int = 200,
    permutations: int = 1000,
    seed: int = 0,
    groups: ArrayLike | None = None,
    control_draws: int = 3,
) -> pd.DataFrame:
    """Measure the class information in each gate: linear probe and share of variance.

    Null hypotheses, intervals and sources are those of `linear_probe` and `between_class_variance`.

    Args:
        recording: recording of one network. The pooled inputs are probed as a control if it has
            them.
        untrained: recording of the same network before training, as a second control, or
            recordings of several draws of its weights.
        probe_permutations: number of permutations of the labels for the probe, which is fitted for
            each.
        permutations: number of permutations of the labels for the share of variance.
        seed: seed of halves and permutations.
        groups: which images are copies of one image: one number or name per image, the same for
            copies (`image_copies`). None: no image is a copy.
        control_draws: number of control tasks of `probe_selectivity`.

    Returns:
        One row per gate, with the columns of `linear_probe` and:

        - ``input_accuracy``, ``input_low``, ``input_high``: balanced accuracy of the same probe on
          the gate's pooled input, with its 95% CI; NaN if that was not recorded.
        - ``untrained_accuracy``, ``untrained_low``, ``untrained_high``: balanced accuracy of the
          same probe on the gate of the untrained network, with its 95% CI; NaN without
          ``untrained``. With several draws, the mean, and the range of their intervals.
        - ``untrained_clipped``: number of clipped values in that probe, over all draws.
        - ``input_gain``, ``untrained_gain``: balanced accuracy of the gate minus that of its pooled
          input, or of the gate of the untrained network, of cross-fitted probes (`probe_gain`);
          ``input_gain_low`` and so on: its 95% CI; ``untrained_draws``: number of draws.
        - ``control_accuracy``, ``control_low``, ``control_high``: mean balanced accuracy of the
          same probe of control tasks (`probe_selectivity`), with its 95% CI; NaN for a recording
          without pictures.
        - ``selectivity``, ``selectivity_low``, ``selectivity_high``: balanced accuracy of the probe
          minus that of the control tasks, with its 95% CI.
        - ``omega_squared``, ``omega_low``, ``omega_high``, ``omega_null_low``, ``omega_null_high``,
          ``omega_p``: omega², its 95% CI, its null band and its p from `between_class_variance`.
        - ``constant``: whether every unit of the gate has the same value for all images.

    Raises:
        InputError: as raised by `linear_probe`, `between_class_variance` and `probe_selectivity`.
    """
    probe = linear_probe(recording, probe_permutations, seed, groups=groups)
    variance = between_class_variance(recording, permutations, seed, groups)
    units = [recording.gate(gate.name, slice(0, 1)).size for gate in recording.gates]
    for column in ("low", "high", "null_low", "null_high", "p"):
        probe[f"omega_{column}"] = variance[column]
    controls = {
        "input": linear_probe(recording, 1, seed, of="pooled_input", groups=groups)
        if recording.pooled_inputs
        else None,
        "untrained": _over_draws(
            [linear_probe(draw, 1, seed, groups=groups) for draw in several(untrained)]
        ),
    }
    for name, control in controls.items():
        for end, column in (("accuracy", "balanced_accuracy"), ("low", "low"), ("high", "high")):
            probe[f"{name}_{end}"] = _of_gates(control, column, probe)
    probe["untrained_clipped"] = _of_gates(controls["untrained"], "clipped", probe)
    gains = probe_gain(recording, several(untrained), seed, groups)
    for name, kind in (("input", "pooled_input"), ("untrained", "untrained")):
        of_control = gains[gains["control"] == kind]
        for end, column in (("", "difference"), ("_low", "low"), ("_high", "high")):
            probe[f"{name}_gain{end}"] = _of_gates(of_control, column, probe)
    probe["untrained_draws"] = len(several(untrained))
    task = (
        probe_selectivity(recording, control_draws, seed, groups)
        if recording.has_pictures
        else None
    )
    for column in _CONTROL_COLUMNS:
        probe[column] = _of_gates(task, column, probe)
    probe["omega_squared"] = variance["omega_squared"]
    probe["constant"] = variance["constant"].to_numpy() == np.array(units)
    return probe


def _over_draws(probes: list[pd.DataFrame]) -> pd.DataFrame | None:
    """Return the probe of each gate over draws of untrained weights; None without a draw."""
    if len(probes) < 2:
        return probes[0] if probes else None
    how = {"balanced_accuracy": "mean", "low": "min", "high": "max", "clipped": "sum"}
    return pd.concat(probes).groupby("gate", sort=False, as_index=False).agg(how)


def _of_gates(control: pd.DataFrame | None, column: str, probe: pd.DataFrame) -> list[float]:
    """Return a column of another probe, gate by gate; NaN for a gate that it lacks."""
    known = {} if control is None else dict(control[["gate", column]].to_numpy())
    return [known.get(gate, np.nan) for gate in probe["gate"]]


@statistic(
    "Whether the class can be decoded from each gate, and whether the network uses the gate.",
    takes=("decoding", "outcomes"),
)
def gate_usage(
    decoding: pd.DataFrame,
    outcomes: pd.DataFrame,
    level: float = LEVEL,
    *,
    smallest_effect: float | None = None,
    smallest_log_loss: float | None = None,
) -> pd.DataFrame:
    """Compare, for each gate, whether the class can be decoded with whether the gate is used.

    - Decodable: the linear probe is better than with permuted labels (``p_max`` of `linear_probe`,
      corrected over the gates).
    - Removal: what is lost if the network never sees the image's own gate. ``removal`` replaces it
      by the best constant, which was chosen on images that are not scored; ``resample`` by the gate
      of any other image. A gate is called used only if the best constant costs: its accuracy is
      significantly lower or its log loss significantly higher, and the other one is not better.
    - Misinformation: accuracy with the gate of another image of the same class minus accuracy with
      that of another class; ``misinformation`` for random donors, ``matched`` for donors of similar
      brightness and contrast. It measures the sensitivity to a wrong gate, not use. A gate is
      called class-specific if it is used and ``matched`` is significant.
    - Oracle: accuracy with the mean gate of the true class minus accuracy with the own gate.

    Null hypothesis of each p: the respective difference is 0. Tests and intervals (95%) are those
    of `edit_contrast`. Within each question, p is Holm-corrected over all targets (gates, blocks
    and all gates together), and over accuracy and log loss (at the best temperature of each edit,
    `calibrated_log_losses`). "No use detected" does not mean "not
    used": ``detectable`` says which loss would have been found.

    Args:
        decoding: table of `decode_gates`.
        outcomes: table of `attnscope.interventions.replace_gates`.
        level: significance level of the verdicts, after correction.
        smallest_effect: smallest change in accuracy that matters, a share. With it, a gate is
            called not needed if removal is shown to change less (two one-sided exact tests).
        smallest_log_loss: smallest change in log loss that matters, in nats.

    Returns:
        One row per gate:

        - ``gate``, ``kind``, ``depth``
        - ``balanced_accuracy``, ``chance``: of the probe, and its mean under permuted labels; 0 to
          1.
        - ``p_read``: ``p_max`` of the probe; NaN if it scored fewer than ten images.
        - for each question Q (``removal``, ``resample``, ``misinformation``, ``matched``,
          ``oracle``): ``Q_value``, ``Q_low``, ``Q_high``, ``p_Q``: effect on accuracy, -1 to 1;
          ``Q_log_loss``, ``Q_log_loss_low``, ``Q_log_loss_high``, ``p_Q_log_loss``: effect on the
          log loss, in nats, with the sign of ``Q_value``: positive if the first edit is worse. NaN
          if the edits of the question were not made.
        - ``p_equivalent``: p of the test that removal changes less than the smallest effects.
        - ``detectable``, ``detectable_log_loss``: the loss of accuracy (a share) and the change in
          log loss (in standard deviations of the change) that removal would have shown with a power
          of 80%, from the numbers of images and of tests alone.
        - ``own_log_loss``: mean log loss of the unedited network, in nats, the same for all gates.
        - ``equivalent``: whether removal is shown to cost less than the smallest effects.
        - ``verdict``: one of `attnscope.statistics.verdicts.VERDICTS`.

        p values and intervals are NaN as in `edit_contrast`; a NaN p is not significant.

    Raises:
        InputError: the outcomes lack a column or a gate.
    """
    known = list(decoding["gate"])
    asked = ask(outcomes, smallest_effect=smallest_effect, smallest_log_loss=smallest_log_loss)
    for gate in known:
        if gate not in asked.index:
            raise InputError(
                "AS711",
                f"the outcomes have no gate '{gate}'; pass the decoding and the outcomes of the "
                "same network",
            )
    read = decoding.set_index("gate").loc[known]
    asked = asked.loc[known]
    frame = pd.DataFrame(
        {
            "gate": known,
            "kind": read["kind"].to_numpy(),
            "depth": read["depth"].to_numpy(),
            "balanced_accuracy": read["balanced_accuracy"].to_numpy(),
            "chance": read["null"].to_numpy(),
            "p_read": decoding_p(read),
        }
    ).join(asked.reset_index(drop=True))
    frame["equivalent"] = significant(frame["p_equivalent"], level)
    frame["verdict"] = verdicts(
        asked,
        constant=read["constant"].to_numpy(bool),
        reads=significant(frame["p_read"], level),
        level=level,
    )
    return frame


@statistic(
    "What the network uses of gates that are replaced together, block by block.",
    takes=("outcomes",),
)
def joint_usage(
    outcomes: pd.DataFrame,
    level: float = LEVEL,
    *,
    smallest_effect: float | None = None,
    smallest_log_loss: float | None = None,
) -> pd.DataFrame:
    """Measure what the network uses of gates that are replaced together.

    The targets are the blocks with several gates, and all gates of the network. Gates can
    substitute for each other: then the replacement of a single gate shows no effect. Every gate of
    a target is taken from the same other image. Questions, tests, null hypotheses and intervals are
    those of `gate_usage`, and the targets belong to the same family of tests.

    Args:
        outcomes: table of `attnscope.interventions.replace_gates`.
        level: as for `gate_usage`.
        smallest_effect: as for `gate_usage`.
        smallest_log_loss: as for `gate_usage`.

    Returns:
        One row per target of several gates; no rows for a network with one gate:

        - ``gate``: ``block PATH`` or ``all``.
        - ``kind``: ``block`` or ``all``.
        - the columns of `gate_usage` from ``removal_value`` to ``verdict``, which is one of
          `attnscope.statistics.verdicts.JOINT_VERDICTS`.

    Raises:
        InputError: the outcomes lack a column.
    """
    asked = ask(outcomes, smallest_effect=smallest_effect, smallest_log_loss=smallest_log_loss)
    asked["equivalent"] = significant(asked["p_equivalent"], level)
    asked["verdict"] = verdicts(asked, level=level)
    columns = list(asked.columns)
    asked["kind"] = [target_kind(str(target)) for target in asked.index]
    frame = asked[asked["kind"] != "gate"].rename_axis("gate").reset_index()
    return frame[["gate", "kind", *columns]]
