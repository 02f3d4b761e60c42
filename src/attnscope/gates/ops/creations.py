"""Operations whose result is made anew, whatever their arguments hold."""

from __future__ import annotations

from attnscope.gates.ops.operation import Operation, register_operation


def creates() -> Operation:
    """A tensor in which no argument has a part: within a network neither gate nor features."""
    return Operation(creates=True)


for _name in (
    *("ones_like", "zeros_like", "empty_like", "full_like"),
    *("rand_like", "randn_like", "randint_like"),
    *("new_ones", "new_zeros", "new_empty", "new_full", "new_tensor"),
):
    register_operation(_name, creates())
