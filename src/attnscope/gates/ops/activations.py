"""Bounded activations: operations whose result can be a gate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attnscope.gates.marks import UNBOUNDED, Bounds, Mark
from attnscope.gates.ops.operation import Call, Operation, register_operation


def bounded_activation(low: float, high: float, name: str = "") -> Operation:
    """Return the handler of an activation whose values lie between two bounds.

    Args:
        low: the lower bound, or minus infinity.
        high: the upper bound, or infinity.
        name: the name in `Gate.activation`. Default: the name of the operation.
    """

    def activate(
        own: str, arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> tuple[str, Bounds] | None:
        return name or own, (low, high)

    return Operation(activates=activate)


def _clamp_bounds(
    name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[str, Bounds] | None:
    return _limited(name, _limits(arguments, keywords, ("min", "max"), UNBOUNDED))


def _hardtanh_bounds(
    name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[str, Bounds] | None:
    return _limited(name, _limits(arguments, keywords, ("min_val", "max_val"), (-1.0, 1.0)))


def _limited(name: str, bounds: Bounds) -> tuple[str, Bounds] | None:
    if not math.isfinite(bounds[0] - bounds[1]):
        return None  # bounded on one side, such as a norm that must not be zero
    return ("relu6" if bounds == (0.0, 6.0) else name), bounds


def _carry_clamped(call: Call) -> Mark | None:
    """Return the mark of a clamped gate, such as a stretched sigmoid."""
    if call.first is None:
        return None
    low, high = _limits(call.arguments, call.keywords, ("min", "max"), UNBOUNDED)
    bounds = max(call.first.bounds[0], low), min(call.first.bounds[1], high)
    return call.first.altered(f"{call.name} {low:g} {high:g}", bounds)


def _limits(
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    keys: tuple[str, str],
    default: Bounds,
) -> Bounds:
    """Return the limits of a clamp. A limit that is missing or not a number is infinite."""
    found = list(default)
    for i, key in enumerate(keys):
        given = arguments[i + 1] if len(arguments) > i + 1 else keywords.get(key)
        if isinstance(given, (int, float)):
            found[i] = float(given)
        elif given is not None:
            found[i] = UNBOUNDED[i]
    return found[0], found[1]


register_operation("sigmoid", bounded_activation(0.0, 1.0), "special_expit", "expit")
register_operation("hardsigmoid", bounded_activation(0.0, 1.0))
register_operation("softmax", bounded_activation(0.0, 1.0), "softmin", "gumbel_softmax")
register_operation("tanh", bounded_activation(-1.0, 1.0))
register_operation("softsign", bounded_activation(-1.0, 1.0))
register_operation("erf", bounded_activation(-1.0, 1.0))
register_operation("relu6", bounded_activation(0.0, 6.0))
# Bounded on one side: 1 / (1 + exp(-z)) is a sigmoid.
register_operation("exp", bounded_activation(0.0, math.inf, "sigmoid"))
register_operation("hardtanh", Operation(activates=_hardtanh_bounds))
register_operation(
    "clamp",
    Operation(activates=_clamp_bounds, carries=_carry_clamped, keeps_places=True),
    "clip",
)
