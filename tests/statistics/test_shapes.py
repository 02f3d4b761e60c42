"""Functions on arrays accept and return the shapes and types of their annotations."""

from __future__ import annotations

import numpy as np
import pytest
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError, jaxtyped

from attnscope.kinds import Gate
from attnscope.statistics import class_mean_grad_cam, class_mean_maps, gate_logits
from attnscope.statistics.agreement import center_map, score_maps, to_grid
from attnscope.statistics.class_sums import class_sums, permuted_labels
from attnscope.statistics.effects import calibrated_log_losses
from attnscope.statistics.geometry import gate_similarity, linear_cka
from attnscope.statistics.inference import (
    bounded_mean_interval,
    holm,
    mcnemar,
    mean_interval,
    mean_share_interval,
    paired_accuracy_change,
    paired_interval,
    paired_t,
)
from attnscope.statistics.profiles import class_moments
from attnscope.statistics.ranks import (
    centered_ranks,
    correlation,
    rank_correlation,
    standard_ranks,
)
from attnscope.statistics.reading import gate_rows
from attnscope.statistics.resampling import (
    bootstrap_interval,
    bootstrap_means,
    bootstrap_sums,
    centered_interval,
    mantel,
    null_band,
    order_test,
)
from attnscope.statistics.splits import (
    class_partners,
    derangement,
    present_classes,
    stratified_folds,
    stratified_sample,
)

VIOLATIONS = (TypeCheckError, BeartypeCallHintViolation)
RNG = np.random.default_rng(0)
LABELS = np.arange(12) % 3
SHORT = LABELS[:5]
RIGHT = RNG.random(12) < 0.5
MAPS = RNG.random((12, 4, 4)).astype(np.float32)
VALUES = RNG.random((12, 5)).astype(np.float32)
MATRIX = RNG.random((12, 2))
LIST = RNG.random(12)
SQUARE = RNG.random((4, 4)) + RNG.random((4, 4)).T
CHANNEL = Gate("g", "channel", 5, None, "sigmoid", 0, 1, 1)
MAP = Gate("s", "spatial", 5, (4, 4), "sigmoid", 0, 1, 1)


def checked(function):
    return jaxtyped(function, typechecker=beartype)


@pytest.mark.parametrize(
    ("function", "arguments", "wrong"),
    [
        (score_maps, (MAPS, MAPS[:, :2], LABELS, 0), {2: SHORT}),
        (to_grid, (MAPS, (2, 2)), {0: MAPS[0]}),
        (center_map, ((4, 3),), {0: 4}),
        (calibrated_log_losses, (VALUES, LABELS), {1: SHORT}),
        (gate_similarity, (VALUES, VALUES[:, :3], CHANNEL), {1: VALUES[:5]}),
        (gate_similarity, (MAPS, MAPS, MAP), {1: MAPS[:5]}),
        (linear_cka, (VALUES, MATRIX), {1: MATRIX[:5]}),
        (holm, (LIST,), {0: MATRIX}),
        (bounded_mean_interval, (MATRIX, MATRIX, LABELS), {2: SHORT}),
        (mcnemar, (RIGHT, RIGHT), {1: LABELS}),
        (paired_t, (LIST, LIST), {1: LIST[:5]}),
        (paired_interval, (LIST,), {0: MATRIX}),
        (mean_interval, (MATRIX, MATRIX, LABELS), {2: SHORT}),
        (paired_accuracy_change, (RIGHT, RIGHT), {1: RIGHT[:5]}),
        (mean_share_interval, (LIST, LABELS + 9), {1: SHORT}),
        (class_moments, (MAPS, LABELS, 3), {1: SHORT}),
        (rank_correlation, (VALUES, VALUES), {1: VALUES[:5]}),
        (centered_ranks, (VALUES,), {0: LIST}),
        (correlation, (MATRIX, MATRIX[:1]), {1: MATRIX[:5]}),
        (standard_ranks, (MATRIX,), {0: VALUES}),
        (present_classes, (LABELS, 1), {0: LIST}),
        (stratified_folds, (LABELS, 2, RNG), {0: LIST}),
        (stratified_sample, (LABELS, 5, RNG), {0: LIST}),
        (permuted_labels, (LABELS, 3, RNG), {0: LIST}),
        (bootstrap_means, (MATRIX, 7, RNG), {0: LIST}),
        (bootstrap_sums, (MATRIX, 7, RNG), {0: LIST}),
        (bootstrap_interval, (MATRIX, 7, 0), {0: LIST}),
        (class_sums, (LABELS[None], 3, VALUES), {2: VALUES[:5]}),
        (null_band, (LIST,), {0: MATRIX}),
        (centered_interval, (0.5, LIST), {1: MATRIX}),
        (mantel, (SQUARE, SQUARE, 9, 0), {1: SQUARE[:3]}),
        (order_test, (LIST, LIST, 0), {1: LIST[:5]}),
        (class_partners, (LABELS, 0), {0: LIST}),
        (derangement, (12, 0), {0: 0.5}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_functions_on_arrays(function, arguments, wrong):
    function = checked(function)
    function(*arguments)
    for place, value in wrong.items():
        changed = list(arguments)
        changed[place] = value
        with pytest.raises(VIOLATIONS):
            function(*changed)


def test_functions_on_recordings(make_recording):
    recording = make_recording()
    gates = [gate.name for gate in recording.gates]
    assert checked(class_mean_maps)(recording, gates[1]).shape == (3, 8, 8)
    assert checked(class_mean_grad_cam)(recording).shape == (3, 4, 4)
    assert checked(gate_logits)(recording, gates[0])[0].shape == (60, 8)
    assert checked(gate_rows)(recording, gates[1], np.array([7, 2])).shape == (2, 8, 8)
    with pytest.raises(VIOLATIONS):
        checked(gate_rows)(recording, gates[1], np.array([7.0, 2]))
