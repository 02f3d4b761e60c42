"""Folds of runs, by the command and from Python."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from attnscope.commands.main import main
from attnscope.data.load import load_data
from attnscope.folding import run as run_module
from attnscope.folding.run import fold, fold_run
from attnscope.folding.search import first_half
from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import edit_gates
from attnscope.networks.weights import load_model, save_model
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from attnscope.statistics.noninferiority import (
    fewest_images,
    paired_loss_at_most,
    paired_loss_p,
)
from tests.folding.runs import make_run, untrained, write_digits
from tests.making import refused, refused_command


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


LAST = "layer4.1.attention.channel"


def hooked_mean(run: Path, images: Tensor, gate: str) -> Tensor:
    """The mean output of a gate's module, by a forward hook."""
    model, seen = load_model(run), []
    handle = model.get_submodule(gate).register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0].double().mean(0)


@pytest.fixture(scope="module")
def se_run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "se", digits, untrained("se"), LAST)


@pytest.mark.parametrize("difference", [1.0, math.nan])
def test_a_fold_with_other_logits_is_refused(
    se_run: Path, tmp_path: Path, difference: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "_logit_difference", lambda *arguments: difference)
    with refused("AS860", names=("logits",)):
        fold(se_run, tmp_path / "out", gates="all", device="cpu", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_fold_keeps_the_only_gate_that_matters(
    se_run: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "folded"
    options = ("--device", "cpu", "--tolerance", "12")
    assert main(["fold", str(se_run), "--out", str(out), *options]) == 0
    printed = capsys.readouterr().out
    assert "7 of 8" in printed
    assert f"Next: attnscope capture {out}" in printed
    report = json.loads((out / "fold.json").read_text())
    assert report["dynamic"] == [LAST]
    assert set(report["folded"].values()) == {"norm"}
    chosen = report["chosen"]
    trials = chosen["choice"]["trials"]
    assert [trial["kept"] for trial in trials] == [True] * 7 + [False]
    assert trials[-1]["alone"] > 10
    assert chosen["tolerance"] == 12
    assert chosen["stability"]["halves"] >= 1
    assert chosen["stability"]["shares"][LAST] == 0
    assert chosen["stability"]["jaccard"] == 1
    # The other gates are one half for every image, so that no prediction changes.
    assert [trial["joint"] for trial in trials[:-1]] == [0] * 7
    assert report["validation"]["images"] == 30
    assert report["validation"]["agreement"] == 1
    assert report["validation"]["at_most"] == pytest.approx(100 * paired_loss_at_most(0, 0, 30))
    assert report["logit_difference"] < 1e-4
    assert len(report["speed"]) == 5
    # Compute accuracies, parameters and the remaining gate in other ways.
    before, after = load_model(se_run), load_model(out)
    data = load_data(f"folder:{digits}", image_size=16)
    for which, model in (("before", before), ("after", after)):
        for split in ("validation", "test"):
            images = getattr(data, split)
            with torch.no_grad():
                guess = model(data.normalization.apply(images.images)).argmax(1)
            right = (guess == images.labels).double()
            if split == "validation":  # the half that tested the gates
                right = right[torch.from_numpy(~first_half(images.labels.numpy(), 0))]
            assert report[split][which] == pytest.approx(
                right.mean().item(), abs=0.04
            )  # a close prediction may flip
    assert report["test"]["before"] > 0.5
    # Means are over the training split. The first half orders, and the second half tests.
    mean = hooked_mean(se_run, data.normalization.apply(data.train.images), LAST).float()
    x, labels = data.normalization.apply(data.validation.images), data.validation.labels
    half = torch.from_numpy(first_half(labels.numpy(), 0))
    with torch.no_grad():
        right = before(x).argmax(1).eq(labels).int()
        with edit_gates(before, {LAST: lambda g, f: mean}):
            edited = before(x).argmax(1).eq(labels).int()
    for key, rows in (("alone", half), ("joint", ~half)):
        lost = (right - edited)[rows].sum().item()
        assert trials[-1][key] == pytest.approx(100 * lost / 30, abs=4)
    assert trials[-1]["p"] > 0.05
    sizes = [sum(p.numel() for p in model.parameters()) for model in (before, after)]
    assert report["parameters"] == sizes
    attention = sum(p.numel() for n, p in before.named_parameters() if "attention" in n)
    last = sum(p.numel() for n, p in before.named_parameters() if n.startswith(LAST))
    assert sizes[0] - sizes[1] == attention - last
    assert report["stored_values"] == 0
    config = json.loads((out / "config.json").read_text())
    assert config.pop("folded_from")["run"] == str(se_run)
    assert config.pop("places")["data"]["absolute"] == str(digits)
    assert config == json.loads((se_run / "config.json").read_text())
    assert json.loads((out / "result.json").read_text())["weights"] == "folded"
    assert main(["capture", str(out)]) == 0
    recording = Recording(out)
    assert [gate.name for gate in recording.gates] == [LAST]
    assert recording.right.mean() == pytest.approx(report["test"]["after"], abs=0.02)
    assert main(["inspect", str(out)]) == 0
    assert LAST in capsys.readouterr().out
    refused_command(capsys, "AS851", "fold", out, "--out", tmp_path / "again", names=(out,))


def test_named_gates_are_folded_for_any_loss(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", digits, untrained("cbam"), "")
    names = [gate.name for gate in find_gates(load_model(run), torch.rand(2, 3, 16, 16))]
    out = tmp_path / "folded"
    assert main(["fold", str(run), "--out", str(out), "--gates", *names, "--device", "cpu"]) == 0
    assert "16 of 16" in capsys.readouterr().out
    report = json.loads((out / "fold.json").read_text())
    assert report["chosen"] is None
    assert report["validation"]["images"] == 60
    assert Counter(report["folded"].values()) == {"norm": 8, "map": 8}
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
    # A network without gates can be captured, verified, inspected and summarized.
    assert main(["capture", str(out)]) == 0
    recording = Recording(out)
    assert (len(recording), recording.gates) == (80, [])
    assert main(["verify", str(out)]) == 0
    assert main(["inspect", str(out)]) == 0
    assert main(["summary", str(out)]) == 0
    capsys.readouterr()
    assert main(["inspect", str(out), "--image-size", "24"]) == 2
    line = capsys.readouterr().err
    assert "layer1.0.attention.spatial" in line
    assert "16×16" in line


def test_a_fold_that_chooses_no_gate_is_refused_and_writes_nothing(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", digits, untrained("se", "stage"), "layer")
    given = ["fold", run, "--out", tmp_path / "folded", "--tolerance", "10"]
    refused_command(capsys, "AS859", *given, names=(run, 10, 30, "--tolerance", "--gates"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_too_few_images_are_refused_with_a_tolerance_that_is_possible(
    se_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("fold", se_run, "--out", tmp_path / "out", "--device", "cpu")
    needed = 2 * fewest_images(0.01)
    # 0.884^30 is 0.0247, half of the level.
    refused_command(capsys, "AS864", *given, names=(60, needed, "--tolerance 11.6", "--gates"))
    assert paired_loss_p(0, 0, 30, 0.116) <= 0.05


def test_stored_maps_beside_gates_with_1x1_maps_are_refused(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At 8 pixels, maps of the last stage are 1×1, and its gates are found only on larger images."""
    run = make_run(tmp_path / "run", digits, untrained("cbam", "stage"), "", size=8)
    given = ["fold", run, "--out", tmp_path / "folded", "--gates", "layer1.attention.spatial"]
    names = ("layer1.attention.spatial", "8×8", "--spatial number")
    refused_command(capsys, "AS861", *given, names=names)
    assert not (tmp_path / "folded").exists()
    assert main([*map(str, given), "--spatial", "number"]) == 0
    report = json.loads((tmp_path / "folded" / "fold.json").read_text())
    assert report["folded"] == {"layer1.attention.spatial": "constant"}
    assert len(report["dynamic"]) == 7


def test_fold_refuses_wrong_arguments_and_writes_nothing(
    se_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = tmp_path / "none"
    none.mkdir()
    save_model(untrained("none"), none)
    out = tmp_path / "folded"
    for code, names, arguments in [
        ("AS852", ("layer9", "layer1.0.attention.channel"), (se_run, "--gates", "layer9")),
        ("AS856", ("-1.0",), (se_run, "--tolerance", "-1")),
        ("AS856", ("0.0",), (se_run, "--tolerance", "0")),
        ("AS856", ("nan",), (se_run, "--tolerance", "nan")),
        ("AS855", ("--tolerance", "--gates"), (se_run, "--tolerance", "1", "--gates", LAST)),
        ("AS802", (0,), (se_run, "--batch-size", "0")),
        ("AS858", (none,), (none,)),
    ]:
        refused_command(capsys, code, "fold", *arguments, "--out", out, names=names)
        assert not out.exists()
    for arguments, name in [
        ((se_run, "--device", "tpu9"), "tpu9"),
        ((tmp_path / "gone",), tmp_path / "gone"),
    ]:
        assert main(["fold", *map(str, arguments), "--out", str(out)]) == 2
        assert str(name) in capsys.readouterr().err
        assert not out.exists()
    assert main(["fold", str(se_run), "--out", str(none)]) == 2
    assert str(none) in capsys.readouterr().err
    with refused("AS857", names=("maps", "map", "number")):
        fold(se_run, out, spatial="maps")
    with pytest.raises(TypeError, match="int"):
        fold(3, out)  # type: ignore[arg-type]


def test_fold_gives_the_same_network_for_a_path_a_run_and_a_recording(
    se_run: Path, tmp_path: Path
) -> None:
    options = {"gates": ["layer1.0.attention.channel"], "device": "cpu", "progress": False}
    assert main(["capture", str(se_run)]) == 0
    targets = [str(se_run), Run(se_run), Recording(se_run), Run(se_run).recording_folder("test")]
    for number, target in enumerate(targets):
        report = fold(target, tmp_path / str(number), **options)
        assert report.folded == {"layer1.0.attention.channel": "norm"}
        assert len(report.dynamic) == 7
    first, *others = [load_file(tmp_path / str(n) / "model.safetensors") for n in range(4)]
    for state in others:
        assert all(torch.equal(state[name], value) for name, value in first.items())
    with pytest.warns(DeprecationWarning, match="fold"):
        report = fold_run(se_run, tmp_path / "old", gates=options["gates"], progress=False)
    state = load_file(tmp_path / "old" / "model.safetensors")
    assert all(torch.equal(state[name], value) for name, value in first.items())
    assert report.device == "cpu"
