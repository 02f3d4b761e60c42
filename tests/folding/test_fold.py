"""Folded networks: the logits of the edited ones, for every mixture of static and dynamic gates."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from attnscope.commands.main import main
from attnscope.data.images import LabelledImages, Normalization
from attnscope.data.load import load_data
from attnscope.errors import InputError
from attnscope.folding.algebra import fold_gates, mean_gates
from attnscope.folding.report import PairedAccuracy
from attnscope.folding.run import fold_run
from attnscope.folding.search import choose_gates, right_images
from attnscope.folding.speed import images_per_second
from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import edit_gates
from attnscope.kinds import Gate
from attnscope.networks.build import build_model
from attnscope.networks.pretrained import read_pretrained
from attnscope.networks.weights import load_model, save_model
from attnscope.recording.recording import Recording
from attnscope.statistics.effects import paired_accuracy_change

Means = dict[str, Tensor]
UNIT = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def network(
    name: str = "resnet18",
    attention: str = "cbam",
    placement: str | None = "block",
    gate_start: str = "half",
) -> nn.Module:
    """Norms whose every value counts, some of their weights below 0, and gates that move."""
    options: dict[str, Any] = {} if name == "cnn" else {"width": 16, "placement": placement}
    torch.manual_seed(0)
    model = build_model(name, attention=attention, reduction=4, gate_start=gate_start, **options)
    for path, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            with torch.no_grad():
                module.weight[::5] *= -1
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif ".attention." in f".{path}" and isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            nn.init.normal_(module.weight, 0, 0.4)
    model.eval()
    with torch.no_grad():  # logits of the size that a training gives, at most 10
        model.fc.weight.mul_(10 / model(pictures(model)).abs().max())
    return model


def pictures(model: nn.Module, count: int = 3) -> Tensor:
    size = 32 if model.attnscope_config.name == "cnn" else 16
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def drawn_mean(gate: Gate, number: bool, rng: torch.Generator) -> Tensor:
    shape = (gate.channels,) if gate.kind == "channel" else () if number else gate.grid
    assert shape is not None
    return 0.1 + 0.9 * torch.rand(shape, generator=rng)


def edited_logits(model: nn.Module, x: Tensor, means: Means, gates: list[Gate]) -> Tensor:
    """What the gates are edited to is written out here, by the axes that CBAM's paper gives."""

    def factor(mean: Tensor) -> Tensor:
        return mean[None, :, None, None] if mean.ndim == 1 else mean.expand(1, 1, *mean.shape)

    edits = {
        name: lambda g, f, mean=mean: (factor(mean) if mean.ndim else mean).expand(g.shape)
        for name, mean in means.items()
    }
    with torch.no_grad(), edit_gates(model, edits, gates):
        return model(x)


def expected_form(name: str, means: Means, placement: str | None) -> str:
    if means[name].ndim == 2:
        return "map"
    inside = placement != "stage"
    if name.endswith(".spatial"):
        inside = inside and name.replace(".spatial", ".channel") in means
    return "norm" if inside else "constant"


def check(model: nn.Module, x: Tensor, means: Means, gates: list[Gate]) -> nn.Module:
    """The folded network is the edited one, and neither is the plain one."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_gates(model, means)
    with torch.no_grad():
        plain, found = model(x), folded(x)
    wanted = edited_logits(model, x, means, gates)
    assert (wanted - plain).abs().max() > 1e-3
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.attnscope_config.folded == {}
    config = folded.attnscope_config
    assert config.folded == {n: expected_form(n, means, config.placement) for n in means}
    assert [g.name for g in find_gates(folded, x)] == [g.name for g in gates if g.name not in means]
    return folded


NETWORKS = [
    ("resnet18", "se", "block", "half"),
    ("resnet18", "se", "stage", "identity"),
    ("resnet18", "eca", "block", "identity"),
    ("resnet18", "cbam", "block", "half"),
    ("resnet18", "cbam", "block", "identity"),
    ("resnet18", "cbam", "stage", "half"),
    ("resnet50", "se", "block", "identity"),
    ("resnet50", "eca", "stage", "half"),
    ("resnet50", "cbam", "block", "half"),
    ("cnn", "se", None, "half"),
    ("cnn", "eca", None, "identity"),
    ("cnn", "cbam", None, "half"),
    ("cnn", "cbam", None, "identity"),
]


@pytest.mark.parametrize(("name", "attention", "placement", "gate_start"), NETWORKS)
def test_a_folded_network_is_the_edited_one(
    name: str, attention: str, placement: str | None, gate_start: str
) -> None:
    model = network(name, attention, placement, gate_start)
    x = pictures(model)
    gates = find_gates(model, x)
    rng = torch.Generator().manual_seed(2)
    # Every combination in one module, which in the ResNets with blocks has a shortcut of its own.
    module = "layer2.0" if placement == "block" else "block2" if name == "cnn" else "layer2"
    own = [gate for gate in gates if gate.name.startswith(f"{module}.attention.")]
    assert [gate.kind for gate in own] == ["channel", "spatial"][: len(own)]
    choices = [("dynamic", "map", "number") if g.kind == "spatial" else (0, 1) for g in own]
    for choice in list(product(*choices)):
        means = {
            gate.name: drawn_mean(gate, what == "number", rng)
            for gate, what in zip(own, choice, strict=True)
            if what not in ("dynamic", 0)
        }
        if means:
            check(model, x, means, gates)
    # And mixtures over the whole network, the last of which is all of them.
    for share in (0.4, 0.7, 1.0):
        draws = torch.rand(len(gates), 2, generator=rng).tolist()
        check(
            model,
            x,
            {
                gate.name: drawn_mean(gate, number < 0.5, rng)
                for gate, (take, number) in zip(gates, draws, strict=True)
                if take < share
            },
            gates,
        )


@pytest.mark.parametrize(
    ("name", "module", "norm"),
    [("resnet18", "layer2.0", "bn2"), ("resnet50", "layer2.0", "bn3"), ("cnn", "block2", "bn")],
)
def test_only_the_norm_that_ends_the_branch_is_scaled(name: str, module: str, norm: str) -> None:
    model = network(name, "se")
    gate = f"{module}.attention.channel"
    (found,) = [g for g in find_gates(model, pictures(model)) if g.name == gate]
    mean = drawn_mean(found, False, torch.Generator().manual_seed(3))
    folded = fold_gates(model, {gate: mean})
    before, after = model.state_dict(), folded.state_dict()
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert moved == {f"{module}.{norm}.weight", f"{module}.{norm}.bias"}
    for key in moved:
        torch.testing.assert_close(after[key], before[key] * mean)
    assert {key.rpartition(".attention.")[0] for key in before.keys() - after.keys()} == {module}
    assert isinstance(folded.get_submodule(f"{module}.attention"), nn.Identity)


def test_what_is_left_of_a_module() -> None:
    model = network("resnet18", "cbam")
    gates = {g.name: g for g in find_gates(model, pictures(model))}
    channel, spatial = (f"layer1.1.attention.{kind}" for kind in ("channel", "spatial"))
    rng = torch.Generator().manual_seed(4)
    c, s = drawn_mean(gates[channel], False, rng), torch.tensor(0.3)
    both = fold_gates(model, {channel: c, spatial: s})
    assert isinstance(both.get_submodule("layer1.1.attention"), nn.Identity)
    norm = model.get_submodule("layer1.1.bn2")
    torch.testing.assert_close(both.get_submodule("layer1.1.bn2").weight, norm.weight * c * 0.3)
    # A dynamic channel gate would read features that a number in the norm has scaled.
    alone = fold_gates(model, {spatial: s})
    assert torch.equal(alone.get_submodule("layer1.1.bn2").weight, norm.weight)
    kinds = [kind for kind, _ in alone.get_submodule("layer1.1.attention").named_children()]
    assert kinds == ["channel", "spatial"]
    rest = fold_gates(model, {channel: c}).get_submodule("layer1.1.attention")
    assert [kind for kind, _ in rest.named_children()] == ["spatial"]
    # The caller's tensors stay the caller's.
    given = torch.rand(16, 16)
    kept = fold_gates(model, {spatial: given}).get_submodule(spatial).values
    before = kept.clone()
    given.zero_()
    assert torch.equal(kept, before)


def test_means_that_cannot_be_folded() -> None:
    model = network("resnet18", "cbam", "stage")
    channel, spatial = "layer2.attention.channel", "layer2.attention.spatial"
    good = torch.full((32,), 0.5)
    for means, message in [
        (
            {"layer9.attention.channel": good},
            "no gate 'layer9.attention.channel'; there are layer1",
        ),
        (
            {channel: good[:16]},
            r"the mean of layer2.attention.channel is \(16,\); it must be \(32,",
        ),
        ({channel: torch.tensor(0.5)}, r"is \(\); it must be"),
        ({spatial: good}, r"the mean of layer2.attention.spatial is \(32,\); it must be \(H, W\)"),
        ({channel: -good}, "finite and 0 or more"),
        ({channel: good / 0}, "finite and 0 or more"),
    ]:
        with pytest.raises(InputError, match=message):
            fold_gates(model, means)
    with pytest.raises(InputError, match="folded already"):
        fold_gates(fold_gates(model, {channel: good}), {spatial: torch.tensor(0.5)})
    with pytest.raises(InputError, match="only a network of build_model"):
        fold_gates(nn.Sequential(nn.Conv2d(3, 3, 1)), {})


def test_a_stored_map_is_for_one_size() -> None:
    model = network("resnet18", "cbam")
    x = pictures(model)
    gates = find_gates(model, x)
    rng = torch.Generator().manual_seed(5)
    maps = {g.name: drawn_mean(g, False, rng) for g in gates}
    numbers = {g.name: drawn_mean(g, True, rng) for g in gates}
    larger = torch.randn(2, 3, 24, 24)
    with pytest.raises(InputError) as caught:
        fold_gates(model, maps)(larger)
    assert "layer1.0.attention.spatial is a stored map of 16×16" in str(caught.value)
    assert "features of 24×24" in str(caught.value)
    assert "\n" not in str(caught.value)
    with torch.no_grad():
        assert fold_gates(model, numbers)(larger).shape == (2, 10)
    one = {"layer4.1.attention.spatial": torch.full((1, 1), 0.5)}
    with pytest.raises(InputError, match=r"a stored map of 1×1 and meets features of 2×2"):
        fold_gates(model, one)(x)  # it would broadcast


@pytest.mark.parametrize(
    ("name", "placement", "number"),
    [("resnet18", "block", False), ("resnet18", "stage", True), ("cnn", None, False)],
)
def test_round_trip(name: str, placement: str | None, number: bool, tmp_path: Path) -> None:
    model = network(name, "cbam", placement, "identity")
    x = pictures(model)
    rng = torch.Generator().manual_seed(6)
    means = {g.name: drawn_mean(g, number, rng) for g in find_gates(model, x)[1:-1]}
    folded = fold_gates(model, means).to(memory_format=torch.channels_last)
    save_model(folded, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.attnscope_config == folded.attnscope_config
    assert loaded.attnscope_config.folded
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), folded(x), atol=1e-5, rtol=0)
    for key, value in folded.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    with pytest.raises(InputError, match="are of a folded network; take those of the run"):
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
    ("changes", "message"),
    [
        ({"layer9.attention.channel": "norm"}, "layer9.attention.channel is 'norm'"),
        ({"layer1.attention": "norm"}, "layer1.attention is 'norm'"),
        ({"layer1.attention.channel": "norm"}, "layer1.attention.channel is 'norm'"),
        ({"layer1.attention.channel": "map"}, "layer1.attention.channel is 'map'"),
        ({"layer1.attention.channel": "gone"}, "layer1.attention.channel is 'gone'"),
        ({"layer1.attention.channel": ["map"]}, "is ['map']"),
        ({"layer1.attention.spatial": "constant"}, "other shape: layer1.attention.spatial.values"),
        ({"layer3.attention.spatial": "map"}, "missing: layer3.attention.spatial.values"),
        (None, "folded is None"),
        (["layer1.attention.channel"], "folded is ["),
        ({}, "do not fit the network"),
    ],
)
def test_a_description_that_is_none(
    saved: Path, tmp_path: Path, changes: Any, message: str
) -> None:
    description = json.loads((saved / "model.json").read_text())
    now = {**description["folded"], **changes} if changes and isinstance(changes, dict) else changes
    (tmp_path / "model.json").write_text(json.dumps({**description, "folded": now}))
    (tmp_path / "model.safetensors").hardlink_to(saved / "model.safetensors")
    with pytest.raises(InputError) as caught:
        load_model(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stored_values_of_another_shape(saved: Path, tmp_path: Path) -> None:
    state = load_file(saved / "model.safetensors")
    (tmp_path / "model.json").write_bytes((saved / "model.json").read_bytes())
    for value in (torch.rand(16), torch.rand(1, 2, 16, 16), torch.rand(())):
        save_file(
            {**state, "layer1.attention.spatial.values": value}, tmp_path / "model.safetensors"
        )
        with pytest.raises(InputError, match=r"other shape: layer1\.attention\.spatial\.values"):
            load_model(tmp_path)


def toy_images(count: int, size: int = 16) -> LabelledImages:
    rng = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (count, 3, size, size), generator=rng, dtype=torch.uint8)
    images = (images * torch.rand(count, 3, 1, 1, generator=rng)).to(torch.uint8)
    labels = torch.arange(count) % 10
    return LabelledImages(images, labels, list(map(str, range(count))), list("abcdefghij"))


def test_means_are_those_of_the_unedited_network() -> None:
    model = network("resnet18", "cbam", "stage").train()
    model.layer2.eval()
    flags = [module.training for module in model.modules()]
    images = toy_images(7)
    found = mean_gates(model, images, UNIT, batch_size=3)
    numbers = mean_gates(model, images, UNIT, batch_size=7, spatial="number")
    assert flags == [module.training for module in model.modules()]
    seen: Means = {}
    for path, module in model.eval().named_modules():
        if path.endswith((".channel", ".spatial")):
            module.register_forward_hook(
                lambda _m, _x, out, path=path: seen.update({path: out.double()})
            )
    with torch.no_grad():
        model(images.images / 255)
    assert list(found) == list(seen)
    for path, values in seen.items():
        wanted = values.mean((0, 2, 3)) if path.endswith(".channel") else values.mean((0, 1))
        torch.testing.assert_close(found[path].double(), wanted, rtol=0, atol=1e-5)
        if path.endswith(".spatial"):
            assert numbers[path].shape == ()
            torch.testing.assert_close(numbers[path].double(), wanted.mean(), rtol=0, atol=1e-5)
        else:
            torch.testing.assert_close(numbers[path], found[path], rtol=0, atol=1e-6)


def test_the_search_is_greedy_and_keeps_to_the_tolerance() -> None:
    """Of 1,000 images each gate loses some, and two of them together three more."""
    model = network("resnet18", "se", "stage")
    names = [f"layer{i}.attention.channel" for i in (1, 2, 3, 4)]
    means = {n: torch.full((16 * 2**i,), 0.5) for i, n in enumerate(names)}
    losses = dict(zip(names, (3, 0, -1, 50), strict=True))
    asked: list[set[str]] = []

    def right(candidate: nn.Module) -> NDArray[np.bool_]:
        folded = set(candidate.attnscope_config.folded)
        asked.append(folded)
        lost = sum(losses[name] for name in folded) + 3 * ({names[1], names[2]} <= folded)
        return np.arange(1000) < 900 - lost

    trials = choose_gates(model, means, right, 0.2, progress=False)
    assert [trial.gate for trial in trials] == [names[2], names[1], names[0], names[3]]
    assert [trial.alone for trial in trials] == pytest.approx([-0.1, 0, 0.3, 5])
    assert [trial.joint for trial in trials] == pytest.approx([-0.1, 0.2, 0.5, 5.2])
    assert [trial.kept for trial in trials] == [True, True, False, False]
    assert len(asked) == 8
    assert asked[0] == set()
    trials = choose_gates(model, means, right, 0.19, progress=False)
    assert [trial.kept for trial in trials] == [True, False, False, False]
    assert [trial.joint for trial in trials] == pytest.approx([-0.1, 0.2, 0.2, 4.9])


def test_speed_is_measured_in_turns() -> None:
    calls: list[str] = []

    class Named(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            calls.append(self.name * len(x))
            return x

    found = images_per_second((Named("a"), Named("b")), [torch.zeros(2, 1), torch.zeros(1, 1)], 3)
    assert "".join(calls) == "aabb" + "aaabbb" + "bbbaaa" + "aaabbb"
    assert len(found) == 3
    assert all(first > 0 and second > 0 for first, second in found)


def test_a_loss_is_a_change_with_its_sign_turned() -> None:
    before, after = np.array([True] * 8 + [False] * 2), np.array([True] * 5 + [False] * 5)
    found = PairedAccuracy.of(before, after)
    change, low, high = paired_accuracy_change(before, after)
    assert (found.before, found.after, found.images) == (0.8, 0.5, 10)
    assert found.loss == pytest.approx(30)
    assert (found.loss, found.low, found.high) == pytest.approx(
        (-100 * change, -100 * high, -100 * low)
    )
    assert "80.00% -> 50.00% of 10 images (one is 10.00 points), loss 30.00 points" in str(found)
    assert "loss 0.00 points" in str(PairedAccuracy.of(before, before))


# --- The command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each of ten classes 16 images for training, 6 for validation and 8 for the test."""
    root = tmp_path_factory.mktemp("digits")
    source = load_digits()
    for k in range(10):
        rows = np.flatnonzero(source.target == k)
        for part, start, stop in (("train", 0, 16), ("val", 16, 22), ("test", 22, 30)):
            folder = root / part / str(k)
            folder.mkdir(parents=True)
            for row in rows[start:stop]:
                pixels = (source.images[row] * (255 / 16)).astype(np.uint8)
                Image.fromarray(pixels).convert("RGB").save(folder / f"{row}.png")
    return root


def make_run(folder: Path, digits: Path, model: nn.Module, strong: str, size: int = 16) -> Path:
    """A run without a training: only the last layer is fitted, by ridge regression.

    Channel gates whose name begins with ``strong`` differ much between images, and the last layer
    relies on that; other channel gates are one half for every image, so that nothing is lost
    without them.
    """
    data = load_data(f"folder:{digits}", image_size=size)
    x = data.normalization.apply(data.train.images)
    features: list[Tensor] = []
    with torch.no_grad():
        for path, gate in model.eval().named_modules():
            if path.endswith("attention.channel"):
                gate.expand.weight.mul_(path.startswith(strong))
                out: list[Tensor] = []
                handle = gate.expand.register_forward_hook(lambda m, a, o, out=out: out.append(o))
                model(x)
                handle.remove()
                if path.startswith(strong) and gate.expand.bias is not None:
                    scale = 4 / out[0].std(0).clamp_min(1e-6)
                    gate.expand.weight.mul_(scale[:, None])
                    gate.expand.bias.sub_(out[0].mean(0)).mul_(scale)
        handle = model.fc.register_forward_pre_hook(lambda m, a: features.append(a[0]))
        model(x)
        handle.remove()
        a = torch.cat([features[0], torch.ones(len(x), 1)], 1).double()
        scale = (a.T @ a).trace() / len(a.T)
        wanted = torch.eye(10, dtype=torch.float64)[data.train.labels]
        fitted = torch.linalg.solve(a.T @ a + 1e-3 * scale * torch.eye(len(a.T)), a.T @ wanted)
        model.fc.weight.copy_(fitted[:-1].T)
        model.fc.bias.copy_(fitted[-1])
    folder.mkdir(parents=True)
    save_model(model, folder)
    config = {
        "data": f"folder:{digits}",
        "data_root": "data",
        "image_size": size,
        "validation_share": 0.1,
        "seed": 0,
        "classes": data.classes,
        "normalization": asdict(data.normalization),
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def plain(attention: str, placement: str = "block") -> nn.Module:
    torch.manual_seed(0)
    return build_model(attention=attention, placement=placement, width=16, reduction=4)


LAST = "layer4.1.attention.channel"


def hooked_mean(run: Path, images: Tensor, gate: str) -> Tensor:
    """The mean of a gate's module's output, by a plain hook."""
    model, seen = load_model(run), []
    handle = model.get_submodule(gate).register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0].double().mean(0)


@pytest.fixture(scope="module")
def se_run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "se", digits, plain("se"), LAST)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The line with which a command refuses; it must exit with 2."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("attnscope: ")
    return line


def test_one_gate_matters_and_seven_do_not(
    se_run: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "folded"
    assert main(["fold", str(se_run), "--out", str(out), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "7 of 8 gates are static: 7 in BatchNorms\n" in printed
    assert f"Next: attnscope capture {out}" in printed
    report = json.loads((out / "fold.json").read_text())
    assert report["dynamic"] == [LAST]
    assert set(report["folded"].values()) == {"norm"}
    assert [trial["kept"] for trial in report["trials"]] == [True] * 7 + [False]
    assert report["trials"][-1]["alone"] > 10
    assert report["tolerance"] == 0.2
    assert report["validation"]["images"] == 60
    assert report["validation"]["loss"] <= 0.2
    assert report["logit_difference"] < 1e-4
    assert len(report["speed"]) == 5
    # By other ways: the accuracies, the parameters, and the recording of the gate that is left.
    before, after = load_model(se_run), load_model(out)
    data = load_data(f"folder:{digits}", image_size=16)
    for which, model in (("before", before), ("after", after)):
        for part in ("validation", "test"):
            images = getattr(data, part)
            with torch.no_grad():
                guess = model(data.normalization.apply(images.images)).argmax(1)
            share = (guess == images.labels).double().mean().item()
            assert report[part][which] == pytest.approx(share, abs=0.02)  # a close case may flip
    assert report["test"]["before"] > 0.5
    # The means are of the training part, and the validation part chooses.
    mean = hooked_mean(se_run, data.normalization.apply(data.train.images), LAST).float()
    x, labels = data.normalization.apply(data.validation.images), data.validation.labels
    with torch.no_grad():
        lost = before(x).argmax(1).eq(labels).sum()
        with edit_gates(before, {LAST: lambda g, f: mean}):
            lost -= before(x).argmax(1).eq(labels).sum()
    assert report["trials"][-1]["alone"] == pytest.approx(100 * lost.item() / 60, abs=2)
    for trial in report["trials"]:  # counts of 60 images: of the 80 test images they would not be
        for loss in (trial["alone"], trial["joint"]):
            assert 60 * loss / 100 == pytest.approx(round(60 * loss / 100), abs=1e-6)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (before, after)]
    assert report["parameters"] == sizes
    attention = sum(p.numel() for n, p in before.named_parameters() if "attention" in n)
    last = sum(p.numel() for n, p in before.named_parameters() if n.startswith(LAST))
    assert sizes[0] - sizes[1] == attention - last
    assert report["stored_values"] == 0
    config = json.loads((out / "config.json").read_text())
    assert config.pop("folded_from")["run"] == str(se_run)
    assert config == json.loads((se_run / "config.json").read_text())
    assert json.loads((out / "result.json").read_text())["weights"] == "folded"
    assert main(["capture", str(out)]) == 0
    recording = Recording(out)
    assert [gate.name for gate in recording.gates] == [LAST]
    assert recording.right.mean() == pytest.approx(report["test"]["after"], abs=0.02)
    assert main(["inspect", str(out)]) == 0
    assert LAST in capsys.readouterr().out
    line = refused(capsys, "fold", out, "--out", tmp_path / "again")
    assert "is folded already; fold the run that it was folded from" in line


def test_named_gates_are_folded_whatever_is_lost(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", digits, plain("cbam"), "")
    names = [gate.name for gate in find_gates(load_model(run), torch.rand(2, 3, 16, 16))]
    out = tmp_path / "folded"
    assert main(["fold", str(run), "--out", str(out), "--gates", *names, "--device", "cpu"]) == 0
    assert "16 of 16 gates are static: 8 in BatchNorms, 8 stored maps" in capsys.readouterr().out
    report = json.loads((out / "fold.json").read_text())
    assert report["trials"] == []
    assert report["tolerance"] is None
    assert report["stored_values"] == 2 * (256 + 64 + 16 + 4)
    data = load_data(f"folder:{digits}", image_size=16)
    x = data.normalization.apply(data.train.images)
    state, own = load_file(out / "model.safetensors"), load_file(run / "model.safetensors")
    stored = state["layer1.1.attention.spatial.values"][0].double()
    wanted = hooked_mean(run, x, "layer1.1.attention.spatial")
    torch.testing.assert_close(stored, wanted, rtol=0, atol=1e-5)
    ratio = (state["layer1.1.bn2.weight"] / own["layer1.1.bn2.weight"]).double()
    wanted = hooked_mean(run, x, "layer1.1.attention.channel").flatten()
    torch.testing.assert_close(ratio, wanted, rtol=0, atol=1e-5)
    assert report["logit_difference"] < 1e-4
    # A network without gates is captured, inspected and summed up like any other.
    assert main(["capture", str(out)]) == 0
    assert "80 images, 0 gates" in capsys.readouterr().out
    assert main(["verify", str(out)]) == 0
    assert main(["inspect", str(out)]) == 0
    assert "no gates" in capsys.readouterr().out
    assert main(["summary", str(out)]) == 0
    line = refused(capsys, "inspect", out, "--image-size", "24")
    assert "layer1.0.attention.spatial is a stored map of 16×16" in line


def test_nothing_is_folded_where_nothing_can_be(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", digits, plain("se", "stage"), "layer")
    out = tmp_path / "folded"
    line = refused(capsys, "fold", run, "--out", out, "--tolerance", "0")
    assert f"no gate of {run} can be folded within 0 points of accuracy on 60 validation" in line
    assert "raise --tolerance, or name --gates" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_maps_beside_gates_that_are_told_apart_on_larger_images(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At 8 pixels the last stage has maps of 1×1, and only a larger image tells what gates them."""
    run = make_run(tmp_path / "run", digits, plain("cbam", "stage"), "", size=8)
    given = ["fold", run, "--out", tmp_path / "folded", "--gates", "layer1.attention.spatial"]
    line = refused(capsys, *given)
    assert "layer1.attention.spatial is a stored map of 8×8" in line
    assert "take --spatial number" in line
    assert not (tmp_path / "folded").exists()
    assert main([*map(str, given), "--spatial", "number"]) == 0
    assert "1 of 8 gates are static: 1 stored constants" in capsys.readouterr().out


def test_what_the_command_refuses(
    se_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = tmp_path / "none"
    none.mkdir()
    save_model(plain("none"), none)
    for arguments, message in [
        (
            [se_run, "--gates", "layer9"],
            "there is no gate 'layer9'; there are layer1.0.attention.c",
        ),
        ([se_run, "--tolerance", "-1"], "tolerance -1.0 must lie between 0 and 100"),
        ([se_run, "--tolerance", "nan"], "tolerance nan must lie between 0 and 100"),
        ([se_run, "--tolerance", "1", "--gates", LAST], "give one of them"),
        ([se_run, "--batch-size", "0"], "batch size is 0"),
        ([se_run, "--device", "tpu9"], "device 'tpu9' is not known"),
        ([none], "has no gates; there is nothing to fold"),
        ([tmp_path / "gone"], "does not exist; make it with attnscope train"),
    ]:
        out = tmp_path / "folded"
        assert message in refused(capsys, "fold", *map(str, arguments), "--out", out)
        assert not out.exists()
    assert "exists already" in refused(capsys, "fold", se_run, "--out", none)
    with pytest.raises(InputError, match="spatial form 'maps' is not known; take map or number"):
        fold_run(se_run, tmp_path / "folded", spatial="maps")


def test_right_images_are_those_that_are_right() -> None:
    model, images = network("resnet18", "se", "stage"), toy_images(11)
    with torch.no_grad():
        wanted = model(images.images / 255).argmax(1)
    images = LabelledImages(images.images, wanted.clone(), images.paths, images.classes)
    images.labels[3] = (images.labels[3] + 1) % 10
    found = right_images(model, images, UNIT, batch_size=4)
    assert found.tolist() == [i != 3 for i in range(11)]
