"""Trace one forward: where gates multiply, and where other bounded activations end."""

from __future__ import annotations

import sys
import weakref
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from attnscope.errors import InputError
from attnscope.gates.axes import is_plain
from attnscope.gates.marks import Bounds, Mark
from attnscope.gates.modes import eval_mode
from attnscope.gates.ops.operation import Known, Operation
from attnscope.gates.tracer import Product, Tracer

Place = tuple[str, int, str]
"""The identity of a gate: `attnscope.gates.marks.Mark.place`."""


def refuse_checkpoint(module: str) -> None:
    """Refuse to continue inside ``torch.utils.checkpoint``.

    The second forward of a checkpoint, in the backward pass, would not see the edits of a block
    that has ended.

    Raises:
        InputError: AS405.
    """
    frame = sys._getframe(1)
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_code.co_filename.endswith(("torch/utils/checkpoint.py", r"utils\checkpoint.py")):
            raise InputError(
                "AS405",
                f"the gate in {module or 'the network'} runs inside torch.utils.checkpoint, where "
                "gradients under an edit would be wrong; switch gradient checkpointing off",
            )


@dataclass
class Use:
    """One multiplication of features by a gate."""

    mark: Mark
    gate: tuple[int, ...]
    """Shape of the gate."""
    varies: tuple[bool, ...]
    """For each axis of the gate, whether it varies along it."""
    is_distribution: bool
    """Whether the values of each image sum to one: a softmax over the axes of the gate."""
    static: bool
    """Whether the gate does not depend on the input."""
    applied_in: str
    """Path of the module that runs the multiplication."""
    features: tuple[int, ...] = ()
    """Shape of the features."""
    neutral: float = 1.0
    """The value of the gate that leaves the features unchanged."""
    summed: frozenset[int] = frozenset()
    """Axes over which the product was summed later."""

    @property
    def aligned(self) -> tuple[bool, ...]:
        """For each axis of the features, whether the gate varies along it."""
        return (False,) * (len(self.features) - len(self.varies)) + self.varies


class Finder(Tracer):
    """Records where gates multiply in a forward, and where other activations end."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.uses: dict[Place, Use] = {}
        self.activations: dict[tuple[str, int], str] = {}
        self.reasons: dict[tuple[str, int], tuple[str, str]] = {}
        """Why an activation is not a gate: code and detail of `attnscope.kinds.Ungated`."""
        self.images: int | None = None
        """Batch size of the input. None for an image without a batch axis."""
        self._factors: dict[Place, Use] = {}
        self._made: MutableMapping[Tensor, tuple[weakref.ref[Tensor], Place]]
        self._made = WeakTensorKeyDictionary()

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record the batch size."""
        images = next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)
        self.images = None if images is None or images.ndim == 3 else images.shape[0]

    def bounds_of(self, tensor: Tensor) -> Bounds | None:
        """Return minimum and maximum of a static tensor, and None for any other tensor."""
        if not self.is_static(tensor) or tensor.is_complex() or not tensor.numel():
            return None
        return float(tensor.min()), float(tensor.max())

    def meet(self, product: Product) -> Tensor:
        """Record the multiplication, and return the gate unchanged."""
        gate, mark, features = product.gate, product.mark, product.features
        refuse_checkpoint(self.running)
        if not mark.bounded:
            return gate
        use = self._use(gate, mark, features)
        if features is None:
            self._factors[mark.place] = use
            return gate
        for seen in [self._factors[place] for place in mark.factors] or [use]:
            seen.features = tuple(features.shape)
            if product.addend is features:
                seen.neutral = 0.0
            self.uses.setdefault(seen.mark.place, seen)
        return gate

    def _use(self, gate: Tensor, mark: Mark, features: Tensor | None) -> Use:
        varies = [
            size > 1 and axis - gate.ndim not in mark.copied for axis, size in enumerate(gate.shape)
        ]
        if features is not None and gate.shape == features.shape:
            # The activation may have had an expanded input, so the values tell where the gate is
            # constant. They do not if all are equal, as in a gate whose last layer starts at zero.
            start = 0 if self.images is None else 1
            still = [
                torch.equal(gate, gate.narrow(axis, 0, 1).expand_as(gate))
                for axis in range(start, gate.ndim)
            ]
            if not all(still):
                varies[start:] = [not constant for constant in still]
        softmax = mark.activation == "softmax" and self.images is not None
        return Use(
            mark,
            tuple(gate.shape),
            tuple(varies),
            softmax and _is_distribution(gate, mark.bounds, varies),
            self.is_static(gate),
            self.running,
        )

    def note(
        self,
        known: Known,
        arguments: Sequence[Any],
        marks: Sequence[Mark | None],
        outputs: Sequence[Tensor],
        products: Sequence[Product],
    ) -> None:
        """Record activations, the operations that end them, and the use of products."""
        kept = False
        for output in outputs:
            mark = self.mark_of(output)
            kept = kept or mark is not None
            if mark and mark.bounded:
                self.activations.setdefault((mark.made_in, mark.call), mark.activation)
        if outputs and not kept and not products:
            for mark in filter(None, marks):
                for origin in mark.origins:
                    self.reasons.setdefault(origin, ("consumed", known.name))
        for product in products:
            if product.features is not None and outputs[0] is not product.features:
                self._made[outputs[0]] = weakref.ref(product.features), product.mark.place
        operation = known.operation
        if self._made and (operation.adds or operation.sums):
            self._follow(operation, arguments)

    def _follow(self, operation: Operation, arguments: Sequence[Any]) -> None:
        """Follow a product to ``x + x * g`` (neutral value 0) and ``(x * p).sum()`` (pooling)."""
        for argument in arguments:
            made = self._made.get(argument) if isinstance(argument, Tensor) else None
            if made is None or made[1] not in self.uses:
                continue
            use = self.uses[made[1]]
            if operation.adds and any(other is made[0]() for other in arguments):
                use.neutral = 0.0
            if operation.sums:
                axes = arguments[1] if len(arguments) > 1 else range(argument.ndim)
                axes = [axes] if isinstance(axes, int) else axes
                use.summed |= {axis % argument.ndim for axis in axes}

    def unclear(self, last: Finder) -> bool:
        """Return whether the axes of some features are still ambiguous after a larger sample.

        Args:
            last: the forward on the larger sample, or this one.
        """
        return not all(
            is_plain(use.features, use.aligned, self.images is not None)
            or use.features != last.uses.get(place, use).features
            for place, use in self.uses.items()
        )


def look(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Finder:
    """Run the network once, in eval mode and without gradients, and return what was found."""
    finder = Finder(model)
    with eval_mode(model), torch.no_grad(), torch.random.fork_rng(devices=[]), finder:
        model(*args, **kwargs)
    return finder


def _is_distribution(gate: Tensor, bounds: Bounds, varies: Sequence[bool]) -> bool:
    values = (gate.detach().float() - bounds[0]) / (bounds[1] - bounds[0])
    for axis in range(1, gate.ndim):
        if not varies[axis]:
            values = values.narrow(axis, 0, 1)
    sums = values.flatten(1).sum(1) if gate.ndim > 1 else values
    return torch.allclose(sums, torch.ones_like(sums), atol=1e-2)
