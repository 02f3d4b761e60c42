"""Which gates a network has: the first of the two uses of `attnscope.gates.tracer`."""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from attnscope.errors import InputError, first_line
from attnscope.gates.modes import eval_mode
from attnscope.gates.ops import Bounds, Mark
from attnscope.gates.tracer import Product, Tracer
from attnscope.kinds import KINDS, MAP, Gate, Ungated, Variation, kind_of, searched_kinds

_Place = tuple[str, int, str]
_LARGE = 128  # pixels; what is 1×1 on an enlarged sample of this size is no feature map


@dataclass(frozen=True)
class Inspection:
    """What `inspect_gates` found."""

    gates: list[Gate]
    """In the order in which they act."""
    ungated: list[Ungated]
    """The other bounded activations, in the order in which they run."""


def find_gates(model: nn.Module, images: Tensor, kinds: Sequence[str] | None = None) -> list[Gate]:
    """The gates of a network, in the order in which they act: `inspect_gates` without the rest."""
    return inspect_gates(model, images, kinds).gates


def inspect_gates(
    model: nn.Module, images: Tensor, kinds: Sequence[str] | None = None
) -> Inspection:
    """The gates of a network, and what became of every other bounded activation.

    The network runs in eval mode without gradients, and is left as it was. What the axes of a
    feature map are is seen from which of them grow with the image: where the sample does not tell
    (a map of 1×1, channels at another place than PyTorch's), the network runs on a larger one too.

    Args:
        model: any network whose forward takes ``images``.
        images: a small sample as the network gets it, ``(N, 3, H, W)``, or one image
            ``(3, H, W)`` for a network without a batch axis; on the network's device.
        kinds: of `attnscope.kinds.Gate`; ``full`` and ``static`` only when asked for.

    Raises:
        InputError: a kind is not known; the kind of a gate cannot be told, since the network takes
            this size only; a module is scripted, compiled or checkpointed.
    """
    return inspect_call(model, (images,), {}, kinds)


def inspect_call(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    kinds: Sequence[str] | None = None,
) -> Inspection:
    """`inspect_gates` for a forward with any arguments, the first of which are the images."""
    kinds = searched_kinds() if kinds is None else kinds
    for kind in kinds:
        KINDS.find(kind)
    first = last = _look(model, args, kwargs)
    refused = ""
    while args and first.unclear(last):
        images = args[0]
        if not isinstance(images, Tensor) or images.ndim not in (3, 4):
            break
        if last is not first and max(images.shape[-2:]) >= _LARGE:
            break
        batch = images if images.ndim == 4 else images[None]
        batch = nn.functional.interpolate(batch, scale_factor=2.0)
        args = (batch if images.ndim == 4 else batch[0], *args[1:])
        try:
            last = _look(model, args, kwargs)
        except InputError:
            raise
        except Exception as error:  # whatever a network raises that takes one size only
            refused = first_line(error)
            break
    return _conclude(first, last, refused, kinds)


def refuse_checkpoint(module: str) -> None:
    """Refuses to go on within ``torch.utils.checkpoint``.

    What it runs again for the gradients would not see the edits of a block that has ended.
    """
    frame = sys._getframe(1)
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_code.co_filename.endswith(("torch/utils/checkpoint.py", r"utils\checkpoint.py")):
            raise InputError(
                f"the gate in {module or 'the network'} runs within torch.utils.checkpoint, where "
                "gradients under an edit would be wrong; switch gradient checkpointing off"
            )


@dataclass
class _Use:
    """A gate that was seen to multiply."""

    mark: Mark
    gate: tuple[int, ...]
    """Its shape."""
    varies: tuple[bool, ...]
    """Along which of its axes."""
    is_distribution: bool
    """Whether its values sum to one in each image: a softmax over what the gate varies along."""
    static: bool
    applied_in: str
    features: tuple[int, ...] = ()
    """Their shape."""
    neutral: float = 1.0
    summed: frozenset[int] = frozenset()
    """Axes over which the product was summed."""


class _Finder(Tracer):
    """Learns from one forward where gates multiply, and where other activations end."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.uses: dict[_Place, _Use] = {}
        self.activations: dict[tuple[str, int], str] = {}
        self.fates: dict[tuple[str, int], str] = {}
        self.images: int | None = None
        """How many images the network got; None where it takes one without a batch axis."""
        self._factors: dict[_Place, _Use] = {}
        self._made: MutableMapping[Tensor, tuple[weakref.ref[Tensor], _Place]]
        self._made = WeakTensorKeyDictionary()

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        images = next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)
        self.images = None if images is None or images.ndim == 3 else images.shape[0]

    def bounds_of(self, tensor: Tensor) -> Bounds | None:
        if not self.is_static(tensor) or tensor.is_complex() or not tensor.numel():
            return None
        return float(tensor.min()), float(tensor.max())

    def meet(self, product: Product) -> Tensor:
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

    def _use(self, gate: Tensor, mark: Mark, features: Tensor | None) -> _Use:
        varies = [
            size > 1 and axis - gate.ndim not in mark.copied for axis, size in enumerate(gate.shape)
        ]
        if features is not None and gate.shape == features.shape:
            # The activation may have had a written-out input. Where all is constant nothing can
            # be said: a gate whose last layer starts at zero.
            start = 0 if self.images is None else 1
            still = [
                torch.equal(gate, gate.narrow(axis, 0, 1).expand_as(gate))
                for axis in range(start, gate.ndim)
            ]
            if not all(still):
                varies[start:] = [not constant for constant in still]
        softmax = mark.activation == "softmax" and self.images is not None
        return _Use(
            mark,
            tuple(gate.shape),
            tuple(varies),
            softmax and _is_distribution(gate, mark.bounds, varies),
            self.is_static(gate),
            self.running,
        )

    def note(
        self,
        name: str,
        arguments: Sequence[Any],
        marks: Sequence[Mark | None],
        outputs: Sequence[Tensor],
        products: Sequence[Product],
    ) -> None:
        kept = False
        for output in outputs:
            mark = self.mark_of(output)
            kept = kept or mark is not None
            if mark and mark.bounded:
                self.activations.setdefault((mark.made_in, mark.call), mark.activation)
        if outputs and not kept and not products:
            for mark in filter(None, marks):
                for origin in mark.origins:
                    self.fates.setdefault(origin, f"consumed by {name}")
        for product in products:
            if product.features is not None and outputs[0] is not product.features:
                self._made[outputs[0]] = weakref.ref(product.features), product.mark.place
        if name in ("add", "sum") and self._made:
            self._follow(name, arguments)

    def _follow(self, name: str, arguments: Sequence[Any]) -> None:
        """``x + x * g`` and ``(x * p).sum()``: what becomes of a product tells more of its gate."""
        for argument in arguments:
            made = self._made.get(argument) if isinstance(argument, Tensor) else None
            if made is None or made[1] not in self.uses:
                continue
            use = self.uses[made[1]]
            if name == "add" and any(other is made[0]() for other in arguments):
                use.neutral = 0.0
            if name == "sum":
                axes = arguments[1] if len(arguments) > 1 else range(argument.ndim)
                axes = [axes] if isinstance(axes, int) else axes
                use.summed |= {axis % argument.ndim for axis in axes}

    def unclear(self, last: _Finder) -> bool:
        """Whether the axes of some features are told neither here nor by the last, larger look."""
        return not all(
            _is_plain(use, self.images is not None)
            or use.features != last.uses.get(place, use).features
            for place, use in self.uses.items()
        )


def _look(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Finder:
    finder = _Finder(model)
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


def _aligned(use: _Use) -> tuple[bool, ...]:
    """Along which axes of the features the gate varies."""
    return (False,) * (len(use.features) - len(use.varies)) + use.varies


def _is_plain(use: _Use, batched: bool) -> bool:
    """Whether there is one reading of the axes only, if the channels stand where PyTorch's do."""
    varies, features = _aligned(use), use.features
    if not batched:
        varies, features = (False, *varies), (1, *features)
    if min(features[-2:]) == 1 or len(features) not in (4, 5):
        return False
    along = varies[1:]
    if len(features) == 5:
        return not any(along[-2:])
    return along in ((True, False, False), (False, True, True), (True, True, True))


def _layout(use: _Use, larger: _Use, batched: bool) -> str | None:
    """A letter for each axis of the features; None where that cannot be told."""
    start = int(batched)
    first, last = use.features, larger.features
    grows = [a != b for a, b in zip(first, last, strict=True)] if len(first) == len(last) else []
    if not any(grows[start:]):
        if batched and len(last) == 3:  # a row of pixels, and nothing that tells where
            return "NLC" if _aligned(larger)[1:] == (False, True) else None
        grows = [i >= len(last) - 2 for i in range(len(last))]
        if min(last[-2:]) == 1:
            return None
    moving = iter({1: "L", 2: "HW"}.get(sum(grows[start:]), ""))
    fixed = iter({1: "C", 2: "BC"}.get(len(last) - start - sum(grows[start:]), ""))
    letters = [next(moving if grows[i] else fixed, "") for i in range(start, len(last))]
    return "N" * start + "".join(letters) if all(letters) else None


def _reading(use: _Use, layout: str, images: int | None) -> tuple[str, str]:
    """Kind and axes of a gate; where it is none, why, and no axes."""
    varies = _aligned(use)
    along = {letter for letter, moves in zip(layout, varies, strict=True) if moves} - {"N"}
    rows = (1,) * (len(use.features) - len(use.gate)) + use.gate
    axes = "".join(letter for letter in "NBCHWL" if letter in along | ({"N"} & set(layout)))
    if use.static:
        return kind_of(_variation(use, along, set())).name, axes.replace("N", "")
    if images is not None and use.features[0] != images:
        return "multiplies features whose rows are not the images", ""
    if images is not None and images > 1 and rows[0] == 1:
        return "one gate for all images of a batch", ""
    sizes = {letter for letter, n in zip(layout, use.features, strict=True) if n > 1}
    seen = _variation(use, along, sizes - {"N"})
    kind = kind_of(seen)
    is_summed = {layout.index(letter) for letter in along} <= use.summed
    if MAP in kind.traits and use.is_distribution and is_summed:
        return "softmax pooling", ""
    if not along and not kind.fallback:
        axes += "C"  # one number for all channels is read as a channel gate (N, 1)
    return kind.name, axes


def _variation(use: _Use, along: set[str], features: set[str]) -> Variation:
    return Variation(
        along=frozenset(along),
        features=frozenset(features),
        own_shape=use.gate == use.features,
        static=use.static,
        shares_paths=use.mark.activation == "softmax" and not use.is_distribution,
    )


def _conclude(first: _Finder, last: _Finder, refused: str, kinds: Sequence[str]) -> Inspection:
    """Names the gates, and says of every other bounded activation what became of it."""
    batched = first.images is not None
    found: list[tuple[_Use, _Use, str, str, str]] = []
    fates = dict(first.fates)
    for place, use in first.uses.items():
        larger = last.uses.get(place, use)
        layout = _layout(use, larger, batched)
        if layout is None and refused:
            name = _path(use, first.bare) or "of the network"
            raise InputError(
                f"the kind of the gate {name} cannot be told where {use.gate} multiplies "
                f"{use.features}, and the network takes no larger images ({refused}); give it a "
                "sample on which its maps are larger than 1×1"
            )
        kind, axes = "multiplies what is no feature map", ""
        if layout is not None:
            kind, axes = _reading(larger, layout, first.images)
        if axes and layout and kind in kinds:
            found.append((use, larger, layout, kind, axes))
            continue
        if kind == "full":
            kind = "full: multiplies features of its own shape"
        elif kind == "static":
            kind = "static: from parameters alone"
        for origin in use.mark.origins:
            fates.setdefault(origin, kind)
    gates: dict[_Place, Gate] = {}
    # Names must not depend on which other kinds were asked for.
    for use, larger, layout, kind, axes in sorted(
        found, key=lambda each: not KINDS[each[3]].searched
    ):
        name = _path(use, first.bare)
        number = 1 + sum(gate.name.partition("#")[0] == name for gate in gates.values())
        gates[use.mark.place] = Gate(
            name=name if number == 1 else f"{name}#{number}",
            kind=kind,
            channels=use.features[layout.index("C")],
            grid=_grid(use.features, layout) if kind == "spatial" else None,
            activation=use.mark.activation,
            lo=use.mark.bounds[0],
            hi=use.mark.bounds[1],
            neutral=larger.neutral,
            made_in=use.mark.made_in,
            call=use.mark.call,
            form=use.mark.form,
            applied_in=use.applied_in,
            layout=layout,
            axes=axes,
        )
    served = {origin for use, *_ in found for origin in use.mark.origins}
    return Inspection(
        [gates[use.mark.place] for use, *_ in found],
        [
            Ungated(*origin, activation, fates.get(origin, "used by no operation"))
            for origin, activation in first.activations.items()
            if origin not in served
        ],
    )


def _path(use: _Use, bare: set[str]) -> str:
    """The path of the module that makes the gate; a bare ``nn.Sigmoid`` takes its parent's."""
    made_in = use.mark.made_in
    if made_in in bare and made_in != use.applied_in:
        return made_in.rpartition(".")[0]
    return made_in


def _grid(features: tuple[int, ...], layout: str) -> tuple[int, int]:
    if "L" in layout:
        return grid_of_row(features[layout.index("L")])
    return features[layout.index("H")], features[layout.index("W")]


def grid_of_row(pixels: int) -> tuple[int, int]:
    """Rows and columns of pixels that stand in one row: a square where that can be."""
    side = math.isqrt(pixels)
    return (side, side) if side * side == pixels else (1, pixels)
