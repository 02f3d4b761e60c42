"""Networks are saved and loaded bit by bit; damaged or foreign files are refused."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from attnscope.networks.build import ModelConfig, build_model
from attnscope.networks.weights import load_model, load_weights, save_model
from tests.making import refused
from tests.networks.making import as_loaded, images, with_random_state

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
def test_a_saved_network_is_loaded_bit_by_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    model = with_random_state(build_model(**options)).to(memory_format=torch.channels_last)
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
        assert torch.equal(loaded(x), as_loaded(model)(x))


def test_model_json_contains_the_configuration(tmp_path: Path) -> None:
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
    save_model(with_random_state(build_model(attention="cbam", width=16, reduction=4)), folder)
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
    ("changes", "named"),
    [
        ({"surprise": 1}, "surprise"),
        ({"width": "16"}, "width is '16'"),
        ({"width": 8.0}, "width is 8.0"),
        ({"width": True}, "width is True"),
        ({"num_classes": None}, "num_classes is None"),
        ({"num_classes": [10]}, "num_classes is [10]"),
        ({"name": {"a": 1}}, "name is {'a': 1}"),
        ({"placement": 3}, "placement is 3"),
        ({"width": 10**12}, "model.json"),
    ],
)
def test_a_configuration_with_wrong_keys_or_types_is_refused(
    saved: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    folder = with_json(saved, tmp_path, config_with(**changes))
    with refused("AS341", names=(folder / "model.json", named)):
        load_model(folder)


def test_a_configuration_without_a_key_is_refused(saved: Path, tmp_path: Path) -> None:
    config = config_with()
    del config["num_classes"]  # build_model has a default for it
    folder = with_json(saved, tmp_path, config)
    with refused("AS341", names=(folder / "model.json", "num_classes")):
        load_model(folder)


@pytest.mark.parametrize("content", ["[]", "[1]", "3", "null", '"resnet18"', "{}"])
def test_json_of_another_structure_is_refused(saved: Path, tmp_path: Path, content: str) -> None:
    folder = with_json(saved, tmp_path, content)
    with refused("AS341", names=(folder / "model.json",)):
        load_model(folder)


@pytest.mark.parametrize("content", ["", '{"name": "resn', "\x00\x01"])
def test_a_configuration_that_is_not_json_is_refused(
    saved: Path, tmp_path: Path, content: str
) -> None:
    folder = with_json(saved, tmp_path, content)
    with refused("AS112", names=(folder / "model.json",)):
        load_model(folder)


def test_a_configuration_with_an_unknown_network_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = with_json(saved, tmp_path, config_with(name="__import__('os')"))
    with refused("AS301", names=("__import__('os')", "resnet18")):
        load_model(folder)


def test_a_configuration_of_another_size_is_refused_without_allocating_it(
    saved: Path, tmp_path: Path
) -> None:
    """A width of 100,000 would need 100 TB."""
    folder = with_json(saved, tmp_path, config_with(width=100_000))
    with refused("AS347", names=(folder / "model.safetensors", "other shape: conv1.weight")):
        load_model(folder)


def test_a_folder_without_a_saved_network_is_refused(saved: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with refused("AS340", names=(folder, "model.safetensors")):
            load_model(folder)
    os.link(saved / "model.safetensors", tmp_path / "model.safetensors")
    with refused("AS110", names=(tmp_path / "model.json",)):
        load_model(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_truncated_safetensors_are_refused(saved: Path, tmp_path: Path, keep: int) -> None:
    content = (saved / "model.safetensors").read_bytes()[:keep]
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "model.json").write_bytes((saved / "model.json").read_bytes())
    for action in (
        lambda: load_model(tmp_path),
        lambda: load_weights(small(), tmp_path / "model.safetensors"),
    ):
        with refused("AS343", names=(tmp_path / "model.safetensors",)):
            action()


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_a_state_dict_saved_by_torch_is_loaded(
    saved: Path, tmp_path: Path, wrap: bool, parallel: bool
) -> None:
    state = state_of(saved)
    given = {f"module.{n}" if parallel else n: v for n, v in state.items()}
    torch.save({"state_dict": given, "epoch": 3} if wrap else given, tmp_path / "w.pth")
    model = small()
    load_weights(model, tmp_path / "w.pth")
    assert all(torch.equal(v, state[n]) for n, v in model.state_dict().items())


def test_weights_that_do_not_fit_are_refused(saved: Path, tmp_path: Path) -> None:
    state = state_of(saved)
    del state["conv1.weight"], state["bn1.weight"]
    state["extra.weight"] = torch.zeros(1)
    state["fc.weight"] = torch.zeros(3, 64)
    save_file(state, tmp_path / "w.safetensors")
    model = small()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    problems = (
        "missing: conv1.weight and 1 more",
        "not in the network: extra.weight",
        "other shape: fc.weight (3×64 in the file, 10×128 in the network))",
    )
    with refused("AS347", names=(tmp_path / "w.safetensors", *problems)):
        load_weights(model, tmp_path / "w.safetensors")
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    state = state_of(saved)
    state |= {"fc.weight": torch.zeros(3, 128), "fc.bias": torch.zeros(3)}
    save_file(state, tmp_path / "head.safetensors")
    with refused("AS347", names=("3 classes", "not 10", "--classes")):
        load_weights(model, tmp_path / "head.safetensors")
    without_attention = build_model(width=16)
    with refused("AS347", names=("not in the network: layer1.0",)):
        load_weights(without_attention, saved / "model.safetensors")


class Evil:
    """An object whose unpickling creates a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ""])
def test_a_pickle_with_code_is_refused_without_running_it(tmp_path: Path, suffix: str) -> None:
    marker = tmp_path / "it ran"
    file = tmp_path / f"weights{suffix}"
    torch.save({"conv1.weight": torch.zeros(1), "x": Evil(marker)}, file)
    with refused("AS345", names=(file, "torch.save")):
        load_weights(small(), file)
    for protocol in (2, pickle.DEFAULT_PROTOCOL):
        file.write_bytes(pickle.dumps(Evil(marker), protocol))
        with warnings.catch_warnings(), refused("AS345", names=(file,)):
            warnings.simplefilter("ignore")  # torch warns about protocols other than 2
            load_weights(small(), file)
    torch.save({"state_dict": Evil(marker)}, file, _use_new_zipfile_serialization=False)
    with refused("AS345", names=(file,)):
        load_weights(small(), file)
    assert not marker.exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "model.pth")
    with refused("AS345", names=(tmp_path / "model.pth", "c.state_dict()")):
        load_weights(small(), tmp_path / "model.pth")


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"PK\x03\x04", b"hello world", b"\x80\x02K\x01."]
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with refused("AS348", names=(tmp_path / "w.pth",)):
        load_weights(small(), tmp_path / "w.pth")


@pytest.mark.parametrize(
    "value",
    [
        [torch.zeros(1)],
        torch.zeros(3),
        {"conv1.weight": 3},
        {3: torch.zeros(1)},
    ],
)
def test_an_object_other_than_a_state_dict_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "w.pth")
    with refused("AS346", names=(tmp_path / "w.pth",)):
        load_weights(small(), tmp_path / "w.pth")


def test_a_missing_weights_file_is_refused(tmp_path: Path) -> None:
    for file in (tmp_path / "w.pth", tmp_path):
        with refused("AS342", names=(file,)):
            load_weights(small(), file)


def test_a_weights_file_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    torch.save({}, tmp_path / "w.pth")
    monkeypatch.setattr(torch, "load", fail)
    with refused("AS344", names=(tmp_path / "w.pth", "Permission denied")):
        load_weights(small(), tmp_path / "w.pth")
