"""Find, read and edit the gates of any network. Imports torch only.

A gate is what a bounded activation returns, where it multiplies features. What each operation of
torch does to it is registered, and operations of one's own are registered in the same way::

    import torch
    from torch import Tensor, nn
    from attnscope.gates import bounded_activation, find_gates, register_operation

    @torch.library.custom_op("mine::squash", mutates_args=())
    def squash(x: Tensor) -> Tensor:
        return x / (1 + x.abs())

    register_operation("squash", bounded_activation(-1.0, 1.0))

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * squash(x.mean((2, 3), keepdim=True))

    (gate,) = find_gates(Net(), torch.rand(2, 3, 8, 8))
    gate.kind, gate.activation, gate.lo, gate.hi  # ("channel", "squash", -1.0, 1.0)

Without that call nothing would be found: an operation that is not registered ends a gate. Seen are
the functions that torch hands to a `torch.overrides.TorchFunctionMode`: those of torch itself,
operators of ``torch.library``, and Python functions under `torch.overrides.wrap_torch_function`. A
plain Python function needs no registration, since the operations within it are seen.

Of an operation that carries a gate on, `moves` says that it moves values and changes none,
`of_one` and `of_two` give the bounds of its result, `multiplies` says that a gate acts in it; see
`attnscope.gates.ops` for the other families. One that drops the gate need not be registered.
Packages announce the module that registers theirs as an entry point: `attnscope.registry`.
"""

from attnscope.gates.detect import Inspection, find_gates, inspect_gates
from attnscope.gates.hooks import Edit, as_factor, edit_gates, watch_gates
from attnscope.gates.modes import eval_mode
from attnscope.gates.ops import (
    Operation,
    bounded_activation,
    creates,
    interpolates,
    joins,
    moves,
    multiplies,
    of_one,
    of_two,
    register_operation,
    selects,
)

__all__ = [
    "Edit",
    "Inspection",
    "Operation",
    "as_factor",
    "bounded_activation",
    "creates",
    "edit_gates",
    "eval_mode",
    "find_gates",
    "inspect_gates",
    "interpolates",
    "joins",
    "moves",
    "multiplies",
    "of_one",
    "of_two",
    "register_operation",
    "selects",
    "watch_gates",
]
