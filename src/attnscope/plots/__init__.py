"""Plots of recordings. Each plot has a name, and is called with a recording, a run or a path.

>>> import attnscope
>>> attnscope.plots.gate_state("runs/demo-cbam")  # doctest: +SKIP
<PlotFigure 'gate_state', page 1 of 1>
>>> attnscope.plots.per_class_accuracy("runs/demo-se", "runs/demo-cbam")  # doctest: +SKIP
<PlotFigure 'per_class_accuracy', page 1 of 1>

`attnscope.plots.NAME` is the plot of that name in `PLOTS`, including plots that a package has
registered (`attnscope.registry`). Calling it draws a matplotlib figure, which a notebook shows; see
`Plot.__call__`. ``dir(attnscope.plots)`` lists all plots.

A new plot is one new file in ``plots/builtin/``, or in a package of your own, that calls
`register_plot`.

Importing this package imports neither matplotlib nor torch. The first use of a plot imports
matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnscope.plots.figure import PlotFigure as PlotFigure
    from attnscope.plots.registry import PLOTS as PLOTS
    from attnscope.plots.registry import Drawing as Drawing
    from attnscope.plots.registry import Note as Note
    from attnscope.plots.registry import Plot as Plot
    from attnscope.plots.registry import Unavailable as Unavailable
    from attnscope.plots.registry import plots_for as plots_for
    from attnscope.plots.registry import plots_of as plots_of
    from attnscope.plots.registry import register_plot as register_plot

    def __getattr__(name: str) -> Plot[Any, Any]: ...


_HOMES = {
    "PLOTS": "registry",
    "Drawing": "registry",
    "Note": "registry",
    "Plot": "registry",
    "PlotFigure": "figure",
    "Unavailable": "registry",
    "plots_for": "registry",
    "plots_of": "registry",
    "register_plot": "registry",
}
_MODULES = frozenset(module.name for module in iter_modules(__path__))
__all__ = sorted(_HOMES)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Return a public name, or the plot of that name."""
        if name.startswith("__"):  # Python asks every module for names such as __path__
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        # attnscope's own plots are registered first, whatever is asked for first.
        import_module(f"{__name__}.builtin")
        registry = import_module(f"{__name__}.registry")
        if name in _HOMES:
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        if name in registry.PLOTS:
            return registry.PLOTS[name]
        plots = ", ".join(registry.PLOTS)
        raise AttributeError(
            f"module '{__name__}' has no attribute '{name}'; its plots are {plots}"
        )


def __dir__() -> list[str]:
    import_module(f"{__name__}.builtin")
    registry = import_module(f"{__name__}.registry")
    return sorted({*__all__, *registry.PLOTS})
