"""Summaries of a network: layers, shapes, parameters, multiply-adds and gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attnscope.gates.detect import find_gates, inspect_gates
from attnscope.gates.hooks import edit_gates, watch_gates
from attnscope.gates.modes import eval_mode
from attnscope.kinds import Gate, Ungated
from attnscope.networks.channels import channels_of
from attnscope.networks.number_types import number_type
from attnscope.notebook import html_paragraph, html_table, number_of


@dataclass(frozen=True)
class Layer:
    """A module without submodules, or with parameters of its own."""

    path: str
    """Path of the module; empty for the network itself."""
    type: str
    """Name of the module's class."""
    output: tuple[int, ...] | None
    """Shape of the output for one image, without the batch axis; None if the module did not run."""
    parameters: int
    """Number of parameters, without those of submodules."""
    multiply_adds: int
    """Number of multiply-adds for one image, in convolutions and matrix products only."""


@dataclass(frozen=True)
class GateShape:
    """The shapes of a gate and of the features that it multiplies, for one image."""

    name: str
    """Name of the gate."""
    kind: str
    """Kind of the gate, one of `attnscope.kinds.KINDS`."""
    gate: tuple[int, ...]
    """Shape of the gate, without the batch axis."""
    features: tuple[int, ...]
    """Shape of the features, without the batch axis."""
    bounds: tuple[float, float]
    """Lower and upper bound of the gate."""


@dataclass(frozen=True)
class Summary:
    """The layers and gates of a network, returned by `summarize`.

    ``print(summary)`` shows them as tables, and so does a notebook.
    """

    layers: list[Layer]
    """The layers in the order of ``named_modules``."""
    gates: list[GateShape]
    """The gates in forward order."""
    parameters: int
    """Number of parameters."""
    multiply_adds: int
    """Number of multiply-adds for one image, in convolutions and matrix products only."""
    image_size: int
    """Height and width of the image, in pixels."""

    def __repr__(self) -> str:
        size = self.image_size
        return (
            f"<Summary: {number_of(len(self.layers), 'layer')}, "
            f"{number_of(len(self.gates), 'gate')}, "
            f"{self.parameters:,} parameters, {self.multiply_adds:,} multiply-adds for an image of "
            f"{size}×{size} pixels>"
        )

    def __str__(self) -> str:
        text = _text_table(self._layer_rows(), left=3)
        if not self.gates:
            return f"{text}\n\nno gates"
        return f"{text}\n\n{_text_table(self._gate_rows(), left=5)}"

    def _repr_html_(self) -> str:
        heading = html_paragraph(repr(self)[1:-1])
        layers = html_table(*_split(self._layer_rows()), left=3)
        return (
            heading
            + layers
            + (html_table(*_split(self._gate_rows()), left=5) if self.gates else "")
        )

    def _layer_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("layer", "type", "output", "parameters", "multiply-adds")]
        rows += [
            (
                layer.path or _ROOT,
                layer.type,
                "not run" if layer.output is None else _shape(layer.output),
                f"{layer.parameters:,}" if layer.parameters else "",
                f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
            )
            for layer in self.layers
        ]
        size = f"{self.image_size}×{self.image_size}"
        total = f"{self.parameters:,}", f"{self.multiply_adds:,}"
        return [*rows, ("total", "", f"image {size}", *total)]

    def _gate_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("gate", "kind", "gate shape", "feature shape", "bounds")]
        for g in self.gates:
            bounds = f"{g.bounds[0]:g} to {g.bounds[1]:g}"
            rows.append((g.name or _ROOT, g.kind, _shape(g.gate), _shape(g.features), bounds))
        return rows


@dataclass(frozen=True)
class GateList:
    """The gates of a network and their ranges, returned by `describe_gates`.

    ``print(gate_list)`` shows them as tables, and so does a notebook.
    """

    gates: list[Gate]
    """The gates in forward order."""
    ranges: dict[str, tuple[float, float]]
    """The lowest and the highest value of each gate on the images, by gate name."""
    ungated: list[Ungated]
    """The bounded activations that are not gates, with the reason."""
    sample: str
    """A description of the images, for messages."""

    def __repr__(self) -> str:
        kinds = Counter(gate.kind for gate in self.gates)
        by_kind = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        return (
            f"<GateList: {number_of(len(self.gates), 'gate')}{f' ({by_kind})' if by_kind else ''}, "
            f"{number_of(len(self.ungated), 'other bounded activation')}; "
            f"ranges from {self.sample}>"
        )

    def __str__(self) -> str:
        text = _NO_GATES
        if self.gates:
            rows = self._gate_rows()
            text = f"{_text_table(rows, left=len(rows[0]))}\n\n{self._note()}"
        if self.ungated:
            text += f"\n\n{_text_table(self._ungated_rows(), left=3)}"
        return text

    def _repr_html_(self) -> str:
        html = html_paragraph(repr(self)[1:-1])
        if self.gates:
            rows = self._gate_rows()
            html += html_table(*_split(rows), left=len(rows[0])) + html_paragraph(self._note())
        if self.ungated:
            html += html_table(*_split(self._ungated_rows()), left=3)
        return html

    def to_dict(self) -> dict[str, Any]:
        """Return the same as lists and dicts, for JSON."""
        return {
            "gates": [{**g.to_dict(), "range": list(self.ranges[g.name])} for g in self.gates],
            "ungated": [{**asdict(u), "reason": u.reason} for u in self.ungated],
            "sample": self.sample,
        }

    def _note(self) -> str:
        return f"The range is the lowest and the highest value on {self.sample}."

    def _gate_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [_GATE_COLUMNS]
        for gate in self.gates:
            size = _shape(gate.grid) if gate.grid and "C" not in gate.axes else str(gate.channels)
            seen = "{:.3g} to {:.3g}".format(*self.ranges[gate.name])
            bounds, neutral = gate.bounds_text, f"{gate.neutral:g}"
            activation = f"{gate.activation}; {gate.form}" if gate.form else gate.activation
            modules = gate.made_in or _ROOT, gate.applied_in or _ROOT
            name = gate.name or _ROOT
            rows.append((name, gate.kind, size, activation, bounds, neutral, seen, *modules))
        return rows

    def _ungated_rows(self) -> list[tuple[str, ...]]:
        rows = [("other bounded activation", "computed in", "why it is not a gate")]
        return [*rows, *((u.activation, u.made_in or _ROOT, u.reason) for u in self.ungated)]


_ROOT = "(the network)"  # stands for the empty path
_NO_GATES = "no gates: no bounded activation multiplies a feature map"
_GATE_COLUMNS = (
    "gate", "kind", "channels or grid", "activation", "bounds", "neutral", "range", "computed in",
    "applied in",
)  # fmt: skip


def describe_gates(
    model: nn.Module,
    images: Float[Tensor, "images channels height width"],
    sample: str,
    kinds: Sequence[str] | None = None,
) -> GateList:
    """Find the gates of a network and measure the range of each on some images.

    Args:
        model: Any network; it is not changed.
        images: Input of the network, ``(N, C, H, W)``.
        sample: A description of the images, for messages, such as "4 images of noise".
        kinds: The kinds of gates to look for, as in `attnscope.gates.find_gates`.

    Returns:
        The gates, their ranges, and the bounded activations that are not gates.

    Raises:
        InputError: The gates cannot be found; see `attnscope.gates.find_gates`.
    """
    found = inspect_gates(model, images, kinds)
    with eval_mode(model), torch.no_grad(), watch_gates(model, found.gates) as seen:
        model(images)
    ranges = {name: (float(value.min()), float(value.max())) for name, value in seen.items()}
    return GateList(found.gates, ranges, found.ungated, sample)


def summarize(model: nn.Module, image_size: int) -> Summary:
    """Summarize the layers and gates of a network by running it on one image.

    Args:
        model: A network whose input is ``(N, 3, image_size, image_size)``, or one of attnscope for
            images of other channels; it is not changed.
        image_size: Height and width of the image, in pixels.

    Returns:
        Shapes, parameters and multiply-adds of the layers, and the shapes of the gates.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def store_shape(path: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[path] = tuple(output.shape[1:])

        return hook

    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    size = 1, channels_of(model), image_size, image_size
    image = torch.zeros(size, dtype=number_type(model), device=device)
    handles = [m.register_forward_hook(store_shape(path)) for path, m in model.named_modules()]
    counter = FlopCounterMode(display=False)
    try:
        with eval_mode(model), torch.no_grad(), counter:
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    gates = find_gates(model, image)
    found: dict[str, GateShape] = {}

    def store_gate(gate: Gate) -> Callable[[Tensor, Tensor], Tensor]:
        def edit(values: Tensor, features: Tensor) -> Tensor:
            shapes = tuple(values.shape[1:]), tuple(features.shape[1:])
            found[gate.name] = GateShape(gate.name, gate.kind, *shapes, (gate.lo, gate.hi))
            return values

        return edit

    edits = {gate.name: store_gate(gate) for gate in gates}
    with eval_mode(model), torch.no_grad(), edit_gates(model, edits, gates):
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


def _text_table(rows: Sequence[tuple[str, ...]], left: int) -> str:
    """Format rows with aligned columns; the first row is the heading.

    Args:
        rows: The cells.
        left: How many columns are aligned to the left; the others are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def _split(rows: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], Sequence[tuple[str, ...]]]:
    """Return the titles and the other rows of a table."""
    return rows[0], rows[1:]


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
