"""Trace one forward: where gates multiply, and where other bounded activations end."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.errors import InputError, first_line
from attnscope.gates.inputs import Inputs
from attnscope.gates.lineage import Lineage
from attnscope.gates.marks import Bounds, Mark
from attnscope.gates.modes import eval_mode
from attnscope.gates.ops.operation import Known
from attnscope.gates.products import UNBOUNDED_FORM, Product, covers_map
from attnscope.gates.sums import Made
from attnscope.gates.tensor_map import TensorMap
from attnscope.gates.tracer import Tracer, own_level

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
    pointwise: bool = False
    """Whether the gate is computed from the features position by position."""
    batch: int | None = None
    """Number of images of the forward."""
    rows: Tensor | None = None
    """The gate, kept if its first axis is not the batch."""
    number: int = 0
    """How many uses came before it in the forward."""
    softmax: tuple[int, ...] = ()
    """Axes of the gate, counted from the end, over which a softmax sums to one."""

    @property
    def aligned(self) -> tuple[bool, ...]:
        """For each axis of the features, whether the gate varies along it."""
        return (False,) * (len(self.features) - len(self.varies)) + self.varies

    @property
    def softmax_axes(self) -> frozenset[int]:
        """Axes of the features over which the gate is a softmax."""
        return frozenset(axis + len(self.features) for axis in self.softmax)


class Finder(Tracer):
    """Records where gates multiply in a forward, and where other activations end."""

    def __init__(self, model: nn.Module, batched: bool = True) -> None:
        super().__init__(model)
        self.batched = batched
        self.error = ""
        """Why the forward failed."""
        self.uses: dict[Place, Use] = {}
        self.activations: dict[tuple[str, int], str] = {}
        self.reasons: dict[tuple[str, int], tuple[str, str]] = {}
        """Why an activation is not a gate: code and detail of `attnscope.kinds.Ungated`."""
        self.images: int | None = None
        """Batch size of the input. None for an image without a batch axis."""
        self.meets_unbounded = True
        self.unbounded: dict[Place, Use] = {}
        """Uses of multipliers without bounds that are neither masks nor statistics."""
        self.multipliers: dict[Place, tuple[str, int, str]] = {}
        """Multipliers without bounds: module, number, and a code of `NOT_A_GATE`."""
        self.lineage = Lineage()
        self._mixed: TensorMap[tuple[tuple[str, int], ...]] = TensorMap()
        self._factors: dict[Place, Use] = {}
        self._made: TensorMap[Made] = TensorMap()
        # Gates of bounded features, unless their product is a gate: origins of the product.
        self._of_bounded: dict[Place, tuple[Use, frozenset[tuple[str, int]]]] = {}

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record the batch size."""
        self.images = Inputs(args, kwargs).batch_size(self.batched)

    def bounds_of(self, tensor: Tensor) -> Bounds | None:
        """Return minimum and maximum of a static tensor, and None for any other tensor."""
        if not self.is_static(tensor) or tensor.is_complex() or not tensor.numel():
            return None
        return float(tensor.min()), float(tensor.max())

    def meet(self, product: Product) -> Tensor:
        """Record the multiplication, and return the gate unchanged."""
        gate, mark, features = product.gate, product.mark, product.features
        refuse_checkpoint(self.running)
        origin = gate if product.aligned is None else product.aligned.argument
        if mark.form == UNBOUNDED_FORM:
            if self._note_multiplier(product):
                gate = 1 / gate if product.divides else gate
                use = self.unbounded.setdefault(mark.place, self._use(gate, mark, features, origin))
                use.features = tuple(() if features is None else features.shape)
            return product.gate
        if product.divides:
            mark = mark.inverted()
            gate = 1 / gate
        if not _is_gate(product):
            return product.gate
        use = self._use(gate, mark, features, origin)
        if features is None:
            self._factors[mark.place] = use
            beside = product.beside
            if beside is not None and covers_map(beside, gate):
                # Bounded features with one channel, unless the product of the two is a gate.
                alone = replace(use, features=tuple(beside.shape))
                self._of_bounded.setdefault(mark.place, (alone, frozenset(mark.origins)))
            return product.gate
        if product.other is not None:
            use.features = tuple(features.shape)
            origins = frozenset(mark.origins + product.other.origins)
            self._of_bounded.setdefault(mark.place, (use, origins))
            return product.gate
        for seen in [self._factors[place] for place in mark.factors] or [use]:
            seen.features = tuple(features.shape)
            if product.aligned is not None:
                seen.summed |= product.aligned.summed
            if product.addend is features:
                seen.neutral = 0.0
            self.uses.setdefault(seen.mark.place, seen)
        return product.gate

    def _use(self, gate: Tensor, mark: Mark, features: Tensor | None, origin: Tensor) -> Use:
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
        softmax = mark.activation == "softmax"
        is_row = self.images is not None and gate.ndim and gate.shape[0] not in (1, self.images)
        return Use(
            mark,
            tuple(gate.shape),
            tuple(varies),
            softmax and self.images is not None and _is_distribution(gate, mark.bounds, varies),
            self.is_static(gate),
            self.running,
            pointwise=features is not None
            and self.lineage.of(origin).root == self.lineage.of(features).root,
            batch=self.images,
            number=len(self.uses) + len(self.unbounded) + len(self._of_bounded),
            rows=gate.detach().float().clone() if is_row else None,
            softmax=_softmax_axes(gate, mark.bounds) if softmax else (),
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
        kept: set[tuple[str, int]] = set()
        for output in outputs:
            mark = self.mark_of(output)
            if mark is not None and mark.bounded:
                kept.update(mark.origins)
                self.activations.setdefault(mark.origins[0], mark.activation)
            elif mark is not None and not any(own and own.bounded for own in marks):
                kept.update(mark.origins)  # it had no bounds before
        ended = [product.mark for product in products if not _is_gate(product)]
        if outputs and not products:
            lists = [each for each in arguments if isinstance(each, (list, tuple))]
            ended = [*filter(None, marks), *filter(None, map(self.mark_of, chain(*lists)))]
            self._note_routing(known, arguments, marks, outputs)
        for origin in (origin for mark in ended for origin in mark.origins):
            if origin not in kept:
                self.reasons.setdefault(origin, ("consumed", known.name))
        self.lineage.follow(known, arguments, outputs, self.is_static)
        if self._made and outputs:
            self._follow(known, arguments, outputs[0])
        for product in products:
            if product.features is not None and outputs[0] is not product.features:
                axes = tuple(range(outputs[0].ndim))
                features = weakref.ref(product.features)
                self._made[outputs[0]] = Made(features, product.mark.place, axes)

    def finish(self, output: Any) -> None:
        """Record the activations whose values the network returns."""
        for value in Inputs((output,), {}).tensors:
            mark = self.mark_of(value)
            for origin in mark.origins if mark else ():
                self.reasons.setdefault(origin, ("returned", ""))

    def _note_routing(
        self,
        known: Known,
        arguments: Sequence[Any],
        marks: Sequence[Mark | None],
        outputs: Sequence[Tensor],
    ) -> None:
        """Follow weights over kernels to the convolution, as in dynamic convolution."""
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        if known.name.startswith(("conv", "linear")):
            weight = arguments[1] if len(arguments) > 1 else None
            for origin in self._mixed.get(weight, ()) if isinstance(weight, Tensor) else ():
                self.reasons[origin] = "routing", known.name
            return
        moving = [a for a in tensors if not self.is_static(a)]
        if len(moving) != 1 or not outputs:
            return
        origins = self._mixed.get(moving[0])
        if len(tensors) > 1:  # mixed with parameters
            origins = next((mark.origins for mark in marks if mark), origins)
        if origins:
            self._mixed[outputs[0]] = origins

    def _note_multiplier(self, product: Product) -> bool:
        """List a multiplier without bounds. Returns whether it could be a gate."""
        mark, gate = product.mark, product.gate
        if not gate.is_floating_point():
            code = "mask"
        else:
            code = "statistic" if self.lineage.of(gate).is_statistic else "unbounded"
        self.multipliers[mark.place] = mark.made_in, mark.number, code
        return code == "unbounded"

    def _follow(self, known: Known, arguments: Sequence[Any], output: Tensor) -> None:
        """Follow a product to ``x + x * g`` (neutral value 0) and ``(x * p).sum()`` (pooling)."""
        operation = known.operation
        contracted = operation.contracts(arguments) if operation.contracts else {}
        for number, argument in enumerate(arguments):
            made = self._made.get(argument) if isinstance(argument, Tensor) else None
            if made is None or made.place not in self.uses:
                continue
            use = self.uses[made.place]
            if any(other is made.features() for other in arguments):
                if operation.adds or operation.subtracts == number:
                    use.neutral = 0.0
                elif operation.subtracts is not None and not made.is_scaled:
                    use.neutral = 2.0  # x * g - x
            if operation.sums:
                axes = arguments[1] if len(arguments) > 1 else range(argument.ndim)
                axes = [axes] if isinstance(axes, int) else axes
                use.summed |= made.summed(axes)
            if number in contracted and use.mark.activation == "softmax":
                # A product of matrices sums channels, too, which are no paths for that.
                own = {axis for axis, size in enumerate(use.features) if size == 1}
                use.summed |= made.summed(contracted[number]) & (use.softmax_axes | own)
            moved = made.moved(known, arguments) if number == 0 else None
            others = [a for place, a in enumerate(arguments) if place != number]
            if operation.scales and output.shape == argument.shape and self._are_fixed(others):
                moved = replace(made, is_scaled=True)
            if moved is not None:
                self._made[output] = moved

    def _are_fixed(self, arguments: Sequence[Any]) -> bool:
        """Return whether arguments are numbers or do not depend on the input."""
        return all(not isinstance(a, Tensor) or self.is_static(a) for a in arguments)

    def settle(self) -> None:
        """Add the gates of bounded features to the uses, if their product is no gate itself."""
        gates = [frozenset(use.mark.origins) for use in self.uses.values()]
        found = {
            place: use
            for place, (use, origins) in self._of_bounded.items()
            if not any(origins <= gate for gate in gates)
        }
        if found:
            uses = {**self.uses, **found}
            self.uses = dict(sorted(uses.items(), key=lambda item: item[1].number))


def look(model: nn.Module, inputs: Inputs, batched: bool = True, *, whole: bool = True) -> Finder:
    """Run the network once, in eval mode and without gradients, and return what was found.

    Args:
        model: any network.
        inputs: its arguments.
        batched: whether the first axis of the inputs is the batch.
        whole: whether an exception of the network is raised. Otherwise it is kept in
            `Finder.error`, with what was found before it.
    """
    with (
        own_level(),
        eval_mode(model),
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
    ):
        finder = Finder(model, batched)
        inputs = inputs.copied()  # the network may write into them
        try:
            with finder:
                model(*inputs.args, **inputs.kwargs)
        except Exception as error:  # a network may raise anything on a variant
            if whole:
                raise
            finder.error = first_line(error)
    finder.settle()
    return finder


def _is_gate(product: Product) -> bool:
    """Return whether the factor of a product has bounds, as a divisor of the features, too."""
    mark = product.mark.inverted() if product.divides else product.mark
    return mark.bounded and not (mark.is_statistic and product.divides)


def _softmax_axes(gate: Tensor, bounds: Bounds) -> tuple[int, ...]:
    """Return the axes, counted from the end, along which the values sum to one."""
    values = (gate.detach().float() - bounds[0]) / (bounds[1] - bounds[0])
    found = []
    for axis in range(-gate.ndim, 0):
        sums = values.sum(axis)
        if gate.shape[axis] > 1 and torch.allclose(sums, torch.ones_like(sums), atol=1e-2):
            found.append(axis)
    return tuple(found)


def _is_distribution(gate: Tensor, bounds: Bounds, varies: Sequence[bool]) -> bool:
    values = (gate.detach().float() - bounds[0]) / (bounds[1] - bounds[0])
    for axis in range(1, gate.ndim):
        if not varies[axis]:
            values = values.narrow(axis, 0, 1)
    sums = values.flatten(1).sum(1) if gate.ndim > 1 else values
    return torch.allclose(sums, torch.ones_like(sums), atol=1e-2)
