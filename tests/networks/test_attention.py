"""SE, ECA and CBAM, compared with the formulas of their papers and with timm."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from timm.layers import EcaModule
from timm.layers.cbam import ChannelAttn, SpatialAttn
from torch import Tensor, nn

from attnscope.networks.attention import attention_names, build_attention, pooling
from attnscope.networks.attention.pooling import mean_and_max
from attnscope.networks.build import build_model
from tests.making import refused

KINDS = ("se", "eca", "cbam")
Layout = Callable[[Tensor], Tensor]


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def strided(x: Tensor) -> Tensor:
    """The same values in a tensor that is not contiguous in any memory format."""
    larger = torch.full((x.shape[0], x.shape[1] * 2, x.shape[2], x.shape[3] * 2), 9.0).to(x)
    larger[:, ::2, :, ::2] = x
    return larger[:, ::2, :, ::2]


LAYOUTS = {"contiguous": torch.clone, "channels_last": channels_last, "strided": strided}


def features(shape: tuple[int, ...], *, ties: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return (x.round().relu() if ties else x).to(dtype)


def randomized(module: nn.Module) -> nn.Module:
    """Set weights so large that the gates are far from one half."""
    generator = torch.Generator().manual_seed(4)
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    return module


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def first_max(x: Tensor, axis: int) -> Tensor:
    """The largest value along ``axis``; the first of several gets the gradient."""
    place = torch.from_numpy(np.argmax(x.detach().numpy(), axis))
    return torch.gather(x, axis, place.unsqueeze(axis)).squeeze(axis)


def plain_se(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    s = x.sum((2, 3)) / (x.shape[2] * x.shape[3])
    hidden = torch.clamp(s @ p["channel.reduce.weight"].T + p["channel.reduce.bias"], min=0)
    gate = sigmoid(hidden @ p["channel.expand.weight"].T + p["channel.expand.bias"])
    return x * gate[:, :, None, None]


def plain_eca(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    means = x.sum((2, 3)) / (x.shape[2] * x.shape[3])
    kernel = p["channel.conv.weight"].flatten()
    half, count = len(kernel) // 2, x.shape[1]
    logits = []
    for c in range(count):
        terms = [
            kernel[k] * means[:, c + k - half]
            for k in range(len(kernel))
            if 0 <= c + k - half < count
        ]
        logits.append(torch.stack(terms).sum(0))
    return x * sigmoid(torch.stack(logits, 1))[:, :, None, None]


def plain_cbam(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    def mlp(v: Tensor) -> Tensor:
        hidden = torch.clamp(v @ p["channel.reduce.weight"].T, min=0)
        return hidden @ p["channel.expand.weight"].T

    pixels = x.reshape(x.shape[0], x.shape[1], -1)
    channel = sigmoid(mlp(pixels.sum(2) / pixels.shape[2]) + mlp(first_max(pixels, 2)))
    x = x * channel[:, :, None, None]
    maps = torch.stack([x.sum(1) / x.shape[1], first_max(x, 1)], 1)
    kernel = p["spatial.conv.weight"]
    size = kernel.shape[-1]
    height, width = maps.shape[2:]
    padded = torch.zeros(len(x), 2, height + size - 1, width + size - 1, dtype=x.dtype)
    padded[:, :, size // 2 : size // 2 + height, size // 2 : size // 2 + width] = maps
    logits = sum(
        (
            kernel[0, m, i, j] * padded[:, m, i : i + height, j : j + width]
            for m in range(2)
            for i in range(size)
            for j in range(size)
        ),
        torch.zeros(()),
    )
    return x * sigmoid(logits)[:, None]


PLAIN = {"se": plain_se, "eca": plain_eca, "cbam": plain_cbam}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 32, 5, 6), (2, 16, 1, 1), (1, 16, 8, 1)])
def test_values_and_gradients_equal_the_formula(
    kind: str, layout: str, shape: tuple[int, ...]
) -> None:
    module = randomized(build_attention(kind, shape[1], reduction=4, kernel_size=3))
    x = LAYOUTS[layout](features(shape, ties=False)).detach().requires_grad_()
    assert x.is_contiguous() or layout != "contiguous"
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(8))
    out = module(x)
    (out * weight).sum().backward()

    # The formula is evaluated in float64, so that its rounding errors do not matter.
    x64 = x.detach().double().contiguous().requires_grad_()
    p64 = {n: p.detach().double().requires_grad_() for n, p in module.named_parameters()}
    expected = PLAIN[kind](x64, p64)
    (expected * weight.double()).sum().backward()

    assert x.grad is not None
    assert x64.grad is not None
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad.double(), x64.grad, rtol=1e-5, atol=1e-5)
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(
            parameter.grad.double(), p64[name].grad, rtol=1e-5, atol=1e-5, msg=name
        )


@pytest.mark.parametrize("over", ["pixels", "channels"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("by_hand", [True, False])
def test_the_first_of_several_maxima_gets_the_gradient(
    layout: str, over: str, by_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maxima tie after a ReLU, where whole maps are zero. First means first in row-major order."""
    monkeypatch.setattr(pooling, "_by_hand", lambda x: by_hand)
    x = LAYOUTS[layout](features((3, 16, 5, 6), ties=True)).detach().requires_grad_()
    expected_x = x.detach().double().contiguous().requires_grad_()
    flat = expected_x.flatten(2)
    axis = 2 if over == "pixels" else 1
    expected = torch.stack([flat.mean(axis), first_max(flat, axis)])
    found = torch.stack(mean_and_max(x, over)).flatten(2)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(8))
    (found * weight).sum().backward()
    (expected * weight.double()).sum().backward()
    assert x.grad is not None
    assert expected_x.grad is not None
    torch.testing.assert_close(x.grad.double(), expected_x.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("over", ["pixels", "channels"])
@pytest.mark.parametrize("by_hand", [True, False])
def test_gradients_of_poolings_do_not_depend_on_the_rounding_of_features(
    over: str, by_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled code computes features again in the backward pass, with another rounding."""
    monkeypatch.setattr(pooling, "_by_hand", lambda x: by_hand)
    rng = torch.Generator().manual_seed(3)

    def rounded(saved: torch.Tensor) -> torch.Tensor:
        if not saved.is_floating_point():
            return saved
        return saved * (1 + 1e-3 * torch.randn(saved.shape, generator=rng))

    x = features((3, 16, 5, 6), ties=False).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, rounded):
        mean, maximum = mean_and_max(x, over)
        (mean + 2 * maximum).sum().backward()
    axes = (2, 3) if over == "pixels" else (1,)
    count = 30 if over == "pixels" else 16
    highest = x.detach() == x.detach().amax(axes, keepdim=True)
    torch.testing.assert_close(x.grad, 1 / count + 2.0 * highest)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradients_of_cbam_pass_gradcheck(layout: str) -> None:
    module = randomized(build_attention("cbam", 4, reduction=2, kernel_size=3)).double()
    x = LAYOUTS[layout](features((1, 4, 2, 3), ties=False, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(module, (x,))


@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_format_is_preserved(kind: str) -> None:
    module = build_attention(kind, 16)
    x = channels_last(features((2, 16, 4, 4), ties=False)).requires_grad_()
    out = module(x)
    out.sum().backward()
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", KINDS)
def test_the_input_may_be_overwritten_before_the_backward_pass(kind: str) -> None:
    """In-place operations after the module, such as a ReLU, overwrite its input."""
    module = build_attention(kind, 16)
    x = features((2, 16, 4, 4), ties=False).requires_grad_()
    gate = module.get_submodule("channel")(x * 1)
    gate.sum().backward()
    expected = x.grad
    x.grad = None
    overwritten = x * 1
    gate = module.get_submodule("channel")(overwritten)
    overwritten.zero_()
    gate.sum().backward()
    torch.testing.assert_close(x.grad, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_close_to_float32(kind: str) -> None:
    module = randomized(build_attention(kind, 32, reduction=8))
    x = channels_last(features((4, 32, 8, 8), ties=False)).requires_grad_()
    expected = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x)
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)
    found.float().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_forward_hook_reads_every_gate(kind: str) -> None:
    module = build_attention(kind, 16)
    seen: dict[str, Tensor] = {}
    for name, child in module.named_children():
        child.register_forward_hook(lambda _m, _x, y, name=name: seen.update({name: y.detach()}))
    x = features((2, 16, 5, 6), ties=False)
    with torch.no_grad():
        out = module(x)
    shapes = {name: tuple(gate.shape) for name, gate in seen.items()}
    assert shapes["channel"] == (2, 16, 1, 1)
    assert shapes.get("spatial", (2, 1, 5, 6)) == (2, 1, 5, 6)
    assert set(shapes) == ({"channel", "spatial"} if kind == "cbam" else {"channel"})
    product = x
    for name in ("channel", "spatial"):  # in the order in which they multiply
        product = product * seen.get(name, torch.ones(()))
    assert torch.equal(out, product)
    for gate in seen.values():
        assert ((gate > 0) & (gate < 1)).all()


@pytest.mark.parametrize("channels", [8, 16, 64, 100, 128, 256, 512, 2048])
def test_eca_equals_timm(channels: int) -> None:
    ours, theirs = build_attention("eca", channels), EcaModule(channels)
    ours.load_state_dict({f"channel.{n}": p for n, p in theirs.state_dict().items()})
    x = features((2, channels, 4, 4), ties=False)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)


def test_the_kernel_size_of_eca_is_the_nearest_odd_number() -> None:
    for channels in (*range(2, 40), 64, 127, 128, 129, 255, 256, 2047, 2048, 4096):
        wanted = math.log2(channels) / 2 + 0.5
        size = build_attention("eca", channels).get_parameter("channel.conv.weight").shape[-1]
        assert size % 2 == 1
        assert abs(size - wanted) <= 1 + 1e-9, channels


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cbam_equals_timm(layout: str) -> None:
    """timm adds a BatchNorm after the spatial convolution; untrained, it is the identity in eval mode."""
    ours = randomized(build_attention("cbam", 32, reduction=16, kernel_size=7))
    channel, spatial = ChannelAttn(32, rd_ratio=1 / 16), SpatialAttn(7)
    spatial.eval()
    spatial.conv.bn.eps = 0.0
    p = dict(ours.named_parameters())
    with torch.no_grad():
        channel.fc1.weight.copy_(p["channel.reduce.weight"][:, :, None, None])
        channel.fc2.weight.copy_(p["channel.expand.weight"][:, :, None, None])
        spatial.conv.conv.weight.copy_(p["spatial.conv.weight"])
    x = LAYOUTS[layout](features((2, 32, 6, 6), ties=False))
    torch.testing.assert_close(ours(x), spatial(channel(x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    # se: 64·4 + 4 and 4·64 + 64; eca: 3; cbam: 2·64·4 and 2·7·7
    [("se", 580), ("eca", 3), ("cbam", 610)],
)
def test_the_number_of_parameters_is_that_of_the_papers(kind: str, expected: int) -> None:
    assert sum(p.numel() for p in build_attention(kind, 64).parameters()) == expected


def test_bad_arguments_are_refused() -> None:
    assert attention_names() == ("none", *KINDS)
    for kind in ("none", "SE", ""):
        with refused("AS302", names=(f"'{kind}'", "se, eca, cbam")):
            build_attention(kind, 16)
    for kind in ("se", "cbam"):
        for reduction in (17, 0, -1):
            with refused("AS309", names=(f" {reduction},", "16 channels", "1 and 16")):
                build_attention(kind, 16, reduction=reduction)
    for size in (0, 6, -1):
        with refused("AS310", names=(f" {size};",)):
            build_attention("cbam", 16, kernel_size=size)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_compiles_in_one_piece_for_training(kind: str) -> None:
    torch.manual_seed(0)
    model = build_model(attention=kind, width=16).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 3, 32, 32)

    compiled(x).square().sum().backward()
    found = [each.grad for each in model.parameters()]
    model.zero_grad(set_to_none=True)
    model(x).square().sum().backward()

    # fullgraph raises an error for a second graph; without ties, the gradients are the same
    for gradient, parameter in zip(found, model.parameters(), strict=True):
        assert gradient is not None
        assert parameter.grad is not None
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-3 * scale)
