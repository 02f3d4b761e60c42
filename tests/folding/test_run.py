"""A run that is folded by the command."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from attnscope.commands.main import main
from attnscope.data.load import load_data
from attnscope.errors import InputError
from attnscope.folding.run import fold_run
from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import edit_gates
from attnscope.networks.build import build_model
from attnscope.networks.weights import load_model, save_model
from attnscope.recording.recording import Recording


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
    # The means are of the training split, and the validation split chooses.
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
