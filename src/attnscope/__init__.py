"""attnscope: the microscope for the attention gates of convolutional networks.

>>> from attnscope import build_model, find_gates, watch_gates, edit_gates, capture, Recording

A gate is a bounded activation's output that multiplies a feature map. `find_gates` finds the gates
of any network, `watch_gates` reads and `edit_gates` changes them while it runs, `capture` records
them over a whole data set, and `attnscope.statistics` and `attnscope.report` tell what they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnscope.lazy import lazy_names

if TYPE_CHECKING:
    from attnscope.capturing.capture import capture as capture
    from attnscope.capturing.run import capture_run as capture_run
    from attnscope.data.load import load_data as load_data
    from attnscope.errors import InputError as InputError
    from attnscope.gates.detect import find_gates as find_gates
    from attnscope.gates.detect import inspect_gates as inspect_gates
    from attnscope.gates.hooks import edit_gates as edit_gates
    from attnscope.gates.hooks import watch_gates as watch_gates
    from attnscope.kinds import Gate as Gate
    from attnscope.networks.build import build_model as build_model
    from attnscope.networks.weights import load_model as load_model
    from attnscope.recording.moments import Moments as Moments
    from attnscope.recording.recording import Recording as Recording
    from attnscope.runs import Run as Run
    from attnscope.training.config import TrainConfig as TrainConfig
    from attnscope.training.run import train_run as train_run

__version__ = "0.1.0"

_HOMES = {
    "InputError": "errors",
    "Gate": "kinds",
    "Moments": "recording",
    "Recording": "recording",
    "Run": "runs",
    "TrainConfig": "training.config",
    "build_model": "networks.build",
    "capture": "capturing.capture",
    "capture_run": "capturing.run",
    "edit_gates": "gates",
    "find_gates": "gates",
    "inspect_gates": "gates",
    "load_data": "data.load",
    "load_model": "networks.weights",
    "train_run": "training.run",
    "watch_gates": "gates",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
