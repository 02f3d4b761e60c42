"""Replace gates by constants: fold them into norms, or store what is left."""

from attnscope.folding.algebra import fold_gates, mean_gates
from attnscope.folding.run import fold_run
from attnscope.folding.search import choose_gates

__all__ = ["choose_gates", "fold_gates", "fold_run", "mean_gates"]
