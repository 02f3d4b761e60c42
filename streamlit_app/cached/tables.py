"""Statistics of one recording, or of two, as tables and arrays."""

from __future__ import annotations

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
from cached import results
from cached.caching import statistic
from cached.found import Intervened, Run


@statistic
def class_metrics(run: Run) -> pd.DataFrame:
    """``statistics.class_metrics``"""
    return statistics.class_metrics(run.recording)


@statistic
def confusion_matrix(run: Run) -> pd.DataFrame:
    """``statistics.confusion_matrix``"""
    return statistics.confusion_matrix(run.recording)


@statistic
def calibration(run: Run) -> pd.DataFrame:
    """``statistics.calibration``"""
    return statistics.calibration(run.recording)


@statistic
def calibration_summary(run: Run) -> pd.DataFrame:
    """``statistics.calibration_summary``"""
    return statistics.calibration_summary(run.recording)


@statistic
def confidence(run: Run) -> NDArray[np.float64]:
    """Return the softmax probability of the predicted class, ``(images,)``."""
    return run.recording.confidence


@statistic
def misclassified(run: Run) -> pd.DataFrame:
    """``statistics.misclassified``"""
    return statistics.misclassified(run.recording)


@statistic
def class_profiles(run: Run, gate: str) -> pd.DataFrame:
    """``statistics.class_profiles``"""
    return statistics.class_profiles(run.recording, gate)


@statistic
def channel_effects(run: Run, gate: str) -> pd.DataFrame:
    """``channel_gates.tested_effects``"""
    return tested_effects(run.recording, gate)


def gate_profiles(run: Run) -> pd.DataFrame:
    """``statistics.gate_profiles``"""
    shown = results.of_run("gate_profiles", run)
    return shown.profiles if isinstance(shown, GateProfiles) else _gate_profiles(run)


@statistic
def _gate_profiles(run: Run) -> pd.DataFrame:
    return statistics.gate_profiles(run.recording)


def gate_state(run: Run) -> pd.DataFrame:
    """``statistics.gate_state``"""
    shown = results.of_run("gate_state", run)
    is_all = isinstance(shown, GateState) and not shown.without_bounds
    return shown.state if is_all else _gate_state(run)


@statistic
def _gate_state(run: Run) -> pd.DataFrame:
    return statistics.gate_state(run.recording)


@statistic
def class_mean_maps(run: Run, gate: str) -> NDArray[np.float64]:
    """``statistics.class_mean_maps``"""
    return statistics.class_mean_maps(run.recording, gate)


@statistic
def class_mean_grad_cam(run: Run) -> NDArray[np.float64]:
    """``statistics.class_mean_grad_cam`` for the predicted class"""
    return statistics.class_mean_grad_cam(run.recording)


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
