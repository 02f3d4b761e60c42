"""Statistics of one recording, or of two, as tables and arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope import statistics
from attnscope.plots.builtin.channel_gates import tested_effects
from attnscope.plots.builtin.gate_profiles import GateProfiles
from attnscope.plots.builtin.gate_state import GateState
from attnscope.plots.builtin.map_agreement import MapAgreement
from attnscope.plots.builtin.per_class_gates import PerClassGates
from attnscope.plots.builtin.per_class_grad_cam import PerClassGradCam
from attnscope.plots.usage import usage_of
from attnscope.recording.recording import Recording
from cached import results
from cached.caching import slow, statistic
from cached.found import Intervened, Run

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _of_one(
    function: Callable[Concatenate[Recording, _P], _T],
    cache: Callable[[Callable[..., Any]], Callable[..., Any]] = statistic,
) -> Callable[Concatenate[Run, _P], _T]:
    """Return a statistic of a recording as a cached function of what was found."""

    @functools.wraps(function)  # the cache tells functions apart by their names and sources
    def cached(run: Run, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return function(run.recording, *args, **kwargs)

    return cache(cached)


class_metrics = _of_one(statistics.class_metrics)
confusion_matrix = _of_one(statistics.confusion_matrix)
calibration = _of_one(statistics.calibration)
calibration_summary = _of_one(statistics.calibration_summary)
misclassified = _of_one(statistics.misclassified)
class_profiles = _of_one(statistics.class_profiles)
_gate_profiles = _of_one(statistics.gate_profiles)
_gate_state = _of_one(statistics.gate_state)
class_mean_maps = _of_one(statistics.class_mean_maps, slow)
class_mean_grad_cam = _of_one(statistics.class_mean_grad_cam, slow)


@slow
def channel_effects(run: Run, gate: str) -> pd.DataFrame:
    """``statistics.channel_effects`` with the tests of ``permuted_channel_effects``"""
    return tested_effects(run.recording, gate)


@statistic
def confidence(run: Run) -> NDArray[np.float64]:
    """Return the softmax probability of the predicted class, ``(images,)``."""
    return run.recording.confidence


def gate_profiles(run: Run) -> pd.DataFrame:
    """``statistics.gate_profiles``"""
    shown = results.of_run("gate_profiles", run)
    return shown.profiles if isinstance(shown, GateProfiles) else _gate_profiles(run)


def gate_state(run: Run) -> pd.DataFrame:
    """``statistics.gate_state``"""
    shown = results.of_run("gate_state", run)
    is_all = isinstance(shown, GateState) and not shown.without_bounds
    return shown.state if is_all else _gate_state(run)


def agreement_summary(run: Run) -> pd.DataFrame:
    """``statistics.agreement_summary`` with Grad-CAM for the predicted class; of the classes
    without intervals
    """
    shown = results.of_run("map_agreement", run)
    if isinstance(shown, MapAgreement):
        return shown.summary
    return statistics.agreement_summary(run.recording)  # raises what is missing


def compare_profiles(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_profiles``"""
    shown = results.of_comparison("per_class_gates", a, b)
    if isinstance(shown, PerClassGates):
        return shown.distances
    return statistics.compare_profiles(a.recording, b.recording)  # raises what is missing


def compare_class_order(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_class_order``"""
    shown = results.of_comparison("per_class_gates", a, b)
    if isinstance(shown, PerClassGates):
        return shown.order
    return statistics.compare_class_order(a.recording, b.recording)  # raises what is missing


def compare_grad_cam(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_grad_cam`` for the predicted class"""
    shown = results.of_comparison("per_class_grad_cam", a, b)
    if isinstance(shown, PerClassGradCam):
        return shown.comparison
    return statistics.compare_grad_cam(a.recording, b.recording)  # raises what is missing


@statistic
def gate_usage(intervened: Intervened) -> pd.DataFrame:
    """``statistics.gate_usage``

    Raises:
        Unavailable: an experiment that it needs is missing.
    """
    return usage_of(intervened.outcomes)
