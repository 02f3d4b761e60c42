"""What operations do to gates: one handler per family, registered under the operation's names.

=====================  ============================================================================
`bounded_activation`   Its result is bounded, so it can be a gate.
`moves`                It moves, copies, expands or casts values. The gate stays the same gate.
`selects`              It selects values. Each selection is a different gate.
`joins`                It concatenates the tensors of a list.
`interpolates`         It resizes maps.
`of_one`, `of_two`     It computes elementwise, with known bounds of the result.
`multiplies`           It multiplies two arguments, one of which can be a gate.
`creates`              It creates a tensor that does not depend on its arguments.
=====================  ============================================================================

An unregistered operation ends a gate. `attnscope.inspect_gates` names it.
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
