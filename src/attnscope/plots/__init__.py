"""Plots: each file is one, from what it computes to its caption, registered under its name.

>>> from attnscope.plots import PLOTS
>>> PLOTS["gate_state"].title
'Gate state'

A new plot is one new file that calls `register_plot`: every module in this folder is imported here,
and packages announce theirs as `attnscope.registry` says.
"""

from importlib import import_module
from pkgutil import iter_modules

from attnscope.plots.registry import (
    PLOTS,
    Drawing,
    Note,
    Plot,
    Unavailable,
    plots_for,
    plots_of,
    register_plot,
)

for _module in sorted(module.name for module in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")

__all__ = [
    "PLOTS",
    "Drawing",
    "Note",
    "Plot",
    "Unavailable",
    "plots_for",
    "plots_of",
    "register_plot",
]
