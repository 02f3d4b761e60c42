"""Erase the class from a gate: is the linear information that a probe reads used?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64
from numpy.typing import NDArray
from scipy import special

from attnscope.interventions.constants import as_edits
from attnscope.interventions.leace import Eraser
from attnscope.interventions.replay import PrefixCache
from attnscope.interventions.setup import InterventionSetup, expect_draws, expect_images
from attnscope.interventions.work import Work, alone, batches_of
from attnscope.kinds import Gate
from attnscope.recording.pieces import Piece
from attnscope.shapes import Array
from attnscope.statistics.effects import OUTCOME_COLUMNS, OWN, calibrated_log_losses, edit_contrast
from attnscope.statistics.inference import holm
from attnscope.statistics.logits import INVERTIBLE, logits_of_values
from attnscope.statistics.probe import probe_of_values
from attnscope.statistics.resampling import null_band, permutation_p

CONCEPT_DRAWS = 39
"""Number of random subspaces."""
MOST_UNITS = 4096
"""Gates with more values per image are left out: the covariance of their values is too large."""
ERASED = "class erased"
_ROUNDING = 1e-5
"""Largest spread of rounding errors in single precision, as a share of the spread of the logits."""

_Activation = Callable[[NDArray[np.float64]], NDArray[np.float64]]
_ACTIVATIONS: Mapping[str, _Activation] = {
    "sigmoid": special.expit,
    "tanh": special.expit,
    "softsign": lambda z: (1 + z / (1 + np.abs(z))) / 2,
    "erf": lambda z: (1 + special.erf(z)) / 2,
    "hardsigmoid": lambda z: np.clip(z, 0, 1),
    "relu6": lambda z: np.clip(z, 0, 1),
    "clamp": lambda z: np.clip(z, 0, 1),
    "hardtanh": lambda z: np.clip(z, 0, 1),
    "none": lambda z: z,
}
"""Activation -> the function that maps `attnscope.statistics.gate_logits` to the position of the
gate between its bounds, 0 to 1. A softmax has none for each value alone."""
# What a linear probe reads from the gate, and from the gate with the class erased.
_PROBE = ("probe_before", "probe_after", "probe_low", "probe_high", "probe_chance")
_COLUMNS = [
    "gate",
    "rank",
    "units",
    "spanned",
    "is_removal",
    "images",
    "change",
    "low",
    "high",
    "p",
    "log_loss_change",
    "log_loss_low",
    "log_loss_high",
    "p_log_loss",
    *_PROBE,
    "moved",
    "random_moved",
    "random_change",
    "null",
    "null_low",
    "null_high",
    "p_random",
    "draws",
]


def erasable_gates(setup: InterventionSetup) -> tuple[list[Gate], dict[str, str]]:
    """Return the gates from which a class can be erased, and why each other one is left out."""
    found, left_out = [], {}
    for gate in setup.gates:
        units = int(np.prod(setup.recording.gate(gate.name, slice(0, 1)).shape[1:]))
        if gate.activation not in _ACTIVATIONS or gate.activation not in INVERTIBLE:
            left_out[gate.name] = f"its activation {gate.activation} has no inverse for each value"
        elif units > MOST_UNITS:
            left_out[gate.name] = f"it has {units:,} values per image, more than {MOST_UNITS:,}"
        else:
            found.append(gate)
    return found, left_out


def erase_class(
    setup: InterventionSetup,
    *,
    draws: int = CONCEPT_DRAWS,
    images: int = 250,
    resamples: int = 1000,
    progress: bool = True,
    work: Work | None = None,
) -> pd.DataFrame:
    """Erase the class from the logits of each gate (LEACE), and measure what the network loses.

    The eraser is fitted on donors, of which all classes then have the same mean logits, so that no
    linear probe reads the class from the logits of the donors; only linear information is meant.
    The changed logits are mapped back through the activation, so that the values stay within their
    bounds. An activation that clips, such as a hard sigmoid, cannot take on all of them, and a
    linear probe may read the class from the values that are left. ``probe_after`` measures this:
    the probe of `attnscope.statistics.linear_probe`, fitted on the values of the donors with the
    class erased, and scored on those that the network is run with. If it is above chance, the class
    was erased in part.

    Random subspaces of the same rank in the whitened logits, each scaled to the same mean squared
    change of the logits, show what a change of this size costs whatever it erases. If the rank
    reaches the number of directions along which the logits vary, everything is erased, and erasing
    is the same as removal by a constant.

    Args:
        setup: The network and its images.
        draws: Number of random subspaces.
        images: Number of scored images to use.
        resamples: Number of bootstrap resamples.
        progress: Whether to show a progress bar, if there is no ``work``.
        work: Pieces that are finished already, and where new ones are kept.

    Returns:
        One row per gate; gates that cannot be erased are left out (`erasable_gates`).

        - ``gate``, ``rank``, ``units``: number of erased directions, and of values of the gate.
        - ``spanned``: number of directions along which the logits of the donors vary.
        - ``is_removal``: whether everything is erased.
        - ``images``
        - ``change``, ``low``, ``high``, ``p``, ``log_loss_change``, ``log_loss_low``,
          ``log_loss_high``, ``p_log_loss``: changes of accuracy and log loss by erasing the class,
          as in `attnscope.statistics.edit_contrast`. p is Holm-corrected over gates, accuracy and
          log loss.
        - ``probe_before``, ``probe_after``: balanced accuracy of a linear probe of the class, 0 to
          1, on the gate and on the gate with the class erased; ``probe_low``, ``probe_high``: 95%
          CI of the latter; ``probe_chance``: its mean under permuted labels. They are NaN if the
          probe cannot be fitted.
        - ``moved``, ``random_moved``: root mean squared change of the gate by erasing the class,
          and by random subspaces, in units of the gate.
        - ``random_change``: mean change in accuracy over the random subspaces.
        - ``null``, ``null_low``, ``null_high``: mean change in log loss over the random subspaces,
          and its central 95%.
        - ``p_random``: share of random subspaces that raise the log loss at least as much,
          one-sided, not corrected. Null hypothesis: the class is a random subspace of this rank.
        - ``draws``

    Raises:
        InputError: ``images`` (AS801) or ``draws`` (AS817) is below 1.
    """
    expect_images(images)
    expect_draws(draws)
    rows = setup.sample(images)
    labels = setup.recording.labels
    gates, _ = erasable_gates(setup)
    if not gates:
        return pd.DataFrame(columns=_COLUMNS)
    size, by_name = setup.batch_size, {gate.name: gate for gate in gates}
    starts = range(0, len(rows), size)
    cache = PrefixCache(setup.model, setup.gates, [(gate.name,) for gate in gates])
    found: list[pd.DataFrame] = []
    about: dict[str, dict[str, float]] = {}
    own = np.zeros((len(rows), 0), np.float32)
    with alone(work, progress, "concept") as todo, setup.eval_without_gradients():
        todo.start(len(rows) * len(gates) * (2 + draws))
        for gate in gates:
            erased: _Erased | None = None
            name = gate.name
            needed = [f"{name}/{number}" not in todo.pieces for number in range(len(starts))]
            if any(needed) or f"{name}/about" not in todo.pieces:
                erased = _Erased.of(setup, gate, rows, draws)
            facts = todo.piece(f"{name}/about", 0, partial(_facts, erased))
            about[name] = {key: float(value[0]) for key, value in facts.items()}
            batches = batches_of(setup, rows, needed)
            pieces = []
            for number, start in enumerate(starts):
                places = slice(start, min(start + size, len(rows)))
                if needed[number]:
                    cache.forward(next(batches)[1].x)
                run = partial(_run, cache, erased, by_name, places, setup)
                units = (places.stop - places.start) * (2 + draws)
                pieces.append(todo.piece(f"{name}/{number}", units, run))
            logits = np.concatenate([piece["logits"] for piece in pieces], axis=1)
            own = np.concatenate([piece[OWN] for piece in pieces])
            found.append(_outcomes(name, rows, labels[rows], logits))
        todo.end()
    base = _outcomes("", rows, labels[rows], own[None])
    return _table(base, found, about, resamples, setup.seed, draws)


@dataclass(frozen=True)
class _Erased:
    """The values of one gate with an erased class, and with erased random subspaces."""

    gate: Gate
    edited: Float32[Array, "edits images *gate"]
    """``(1 + draws, n, ...)``, first those without the class."""
    facts: Mapping[str, float]

    @classmethod
    def of(
        cls, setup: InterventionSetup, gate: Gate, rows: NDArray[np.int64], draws: int
    ) -> _Erased:
        """Fit on donors, and erase from the gates of the images in ``rows``."""
        donors = np.flatnonzero(setup.donors)
        labels = setup.recording.labels
        theirs = logits_of_values(setup.gates_of(gate.name, donors), gate)[0]
        recorded = setup.gates_of(gate.name, rows)
        logits = logits_of_values(recorded, gate)[0]
        eraser = Eraser.fit(theirs, labels[donors])
        change = eraser.change(logits)
        size = np.sqrt((change**2).mean())
        rng = setup.rng(f"subspaces {gate.name}")
        values = [_gate_of(logits + change, gate)]
        for _ in range(draws):
            other = eraser.change(logits, eraser.random_basis(rng))
            moved = np.sqrt((other**2).mean())
            values.append(_gate_of(logits + other * (size / moved if moved else 0.0), gate))
        every = np.stack(values)
        flat = recorded.reshape(len(rows), -1)
        steps = np.sqrt(((every - flat) ** 2).mean((1, 2)))
        # What the network is run with: values in single precision, within their bounds.
        erased = [_gate_of(theirs + eraser.change(theirs), gate), values[0]]
        left = [logits_of_values(each.astype(np.float32), gate)[0] for each in erased]
        probed = _probed(setup, donors, rows, (theirs, logits), (left[0], left[1]))
        facts = {
            "rank": eraser.rank,
            "units": logits.shape[1],
            "spanned": eraser.spanned,
            **probed,
            "moved": float(steps[0]),
            "random_moved": float(np.sqrt((steps[1:] ** 2).mean())),
        }
        shape = (len(every), *recorded.shape)
        return cls(gate, every.reshape(shape).astype(np.float32), facts)


def _probed(
    setup: InterventionSetup,
    donors: NDArray[np.int64],
    rows: NDArray[np.int64],
    before: tuple[NDArray[np.float64], NDArray[np.float64]],
    after: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> dict[str, float]:
    """Fit a probe on donors and score it on other images, before and after the class is erased.

    The donors themselves cannot be scored: where all their classes have one mean, those of a half
    lie on the other side of those of the rest, and a probe of one half is worse than chance.

    Args:
        setup: The network and its images.
        donors: Rows of the donors, ``(N,)``.
        rows: Rows of the other images, ``(n,)``.
        before: Logits of the donors, ``(N, U)``, and of the other images, ``(n, U)``.
        after: The same with the class erased.

    Returns:
        The columns `_PROBE`; NaN where no probe can be fitted.
    """
    every = np.concatenate([donors, rows])
    labels = setup.recording.labels[every]
    copies = None if setup.copies is None else setup.copies[every]
    places = np.arange(len(every))
    fit, score = places[: len(donors)], places[len(donors) :]
    own, left = np.concatenate(before), np.concatenate(after)
    # A unit that is erased as a whole differs between images by rounding errors only.
    left[:, left[fit].std(0) <= _ROUNDING * own[fit].std(0)] = 0
    first, second = (
        probe_of_values(values, labels, fit, score, setup.seed, copies) for values in (own, left)
    )
    found = [second.get(key, np.nan) for key in ("balanced_accuracy", "low", "high", "null")]
    return dict(zip(_PROBE, [first.get("balanced_accuracy", np.nan), *found], strict=True))


def _gate_of(logits: Float64[Array, "images units"], gate: Gate) -> NDArray[np.float64]:
    """Map logits back through the activation, within the bounds of the gate."""
    share = _ACTIVATIONS[gate.activation](logits)
    if not gate.bounded:
        return share
    found: NDArray[np.float64] = gate.lo + (gate.hi - gate.lo) * np.clip(share, 0, 1)
    return found


def _facts(erased: _Erased | None) -> Piece:
    assert erased is not None  # else the piece is finished
    return {name: np.array([value], np.float64) for name, value in erased.facts.items()}


def _run(
    cache: PrefixCache,
    erased: _Erased | None,
    gates: Mapping[str, Gate],
    places: slice,
    setup: InterventionSetup,
) -> Piece:
    """Return the logits: ``own`` ``(n, K)``, and ``logits`` ``(1 + draws, n, K)``."""
    assert erased is not None
    found = []
    for values in erased.edited[:, places]:
        edits = as_edits({erased.gate.name: values}, gates, setup.device)
        found.append(cache.rerun(edits).float().cpu().numpy())
    return {OWN: cache.logits.float().cpu().numpy(), "logits": np.stack(found)}


def _outcomes(
    target: str,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    logits: Float32[Array, "edits images classes"],
) -> pd.DataFrame:
    """Return a table of outcomes; the edit is the number of the place in ``logits``."""
    frames = []
    for place, each in enumerate(logits):
        edit = OWN if not target else ERASED if place == 0 else str(place)
        losses = calibrated_log_losses(each, labels)
        values = {
            "row": rows, "label": labels, "prediction": each.argmax(1), "log_loss": losses,
        }  # fmt: skip
        frames.append(
            pd.DataFrame({"target": target, "edit": edit, **values}, columns=OUTCOME_COLUMNS)
        )
    return pd.concat(frames, ignore_index=True)


def _table(
    base: pd.DataFrame,
    found: Sequence[pd.DataFrame],
    about: Mapping[str, Mapping[str, float]],
    resamples: int,
    seed: int,
    draws: int,
) -> pd.DataFrame:
    rows = []
    own = base["log_loss"].mean()
    right = (base["prediction"] == base["label"]).mean()
    for outcomes in found:
        name = str(outcomes["target"].iloc[0])
        facts = about[name]
        erased = outcomes[outcomes["edit"] == ERASED]
        contrast = edit_contrast(pd.concat([base, erased]), OWN, ERASED, resamples, seed).iloc[0]
        random = outcomes[outcomes["edit"] != ERASED]
        drawn = random.groupby("edit", sort=False)["log_loss"].mean().to_numpy() - own
        hits = (random["prediction"] == random["label"]).mean()
        null_low, null_high = null_band(drawn)
        rows.append(
            {
                "gate": name,
                "rank": int(facts["rank"]),
                "units": int(facts["units"]),
                "spanned": int(facts["spanned"]),
                "is_removal": facts["rank"] >= facts["spanned"],
                **contrast.drop("target").to_dict(),
                "probe_before": facts["probe_before"],
                "probe_after": facts["probe_after"],
                "probe_low": facts["probe_low"],
                "probe_high": facts["probe_high"],
                "probe_chance": facts["probe_chance"],
                "moved": facts["moved"],
                "random_moved": facts["random_moved"],
                "random_change": hits - right,
                "null": drawn.mean(),
                "null_low": null_low,
                "null_high": null_high,
                "p_random": float(permutation_p(drawn, np.asarray(contrast["log_loss_change"]))),
                "draws": draws,
            }
        )
    table = pd.DataFrame(rows, columns=_COLUMNS)
    both = table[["p", "p_log_loss"]].to_numpy(np.float64)
    table[["p", "p_log_loss"]] = holm(both.ravel()).reshape(both.shape)
    return table
