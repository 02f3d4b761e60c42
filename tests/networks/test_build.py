"""Networks are built as their papers describe."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from attnscope.networks.build import build_model
from tests.making import refused
from tests.networks.making import images, on_meta, parameters, record, with_random_state


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 11_173_962),
        ({"attention": "se"}, 11_263_042),
        ({"attention": "cbam"}, 11_261_786),
        ({"attention": "cbam", "placement": "stage"}, 11_217_874),
        ({"attention": "se", "stem": "imagenet"}, 11_270_722),
        ({"name": "cnn", "attention": "cbam"}, 1_150_896),
    ],
)
def test_the_number_of_parameters_with_ten_classes(options: dict[str, Any], expected: int) -> None:
    assert parameters(on_meta(**options)) == expected


@pytest.mark.parametrize("name", ["resnet34", "resnet101", "resnet152"])
def test_names_and_shapes_equal_torchvision(name: str) -> None:
    ours = on_meta(name, stem="imagenet", num_classes=1000).state_dict()
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)().state_dict()
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}


@pytest.mark.parametrize(("name", "stem"), [("resnet18", "cifar"), ("resnet50", "imagenet")])
def test_a_network_without_attention_computes_the_same_as_torchvision(name: str, stem: str) -> None:
    ours = with_random_state(build_model(name, stem=stem)).eval()
    theirs = getattr(torchvision.models, name)(num_classes=10)
    if stem == "cifar":
        theirs.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        theirs.maxpool = nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    theirs.eval()
    with torch.no_grad():
        assert torch.equal(ours(images()), theirs(images()))


def block_names(model: nn.Module) -> list[str]:
    return [n for n, _ in model.named_modules() if n.count(".") == 1 and n.startswith("layer")]


@pytest.mark.parametrize(("name", "blocks", "last"), [("resnet18", 8, 2), ("resnet50", 16, 3)])
@pytest.mark.parametrize("kind", ["se", "eca", "cbam"])
def test_placement_block_is_before_the_addition(
    name: str, blocks: int, last: int, kind: str
) -> None:
    """Attention follows the last BatchNorm of the residual branch, in every block."""
    model = with_random_state(build_model(name, attention=kind, width=16, reduction=4)).eval()
    names = block_names(model)
    assert len(names) == blocks
    seen = record(model, lambda n: True)
    with torch.no_grad():
        model(images())
    for block in names:
        x, out = seen[block]
        before, after = seen[f"{block}.attention"]
        assert torch.equal(before, seen[f"{block}.bn{last}"][1])
        identity = seen[f"{block}.downsample"][1] if f"{block}.downsample" in seen else x
        assert torch.equal(out, (after + identity).relu())
    assert not any(n.endswith("layer1.attention") for n in seen)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_placement_stage_is_after_each_layer_only(name: str) -> None:
    model = with_random_state(
        build_model(name, attention="cbam", placement="stage", width=16, reduction=4)
    )
    seen = record(model.eval(), lambda n: True)
    with torch.no_grad():
        model(images())
    found = [n for n in seen if n.endswith("attention")]
    assert sorted(found) == [f"layer{i}.attention" for i in (1, 2, 3, 4)]
    for i in (1, 2, 3, 4):
        last = max(n for n in block_names(model) if n.startswith(f"layer{i}.") and n[-1].isdigit())
        before, after = seen[f"layer{i}.attention"]
        assert torch.equal(before, seen[last][1])
        assert torch.equal(after, seen[f"layer{i}"][1])


@pytest.mark.parametrize("kind", ["se", "eca", "cbam"])
@pytest.mark.parametrize("options", [{}, {"placement": "stage"}, {"name": "cnn"}])
def test_every_gate_is_the_output_of_a_named_submodule(kind: str, options: dict[str, Any]) -> None:
    if "name" not in options:
        options = {**options, "width": 16}
    model = with_random_state(build_model(attention=kind, **options)).eval()
    seen = record(model, lambda n: "attention" in n)
    with torch.no_grad():
        model(images())
    modules = [n for n in seen if n.endswith(".attention")]
    assert len(modules) == {"cnn": 3}.get(
        options.get("name", ""), 4 if "placement" in options else 8
    )
    for name in modules:
        x, out = seen[name]
        gates = [seen[f"{name}.channel"][1]]
        assert gates[0].shape == (2, x.shape[1], 1, 1)
        if kind == "cbam":
            gates.append(seen[f"{name}.spatial"][1])
            assert gates[1].shape == (2, 1, *x.shape[2:])
        for gate in gates:
            x = x * gate
        assert torch.equal(out, x)


def test_a_network_whose_gates_are_one_equals_the_network_without_attention() -> None:
    plain = with_random_state(build_model(width=16)).eval()
    gated = build_model(attention="cbam", width=16, reduction=4).eval()
    missing, unexpected = gated.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert all(".attention." in name for name in missing)
    for name, module in gated.named_modules():
        if name.endswith((".channel", ".spatial")):
            module.register_forward_hook(lambda _m, _x, y: torch.ones_like(y))
    with torch.no_grad():
        assert torch.equal(gated(images()), plain(images()))


def test_equal_seeds_give_equal_networks() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build_model(attention="cbam", width=16, reduction=4).state_dict())
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("width", [20, 96])
def test_the_width_is_that_of_layer1_and_doubles_in_each_layer(name: str, width: int) -> None:
    model = on_meta(name, attention="se", width=width, reduction=4)
    expansion = 4 if name == "resnet50" else 1
    assert model.get_parameter("conv1.weight").shape[0] == width
    for i in range(4):
        layer = model.get_submodule(f"layer{i + 1}")
        channel = layer[-1].attention.channel.expand  # type: ignore[index]
        assert channel.out_features == width * 2**i * expansion
        assert layer[0].conv1.out_channels == width * 2**i  # type: ignore[index]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_width_need_not_be_a_power_of_two(name: str) -> None:
    assert build_model(name, width=20)(images()).shape == (2, 10)


def test_the_default_width_is_64() -> None:
    given, default = on_meta(width=64), on_meta()
    assert given.attnscope_config == default.attnscope_config
    assert parameters(given) == parameters(default)


def test_stems_have_the_documented_strides() -> None:
    for stem, sizes in {"cifar": (32, 16, 8, 4), "imagenet": (8, 4, 2, 1)}.items():
        model = build_model(stem=stem, width=16).eval()
        seen = record(model, lambda n: n in {f"layer{i}" for i in (1, 2, 3, 4)})
        with torch.no_grad():
            model(images())
        assert tuple(seen[f"layer{i}"][1].shape[-1] for i in (1, 2, 3, 4)) == sizes


def test_the_cnn_has_the_documented_layers() -> None:
    model = with_random_state(build_model("cnn", attention="cbam")).eval()
    x = images()
    with torch.no_grad():
        out = model(x)
        for i in (1, 2, 3):
            block = model.get_submodule(f"block{i}")
            x = block.get_submodule("bn")(block.get_submodule("conv")(x))
            x = nn.functional.max_pool2d(x.relu(), 2)
            x = block.get_submodule("attention")(x)
        x = model.get_submodule("hidden")(x.flatten(1)).relu()
        assert torch.equal(out, model.get_submodule("fc")(x))
    assert x.shape == (2, 512)
    dropout = model.get_submodule("dropout")
    assert isinstance(dropout, nn.Dropout)
    assert dropout.p == 0.5
    model.train()
    assert not torch.equal(model(images()), model(images())), "dropout is active"
    assert on_meta("cnn").get_parameter("fc.weight").shape == (10, 512)
    for size in (24, 40, 64):
        with refused("AS313", names=(f"{size}×{size}", "--image-size 32")):
            model(images(size))


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        ({"name": "resnet20"}, "AS301", ("'resnet20'", "resnet18, resnet34")),
        ({"name": ""}, "AS301", ("''",)),
        ({"attention": "CBAM"}, "AS302", ("'CBAM'", "none, se, eca, cbam")),
        ({"gate_start": "open"}, "AS305", ("'open'", "half, identity")),
        ({"placement": "stem"}, "AS303", ("'stem'", "block, stage")),
        ({"placement": ""}, "AS303", ("''",)),
        ({"stem": "resnet"}, "AS304", ("'resnet'", "cifar, imagenet")),
        ({"stem": ""}, "AS304", ("''",)),
        ({"width": 8}, "AS307", (" 8;", "16")),
        ({"width": 0}, "AS307", (" 0;", "16")),
        ({"num_classes": 0}, "AS306", (" 0;", "1")),
        ({"name": "cnn", "num_classes": -1}, "AS306", (" -1;",)),
        ({"channels": 0}, "AS315", (" 0;", "1")),
        ({"attention": "se", "reduction": 65}, "AS309", (" 65,", "64 channels")),
        (
            {"attention": "cbam", "width": 16, "reduction": 32},
            "AS309",
            (" 32,", "16 channels"),
        ),
        ({"name": "cnn", "attention": "se", "reduction": 33}, "AS309", (" 33,", "32 channels")),
        ({"attention": "cbam", "kernel_size": 4}, "AS310", (" 4;",)),
        ({"name": "cnn", "placement": "block"}, "AS308", ("placement", "'cnn'")),
        ({"name": "cnn", "stem": "cifar"}, "AS308", ("stem", "'cnn'")),
        ({"name": "cnn", "width": 64}, "AS308", ("width", "'cnn'")),
    ],
)
def test_bad_arguments_are_refused(
    options: dict[str, Any], code: str, named: tuple[str, ...]
) -> None:
    with refused(code, names=named):
        on_meta(**options)
