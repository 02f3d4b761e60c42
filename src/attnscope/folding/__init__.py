"""Replace gates by constants: multiply them into BatchNorms, or store their values.

`attnscope.fold` folds a run. This package contains its parts.
"""

from attnscope.folding.algebra import fold_gates, mean_gates
from attnscope.folding.graph_report import GraphFoldReport
from attnscope.folding.report import FoldReport
from attnscope.folding.run import fold, fold_run
from attnscope.folding.search import choose_gates

__all__ = [
    "FoldReport",
    "GraphFoldReport",
    "choose_gates",
    "fold",
    "fold_gates",
    "fold_run",
    "mean_gates",
]
