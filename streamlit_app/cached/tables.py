"""Statistics of one recording, or of two, as tables and arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope import statistics
from attnscope.plots.builtin.channel_gates import tested_effects
from attnscope.plots.usage import usage_of
from attnscope.recording.recording import Recording
from cached.caching import statistic
from cached.found import Intervened, Run

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _of_one(
    function: Callable[Concatenate[Recording, _P], _T],
) -> Callable[Concatenate[Run, _P], _T]:
    """Return a statistic of a recording as a cached function of what was found."""

    @functools.wraps(function)  # the cache tells functions apart by their names and sources
    def cached(run: Run, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return function(run.recording, *args, **kwargs)

    return statistic(cached)


def _of_two(
    function: Callable[Concatenate[Recording, Recording, _P], _T],
) -> Callable[Concatenate[Run, Run, _P], _T]:
    """Do the same for a statistic of two recordings."""

    @functools.wraps(function)
    def cached(a: Run, b: Run, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return function(a.recording, b.recording, *args, **kwargs)

    return statistic(cached)


class_metrics = _of_one(statistics.class_metrics)
confusion_matrix = _of_one(statistics.confusion_matrix)
calibration = _of_one(statistics.calibration)
calibration_summary = _of_one(statistics.calibration_summary)
misclassified = _of_one(statistics.misclassified)
class_profiles = _of_one(statistics.class_profiles)
channel_effects = _of_one(tested_effects)
gate_profiles = _of_one(statistics.gate_profiles)
gate_state = _of_one(statistics.gate_state)
class_mean_maps = _of_one(statistics.class_mean_maps)
class_mean_grad_cam = _of_one(statistics.class_mean_grad_cam)
compare_profiles = _of_two(statistics.compare_profiles)
compare_class_order = _of_two(statistics.compare_class_order)
compare_grad_cam = _of_two(statistics.compare_grad_cam)


@statistic
def confidence(run: Run) -> NDArray[np.float64]:
    """Return the softmax probability of the predicted class, ``(images,)``."""
    return run.recording.confidence


@statistic
def agreement_summary(run: Run) -> pd.DataFrame:
    """``statistics.agreement_summary`` with Grad-CAM for the predicted class; of the classes
    without intervals
    """
    return statistics.agreement_summary(run.recording, class_intervals=False)


@statistic
def gate_usage(intervened: Intervened) -> pd.DataFrame:
    """``statistics.gate_usage``

    Raises:
        Unavailable: an experiment that it needs is missing.
    """
    return usage_of(intervened.outcomes)
