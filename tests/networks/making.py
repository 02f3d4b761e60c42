"""Networks and weights for the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.networks.build import build_model


def on_meta(*args: Any, **options: Any) -> nn.Module:
    """A network on the meta device: with shapes but without memory."""
    with torch.device("meta"):
        return build_model(*args, **options)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def with_random_state(model: nn.Module, seed: int = 0) -> nn.Module:
    """Set every parameter and every running statistic to another random value."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator) * 0.1
            value.copy_(noise.abs() + 0.5 if name.endswith("running_var") else value + noise)
        else:
            value.fill_(7)
    return model


def images(size: int = 32, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def record(model: nn.Module, wanted: Callable[[str], bool]) -> dict[str, tuple[Tensor, Tensor]]:
    """The input and the output of modules by path, filled by the next forward pass."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in model.named_modules():
        if wanted(name):
            module.register_forward_hook(
                # Cloned, because torchvision's blocks use in-place ReLUs.
                lambda _m, x, y, name=name: seen.update({name: (x[0].clone(), y.clone())})
            )
    return seen


def as_loaded(model: nn.Module) -> nn.Module:
    """The network in the memory format of `load_model`, because rounding depends on the format."""
    return model.eval().to(memory_format=torch.contiguous_format)
