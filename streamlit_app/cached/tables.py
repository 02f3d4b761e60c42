"""Statistics of one recording, or of two, as tables and arrays."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope import statistics
from attnscope.plots.builtin.channel_gates import tested_effects
from attnscope.plots.usage import usage_of
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


@statistic
def gate_profiles(run: Run) -> pd.DataFrame:
    """``statistics.gate_profiles``"""
    return statistics.gate_profiles(run.recording)


@statistic
def gate_state(run: Run) -> pd.DataFrame:
    """``statistics.gate_state``"""
    return statistics.gate_state(run.recording)


@statistic
def class_mean_maps(run: Run, gate: str) -> NDArray[np.float64]:
    """``statistics.class_mean_maps``"""
    return statistics.class_mean_maps(run.recording, gate)


@statistic
def class_mean_grad_cam(run: Run) -> NDArray[np.float64]:
    """``statistics.class_mean_grad_cam`` for the predicted class"""
    return statistics.class_mean_grad_cam(run.recording)


@statistic
def agreement_summary(run: Run) -> pd.DataFrame:
    """``statistics.agreement_summary`` with Grad-CAM for the predicted class; of the classes
    without intervals
    """
    return statistics.agreement_summary(run.recording, class_intervals=False)


@statistic
def compare_profiles(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_profiles``"""
    return statistics.compare_profiles(a.recording, b.recording)


@statistic
def compare_class_order(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_class_order``"""
    return statistics.compare_class_order(a.recording, b.recording)


@statistic
def compare_grad_cam(a: Run, b: Run) -> pd.DataFrame:
    """``statistics.compare_grad_cam`` for the predicted class"""
    return statistics.compare_grad_cam(a.recording, b.recording)


@statistic
def gate_usage(intervened: Intervened) -> pd.DataFrame:
    """``statistics.gate_usage``

    Raises:
        Unavailable: an experiment that it needs is missing.
    """
    return usage_of(intervened.outcomes)
