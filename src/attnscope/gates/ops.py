"""What an operation does to a gate: the tables. **A new operation is one more word in one here.**

The output of a bounded activation carries a `Mark`. `activation` says which operations make one;
`carried` says which operations keep it, and what becomes of the bounds. Everything else drops it.
Nothing here computes with the values of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

Bounds = tuple[float, float]
_ANY = (-math.inf, math.inf)

# Other spellings of an operation -> the name under which it is known below.
_SPELLINGS = {
    "special_expit": "sigmoid",
    "expit": "sigmoid",
    "softmin": "softmax",
    "gumbel_softmax": "softmax",
    "clip": "clamp",
    "multiply": "mul",
    "rmul": "mul",
    "radd": "add",
    "subtract": "sub",
    "divide": "div",
    "true_divide": "div",
    "truediv": "div",
    "rtruediv": "rdiv",
    "negative": "neg",
    "concat": "cat",
    "concatenate": "cat",
    "upsample": "interpolate",
}
_AUGMENTED = frozenset({"iadd", "isub", "imul", "itruediv", "idiv", "ipow"})

# What bounds a tensor. An exponential is bounded on one side: 1 / (1 + exp(-z)) is a sigmoid.
_ACTIVATIONS: Mapping[str, tuple[str, Bounds]] = {
    "sigmoid": ("sigmoid", (0.0, 1.0)),
    "hardsigmoid": ("hardsigmoid", (0.0, 1.0)),
    "softmax": ("softmax", (0.0, 1.0)),
    "tanh": ("tanh", (-1.0, 1.0)),
    "softsign": ("softsign", (-1.0, 1.0)),
    "erf": ("erf", (-1.0, 1.0)),
    "relu6": ("relu6", (0.0, 6.0)),
    "exp": ("sigmoid", (0.0, math.inf)),
}
# The values stay, each in its place or in another; the first argument is what is moved.
_MOVES = frozenset(
    """
    view reshape view_as reshape_as flatten unflatten ravel squeeze unsqueeze expand expand_as
    broadcast_to repeat repeat_interleave tile permute transpose swapaxes swapdims movedim moveaxis
    t adjoint atleast_3d roll flip rot90 pixel_shuffle pixel_unshuffle channel_shuffle
    contiguous clone detach alias to type type_as float half bfloat16 double cpu cuda dropout
    """.split()  # noqa: SIM905
)
# Of these, and of what else leaves values where they are, those that write one value many times.
_GROWS = frozenset(
    ["expand", "expand_as", "broadcast_to", "repeat", "tile", "repeat_interleave", "interpolate"]
)
_STAYS = frozenset(
    """
    contiguous clone detach alias to type type_as float half bfloat16 double cpu cuda dropout clamp
    """.split()  # noqa: SIM905
)
# Some of the values: another selection is another gate.
_SELECTIONS = frozenset(
    """
    getitem narrow select chunk split split_with_sizes tensor_split unbind index_select gather
    take_along_dim unfold
    """.split()  # noqa: SIM905
)
JOINS = frozenset({"cat", "stack", "hstack", "vstack", "dstack"})
# Made anew, whatever the argument holds.
CREATIONS = frozenset(
    """
    ones_like zeros_like empty_like full_like rand_like randn_like randint_like
    new_ones new_zeros new_empty new_full new_tensor
    """.split()  # noqa: SIM905
)
# Where a gate may act: operation -> (the two factors, the arguments that are added to the product).
PRODUCTS: Mapping[str, tuple[tuple[int, int], int | None]] = {
    "mul": ((0, 1), None),
    "addcmul": ((1, 2), 0),
    "lerp": ((1, 2), None),  # start + weight * (end - start): the weight is the gate
}


def _add(a: Bounds, b: Bounds) -> Bounds:
    return a[0] + b[0], a[1] + b[1]


def _sub(a: Bounds, b: Bounds) -> Bounds:
    return a[0] - b[1], a[1] - b[0]


def _mul(a: Bounds, b: Bounds) -> Bounds:
    ends = [0.0 if 0.0 in (x, y) else x * y for x in a for y in b]
    return min(ends), max(ends)


def _div(a: Bounds, b: Bounds) -> Bounds:
    if b[0] <= 0.0 <= b[1]:
        return _ANY
    return _mul(a, (1.0 / b[1], 1.0 / b[0]))


def _pow(a: Bounds, b: Bounds) -> Bounds:
    if b == (-1.0, -1.0):
        return _div((1.0, 1.0), a)
    if b[0] != b[1] or b[0] <= 0.0:
        return _ANY
    if a[0] >= 0.0:
        return a[0] ** b[0], a[1] ** b[0]
    if b[0] == 2.0:
        high = max(-a[0], a[1]) ** 2
        return (0.0 if a[1] >= 0.0 else a[1] ** 2), high
    return _ANY


# Arithmetic: the bounds of the result, from those of the operands in their order.
_ARITHMETIC: Mapping[str, Callable[[Bounds, Bounds], Bounds]] = {
    "add": _add,
    "sub": _sub,
    "rsub": lambda a, b: _sub(b, a),
    "mul": _mul,
    "div": _div,
    "rdiv": lambda a, b: _div(b, a),
    "pow": _pow,
}
_UNARY: Mapping[str, Callable[[Bounds], Bounds]] = {
    "neg": lambda a: (-a[1], -a[0]),
    "reciprocal": lambda a: _div((1.0, 1.0), a),
    "square": lambda a: _pow(a, (2.0, 2.0)),
    "sqrt": lambda a: _pow(a, (0.5, 0.5)),
}


@dataclass(frozen=True)
class Mark:
    """What is known of a marked tensor."""

    made_in: str
    call: int
    activation: str
    bounds: Bounds
    origins: tuple[tuple[str, int], ...]
    """Every activation that has a part in it: made_in and call."""
    form: str = ""
    """What was done to the values since the activation."""
    factors: tuple[tuple[str, int, str], ...] = ()
    """Of a product of gates of different shapes: the place of each."""
    copied: frozenset[int] = frozenset()
    """Axes along which one value was written many times, counted from the last one, -1."""
    version: int | None = None
    """Of the tensor when it was marked: a write to it, or to what it is a view of, counts up."""

    @property
    def place(self) -> tuple[str, int, str]:
        """By which a gate is known again in another forward."""
        return self.made_in, self.call, self.form

    @property
    def bounded(self) -> bool:
        """Whether it may be a gate."""
        return math.isfinite(self.bounds[0]) and math.isfinite(self.bounds[1])


def operation(function: Any) -> tuple[str, bool]:
    """The name under which an operation is known here, and whether it writes into its argument."""
    name = getattr(function, "__name__", "")
    plain = name.strip("_")
    if plain in _AUGMENTED:
        return _SPELLINGS.get(plain[1:], plain[1:]), True
    writes = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    return _SPELLINGS.get(plain, plain), writes


def activation(
    name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[str, Bounds] | None:
    """Name and bounds of a bounded activation; None for any other operation."""
    if name in ("clamp", "hardtanh"):
        bounds = _limits(name, arguments, keywords)
        if not math.isfinite(bounds[0] - bounds[1]):
            return None  # one-sided, as for a norm that must not be zero
        return ("relu6" if bounds == (0.0, 6.0) else name), bounds
    return _ACTIVATIONS.get(name)


def carried(
    name: str,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    marks: Sequence[Mark | None],
    bounds_of: Callable[[Tensor], Bounds | None],
    output: int,
    selects: bool,
) -> Mark | None:
    """The mark of what an operation on marked tensors returns; None where it is no gate any more.

    Args:
        name: of `operation`.
        arguments: tensors and numbers, in order.
        keywords: the other arguments by name.
        marks: of each of ``arguments``.
        bounds_of: bounds of a tensor that depends on parameters alone; None for any other.
        output: which of its outputs is meant.
        selects: whether that output is smaller than the first argument.
    """
    first = marks[0] if marks else None
    if name in _MOVES:
        kept = first.factors if first and name in ("clone", "contiguous", "detach", "to") else ()
        return first and replace(first, factors=kept)
    if name == "interpolate":
        # Bicubic weights are negative in part: what they mix leaves the bounds.
        mode = keywords.get("mode", arguments[3] if len(arguments) > 3 else "nearest")
        return replace(first, factors=()) if first and mode != "bicubic" else None
    if name in _SELECTIONS:
        if first is None or not selects:
            return first and replace(first, factors=())
        rest = [_label(a) for a in arguments[1:]]
        rest += [f"{key}={_label(a)}" for key, a in keywords.items()]
        return _altered(first, f"{name}({', '.join(rest)})[{output}]", first.bounds)
    if name in JOINS:
        known = [mark for mark in marks if mark]
        tensors = sum(isinstance(a, Tensor) for a in arguments)
        if not known or len(known) < tensors:
            return None
        low, high = min(m.bounds[0] for m in known), max(m.bounds[1] for m in known)
        return _altered(known[0], name, (low, high), *known[1:])
    if name == "clamp" and first:  # one-sided
        low, high = _limits(name, arguments, keywords)
        bounds = max(first.bounds[0], low), min(first.bounds[1], high)
        return _altered(first, f"clamp {low:g} {high:g}", bounds)
    if name in _UNARY and first:
        return _altered(first, name, _UNARY[name](first.bounds))
    if name in _ARITHMETIC and len(arguments) == 2 and not keywords:
        return _arithmetic(name, arguments, marks, bounds_of)
    return None


def copied_along(name: str, mark: Mark, before: Tensor, after: Tensor) -> frozenset[int]:
    """Axes of the result along which every value is one and the same, by its making."""
    moved = name not in _GROWS | _STAYS and name not in _ARITHMETIC and name not in _UNARY
    if moved or after.ndim < before.ndim:
        return frozenset()
    sizes = (1,) * (after.ndim - before.ndim) + tuple(before.shape)
    grown = {axis for axis in range(-after.ndim, 0) if sizes[axis] == 1 and after.shape[axis] > 1}
    return mark.copied | grown


def product_mark(a: Mark, b: Mark) -> Mark:
    """The mark of a product of two gates of different shapes, each of which stays a gate."""
    both = _altered(a, "mul", _mul(a.bounds, b.bounds), b)
    return replace(both, factors=(a.factors or (a.place,)) + (b.factors or (b.place,)))


def _arithmetic(
    name: str,
    arguments: Sequence[Any],
    marks: Sequence[Mark | None],
    bounds_of: Callable[[Tensor], Bounds | None],
) -> Mark | None:
    """A mark under arithmetic with a number, with parameters, or with another mark."""
    intervals: list[Bounds] = []
    labels: list[str] = []
    for argument, mark in zip(arguments, marks, strict=True):
        if mark:
            bounds: Bounds | None = mark.bounds
            labels.append(f"{mark.made_in}.{mark.call}{mark.form}")
        elif isinstance(argument, Tensor):
            bounds = bounds_of(argument)
            labels.append("parameters")
        else:
            number = isinstance(argument, (int, float))
            bounds = (float(argument), float(argument)) if number else None
            labels.append(f"{argument:g}" if number else "")
        if bounds is None:
            return None
        intervals.append(bounds)
    known = [mark for mark in marks if mark]
    label = labels[1] if marks[0] else labels[0]
    side = "" if marks[0] else "r"
    bounds = _ARITHMETIC[name](intervals[0], intervals[1])
    return _altered(known[0], f"{side}{name} {label}", bounds, *known[1:])


def _altered(mark: Mark, how: str, bounds: Bounds, *others: Mark) -> Mark:
    origins = tuple(dict.fromkeys(o for m in (mark, *others) for o in m.origins))
    form = f"{mark.form}; {how}" if mark.form else how
    return replace(mark, form=form, bounds=bounds, origins=origins, factors=())


def _label(value: Any) -> str:
    if isinstance(value, Tensor):
        return "tensor"
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(_label, value))})"
    if isinstance(value, slice):
        return f"{value.start}:{value.stop}:{value.step}".replace("None", "")
    return repr(value)


def _limits(name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Bounds:
    """The limits of a clamp; infinite where there is none, or where it is no number."""
    keys, default = ("min", "max"), _ANY
    if name == "hardtanh":
        keys, default = ("min_val", "max_val"), (-1.0, 1.0)
    found = list(default)
    for i, key in enumerate(keys):
        given = arguments[i + 1] if len(arguments) > i + 1 else keywords.get(key)
        if isinstance(given, (int, float)):
            found[i] = float(given)
        elif given is not None:
            found[i] = _ANY[i]
    return found[0], found[1]
