"""The plots that come with attnscope: one file for each, registered under the name of the file.

A new plot is a new file here: every module of this folder is imported when plots are first asked
for. `attnscope.plots.gate_state` is the registered plot, `attnscope.plots.builtin.gate_state` the
module that defines it.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in sorted(module.name for module in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")
