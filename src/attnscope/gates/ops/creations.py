"""Operations whose result does not depend on the values of their arguments."""

from __future__ import annotations

from attnscope.gates.ops.operation import Operation, register_operation


def creates() -> Operation:
    """Return the handler of an operation that creates a tensor: neither a gate nor features."""
    return Operation(creates=True)


for _name in (
    *("ones_like", "zeros_like", "empty_like", "full_like"),
    *("rand_like", "randn_like", "randint_like"),
    *("new_ones", "new_zeros", "new_empty", "new_full", "new_tensor"),
):
    register_operation(_name, creates())
