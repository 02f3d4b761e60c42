"""Networks: built as the papers say, saved and loaded bit for bit, refused in one line."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from attnscope.errors import InputError
from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import watch_gates
from attnscope.networks.build import ModelConfig, build_model
from attnscope.networks.pretrained import read_pretrained, start_from
from attnscope.networks.weights import load_model, load_weights, save_model
from attnscope.training.freezing import train_only, training_mode


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
def test_parameters_with_ten_classes(options: dict[str, Any], expected: int) -> None:
    assert parameters(on_meta(**options)) == expected


@pytest.mark.parametrize("name", ["resnet34", "resnet101", "resnet152"])
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    ours = on_meta(name, stem="imagenet", num_classes=1000).state_dict()
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)().state_dict()
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}


@pytest.mark.parametrize(("name", "stem"), [("resnet18", "cifar"), ("resnet50", "imagenet")])
def test_a_plain_network_computes_what_torchvisions_does(name: str, stem: str) -> None:
    ours = lively(build_model(name, stem=stem)).eval()
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
def test_placement_block(name: str, blocks: int, last: int, kind: str) -> None:
    """After the last BatchNorm of the residual branch and before the addition, in every block."""
    model = lively(build_model(name, attention=kind, width=16, reduction=4)).eval()
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
def test_placement_stage(name: str) -> None:
    """After layer1 to layer4, and nowhere else."""
    model = lively(build_model(name, attention="cbam", placement="stage", width=16, reduction=4))
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
    model = lively(build_model(attention=kind, **options)).eval()
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


def test_gates_of_one_leave_the_plain_network(tmp_path: Path) -> None:
    """The attention modules are all that is new: names, order and the rest of the forward agree."""
    plain = lively(build_model(width=16)).eval()
    gated = build_model(attention="cbam", width=16, reduction=4).eval()
    missing, foreign = gated.load_state_dict(plain.state_dict(), strict=False)
    assert foreign == []
    assert all(".attention." in name for name in missing)
    for name, module in gated.named_modules():
        if name.endswith((".channel", ".spatial")):
            module.register_forward_hook(lambda _m, _x, y: torch.ones_like(y))
    with torch.no_grad():
        assert torch.equal(gated(images()), plain(images()))


def test_one_seed_gives_one_network() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build_model(attention="cbam", width=16, reduction=4).state_dict())
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("width", [20, 96])
def test_width(name: str, width: int) -> None:
    model = on_meta(name, attention="se", width=width, reduction=4)
    expansion = 4 if name == "resnet50" else 1
    assert model.get_parameter("conv1.weight").shape[0] == width
    for i in range(4):
        layer = model.get_submodule(f"layer{i + 1}")
        channel = layer[-1].attention.channel.expand  # type: ignore[index]
        assert channel.out_features == width * 2**i * expansion
        assert layer[0].conv1.out_channels == width * 2**i  # type: ignore[index]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_width_that_is_no_power_of_two(name: str) -> None:
    assert build_model(name, width=20)(images()).shape == (2, 10)


def test_the_width_of_torchvision_is_64() -> None:
    given, default = on_meta(width=64), on_meta()
    assert given.attnscope_config == default.attnscope_config
    assert parameters(given) == parameters(default)


def test_stems() -> None:
    for stem, sizes in {"cifar": (32, 16, 8, 4), "imagenet": (8, 4, 2, 1)}.items():
        model = build_model(stem=stem, width=16).eval()
        seen = record(model, lambda n: n in {f"layer{i}" for i in (1, 2, 3, 4)})
        with torch.no_grad():
            model(images())
        assert tuple(seen[f"layer{i}"][1].shape[-1] for i in (1, 2, 3, 4)) == sizes


def test_the_small_cnn() -> None:
    """conv 3×3 - BN - ReLU - max-pool 2 - attention, three times; 2048 - 512 - classes; dropout."""
    model = lively(build_model("cnn", attention="cbam")).eval()
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
    assert not torch.equal(model(images()), model(images())), "dropout is at work"
    assert on_meta("cnn").get_parameter("fc.weight").shape == (10, 512)
    for size in (24, 40, 64):
        with pytest.raises(InputError, match="takes images of 32×32 only; set --image-size 32"):
            model(images(size))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet20"}, "network 'resnet20' is not known; take one of resnet18, resnet34"),
        ({"name": ""}, "network '' is not known"),
        ({"attention": "CBAM"}, "attention 'CBAM' is not known; take one of none, se, eca, cbam"),
        ({"placement": "stem"}, "placement 'stem' is not known; take one of block, stage"),
        ({"placement": ""}, "placement '' is not known"),
        ({"stem": "resnet"}, "stem 'resnet' is not known; take one of cifar, imagenet"),
        ({"stem": ""}, "stem '' is not known"),
        ({"width": 8}, "width is 8; it must be 16 or more"),
        ({"width": 0}, "width is 0; it must be 16 or more"),
        ({"num_classes": 0}, "num_classes is 0; it must be 1 or more"),
        ({"name": "cnn", "num_classes": -1}, "num_classes is -1; it must be 1 or more"),
        ({"attention": "se", "reduction": 65}, "reduction 65 leaves no hidden channel of 64"),
        (
            {"attention": "cbam", "width": 16, "reduction": 32},
            "reduction 32 leaves no hidden channel of 16",
        ),
        ({"name": "cnn", "attention": "se", "reduction": 33}, "no hidden channel of 32"),
        ({"attention": "cbam", "kernel_size": 4}, "kernel_size is 4; it must be odd"),
        ({"name": "cnn", "placement": "block"}, "placement does not apply to the network 'cnn'"),
        ({"name": "cnn", "stem": "cifar"}, "stem does not apply to the network 'cnn'"),
        ({"name": "cnn", "width": 64}, "width does not apply to the network 'cnn'; leave it out"),
    ],
)
def test_bad_arguments_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        on_meta(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- saved and loaded -----------------------------------------------------------------------------

CONFIGURATIONS: list[dict[str, Any]] = [
    {"name": "cnn", "attention": "eca", "num_classes": 3},
    {"attention": "cbam", "width": 16, "reduction": 4, "kernel_size": 3, "num_classes": 7},
    {
        "name": "resnet50",
        "attention": "se",
        "placement": "stage",
        "stem": "imagenet",
        "width": 16,
        "reduction": 8,
    },
    {"width": 16},
]


@pytest.mark.parametrize("options", CONFIGURATIONS)
def test_round_trip(tmp_path: Path, options: dict[str, Any]) -> None:
    model = lively(build_model(**options)).to(memory_format=torch.channels_last)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    save_model(model, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    loaded = load_model(tmp_path)
    assert not loaded.training
    assert loaded.attnscope_config == model.attnscope_config
    assert list(loaded.state_dict()) == list(before)
    for name, value in loaded.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name]), name
    assert all(p.requires_grad for p in loaded.parameters())
    with torch.no_grad():
        x = images()
        assert torch.equal(loaded(x), plain(model)(x))


def plain(model: nn.Module) -> nn.Module:
    """In the layout that `load_model` gives: convolutions of two layouts may round differently."""
    return model.eval().to(memory_format=torch.contiguous_format)


def test_model_json_is_the_configuration(tmp_path: Path) -> None:
    save_model(build_model("cnn", attention="se"), tmp_path)
    assert json.loads((tmp_path / "model.json").read_text()) == {
        "name": "cnn",
        "attention": "se",
        "num_classes": 10,
        "reduction": 16,
        "kernel_size": 7,
        "placement": None,
        "stem": None,
        "width": None,
        "gate_start": "half",
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_model(lively(build_model(attention="cbam", width=16, reduction=4)), folder)
    return folder


def small() -> nn.Module:
    return build_model(attention="cbam", width=16, reduction=4)


def state_of(saved: Path) -> dict[str, Tensor]:
    return load_file(saved / "model.safetensors")


def refused(action: Callable[[], object], *said: str) -> None:
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for text in said:
        assert text in message


def with_json(saved: Path, folder: Path, content: str | dict[str, Any]) -> Path:
    os.link(saved / "model.safetensors", folder / "model.safetensors")
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "model.json").write_text(text)
    return folder


def config_with(**changes: Any) -> dict[str, Any]:
    config = asdict(ModelConfig("resnet18", "cbam", 10, 4, 7, "block", "cifar", 16))
    return {**config, **changes}


def test_the_unchanged_configuration_loads(saved: Path, tmp_path: Path) -> None:
    load_model(with_json(saved, tmp_path, config_with()))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"surprise": 1}, "surprise"),
        ({"width": "16"}, "width is '16'"),
        ({"width": 8.0}, "width is 8.0"),
        ({"width": True}, "width is True"),
        ({"num_classes": None}, "num_classes is None"),
        ({"num_classes": [10]}, "num_classes is [10]"),
        ({"name": {"a": 1}}, "name is {'a': 1}"),
        ({"placement": 3}, "placement is 3"),
        ({"width": 10**12}, "does not describe a network"),
    ],
)
def test_a_configuration_that_is_none(
    saved: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    folder = with_json(saved, tmp_path, config_with(**changes))
    refused(lambda: load_model(folder), "model.json does not describe a network", said, "copy")


def test_a_configuration_that_lacks_a_key(saved: Path, tmp_path: Path) -> None:
    config = config_with()
    del config["num_classes"]  # build_model would take its default
    refused(lambda: load_model(with_json(saved, tmp_path, config)), "num_classes", "copy it again")


@pytest.mark.parametrize("content", ["[]", "[1]", "3", "null", '"resnet18"', "{}"])
def test_json_that_is_no_configuration(saved: Path, tmp_path: Path, content: str) -> None:
    refused(lambda: load_model(with_json(saved, tmp_path, content)), "does not describe a network")


@pytest.mark.parametrize("content", ["", '{"name": "resn', "\x00\x01"])
def test_a_configuration_that_is_garbage(saved: Path, tmp_path: Path, content: str) -> None:
    refused(lambda: load_model(with_json(saved, tmp_path, content)), "model.json is not JSON")


def test_the_configuration_names_an_unknown_network(saved: Path, tmp_path: Path) -> None:
    folder = with_json(saved, tmp_path, config_with(name="__import__('os')"))
    refused(lambda: load_model(folder), "is not known; take one of resnet18")


def test_the_configuration_allocates_nothing(saved: Path, tmp_path: Path) -> None:
    """A width of 100,000 would be 100 TB; the weights say what is true before memory is taken."""
    folder = with_json(saved, tmp_path, config_with(width=100_000))
    refused(lambda: load_model(folder), "do not fit the network", "other shape: conv1.weight")


def test_a_run_without_network(saved: Path, tmp_path: Path) -> None:
    refused(lambda: load_model(tmp_path), "holds no model.safetensors; is it a run whose training")
    refused(lambda: load_model(tmp_path / "nowhere"), "holds no model.safetensors")
    os.link(saved / "model.safetensors", tmp_path / "model.safetensors")
    refused(lambda: load_model(tmp_path), "model.json does not exist")


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_safetensors_that_are_cut_off(saved: Path, tmp_path: Path, keep: int) -> None:
    content = (saved / "model.safetensors").read_bytes()[:keep]
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "model.json").write_bytes((saved / "model.json").read_bytes())
    for action in (
        lambda: load_model(tmp_path),
        lambda: load_weights(small(), tmp_path / "model.safetensors"),
    ):
        refused(action, "model.safetensors is not a whole safetensors file", "copy it again")


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_a_state_dict_of_torch_loads(
    saved: Path, tmp_path: Path, wrap: bool, parallel: bool
) -> None:
    state = state_of(saved)
    given = {f"module.{n}" if parallel else n: v for n, v in state.items()}
    torch.save({"state_dict": given, "epoch": 3} if wrap else given, tmp_path / "w.pth")
    model = small()
    load_weights(model, tmp_path / "w.pth")
    assert all(torch.equal(v, state[n]) for n, v in model.state_dict().items())


def test_weights_that_do_not_fit(saved: Path, tmp_path: Path) -> None:
    state = state_of(saved)
    del state["conv1.weight"], state["bn1.weight"]
    state["extra.weight"] = torch.zeros(1)
    state["fc.weight"] = torch.zeros(3, 64)
    save_file(state, tmp_path / "w.safetensors")
    model = small()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    refused(
        lambda: load_weights(model, tmp_path / "w.safetensors"),
        "do not fit the network: missing: conv1.weight and 1 more; "
        "not in the network: extra.weight; other shape: fc.weight; load them into",
    )
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    plain = build_model(width=16)
    refused(
        lambda: load_weights(plain, saved / "model.safetensors"), "not in the network: layer1.0"
    )


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ""])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, suffix: str) -> None:
    marker = tmp_path / "it ran"
    file = tmp_path / f"weights{suffix}"
    torch.save({"conv1.weight": torch.zeros(1), "x": Evil(marker)}, file)
    refused(
        lambda: load_weights(small(), file), "is refused: it is no plain state dict", "torch.save"
    )
    file.write_bytes(pickle.dumps(Evil(marker)))
    refused(lambda: load_weights(small(), file), "is refused: it is no plain state dict")
    torch.save({"state_dict": Evil(marker)}, file, _use_new_zipfile_serialization=False)
    refused(lambda: load_weights(small(), file), "is refused: it is no plain state dict")
    assert not marker.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "model.pth")
    refused(lambda: load_weights(small(), tmp_path / "model.pth"), "model.state_dict()")


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"PK\x03\x04", b"hello world", b"\x80\x02K\x01."]
)
def test_a_file_that_is_no_weights(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    refused(lambda: load_weights(small(), tmp_path / "w.pth"), "w.pth", "save it")


@pytest.mark.parametrize(
    "value",
    [
        [torch.zeros(1)],
        torch.zeros(3),
        {"conv1.weight": 3},
        {3: torch.zeros(1)},
    ],
)
def test_what_is_no_state_dict(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "w.pth")
    refused(lambda: load_weights(small(), tmp_path / "w.pth"), "holds no state dict; save it with")


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    for file in (tmp_path / "w.pth", tmp_path):
        refused(lambda file=file: load_weights(small(), file), "do not exist; check the path")


# --- weights to start from ------------------------------------------------------------------------


def trained_a_little(**options: Any) -> nn.Module:
    """A network whose running statistics and weights are no longer those of its start."""
    torch.manual_seed(3)
    model = build_model(**options).train()
    for _ in range(2):
        model(torch.randn(8, 3, 32, 32))
    return model


@pytest.mark.parametrize("attention", ["se", "eca", "cbam"])
@pytest.mark.parametrize("network", ["resnet18", "cnn"])
def test_gates_put_into_a_trained_network_change_nothing_at_first(
    tmp_path: Path, attention: str, network: str
) -> None:
    options = {} if network == "cnn" else {"width": 16}
    plain = trained_a_little(name=network, **options)
    save_model(plain, tmp_path)
    torch.manual_seed(8)
    gated = build_model(network, attention=attention, reduction=4, gate_start="identity", **options)
    weights = read_pretrained(str(tmp_path / "model.safetensors"), network)
    assert weights.gate_start is None
    report = start_from(gated, weights)
    assert set(report.loaded) == set(plain.state_dict())
    assert report.new
    assert all(".attention." in name for name in report.new)
    assert not report.misfits
    assert not report.unused
    x = torch.randn(6, 3, 32, 32)
    with torch.inference_mode():
        expected, found = plain.eval()(x), gated.eval()(x)
    assert (expected - found).abs().max() < 1e-5
    # The last layer of each gate gets gradient at the first step, all by the second.
    optimizer = torch.optim.SGD(gated.train().parameters(), lr=0.1)
    with_gradient = []
    for _ in range(2):
        optimizer.zero_grad()
        logits = gated(x)
        nn.functional.cross_entropy(logits, torch.arange(6)).backward()
        with_gradient.append(
            {
                name
                for name, p in gated.named_parameters()
                if ".attention." in name and p.grad is not None and p.grad.abs().max() > 0
            }
        )
        optimizer.step()
    gates = {name for name, _ in gated.named_parameters() if ".attention." in name}
    last = {name for name in gates if ".expand." in name or ".conv." in name}
    assert with_gradient[0] == last
    assert with_gradient[1] == gates


def test_an_identity_gate_is_found_with_its_bounds() -> None:
    model = build_model(attention="cbam", width=16, reduction=4, gate_start="identity").eval()
    x = torch.randn(2, 3, 32, 32)
    gates = find_gates(model, x)
    assert len(gates) == 16
    assert {(gate.lo, gate.hi, gate.neutral) for gate in gates} == {(0.0, 2.0, 1.0)}
    hooked = {}
    module = model.get_submodule("layer2.0.attention.spatial")
    module.register_forward_hook(lambda m, i, out: hooked.update(gate=out))
    with torch.no_grad(), watch_gates(model) as seen:
        model(x)
    torch.testing.assert_close(
        seen["layer2.0.attention.spatial"].flatten(), hooked["gate"].flatten(), rtol=0, atol=0
    )
    assert (hooked["gate"] == 1).all()


def test_the_identity_start_is_saved_with_the_network(tmp_path: Path) -> None:
    model = build_model(attention="se", width=16, reduction=4, gate_start="identity").eval()
    plain = build_model(attention="se", width=16, reduction=4)
    assert parameters(model) == parameters(plain), "no new parameter"
    save_model(model, tmp_path)
    assert json.loads((tmp_path / "model.json").read_text())["gate_start"] == "identity"
    again = load_model(tmp_path)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(x), model(x))
    description = json.loads((tmp_path / "model.json").read_text())
    del description["gate_start"]  # as before there was a choice
    (tmp_path / "model.json").write_text(json.dumps({**description}))
    with torch.inference_mode():
        assert not torch.equal(load_model(tmp_path)(x), model(x))


def test_torchvision_weights_and_a_stem_of_seven(tmp_path: Path) -> None:
    """The names are torchvision's; what does not fit is told, and starts as it was built."""
    torch.manual_seed(5)
    theirs = torchvision.models.resnet18(num_classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    weights = read_pretrained(str(tmp_path / "resnet18.pth"), "resnet18")
    model = build_model(attention="cbam", placement="stage", gate_start="identity")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = start_from(model, weights)
    assert report.misfits == [
        "conv1.weight is 64×3×7×7 in the weights, 64×3×3×3 in the network",
        "fc.weight is 1000×512 in the weights, 10×512 in the network",
        "fc.bias is 1000 in the weights, 10 in the network",
    ]
    after = model.state_dict()
    for name in ("conv1.weight", "fc.weight", "fc.bias", "layer1.attention.channel.reduce.weight"):
        assert torch.equal(after[name], before[name])
    for name in report.loaded:
        assert torch.equal(after[name], theirs.state_dict()[name])
    assert len(report.loaded) == len(theirs.state_dict()) - 3
    lines = str(report).splitlines()
    assert lines[0] == "loaded: 119 tensors"
    assert lines[1].startswith("new: 12 tensors, of layer1.attention.channel.expand, ")
    assert lines[2].startswith("did not fit, starts anew: conv1.weight is 64×3×7×7")
    whole = build_model(stem="imagenet", num_classes=1000)
    assert not start_from(whole, weights).misfits
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(whole.eval()(x), theirs.eval()(x))


def test_weights_that_cannot_be_started_from(tmp_path: Path) -> None:
    save_model(build_model("cnn"), tmp_path)
    other = read_pretrained(str(tmp_path / "model.safetensors"), "resnet18")
    model = build_model(width=16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    refused(lambda: start_from(model, other), "are of another network", "tensors fit")
    save_model(build_model(width=32), tmp_path)
    wide = read_pretrained(str(tmp_path / "model.safetensors"), "resnet18")
    refused(lambda: start_from(model, wide), "are of another network", "conv1.weight is 32×3×3×3")
    save_model(build_model(attention="se", width=16, reduction=4), tmp_path)
    gated = read_pretrained(str(tmp_path / "model.safetensors"), "resnet18")
    assert gated.gate_start == "half"
    identity = build_model(attention="se", width=16, reduction=4, gate_start="identity")
    refused(lambda: start_from(identity, gated), "start as 'half'", "take --gate-start half")
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_imagenet_weights_are_asked_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    state = torchvision.models.resnet34().state_dict()

    def fetch(url: str, **options: Any) -> Any:
        asked.update(url=url, **options)
        return state

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fetch)
    weights = read_pretrained("imagenet", "resnet34")
    assert "resnet34" in asked["url"]
    assert asked["weights_only"] is True, "nothing is unpickled"
    assert asked["check_hash"] is True
    assert weights.gate_start is None
    model = build_model("resnet34", stem="imagenet", num_classes=7)
    assert len(start_from(model, weights).misfits) == 2

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("no network\nat all")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fail)
    refused(
        lambda: read_pretrained("imagenet", "resnet50"),
        "ImageNet weights of resnet50 could not be downloaded (no network)",
        "--weights none",
    )


def test_training_only_parts(tmp_path: Path) -> None:
    model = build_model(attention="cbam", width=16, reduction=4)

    def trained() -> set[str]:
        return {name for name, p in model.named_parameters() if p.requires_grad}

    train_only(model, ("layer2.1", "classifier"))
    assert {name.rpartition(".")[0] for name in trained()} >= {"layer2.1.conv1", "fc"}
    assert all(name.startswith(("layer2.1.", "fc.")) for name in trained())
    training_mode(model)
    moving = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and m.training}
    assert moving == {"layer2.1.bn1", "layer2.1.bn2"}
    refused(lambda: train_only(model, ("layer9",)), "trains layer9, which this network does not")
    assert all(name.startswith(("layer2.1.", "fc.")) for name in trained()), "nothing was changed"
    train_only(model, ("all",))
    assert trained() == {name for name, _ in model.named_parameters()}
