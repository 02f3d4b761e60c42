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
from torch.utils._pytree import tree_leaves

from analysis.coverage.oracle import Oracle, Product
from attnscope.gates.detect import inspect_gates
from tests.gates.case_networks import CASES

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


def products_of(model: nn.Module, args: tuple[Any, ...]) -> list[Product]:
    inputs = [x for x in tree_leaves(args) if isinstance(x, Tensor)]
    oracle = Oracle(inputs)
    with torch.no_grad(), oracle.on(model):
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
