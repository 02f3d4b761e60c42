"""Files of folded networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from attnscope.folding.algebra import fold_gates
from attnscope.gates.detect import find_gates
from attnscope.networks.pretrained import read_pretrained
from attnscope.networks.weights import load_model, save_model
from tests.folding.networks import (
    network,
    pictures,
    random_mean,
)
from tests.making import refused


@pytest.mark.parametrize(
    ("name", "placement", "number"),
    [("resnet18", "block", False), ("resnet18", "stage", True), ("cnn", None, False)],
)
def test_a_saved_folded_network_is_loaded_equal(
    name: str, placement: str | None, number: bool, tmp_path: Path
) -> None:
    model = network(name, "cbam", placement, "identity")
    x = pictures(model)
    rng = torch.Generator().manual_seed(6)
    means = {g.name: random_mean(g, number, rng) for g in find_gates(model, x)[1:-1]}
    folded = fold_gates(model, means).to(memory_format=torch.channels_last)
    save_model(folded, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.attnscope_config == folded.attnscope_config
    assert loaded.attnscope_config.folded
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), folded(x), atol=1e-5, rtol=0)
    for key, value in folded.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    with refused("AS352", names=(tmp_path / "model.safetensors",)):
        read_pretrained(str(tmp_path / "model.safetensors"), name)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model = network("resnet18", "cbam", "stage")
    means = {
        "layer1.attention.channel": torch.rand(16),
        "layer1.attention.spatial": torch.rand(16, 16),
        "layer2.attention.spatial": torch.rand(()),
    }
    save_model(fold_gates(model, means), folder)
    load_model(folder)
    return folder


@pytest.mark.parametrize(
    ("code", "changes", "names"),
    [
        ("AS341", {"layer9.attention.channel": "norm"}, ("layer9.attention.channel", "'norm'")),
        ("AS341", {"layer1.attention": "norm"}, ("layer1.attention", "'norm'")),
        ("AS341", {"layer1.attention.channel": "norm"}, ("layer1.attention.channel", "'norm'")),
        ("AS341", {"layer1.attention.channel": "map"}, ("layer1.attention.channel", "'map'")),
        ("AS341", {"layer1.attention.channel": "gone"}, ("layer1.attention.channel", "'gone'")),
        ("AS341", {"layer1.attention.channel": ["map"]}, ("['map']",)),
        ("AS347", {"layer1.attention.spatial": "constant"}, ("layer1.attention.spatial.values",)),
        ("AS347", {"layer3.attention.spatial": "map"}, ("layer3.attention.spatial.values",)),
        ("AS341", None, ("folded", "None")),
        ("AS341", ["layer1.attention.channel"], ("folded", "[")),
        ("AS347", {}, ("model.safetensors",)),
    ],
)
def test_a_wrong_description_of_folded_gates_is_refused(
    saved: Path, tmp_path: Path, code: str, changes: Any, names: tuple[str, ...]
) -> None:
    description = json.loads((saved / "model.json").read_text())
    now = {**description["folded"], **changes} if changes and isinstance(changes, dict) else changes
    (tmp_path / "model.json").write_text(json.dumps({**description, "folded": now}))
    (tmp_path / "model.safetensors").hardlink_to(saved / "model.safetensors")
    with refused(code, names):
        load_model(tmp_path)


def test_stored_values_of_another_shape_are_refused(saved: Path, tmp_path: Path) -> None:
    state = load_file(saved / "model.safetensors")
    (tmp_path / "model.json").write_bytes((saved / "model.json").read_bytes())
    for value in (torch.rand(16), torch.rand(1, 2, 16, 16), torch.rand(())):
        save_file(
            {**state, "layer1.attention.spatial.values": value}, tmp_path / "model.safetensors"
        )
        with refused("AS347", names=("layer1.attention.spatial.values",)):
            load_model(tmp_path)
