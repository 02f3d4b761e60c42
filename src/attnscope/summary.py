"""A network on one page: layers, shapes, parameters, multiply-adds, and its gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attnscope.gate_info import Gate
from attnscope.gates import edit_gates, find_gates
from attnscope.tracing import eval_mode


@dataclass(frozen=True)
class Layer:
    """One module that has no modules within it, or that has parameters of its own."""

    path: str
    type: str
    output: tuple[int, ...] | None
    """Shape for one image, the batch left out; None if it did not run."""
    parameters: int
    multiply_adds: int
    """Of convolutions and matrix products; other operations are not counted."""


@dataclass(frozen=True)
class GateShape:
    """One gate and the features that it multiplies, for one image."""

    name: str
    kind: str
    gate: tuple[int, ...]
    features: tuple[int, ...]
    bounds: tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """What `summarize` found; as a string it is a table."""

    layers: list[Layer]
    gates: list[GateShape]
    parameters: int
    multiply_adds: int
    image_size: int

    def __str__(self) -> str:
        rows = [("layer", "type", "output", "parameters", "multiply-adds")]
        rows += [
            (
                layer.path,
                layer.type,
                "not run" if layer.output is None else _shape(layer.output),
                f"{layer.parameters:,}" if layer.parameters else "",
                f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
            )
            for layer in self.layers
        ]
        total = f"{self.parameters:,}", f"{self.multiply_adds:,}"
        rows.append(("total", "", f"from {self.image_size}×{self.image_size}", *total))
        text = _table(rows, left=3)
        if not self.gates:
            return f"{text}\n\nno gates"
        gates = [("gate", "kind", "gate", "features", "bounds")]
        for g in self.gates:
            bounds = f"{g.bounds[0]:g} to {g.bounds[1]:g}"
            gates.append((g.name, g.kind, _shape(g.gate), _shape(g.features), bounds))
        return f"{text}\n\n{_table(gates, left=5)}"


def summarize(model: nn.Module, image_size: int) -> Summary:
    """Runs one RGB image through ``model`` and notes what each layer does.

    The network is left as it was.

    Args:
        model: its forward takes ``(N, 3, image_size, image_size)``.
        image_size: height and width, in pixels.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def note(path: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[path] = tuple(output.shape[1:])

        return hook

    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    image = torch.zeros(1, 3, image_size, image_size, device=device)
    handles = [m.register_forward_hook(note(path)) for path, m in model.named_modules()]
    counter = FlopCounterMode(display=False)
    try:
        with eval_mode(model), torch.no_grad(), counter:
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    gates = find_gates(model, image)
    found: dict[str, GateShape] = {}

    def read(gate: Gate) -> Callable[[Tensor, Tensor], Tensor]:
        def same(values: Tensor, features: Tensor) -> Tensor:
            shapes = tuple(values.shape[1:]), tuple(features.shape[1:])
            found[gate.name] = GateShape(gate.name, gate.kind, *shapes, (gate.lo, gate.hi))
            return values

        return same

    with eval_mode(model), torch.no_grad(), edit_gates(model, {g.name: read(g) for g in gates}):
        model(image)
    counts, root = counter.get_flop_counts(), type(model).__name__
    layers = []
    for path, module in model.named_modules():
        own = sum(p.numel() for p in module.parameters(recurse=False))
        if own or next(module.children(), None) is None:
            flops = sum(counts.get(f"{root}.{path}" if path else root, {}).values())
            layers.append(Layer(path, type(module).__name__, shapes.get(path), own, flops // 2))
    return Summary(
        layers,
        [found[gate.name] for gate in gates if gate.name in found],
        sum(p.numel() for p in model.parameters()),
        counter.get_total_flops() // 2,
        image_size,
    )


def _table(rows: Sequence[tuple[str, ...]], left: int) -> str:
    """Columns aligned, the first ``left`` of them to the left; a line below the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
