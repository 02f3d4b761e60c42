"""A network on one page: layers, shapes, parameters, multiply-adds, and its gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attnscope.gates.detect import find_gates, inspect_gates
from attnscope.gates.hooks import edit_gates, watch_gates
from attnscope.gates.modes import eval_mode
from attnscope.kinds import Gate, Ungated


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


@dataclass(frozen=True)
class GateList:
    """What `describe_gates` found; as a string it is a page."""

    gates: list[Gate]
    ranges: dict[str, tuple[float, float]]
    """Of each gate: the lowest and the highest value on the images."""
    ungated: list[Ungated]
    sample: str
    """Which images."""

    def __str__(self) -> str:
        if not self.gates:
            text = "no gates: no bounded activation multiplies a feature map"
        else:
            rows = [_GATE_COLUMNS]
            for gate in self.gates:
                size = _shape(gate.grid) if gate.grid else str(gate.channels)
                seen = "{:.3g} to {:.3g}".format(*self.ranges[gate.name])
                bounds, neutral = f"{gate.lo:g} to {gate.hi:g}", f"{gate.neutral:g}"
                activation = f"{gate.activation}; {gate.form}" if gate.form else gate.activation
                own = gate.made_in or "(the network)", gate.applied_in or "(the network)"
                name = gate.name or "(the network)"
                rows.append((name, gate.kind, size, activation, bounds, neutral, seen, *own))
            text = _table(rows, left=len(rows[0]))
            text += f"\n\nThe range is what was seen on {self.sample}."
        if self.ungated:
            others = [("bounded, but no gate", "made in", "what became of it")]
            others += [(u.activation, u.made_in or "(the network)", u.reason) for u in self.ungated]
            text += f"\n\n{_table(others, left=3)}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """The same as lists and dicts, for JSON."""
        return {
            "gates": [{**asdict(g), "range": list(self.ranges[g.name])} for g in self.gates],
            "ungated": [{**asdict(u), "reason": u.reason} for u in self.ungated],
            "sample": self.sample,
        }


_GATE_COLUMNS = (
    "gate", "kind", "channels or grid", "activation", "bounds", "neutral", "range", "made in",
    "applied in",
)  # fmt: skip


def describe_gates(
    model: nn.Module, images: Tensor, sample: str, kinds: Sequence[str] | None = None
) -> GateList:
    """Finds the gates of a network and notes the range of each on some images.

    Args:
        model: any network; it is left as it was.
        images: ``(N, 3, H, W)`` as the network gets them.
        sample: what is said of these images.
        kinds: which kinds of gates, as in `attnscope.gates.find_gates`.

    Raises:
        InputError: as `attnscope.gates.find_gates`.
    """
    found = inspect_gates(model, images, kinds)
    with eval_mode(model), torch.no_grad(), watch_gates(model, found.gates) as seen:
        model(images)
    ranges = {name: (float(value.min()), float(value.max())) for name, value in seen.items()}
    return GateList(found.gates, ranges, found.ungated, sample)


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

    readers = {gate.name: read(gate) for gate in gates}
    with eval_mode(model), torch.no_grad(), edit_gates(model, readers, gates):
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
