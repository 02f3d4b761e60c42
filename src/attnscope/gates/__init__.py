"""Find, read and edit the gates of any network.

A gate is the output of a bounded activation that multiplies features. A registry describes what
each operation of torch does to a gate. Register your own operations in the same way::

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

Without that call no gate would be found, because tracking stops at an unregistered operation. The
tracer sees the functions that torch passes to a ``torch.overrides.TorchFunctionMode``: functions of
torch, operators of ``torch.library``, and Python functions wrapped by
``torch.overrides.wrap_torch_function``. A plain Python function needs no registration, because the
tracer sees the operations inside it.

`moves` declares that an operation moves values without changing them, `of_one` and `of_two` give
the bounds of its result, and `multiplies` declares that a gate can act in it. `attnscope.gates.ops`
lists the other families. A package declares its module as an entry point: `attnscope.registry`.
"""

from attnscope.gates.detect import Inspection, find_gates, inspect_gates
from attnscope.gates.graph import export_gates, read_gates, with_gates
from attnscope.gates.graph_network import GraphNetwork
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
    "GraphNetwork",
    "Inspection",
    "Operation",
    "as_factor",
    "bounded_activation",
    "creates",
    "edit_gates",
    "eval_mode",
    "export_gates",
    "find_gates",
    "inspect_gates",
    "interpolates",
    "joins",
    "moves",
    "multiplies",
    "of_one",
    "of_two",
    "read_gates",
    "register_operation",
    "selects",
    "watch_gates",
    "with_gates",
]
