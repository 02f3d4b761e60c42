"""Folding the network of a recording that attnscope did not build."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attnscope import edit_gates, find_gates, fold, intervene
from attnscope.capturing.run import capture_source
from attnscope.capturing.settings import CaptureSettings
from attnscope.commands.main import main
from attnscope.comparison import Comparison
from attnscope.data.load import DataSettings
from attnscope.files import read_json
from attnscope.folding import FoldReport, GraphFoldReport
from attnscope.folding.search import first_half
from attnscope.gates import GraphNetwork, as_factor
from attnscope.networks.known import NetworkSource
from attnscope.networks.targets import load_target
from attnscope.recording.recording import Recording
from attnscope.sources import Source
from tests.folding.runs import make_run, untrained, write_digits
from tests.making import refused, refused_command


class Net(nn.Module):
    """A channel gate and a spatial gate, in modules of no library."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.squeeze, self.where = nn.Linear(8, 8), nn.Conv2d(8, 1, 3, padding=1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        x = x * self.squeeze(x.mean((2, 3))).sigmoid()[:, :, None, None]
        x = x * self.where(x).sigmoid()
        return self.head(x.mean((2, 3)))


def net() -> nn.Module:
    torch.manual_seed(SEED[0])
    model = Net()
    nn.init.normal_(model.norm.bias)
    return model


SEED = [0]
CHANNEL, SPATIAL = "sigmoid", "sigmoid#2"
TARGET = "tests.folding.test_graph_run:net"
DATA = DataSettings("digits", Path("data"), 8)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    source = Source(NetworkSource(TARGET, image_size=8), DATA)
    folder = tmp_path_factory.mktemp("graph") / "recording"
    capture_source(source, folder, CaptureSettings(), progress=False)
    return Recording(folder)


@pytest.fixture(scope="module")
def folded(
    recording: Recording, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, GraphFoldReport]:
    out = tmp_path_factory.mktemp("folded") / "all"
    report = fold(recording, out, gates=["all"], device="cpu")
    assert isinstance(report, GraphFoldReport)
    return out, report


def means(recording: Recording) -> dict[str, Tensor]:
    """The means over the training images, by a plain forward."""
    model = recording.network()
    source = recording.source()
    images = source.open_data().train.images
    x = source.network.normalization.apply(images)
    with torch.no_grad():
        y = model.norm(model.conv(x))
        channel = model.squeeze(y.mean((2, 3))).sigmoid()
        spatial = model.where(y * channel[:, :, None, None]).sigmoid()
    return {CHANNEL: channel.mean(0), SPATIAL: spatial[:, 0].mean(0)}


def test_a_folded_network_is_that_with_gates_edited_to_their_means(
    recording: Recording, folded: tuple[Path, GraphFoldReport]
) -> None:
    out, report = folded
    assert report.folded == {CHANNEL: "before", SPATIAL: "stored"}
    assert (report.dynamic, report.constants, report.split) == ([], "train", "test")
    constants = means(recording)
    stored = load_file(out / "folded.safetensors")
    assert set(stored) == {
        *(f"constant/{name}" for name in constants),
        *("weight/norm.weight", "weight/norm.bias"),
    }
    for name, value in constants.items():
        torch.testing.assert_close(stored[f"constant/{name}"], value, rtol=1e-5, atol=1e-6)
    model = recording.network()
    x = torch.randn(5, 3, 8, 8)
    target = load_target(f"folded:{out}")
    assert isinstance(target.model, GraphNetwork)
    assert target.image_size == 8
    expected = edited(model, constants, x)
    with torch.no_grad():
        torch.testing.assert_close(target.model(x), expected, rtol=1e-5, atol=1e-5)
        assert float((model(x) - expected).abs().max()) > 1e-3
    before = sum(p.numel() for p in model.parameters())
    after = sum(p.numel() for p in target.model.parameters())
    removed = 8 * 8 + 8 + 8 * 9 + 1  # of the squeeze and of the spatial gate
    assert report.parameters == (before, after) == (before, before - removed)
    assert report.stored_values == 64
    assert report.multiply_adds[0] - report.multiply_adds[1] == 8 * 8 + 8 * 9 * 64
    assert report.logit_difference < 1e-5


def test_accuracies_are_those_of_the_network_and_of_the_folded_one(
    recording: Recording, folded: tuple[Path, GraphFoldReport]
) -> None:
    out, report = folded
    assert report.accuracy is not None
    assert report.accuracy.before == pytest.approx(float(recording.right.mean()))
    model = load_target(f"folded:{out}").model
    source = recording.source()
    x = source.network.normalization.apply(recording.images().images)
    with torch.no_grad():
        right = model(x).argmax(1).numpy() == recording.labels
    assert report.accuracy.after == pytest.approx(float(right.mean()))


def test_a_folded_network_is_captured_with_the_gates_that_are_left(
    recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, captured = tmp_path / "folded", tmp_path / "captured"
    assert main(["fold", str(recording.folder), "--out", str(out), "--gates", CHANNEL]) == 0
    *_, next_command = capsys.readouterr().out.splitlines()
    *arguments, _ = next_command.removeprefix("Next: attnscope ").split()
    assert f"folded:{out}" in arguments
    assert main([*arguments, str(captured)]) == 0
    found = Recording(captured)
    assert [(gate.name, gate.kind) for gate in found.gates] == [(SPATIAL, "spatial")]
    model = found.network()
    assert isinstance(model, GraphNetwork)
    x = found.source().network.normalization.apply(found.images().images)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found.logits), model(x), rtol=1e-4, atol=1e-5)
    assert_replaced(recording, found, out, tmp_path / "outcomes")
    assert len(Comparison(recording, found).accuracy) == 11
    assert_folded_again(recording, found, out, tmp_path / "again")


def assert_replaced(recording: Recording, captured: Recording, first: Path, out: Path) -> None:
    """Mean ablation of the gate that is left gives the logits of the network with both edited."""
    outcomes = intervene(
        captured, experiments=["replace"], edits=["mean"], images=20, out=out, progress=False
    )
    table = outcomes.replacement
    chosen = ((table["edit"] == "mean") & (table["target"] == SPATIAL)).to_numpy()
    rows = table["row"].to_numpy()[chosen]
    others = np.setdiff1d(np.arange(len(captured)), table["row"])
    constants = {
        CHANNEL: load_file(first / "folded.safetensors")[f"constant/{CHANNEL}"],
        SPATIAL: torch.from_numpy(captured.gate(SPATIAL)[others].mean(0)),
    }
    x = captured.source().network.normalization.apply(captured.images().images[rows])
    expected = edited(recording.network(), constants, x)
    found = torch.from_numpy(outcomes.logits[chosen])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, torch.from_numpy(captured.logits[rows]), rtol=0, atol=1e-4)


def edited(model: nn.Module, constants: dict[str, Tensor], x: Tensor) -> Tensor:
    """The logits of the network with gates edited to constants."""
    gates = find_gates(model, x)
    edits = {
        gate.name: lambda values, features, gate=gate: as_factor(constants[gate.name][None], gate)
        for gate in gates
    }
    with torch.no_grad(), edit_gates(model, edits, gates):
        return model(x)


def assert_folded_again(
    recording: Recording, captured: Recording, first: Path, second: Path
) -> None:
    """A folded network is folded like any other: it keeps its modules, and constants add up."""
    report = fold(captured, second, gates=[SPATIAL], device="cpu", progress=False)
    assert report.folded == {SPATIAL: "stored"}
    model = load_target(f"folded:{second}").model
    constants = {
        name.removeprefix("constant/"): value
        for folder in (first, second)
        for name, value in load_file(folder / "folded.safetensors").items()
        if name.startswith("constant/")
    }
    assert set(constants) == {CHANNEL, SPATIAL}
    x = torch.randn(5, 3, 8, 8)
    expected = edited(recording.network(), constants, x)
    maps = []
    with model.norm.register_forward_hook(lambda module, args, output: maps.append(output.shape)):
        with torch.no_grad():
            torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
    assert maps == [(5, 8, 8, 8)]


def test_all_stands_for_all_gates_of_a_run_of_ours(tmp_path: Path) -> None:
    digits = write_digits(tmp_path / "digits")
    run = make_run(tmp_path / "run", digits, untrained("se", "stage"), "")
    report = fold(run, tmp_path / "out", gates="all", device="cpu", progress=False)
    assert isinstance(report, FoldReport)
    assert report.dynamic == []


def right_of(model: nn.Module, x: Tensor, labels: Tensor) -> NDArray[np.bool_]:
    with torch.no_grad():
        return (model(x).argmax(1) == labels).numpy()


def test_gates_are_chosen_on_the_validation_split(recording: Recording, tmp_path: Path) -> None:
    report = fold(recording, tmp_path / "out", tolerance=30, device="cpu", progress=False)
    assert isinstance(report, GraphFoldReport)
    chosen = report.chosen
    assert chosen is not None
    assert (chosen.split, chosen.tolerance, report.left_out) == ("validation", 30, {})
    assert set(report.folded) == set(chosen.choice.kept)
    assert len(chosen.choice.kept) >= 1
    # The test split is for information, and the constants are means over the training split.
    assert (report.split, report.constants) == ("test", "train")
    assert report.accuracy is not None
    assert report.accuracy.before == pytest.approx(float(recording.right.mean()))
    data = recording.source().open_data()
    x, labels = data.normalization.apply(data.validation.images), data.validation.labels
    half = first_half(labels.numpy(), 0)
    assert (chosen.choice.ordering, chosen.choice.testing) == (half.sum(), (~half).sum())
    # The loss of the first set on the second half, by a plain edit.
    model, first = recording.network(), chosen.choice.trials[0]
    mean = means(recording)[first.gate]
    gates = {gate.name: gate for gate in find_gates(model, x[:4])}
    edit = {first.gate: lambda values, features: as_factor(mean[None], gates[first.gate])}
    before = right_of(model, x, labels)
    with edit_gates(model, edit):
        after = right_of(model, x, labels)
    for value, rows in ((first.alone, half), (first.joint, ~half)):
        assert value == pytest.approx(100 * (before[rows].mean() - after[rows].mean()), abs=1.5)
    assert report.validation is not None
    assert report.validation.before == pytest.approx(before[~half].mean(), abs=0.02)
    target = load_target(f"folded:{tmp_path / 'out'}").model
    assert report.validation.after == pytest.approx(
        right_of(target, x, labels)[~half].mean(), abs=0.02
    )
    text = str(report)
    assert "validation, second half" in text
    assert all(name in text for name in (CHANNEL, SPATIAL))
    assert CHANNEL in report._repr_html_()


def one_split() -> TensorDataset:
    """A data set of one split: 400 images whose label the network finds by its first class."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(400, 3, 8, 8, generator=rng)
    return TensorDataset(x, torch.arange(400) % 10)


def without_validation() -> dict[str, TensorDataset]:
    return {"train": one_split(), "test": one_split()}


def captured(data: str, folder: Path, split: str = "test") -> Recording:
    settings = DataSettings(f"tests.folding.test_graph_run:{data}")
    source = Source(NetworkSource(TARGET, image_size=8), settings, split)
    capture_source(source, folder, CaptureSettings(), progress=False)
    return Recording(folder)


def test_a_data_set_of_one_split_gives_the_constants_by_the_half_that_orders(
    tmp_path: Path,
) -> None:
    recording = captured("one_split", tmp_path / "recording")
    report = fold(recording, tmp_path / "out", tolerance=50, device="cpu", progress=False)
    assert isinstance(report, GraphFoldReport)
    assert report.chosen is not None
    assert report.chosen.split == "test"
    assert (report.accuracy, report.constant_images) == (None, 200)
    x, labels = one_split().tensors
    half = torch.from_numpy(first_half(labels.numpy(), 0))
    model = recording.network()
    with torch.no_grad():
        y = model.norm(model.conv(x[half]))
        wanted = model.squeeze(y.mean((2, 3))).sigmoid().mean(0)
    stored = load_file(tmp_path / "out" / "folded.safetensors")
    torch.testing.assert_close(stored[f"constant/{CHANNEL}"], wanted, rtol=1e-4, atol=1e-5)


def test_gates_are_not_chosen_on_training_images(tmp_path: Path) -> None:
    recording = captured("without_validation", tmp_path / "recording", "train")
    with refused("AS865", names=(recording.folder, "--gates", "without_validation")):
        fold(recording, tmp_path / "out", tolerance=50, progress=False)
    recording = captured("without_validation", tmp_path / "test")
    report = fold(recording, tmp_path / "out", tolerance=50, device="cpu", progress=False)
    assert isinstance(report, GraphFoldReport)
    assert report.chosen is not None
    assert (report.chosen.split, report.constants, report.constant_images) == ("test", "train", 400)


def test_a_choice_is_refused_without_enough_images_or_accuracy(
    recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with refused("AS864", names=(recording.folder, 143, 598, "--tolerance 5")):
        fold(recording, out)
    with refused("AS852", names=("other", CHANNEL)):
        fold(recording, out, gates=["other"])
    arguments = ("fold", recording.folder, "--out", out, "--gates", "all")
    refused_command(capsys, "AS850", *arguments, "--spatial", "number", names=("--spatial",))
    source = Source(NetworkSource(TARGET, image_size=8), DATA)
    capture_source(source, tmp_path / "no-scores", CaptureSettings(output="none"), progress=False)
    unscored = Recording(tmp_path / "no-scores")
    with refused("AS862", names=(unscored.folder, "--gates all")):
        fold(unscored, out)
    assert not out.exists()


def test_damaged_files_are_refused(folded: tuple[Path, GraphFoldReport], tmp_path: Path) -> None:
    for name in ("fold.json", "folded.safetensors"):
        (tmp_path / name).write_bytes((folded[0] / name).read_bytes())
    target = f"folded:{tmp_path}"
    assert isinstance(load_target(target).model, GraphNetwork)
    values = load_file(tmp_path / "folded.safetensors")
    save_file({name: value + 1 for name, value in values.items()}, tmp_path / "folded.safetensors")
    with refused("AS343", names=(tmp_path,)):
        load_target(target)
    settings = read_json(tmp_path / "fold.json")
    del settings["source"]["network"]
    (tmp_path / "fold.json").write_text(json.dumps(settings))
    with refused("AS341", names=(tmp_path,)):
        load_target(target)
    (tmp_path / "folded.safetensors").unlink()
    with refused("AS340", names=(tmp_path,)):
        load_target(target)


def test_a_network_with_other_weights_is_refused(
    recording: Recording, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A map is stored, so that no weight that was changed by the fold tells the difference.
    report = fold(recording, tmp_path / "out", gates=[SPATIAL], device="cpu")
    assert isinstance(report, GraphFoldReport)
    assert report.folded == {SPATIAL: "stored"}
    monkeypatch.setitem(globals(), "SEED", [1])
    with refused("AS373", names=(TARGET, tmp_path / "out")):
        load_target(f"folded:{tmp_path / 'out'}")


def test_a_report_can_be_read(folded: tuple[Path, GraphFoldReport]) -> None:
    _, report = folded
    assert CHANNEL in str(report)
    assert "2 of 2" in repr(report)
    assert f'<td style="text-align: left">{CHANNEL}</td>' in report._repr_html_()
