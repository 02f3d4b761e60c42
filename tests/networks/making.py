"""Networks and weights for the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnscope.errors import InputError
from attnscope.networks.build import build_model


def on_meta(*args: Any, **options: Any) -> nn.Module:
    """A network without memory: its shapes are all that is asked of it."""
    with torch.device("meta"):
        return build_model(*args, **options)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and every running statistic with a value of its own."""
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
    """Module path -> (input, output), filled by a forward."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in model.named_modules():
        if wanted(name):
            module.register_forward_hook(
                # Copied, since ReLUs of torchvision's blocks work in place.
                lambda _m, x, y, name=name: seen.update({name: (x[0].clone(), y.clone())})
            )
    return seen


def plain(model: nn.Module) -> nn.Module:
    """In the layout that `load_model` gives: convolutions of two layouts may round differently."""
    return model.eval().to(memory_format=torch.contiguous_format)


def refused(action: Callable[[], object], *said: str) -> None:
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for text in said:
        assert text in message
