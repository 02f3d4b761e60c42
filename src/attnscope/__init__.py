"""attnscope: the microscope for the attention gates of convolutional networks.

>>> from attnscope import build_model, find_gates, watch_gates, edit_gates, capture, Recording

A gate is a bounded activation's output that multiplies a feature map. `find_gates` finds the gates
of any network, `watch_gates` reads and `edit_gates` changes them while it runs, `capture` records
them over a whole data set, and `attnscope.statistics` and `attnscope.report` tell what they do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnscope.capturing import capture as capture
    from attnscope.capturing import capture_run as capture_run
    from attnscope.data import load_data as load_data
    from attnscope.errors import InputError as InputError
    from attnscope.gate_info import Gate as Gate
    from attnscope.gates import edit_gates as edit_gates
    from attnscope.gates import find_gates as find_gates
    from attnscope.gates import inspect_gates as inspect_gates
    from attnscope.gates import watch_gates as watch_gates
    from attnscope.models import build_model as build_model
    from attnscope.models import load_model as load_model
    from attnscope.moments import Moments as Moments
    from attnscope.recording import Recording as Recording

__version__ = "0.1.0"

# Names are fetched when they are used (PEP 562), so that reading a recording needs no torch.
_HOMES = {
    "InputError": "errors",
    "Gate": "gate_info",
    "Moments": "moments",
    "Recording": "recording",
    "build_model": "models",
    "capture": "capturing",
    "capture_run": "capturing",
    "edit_gates": "gates",
    "find_gates": "gates",
    "inspect_gates": "gates",
    "load_data": "data",
    "load_model": "models",
    "watch_gates": "gates",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'attnscope' has no attribute '{name}'")
    return getattr(import_module(f"attnscope.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
