"""attnscope: the microscope for the attention gates of neural networks.

A gate is the output of a bounded activation that multiplies a feature map, as in SE, ECA and CBAM.

>>> import attnscope
>>> gates = attnscope.find_gates(model, images)
>>> with attnscope.watch_gates(model, gates) as values:
...     model(images)
>>> recording = attnscope.capture(model, dataset, "recording")
>>> attnscope.plots.gate_state(recording)

`find_gates` finds the gates of any network, `watch_gates` reads and `edit_gates` replaces them
while the network runs. `capture` records them over a data set. `statistics`, `plots`, `compare` and
`report` describe a recording, and need no torch. `intervene` measures what a network uses
(`plan_interventions` says how long it takes), and `fold` replaces gates by constants. `analyze`
does all of it but folding in one call. `add_masks` gives the images of a recording masks, and plots
then show whether maps lie on the objects. `train_run` trains a network, and `Run` opens its folder.
`GateMonitor` observes gates while a network trains, in any training loop.

All names are imported when they are first used.
"""

from __future__ import annotations

from attnscope import first_signals as _first_signals  # isort: skip  # noqa: F401  # before all else
from typing import TYPE_CHECKING

from attnscope.lazy import lazy_names

if TYPE_CHECKING:
    from attnscope import plots as plots
    from attnscope import report as report
    from attnscope import statistics as statistics
    from attnscope.analyzing import Analysis as Analysis
    from attnscope.analyzing import analyze as analyze
    from attnscope.capturing.capture import capture as capture
    from attnscope.capturing.run import capture_run as capture_run
    from attnscope.comparison import Comparison as Comparison
    from attnscope.comparison import SeedComparison as SeedComparison
    from attnscope.comparison import compare as compare
    from attnscope.data.load import load_data as load_data
    from attnscope.data.normalization import Normalization as Normalization
    from attnscope.errors import InputError as InputError
    from attnscope.folding.report import FoldReport as FoldReport
    from attnscope.folding.run import fold as fold
    from attnscope.gate_history import GateHistory as GateHistory
    from attnscope.gates.detect import find_gates as find_gates
    from attnscope.gates.detect import inspect_gates as inspect_gates
    from attnscope.gates.hooks import edit_gates as edit_gates
    from attnscope.gates.hooks import watch_gates as watch_gates
    from attnscope.interventions.run import intervene as intervene
    from attnscope.interventions.run import plan_interventions as plan_interventions
    from attnscope.kinds import Gate as Gate
    from attnscope.monitoring import GateMonitor as GateMonitor
    from attnscope.networks.build import build_model as build_model
    from attnscope.networks.weights import load_model as load_model
    from attnscope.recording.masking import add_masks as add_masks
    from attnscope.recording.moments import Moments as Moments
    from attnscope.recording.outcomes import Outcomes as Outcomes
    from attnscope.recording.recording import Recording as Recording
    from attnscope.runs import Run as Run
    from attnscope.training.config import TrainConfig as TrainConfig
    from attnscope.training.run import train_run as train_run

__version__ = "0.2.0"

_HOMES = {
    "Analysis": "analyzing",
    "Comparison": "comparison",
    "FoldReport": "folding.report",
    "Gate": "kinds",
    "GateHistory": "gate_history",
    "GateMonitor": "monitoring",
    "InputError": "errors",
    "Moments": "recording",
    "Normalization": "data.normalization",
    "Outcomes": "recording.outcomes",
    "Recording": "recording",
    "Run": "runs",
    "SeedComparison": "comparison",
    "TrainConfig": "training.config",
    "add_masks": "recording.masking",
    "analyze": "analyzing",
    "build_model": "networks.build",
    "capture": "capturing.capture",
    "capture_run": "capturing.run",
    "compare": "comparison",
    "edit_gates": "gates",
    "find_gates": "gates",
    "fold": "folding.run",
    "inspect_gates": "gates",
    "intervene": "interventions.run",
    "load_data": "data.load",
    "load_model": "networks.weights",
    "plan_interventions": "interventions.run",
    "plots": "",
    "report": "",
    "statistics": "",
    "train_run": "training.run",
    "watch_gates": "gates",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
