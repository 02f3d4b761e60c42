"""Networks of timm and torchvision, found, read and edited without an adapter.

What is expected was written down from their sources: how many attention modules there are, what
they are called, which act on how many channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from attnscope.gates.detect import find_gates, inspect_gates
from attnscope.gates.hooks import edit_gates, watch_gates

# name: (gates, kind of each in turn, sum of their channels, first and last gate)
TIMM: dict[str, tuple[int, tuple[str, ...], int, str, str]] = {
    "seresnet18": (8, ("channel",), 1920, "layer1.0.se", "layer4.1.se"),
    "legacy_seresnet18": (8, ("channel",), 1920, "layer1.0.se_module", "layer4.1.se_module"),
    "ecaresnet50d": (16, ("channel",), 15104, "layer1.0.se", "layer4.2.se"),
    "skresnet18": (8, ("branch",), 1920, "layer1.0.conv1.attn", "layer4.1.conv1.attn"),
    "resnest14d": (4, ("branch",), 960, "layer1.0.conv2", "layer4.0.conv2"),
    "efficientnet_b0": (16, ("channel",), 8960, "blocks.0.0.se", "blocks.6.0.se"),
    "mobilenetv3_small_100": (9, ("channel",), 2296, "blocks.0.0.se", "blocks.4.2.se"),
    "ghostnet_100": (7, ("channel",), 3936, "blocks.3.0.se", "blocks.8.3.se"),
    "ese_vovnet19b_dw": (
        4, ("channel",), 2560, "stages.0.blocks.0.attn", "stages.3.blocks.0.attn",
    ),
    "regnety_002": (13, ("channel",), 3264, "s1.b1.se", "s4.b7.se"),
    "rexnet_100": (13, ("channel",), 8268, "features.3.se", "features.15.se"),
    "eca_nfnet_l0": (12, ("channel",), 15104, "stages.0.0.attn_last", "stages.3.2.attn_last"),
    "hgnet_tiny": (
        5, ("channel",), 2464,
        "stages.0.blocks.0.aggregation.1", "stages.3.blocks.0.aggregation.1",
    ),
    "tresnet_m": (18, ("channel",), 3520, "body.layer1.0.se", "body.layer3.10.se"),
    "mixnet_s": (13, ("channel",), 6384, "blocks.2.0.se", "blocks.5.2.se"),
}  # fmt: skip
# resnet18 with such a layer in each of its eight blocks
ATTENTION: dict[str, tuple[int, tuple[str, ...], int, str, str]] = {
    "cbam": (16, ("channel", "spatial"), 3840, "layer1.0.se.channel", "layer4.1.se.spatial"),
    "lcbam": (16, ("channel", "spatial"), 3840, "layer1.0.se.channel", "layer4.1.se.spatial"),
    "coord": (16, ("strip",), 3840, "layer1.0.se", "layer4.1.se#2"),
    "se": (8, ("channel",), 1920, "layer1.0.se", "layer4.1.se"),
    "ese": (8, ("channel",), 1920, "layer1.0.se", "layer4.1.se"),
    "eca": (8, ("channel",), 1920, "layer1.0.se", "layer4.1.se"),
    "ceca": (8, ("channel",), 1920, "layer1.0.se", "layer4.1.se"),
    "splat": (8, ("branch",), 1920, "layer1.0.se", "layer4.1.se"),
    "sk": (8, ("branch",), 1920, "layer1.0.se.attn", "layer4.1.se.attn"),
}
TORCHVISION: dict[str, tuple[int, tuple[str, ...], int, str, str]] = {
    "mobilenet_v3_small": (9, ("channel",), 2296, "features.1.block.1", "features.11.block.2"),
    "efficientnet_b0": (16, ("channel",), 8960, "features.1.0.block.1", "features.7.0.block.2"),
    "regnet_y_400mf": (
        16, ("channel",), 4248,
        "trunk_output.block1.block1-0.f.se", "trunk_output.block4.block4-5.f.se",
    ),
    "maxvit_t": (
        11, ("channel",), 10752,
        "blocks.0.layers.0.layers.MBconv.layers.squeeze_excitation",
        "blocks.3.layers.1.layers.MBconv.layers.squeeze_excitation",
    ),
}  # fmt: skip
GATED = [
    *(pytest.param("timm", *item, id=f"timm-{item[0]}") for item in TIMM.items()),
    *(pytest.param("attention", *item, id=f"attn-{item[0]}") for item in ATTENTION.items()),
    *(pytest.param("torchvision", *item, id=f"torchvision-{item[0]}")
      for item in TORCHVISION.items()),
]  # fmt: skip
GATELESS = [
    *(("timm", n) for n in ("resnet18", "convnext_atto", "convnextv2_atto", "mobilenetv2_100")),
    ("attention", "nl"),  # self-attention
    ("attention", "gca"),  # softmax pooling, and added to the features
    ("torchvision", "resnet18"),
]


def build(source: str, name: str) -> nn.Module:
    torch.manual_seed(0)
    if source == "timm":
        model = timm.create_model(name)
    elif source == "attention":
        model = timm.create_model("resnet18", block_args={"attn_layer": name})
    else:
        model = torchvision.models.get_model(name)
    # timm starts the last layer of each block at zero: with that its gates multiply nothing.
    for path, parameter in model.named_parameters():
        if not parameter.any() and not path.endswith("bias"):
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


def images(name: str) -> Tensor:
    size = 224 if name == "maxvit_t" else 64
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


class Calls(TorchFunctionMode):
    """Keeps what some functions return, with no other knowledge of the network."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names, self.results = names, []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.__name__.strip("_") in self.names and isinstance(result, Tensor):
            self.results.append(result.detach().clone())
        return result


@pytest.mark.parametrize(("source", "name", "expected"), GATED)
def test_every_gate_is_found_read_and_edited(
    source: str, name: str, expected: tuple[int, tuple[str, ...], int, str, str]
) -> None:
    model, x = build(source, name), images(name)
    count, kinds, channels, first, last = expected
    gates = find_gates(model, x)
    assert len(gates) == count
    assert [g.kind for g in gates] == [kinds[i % len(kinds)] for i in range(count)]
    assert sum(g.channels for g in gates) == channels
    assert (gates[0].name, gates[-1].name) == (first, last)
    assert {(g.lo, g.hi, g.neutral, g.form) for g in gates} == {(0.0, 1.0, 1.0, "")}

    # Read: what the activation itself returned, in order, and nothing else is bounded there.
    activations = Calls("sigmoid", "hardsigmoid", "softmax")
    with torch.no_grad(), watch_gates(model, gates) as seen, activations:
        model(x)
    made = activations.results
    if name == "maxvit_t":
        made = [m for m in made if m.shape[2:] == (1, 1)]  # the others are self-attention
    if name == "coord":  # rows' gate is made first, columns' gate multiplies first
        made = [m for pair in zip(made[1::2], made[0::2], strict=True) for m in pair]
        assert [g.axes for g in gates] == ["NCW", "NCH"] * 8
    assert len(made) == count
    assert list(seen) == [g.name for g in gates]
    for value, raw in zip(seen.values(), made, strict=True):
        assert value.shape[0] == 2
        assert torch.equal(value.flatten(), raw.flatten())

    # Edit: doubling one gate doubles its product, and no product before it changes.
    chosen = gates[count // 2]
    plain, doubled = Calls("mul", "imul"), Calls("mul", "imul")
    with torch.no_grad(), plain:
        model(x)
    edit = {chosen.name: lambda g, f: 2 * g}
    with torch.no_grad(), edit_gates(model, edit, gates), doubled:
        model(x)
    pairs = list(zip(plain.results, doubled.results, strict=True))
    changed = next(i for i, (a, b) in enumerate(pairs) if not torch.equal(a, b))
    assert torch.equal(pairs[changed][1], 2 * pairs[changed][0])


@pytest.mark.parametrize(("source", "name"), GATELESS)
def test_networks_without_gates(source: str, name: str) -> None:
    assert find_gates(build(source, name), images(name)) == []


def test_additive_attention_is_listed_with_its_consumer() -> None:
    for name, consumer in (("nl", "bmm"), ("gca", "matmul")):
        found = inspect_gates(build("attention", name), images(name)).ungated
        assert {(u.activation, u.code, u.detail) for u in found} == {
            ("softmax", "consumed", consumer)
        }
        assert len(found) == 8


def test_at_32_pixels_the_last_maps_are_single_pixels() -> None:
    model = build("timm", "seresnet18")
    x = images("")[:, :, :32, :32]
    gates = find_gates(model, x)
    assert [g.kind for g in gates] == ["channel"] * 8
    with torch.no_grad(), watch_gates(model, gates) as seen, Calls("sigmoid") as calls:
        model(x)
    assert [tuple(v.shape) for v in seen.values()] == [
        (2, c) for c in (64, 64, 128, 128, 256, 256, 512, 512)
    ]
    for value, raw in zip(seen.values(), calls.results, strict=True):
        assert torch.equal(value, raw[:, :, 0, 0])


def test_gates_are_read_where_a_plain_hook_reads_nothing() -> None:
    """timm's LightChannelAttn has a ``gate`` that it never calls: it calls F.sigmoid itself."""
    model, x = build("attention", "lcbam"), images("lcbam")
    fired: list[Any] = []
    model.get_submodule("layer1.0.se.channel.gate").register_forward_hook(
        lambda *args: fired.append(args)
    )
    with torch.no_grad(), watch_gates(model) as seen:
        model(x)
    assert not fired
    assert seen["layer1.0.se.channel"].shape == (2, 64)


def test_edits_of_every_kind_change_the_output() -> None:
    """Each edit against the product by hand, at a gate of a network that is not ours."""
    model, x = build("timm", "seresnet18"), images("")
    name = "layer2.0.se"
    block = model.get_submodule(name)
    kept: dict[str, Tensor] = {}
    block.register_forward_hook(
        lambda m, a, out: kept.update(features=a[0].clone(), out=out.clone())
    )
    generator = torch.Generator().manual_seed(5)
    noise = torch.rand(2, 128, 1, 1, generator=generator)

    def bottom(gate: Tensor, count: int) -> Tensor:
        lowest = gate.argsort(1)[:, :count]
        return gate.scatter(1, lowest, 0.25)

    edits: dict[str, Callable[[Tensor], Any]] = {
        "identity": lambda g: g,
        "ones": torch.ones_like,
        "a constant": lambda g: torch.full((1, 1, 1, 1), 0.3),
        "the mean": lambda g: g.mean(0, keepdim=True),
        "another image's": lambda g: g.flip(0),
        "bottom-k": lambda g: bottom(g, 5),
        "top-k": lambda g: 1 - bottom(1 - g, 5),
        "noise": lambda g: g + noise,
    }
    with torch.no_grad(), watch_gates(model) as seen:
        model(x)
        own = seen[name][:, :, None, None]
        for label, edit in edits.items():
            with edit_gates(model, {name: lambda g, f, edit=edit: edit(g)}):
                model(x)
            expected = kept["features"] * edit(own)
            assert torch.equal(kept["out"], expected), label


class Peak(TorchDispatchMode):
    """The most bytes that were alive at once of all that was made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            storage = result.untyped_storage()
            self.made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.made = {key: kept for key, kept in self.made.items() if not kept[0].expired()}
        self.bytes = max(self.bytes, sum(size for _, size in self.made.values()))
        return result


def test_marks_pin_no_memory() -> None:
    """mobilenet_v2 has a relu6, which is marked, after nearly every convolution."""
    model = torchvision.models.mobilenet_v2().eval()
    x = torch.randn(8, 3, 64, 64)
    with torch.no_grad(), Peak() as bare:
        model(x)
    with torch.no_grad(), watch_gates(model, []), Peak() as watched:
        model(x)
    with Peak() as found:
        find_gates(model, x)
    assert bare.bytes > 8 * 16 * 32 * 32 * 4  # of one early map at least
    assert watched.bytes <= 1.05 * bare.bytes
    assert found.bytes <= 1.05 * bare.bytes
