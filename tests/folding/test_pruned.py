"""Pruned networks of attnscope give the logits of networks with gates edited to zeros."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from attnscope.commands.main import main
from attnscope.errors import InputError
from attnscope.folding import FoldReport, fold, fold_gates
from attnscope.folding.algebra import pruned_channels, removable_channels
from attnscope.folding.channels import thresholds, zeroed
from attnscope.gates.detect import find_gates
from attnscope.networks.pruning import ONE_STAYS, PrunedGate
from attnscope.networks.weights import load_model, save_model
from tests.folding.networks import Means, edited_logits, network, pictures, random_mean
from tests.folding.runs import make_run, untrained, write_digits
from tests.making import refused, refused_command


def means_with_zeros(model: nn.Module, dynamic: str = "", number: bool = False) -> Means:
    """Random constants of all gates but some; 0 for every third channel."""
    rng = torch.Generator().manual_seed(2)
    gates = find_gates(model, pictures(model))
    means = {
        g.name: random_mean(g, number, rng) for g in gates if dynamic not in g.name or not dynamic
    }
    for mean in means.values():
        if mean.ndim == 1:
            mean[::3] = 0
    return means


@pytest.mark.parametrize(
    ("name", "attention", "dynamic", "number"),
    [
        ("cnn", "se", "", False),
        ("cnn", "cbam", "", False),
        ("resnet18", "cbam", "", True),
        ("resnet18", "cbam", "spatial", False),
        ("resnet50", "eca", "layer2", False),
    ],
)
def test_a_pruned_network_has_the_logits_of_the_edited_one_and_is_loaded_again(
    name: str, attention: str, dynamic: str, number: bool, tmp_path: Path
) -> None:
    model = network(name, attention)
    means = means_with_zeros(model, dynamic, number)
    x = pictures(model)
    pruned = fold_gates(model, means, prune=True)
    whole = fold_gates(model, means)
    wanted = edited_logits(model, x, means, find_gates(model, x))
    with torch.no_grad():
        found = pruned(x)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5
    left = {g: int((m != 0).sum()) for g, m in means.items() if m.ndim == 1}
    assert pruned.attnscope_config.pruned == left
    assert whole.attnscope_config.pruned == {}
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in whole.parameters())
    rows = {
        "cnn": lambda gate: (f"{gate.partition('.')[0]}.conv", f"{gate.partition('.')[0]}.bn"),
        "resnet18": lambda gate: (f"{gate[:8]}.conv2", f"{gate[:8]}.bn2"),
        "resnet50": lambda gate: (f"{gate[:8]}.conv3", f"{gate[:8]}.bn3"),
    }[name]
    for gate, count in left.items():
        for layer in rows(gate):
            assert len(pruned.get_submodule(layer).weight) == count
    if name == "cnn":
        assert pruned.block2.conv.in_channels == left["block1.attention.channel"]
        assert pruned.hidden.in_features == 16 * left["block3.attention.channel"]
    save_model(pruned, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.attnscope_config == pruned.attnscope_config
    with torch.no_grad():
        assert torch.equal(loaded(x), found)
    assert [g.name for g in find_gates(loaded, x)] == [
        g.name for g in find_gates(model, x) if g.name not in means
    ]


def test_channels_that_cannot_be_removed_stay_with_the_reason() -> None:
    for model, dynamic, reason in [
        (network("resnet18", "se", "stage"), "", "skip connection"),
        (network("cnn", "cbam"), "spatial", "block1.attention.spatial"),
    ]:
        means = means_with_zeros(model, dynamic)
        found = removable_channels(model, means)
        first = next(iter(found))
        assert reason in found[first].reason
        assert {gate.removed for gate in found.values()} == {()}
        pruned = fold_gates(model, means, prune=True)
        assert pruned.attnscope_config.pruned == {}
        x = pictures(model)
        wanted = edited_logits(model, x, means, find_gates(model, x))
        with torch.no_grad():
            torch.testing.assert_close(pruned(x), wanted, atol=1e-4, rtol=0)


def test_one_channel_stays_if_all_are_zero() -> None:
    model = network("cnn", "se")
    means = means_with_zeros(model)
    first = next(iter(means))
    means[first] = torch.zeros(32)
    found = pruned_channels(removable_channels(model, means), means)
    assert found[first] == PrunedGate(tuple(range(1, 32)), 31, (0,), ONE_STAYS)
    pruned = fold_gates(model, means, prune=True)
    assert pruned.attnscope_config.pruned[first] == 1
    x = pictures(model)
    with torch.no_grad():
        torch.testing.assert_close(pruned(x), fold_gates(model, means)(x), atol=1e-5, rtol=0)


def test_damaged_descriptions_of_pruned_channels_are_refused(tmp_path: Path) -> None:
    model = network("resnet18", "se")
    save_model(fold_gates(model, means_with_zeros(model), prune=True), tmp_path)
    file = tmp_path / "model.json"
    config = json.loads(file.read_text())
    gate = "layer1.0.attention.channel"
    damages: list[tuple[str, Any]] = [("AS341", v) for v in (0, 16, -1, True, "10", 1.5)]
    for code, value in [*damages, ("AS345", 9)]:
        config["pruned"][gate] = value
        file.write_text(json.dumps(config))
        with pytest.raises(InputError) as error:
            load_model(tmp_path)
        assert error.value.code == code or value == 9
    config["pruned"] = {"layer1.0.attention.other": 3}
    file.write_text(json.dumps(config))
    with refused("AS341", names=(file, "other")):
        load_model(tmp_path)


def test_impossible_places_are_refused(tmp_path: Path) -> None:
    model = network("resnet18", "se")
    save_model(fold_gates(model, means_with_zeros(model), prune=True), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["layer1.0.bn2.sources"] = weights["layer1.0.bn2.sources"].flip(0)
    save_file(weights, tmp_path / "model.safetensors")
    with refused("AS341", names=(tmp_path, "layer1.0.bn2.sources")):
        load_model(tmp_path)


def test_thresholds_are_constants_at_shares_of_the_channels_that_can_be_removed() -> None:
    constants = {"a": torch.arange(1.0, 129.0), "b": torch.full((5,), 0.001), "c": torch.zeros(3)}
    removable = {"a": torch.ones(128, dtype=torch.bool)}
    assert thresholds(constants, removable) == [2, 4, 8, 16, 32, 64]
    removable["a"][:64] = False
    assert thresholds(constants, removable) == [65, 66, 68, 72, 80, 96]
    assert thresholds(constants, {}) == []
    found = zeroed(constants, removable, 66)
    assert found["a"].tolist() == [*range(1, 65), 0, 0, *range(67, 129)]
    assert found["b"] is constants["b"]
    assert thresholds({"c": torch.zeros(3)}, {"c": torch.ones(3, dtype=torch.bool)}) == []


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


LAST = "layer4.1.attention.channel"


def test_a_run_is_pruned_captured_and_compared(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", digits, untrained("se"), LAST)
    out = tmp_path / "named"
    options = ("--device", "cpu", "--gates", "all")
    assert main(["fold", str(run), "--out", str(out), *options, "--prune-below", "0.45"]) == 0
    printed = capsys.readouterr().out
    report = json.loads((out / "fold.json").read_text())
    pruning = report["pruning"]
    assert (pruning["below"], pruning["is_tested"], pruning["not_removable"]) == (0.45, False, {})
    removed = {name: gate["removed"] for name, gate in pruning["gates"].items()}
    count = sum(map(len, removed.values()))
    assert 0 < count < pruning["channels"] == 2 * (16 + 32 + 64 + 128)
    assert f"channels removed: {count} of 480" in printed
    config = load_model(out).attnscope_config
    channels = {1: 16, 2: 32, 3: 64, 4: 128}
    assert config.pruned == {
        name: channels[int(name[5])] - len(gone) for name, gone in removed.items()
    }
    assert main(["capture", str(out), "--device", "cpu"]) == 0
    assert report["logit_difference"] < 1e-4
    arguments = ("fold", run, "--out", tmp_path / "other")
    refused_command(capsys, "AS866", *arguments, "--gates", "all", "--prune", names=("--gates",))
    refused_command(capsys, "AS866", *arguments, "--prune-below", "0.1", names=("--prune",))
    refused_command(
        capsys, "AS867", *arguments, "--gates", "all", "--prune-below", "-1", names=("-1",)
    )


def test_channels_are_chosen_within_the_test_of_the_loss(digits: Path, tmp_path: Path) -> None:
    model = untrained("se")
    with torch.no_grad():
        for path, gate in model.named_modules():
            if path.endswith("attention.channel") and path != LAST:
                gate.expand.bias[:4] = -8  # gates of 0.0003
    run = make_run(tmp_path / "run", digits, model, LAST)
    report = fold(run, tmp_path / "out", tolerance=15, prune=True, device="cpu", progress=False)
    assert isinstance(report, FoldReport)
    assert report.chosen is not None
    assert report.pruning is not None
    choice = report.chosen.choice
    tested = [step for step in choice.pruning if step.p is not None]
    assert tested[0].kept
    assert tested[0].below == pytest.approx(1 / (1 + np.exp(8)), rel=1e-3)
    removed = {name: gate.removed for name, gate in report.pruning.gates.items()}
    for name in set(report.folded) - {LAST}:
        assert set(range(4)) <= set(removed[name])
    assert (report.pruning.below, report.pruning.is_tested) == (choice.below, True)
    assert set(report.pruning.gates) <= set(report.folded)
    # The loss on the second half is that of the last step that was tested and passed.
    last = [trial for trial in choice.trials if trial.kept][-1]
    steps = [step for step in choice.pruning if step.kept]
    behind = steps and len(choice.kept) == steps[-1].after
    assert report.validation.loss == pytest.approx(steps[-1].joint if behind else last.joint)
    assert "zeros:" in str(report)
