"""Networks of a few lines, and what is known of them without attnscope."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from attnscope.networks.build import build_model

SIZE, CHANNELS = 8, 6
NETWORKS = [
    pytest.param("resnet18", kind, placement, id=f"{kind}-{placement}")
    for kind in ("se", "eca", "cbam")
    for placement in ("block", "stage")
] + [pytest.param("cnn", "cbam", None, id="cnn")]


class Net(nn.Module):
    """A convolution, and then whatever the test writes: ``body(net, features)``."""

    def __init__(self, body: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.other = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.fc = nn.Linear(CHANNELS, CHANNELS)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, CHANNELS).view(-1, 1, 1))
        self.register_buffer("mask", torch.ones(1, CHANNELS, 1, 1))
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, self.conv(x))


def images(count: int = 2, size: int = SIZE) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def logits(net: Net, y: Tensor) -> Tensor:
    return net.fc(y.mean((2, 3)))


def column(values: Tensor) -> Tensor:
    return values[:, :, None, None]


def channel(net: Net, y: Tensor) -> Tensor:
    return column(torch.sigmoid(logits(net, y)))


def spatial(y: Tensor) -> Tensor:
    return torch.sigmoid(y.mean(1, keepdim=True))


def rows(y: Tensor) -> Tensor:
    return torch.sigmoid(y.mean(3, keepdim=True))


def nhwc(y: Tensor) -> Tensor:
    return y.permute(0, 2, 3, 1)


def nlc(y: Tensor) -> Tensor:
    return y.flatten(2).transpose(1, 2)


class Squeeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, y: Tensor) -> Tensor:
        return y * column(torch.sigmoid(self.fc(y.mean((2, 3)))))


def build(name: str, attention: str, placement: str | None) -> nn.Module:
    torch.manual_seed(0)
    width = None if name == "cnn" else 16
    return build_model(name, attention=attention, placement=placement, width=width)


def pictures(count: int = 3, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def hooked(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Every output of a submodule called channel or spatial, by a plain forward hook."""
    found = {}
    handles = [
        module.register_forward_hook(lambda m, a, out, name=name: found.update({name: out}))
        for name, module in model.named_modules()
        if name.endswith((".channel", ".spatial"))
    ]
    model(x)
    for handle in handles:
        handle.remove()
    return found


class MidForward(nn.Module):
    """Somebody's block whose sigmoid is a functional call in the middle of its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.squeeze = nn.Linear(6, 6)

    def features(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()

    def gate(self, y: Tensor) -> Tensor:
        return torch.sigmoid(self.squeeze(y.mean((2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x)
        return (y * self.gate(y).view(-1, 6, 1, 1)).sum((2, 3))


def state_of(model: nn.Module) -> tuple[object, ...]:
    return (
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [p.grad is None for p in model.parameters()],
        len(_get_current_function_mode_stack()),
        torch.is_grad_enabled(),
    )
