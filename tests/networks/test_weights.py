"""Networks: saved and loaded bit for bit, refused in one line."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from attnscope.networks.build import ModelConfig, build_model
from attnscope.networks.weights import load_model, load_weights, save_model
from tests.networks.making import images, lively, plain, refused

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
