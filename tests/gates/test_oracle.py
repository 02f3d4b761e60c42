"""Nothing is silent: an oracle that shares no code with the tracer sees every product.

The oracle works below Python's spellings, on the operators of aten. It records each product of two
tensors that depend on the input, of which one is constant along an axis along which the other is
not. Each of them must be a gate, or be listed with a reason.
"""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attnscope.gates.detect import inspect_gates
from tests.gates.case_networks import CASES

PRODUCTS = ("aten.mul", "aten.div")
NETWORKS = {
    "seresnet18": lambda: timm.create_model("seresnet18"),
    "efficientnet_b0": lambda: timm.create_model("efficientnet_b0"),
    "mobilenetv3_small_050": lambda: timm.create_model("mobilenetv3_small_050"),
    "skresnet18": lambda: timm.create_model("skresnet18"),
    "resnest14d": lambda: timm.create_model("resnest14d"),
    "ghostnet_050": lambda: timm.create_model("ghostnet_050"),
    "regnety_002": lambda: timm.create_model("regnety_002"),
    "pvt_v2_b0": lambda: timm.create_model("pvt_v2_b0"),
    "mobilevitv2_050": lambda: timm.create_model("mobilevitv2_050"),
    "poolformer_s12": lambda: timm.create_model("poolformer_s12"),
    "resnet18": lambda: torchvision.models.resnet18(),
    "mobilenet_v3_large": lambda: torchvision.models.mobilenet_v3_large(),
}
SIZES = {"mobilevitv2_050": 128}
# Cases whose code cannot be traced, and which are refused.
SKIPPED = {"scripted_function", "compiled_function", "lazy_layers"}


class Oracle(TorchDispatchMode):
    """Records the shapes of broadcasting products of tensors that depend on the input."""

    def __init__(self, inputs: list[Tensor]) -> None:
        super().__init__()
        self.dynamic = {x.untyped_storage()._cdata: x for x in inputs}
        self.products: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        """By the storage of the gate: one gate may have several products."""

    def is_dynamic(self, value: object) -> bool:
        return isinstance(value, Tensor) and value.untyped_storage()._cdata in self.dynamic

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs))
        if any(map(self.is_dynamic, leaves)):
            for out in tree_leaves(result):
                if isinstance(out, Tensor):
                    self.dynamic[out.untyped_storage()._cdata] = out  # keeps it alive
        if str(func).startswith(PRODUCTS) and len(args) > 1:
            a, b = args[:2]
            if self.is_dynamic(a) and self.is_dynamic(b):
                self.see(a, b)
                if str(func).startswith("aten.mul"):
                    self.see(b, a)
        return result

    def see(self, features: Tensor, gate: Tensor) -> None:
        if features.ndim < 3 or gate.ndim > features.ndim or gate.dtype != features.dtype:
            return
        shape = (1,) * (features.ndim - gate.ndim) + tuple(gate.shape)
        strides = (0,) * (features.ndim - gate.ndim) + gate.stride()
        constant = [n == 1 or stride == 0 for n, stride in zip(shape, strides, strict=True)]
        moving = [
            n > 1 and (gate is not features)
            for n, still in zip(features.shape, constant, strict=True)
            if still
        ]
        covers = all(g in (1, f) for g, f in zip(shape, features.shape, strict=True))
        if covers and any(moving):
            place = gate.untyped_storage()._cdata
            self.products.setdefault(place, (tuple(features.shape), shape))


def products_of(model: nn.Module, args: tuple[Any, ...]) -> list[Any]:
    inputs = [x for x in tree_leaves(args) if isinstance(x, Tensor)]
    oracle = Oracle(inputs)
    with torch.no_grad(), oracle:
        model(*args)
    return list(oracle.products.values())


def told_of(model: nn.Module, images: Any) -> int:
    """How many multiplications the inspection names: gates, and multipliers that are none."""
    found = inspect_gates(model, images)
    return len(found.gates) + len(found.ungated)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_product_in_a_public_network_is_a_gate_or_listed(name: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    size = SIZES.get(name, 64)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    products = products_of(model, (images,))
    found = inspect_gates(model, images)
    named = len(found.gates) + sum(u.code != "consumed" for u in found.ungated)
    assert named >= len(products), (products, found)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(set(CASES) - SKIPPED))
def test_every_product_in_a_case_is_a_gate_or_listed(name: str) -> None:
    torch.manual_seed(0)
    model = CASES[name]().eval()
    inputs = model.sample()
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    with torch.no_grad():
        products = products_of(model, args)
        told = told_of(model, inputs)
    assert told >= len(products), products
