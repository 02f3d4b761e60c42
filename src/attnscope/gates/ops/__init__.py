"""What operations do to gates: one small handler for each family, registered under its names.

=====================  ============================================================================
`bounded_activation`   bounds its result, and so makes what may be a gate
`moves`                moves, copies, writes out or casts values: a gate stays the same gate
`selects`              takes some of the values: another selection is another gate
`joins`                puts tensors of a list side by side
`interpolates`         resizes maps
`of_one`, `of_two`     arithmetic, value by value, with the bounds of its result
`multiplies`           is where a gate acts
`creates`              makes a tensor anew
=====================  ============================================================================

An operation that is not registered ends a gate, and is named in what `inspect_gates` lists.
"""

from attnscope.gates.ops.activations import bounded_activation
from attnscope.gates.ops.arithmetic import multiplies, of_one, of_two
from attnscope.gates.ops.creations import creates
from attnscope.gates.ops.moving import interpolates, joins, moves, selects
from attnscope.gates.ops.operation import OPERATIONS, Operation, register_operation

__all__ = [
    "OPERATIONS",
    "Operation",
    "bounded_activation",
    "creates",
    "interpolates",
    "joins",
    "moves",
    "multiplies",
    "of_one",
    "of_two",
    "register_operation",
    "selects",
]
