"""Find the gates of one network, and check their values and edits without the tracer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from analysis.coverage.networks import Network
from analysis.coverage.oracle import Oracle, Place, Product, multipliers, same_values
from attnscope.errors import InputError
from attnscope.gates import as_factor, edit_gates, inspect_gates, watch_gates
from attnscope.kinds import Gate

_SEEN = frozenset({"consumed", "unused", "returned", "statistic"})
"""Codes of activations that multiply no features, and of normalizations."""


@dataclass
class Seen:
    """What the oracle saw of the gates that attnscope recorded."""

    places: dict[str, dict[Place, bool]]
    """Gate -> the operands that it is -> whether the operand is one over the gate."""
    silent: list[Product]
    """Broadcasting products whose operand is no recorded gate. Normalizations are left out, because
    torch has functions for them, which are one operation for attnscope."""
    normalizing: int
    """Number of the normalizations that are left out."""
    values: dict[str, Tensor]
    digests: list[int]
    output: list[Tensor]


def check(network: Network, millions: float = 150.0) -> dict[str, Any]:
    """Return the line of a network in the table.

    Args:
        network: the network.
        millions: larger networks are skipped: so many million parameters.

    Returns:
        A dict that JSON can hold: the network, its gates by kind, other activations by code, the
        seconds to find the gates, and what is wrong. ``refused`` holds an error code if attnscope
        refuses the network, and ``skipped`` the reason why the network does not run at all.
    """
    torch.manual_seed(0)
    line: dict[str, Any] = {"network": network.name}
    try:
        model = network.build().eval()
    except Exception as error:
        return line | {"skipped": f"cannot be built: {first_line(error)}"}
    with torch.no_grad():
        vary(model)
    line["parameters"] = sum(p.numel() for p in model.parameters())
    if line["parameters"] > millions * 1e6:
        return line | {"skipped": f"has more than {millions:g} million parameters"}
    try:
        size, inputs, bare = first_size(model, network)
    except Exception as error:
        return line | {"skipped": f"does not run: {first_line(error)}"}
    line |= {"size": size, "forward": round(bare, 3)}
    start = time.perf_counter()
    try:
        found = inspect_gates(model, inputs)
    except InputError as error:
        return line | {"refused": error.code, "message": str(error)}
    line["seconds"] = round(time.perf_counter() - start, 2)
    line["gates"] = dict(sorted(Counter(gate.kind for gate in found.gates).items()))
    line["activations"] = dict(Counter(gate.activation for gate in found.gates).most_common())
    line["listed"] = dict(sorted(Counter(each.code for each in found.ungated).items()))
    seen = observe(model, inputs, found.gates)
    line["wrong"] = wrong_values(seen, found.gates)
    line["wrong"] += wrong_rows(model, inputs, found.gates, seen)
    listed = sum(each.code not in _SEEN for each in found.ungated)
    # Normalizations that are listed, and that the oracle took for other products.
    listed += max(0, line["listed"].get("statistic", 0) - seen.normalizing)
    if len(seen.silent) > listed:
        line["wrong"] += [f"{len(seen.silent) - listed} products silent"]
        line["silent"] = [f"{p.module} {p.features} {p.gate}" for p in seen.silent[:20]]
    line["wrong"] += wrong_edits(model, inputs, found.gates, seen)
    return line


def vary(model: nn.Module) -> None:
    """Give random values to parameters that hold one value only.

    Many branches start at zero (the last norm of a residual branch, layer scales). Their gates
    would multiply zeros, and all of their values would be equal.
    """
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point() or parameter.numel() < 2:
            continue
        if torch.equal(parameter, parameter.flatten()[0].expand_as(parameter)):
            noise = torch.rand(parameter.shape, generator=generator)
            noise = (noise - 0.5) * 0.2 if name.endswith("bias") else noise * 0.5 + 0.5
            parameter.copy_(noise.to(parameter.dtype))


def first_size(model: nn.Module, network: Network) -> tuple[int, Any, float]:
    """Return the first size that the network accepts, its inputs, and the seconds of a forward."""
    for size in network.sizes:
        inputs = network.inputs(size)
        try:
            with torch.no_grad():
                model(*arguments(inputs))
                start = time.perf_counter()
                model(*arguments(inputs))
                return size, inputs, time.perf_counter() - start
        except Exception:
            if size == network.sizes[-1]:
                raise
    raise ValueError("the network has no sizes")


def observe(model: nn.Module, inputs: Any, gates: Sequence[Gate]) -> Seen:
    """Record the gates in a forward under the oracle, and find each among the operands."""
    places: dict[str, dict[Place, bool]] = {gate.name: {} for gate in gates}
    by_name = {gate.name: gate for gate in gates}
    pending: set[str] = set()
    known: set[str] = set()
    factors: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}
    own: set[int] = set()

    def meet(number: int, name: str, operands: Sequence[Any]) -> None:
        for new in values.keys() - known:
            known.add(new)
            pending.add(new)
            factors[new] = as_factor(values[new], by_name[new])
        for index, operand in enumerate(operands[:3]):
            if not isinstance(operand, Tensor) or not operand.is_floating_point():
                continue
            inverse = name == "div" and index == 1
            operand = 1 / operand if inverse else operand
            # A gate that was recorded for this multiplication first, then others.
            for gate in (*sorted(pending), *sorted(known - pending)):
                in_order = name in ("mul", "div", "lerp", "addcmul")
                may_be = in_order or gate in pending
                if may_be and same_values(factors[gate], operand, in_order=in_order):
                    pending.discard(gate)
                    places[gate][number, index] = inverse
                    own.add(number)
                    break

    oracle = Oracle(tensors(inputs), meet)
    with torch.no_grad(), watch_gates(model, gates) as recorded:
        values = recorded
        torch.manual_seed(0)
        with oracle.on(model):
            output = model(*arguments(inputs))
        kept = dict(recorded)
    silent = [
        product
        for product in oracle.products.values()
        if product.number not in own and not product.normalizes
    ]
    normalizing = sum(product.normalizes for product in oracle.products.values())
    return Seen(places, silent, normalizing, kept, oracle.digests, tensors(output))


def wrong_values(seen: Seen, gates: Sequence[Gate]) -> list[str]:
    """Return the gates whose recorded values are no operand of a multiplication."""
    wrong = [gate.name for gate in gates if not seen.places[gate.name]]
    return [f"{len(wrong)} values ({wrong[0]} ...)"] if wrong else []


def wrong_rows(model: nn.Module, inputs: Any, gates: Sequence[Gate], seen: Seen) -> list[str]:
    """Return the gates whose rows do not follow the images if the images change places."""
    if not gates:
        return []
    swapped = _swap(inputs)
    with torch.no_grad(), watch_gates(model, gates) as recorded:
        model(*arguments(swapped))
        other = dict(recorded)
    wrong = [
        name
        for name, value in seen.values.items()
        if name not in other
        or len(value) != 2
        or not torch.allclose(value.flip(0), other[name], rtol=1e-2, atol=1e-3)
    ]
    return [f"{len(wrong)} rows ({wrong[0]} ...)"] if wrong else []


def wrong_edits(model: nn.Module, inputs: Any, gates: Sequence[Gate], seen: Seen) -> list[str]:
    """Return what is wrong with edits: each gate is multiplied by a number of its own.

    The same numbers multiply the operands below Python. All products of both forwards must be equal
    bit for bit.
    """
    numbers = {gate.name: 0.5 + 0.25 * i / len(gates) for i, gate in enumerate(gates)}
    factors: dict[Place, float] = {}
    inverted: set[Place] = set()
    for name, places in seen.places.items():
        factors |= {place: numbers[name] for place in places}
        inverted |= {place for place, inverse in places.items() if inverse}
    if not factors:
        return []
    reference, expected = _run(model, inputs, multipliers(factors, inverted))
    oracle = Oracle(tensors(inputs))

    def editor(number: float) -> Any:
        def edit(gate: Tensor, features: Tensor) -> Tensor:
            with oracle.paused() as made:
                made.append(gate * number)
            return made[0]

        return edit

    edits = {name: editor(number) for name, number in numbers.items()}
    torch.manual_seed(0)
    with torch.no_grad(), edit_gates(model, edits, gates), oracle.on(model):
        output = tensors(model(*arguments(inputs)))
    if len(oracle.digests) != len(reference.digests):
        return ["edits change the number of products"]
    pairs = zip(oracle.digests, reference.digests, strict=True)
    differ = [number for number, (a, b) in enumerate(pairs) if a != b]
    if differ:
        near = [
            name
            for name, places in seen.places.items()
            if any(number == differ[0] for number, _ in places)
        ]
        return [f"edits ({', '.join(near) or f'product {differ[0]}'} ...)"]
    if not all(_equal(a, b) for a, b in zip(output, expected, strict=True)):
        return ["edits change the output otherwise"]
    if reference.digests == seen.digests:
        return ["edits change nothing"]
    return []


def _equal(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _run(model: nn.Module, inputs: Any, meet: Any) -> tuple[Oracle, list[Tensor]]:
    oracle = Oracle(tensors(inputs), meet)
    torch.manual_seed(0)
    with torch.no_grad(), oracle.on(model):
        output = model(*arguments(inputs))
    return oracle, tensors(output)


def arguments(inputs: Any) -> tuple[Any, ...]:
    """Return the arguments of a forward: a tuple is several, anything else is one."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def tensors(values: Any) -> list[Tensor]:
    """Return all tensors in nested values."""
    if hasattr(values, "to_tuple"):
        values = values.to_tuple()
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]


def _swap(inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.flip(0)
    if isinstance(inputs, list):
        return inputs[::-1]
    if isinstance(inputs, Mapping):
        return {key: _swap(value) for key, value in inputs.items()}
    return tuple(_swap(value) for value in inputs)


def first_line(error: Exception) -> str:
    """Return the first line of a message, or else the name of the exception."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160]
