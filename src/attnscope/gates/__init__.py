"""Find, read and edit the gates of any network. Imports torch only."""

from attnscope.gates.detect import Inspection, find_gates, inspect_gates
from attnscope.gates.hooks import Edit, as_factor, edit_gates, watch_gates
from attnscope.gates.modes import eval_mode

__all__ = [
    "Edit",
    "Inspection",
    "as_factor",
    "edit_gates",
    "eval_mode",
    "find_gates",
    "inspect_gates",
    "watch_gates",
]
