"""Runs and recordings of earlier versions open, and give the same values."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from attnscope import (
    Moments,
    Recording,
    capture,
    capture_run,
    intervene,
    load_model,
    statistics,
)
from attnscope.commands.main import main
from attnscope.files import read_json
from attnscope.interventions import (
    InterventionSetup,
    ablate_channels,
    erase,
    randomize_gates,
)
from attnscope.recording.outcomes import outcomes_folder, read_outcomes
from attnscope.recording.recording import RecordingWriter
from tests.interventions.test_ablation import Weighted
from tests.interventions.toy import toy_images
from tests.making import refused
from tests.recording.making import CLASSES, GATES, make_arrays, make_rows

ARCHIVE = Path(__file__).parent / "v0.1.tar.xz"
OUTCOMES = Path(__file__).parent / "outcomes.tar.xz"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("v0.1")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def unpack_outcomes(folder: Path) -> Path:
    with tarfile.open(OUTCOMES) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def expected(unpacked: Path) -> dict[str, Any]:
    return json.loads((unpacked / "expected.json").read_text())


def test_recording_of_0_1_has_its_gates_arrays_and_id(
    unpacked: Path, expected: dict[str, Any]
) -> None:
    recording = Recording(unpacked / "run")
    assert [[g.name, g.kind, g.channels, g.axes] for g in recording.gates] == expected["gates"]
    assert recording.id == expected["id"]
    assert recording.right.mean() == expected["accuracy"]
    for name, mean in expected["mean_of_gates"].items():
        assert recording.gate(name).mean(dtype=np.float64) == pytest.approx(mean, rel=1e-12)
    for name, mean in expected["mean_of_pooled_inputs"].items():
        assert recording.pooled_input(name).mean(dtype=np.float64) == pytest.approx(mean, rel=1e-12)
    assert recording.logits[0].tolist() == expected["logits_of_first_image"]
    assert recording.grad_cam().mean(dtype=np.float64) == pytest.approx(expected["grad_cam_mean"])
    assert recording.verify() == []


def test_statistics_of_recordings_of_0_1_are_unchanged(
    unpacked: Path, expected: dict[str, Any]
) -> None:
    state = statistics.gate_state(Recording(unpacked / "run")).round(12).to_dict("list")
    assert state == expected["gate_state"]
    moments = Moments(unpacked / "run")
    assert moments.id == expected["moments_id"]
    assert moments.verify() == []
    means = statistics.gate_profiles(moments)["mean"]
    np.testing.assert_allclose(means, expected["gate_profiles_of_moments"], rtol=1e-12)


def test_network_of_0_1_gives_the_same_gates(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(unpacked)
    assert not load_model(Path("run")).training
    out = ["--out", "again", "--batch-size", "5", "--device", "cpu"]
    assert main(["capture", "run", *out]) == 0
    before, after = Recording("run"), Recording("again")
    for gate in before.gates:
        np.testing.assert_allclose(
            after.gate(gate.name), before.gate(gate.name), rtol=0, atol=1e-5, err_msg=gate.name
        )
    np.testing.assert_allclose(after.logits, before.logits, rtol=0, atol=1e-3)
    assert after.rows["path"].tolist() == before.rows["path"].tolist()


def test_commands_accept_a_run_of_0_1(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(unpacked)
    gate = "layer1.0.attention.channel"
    before = read_outcomes(outcomes_folder(Recording("run").folder))
    assert before.replacement is None, "it has margins in the place of log losses"
    assert before.experiments == ["decode"]
    assert set(before.tables) == {"decoding"}
    experiments = ["--experiments", "decode", "replace", "ablate"]
    assert main(["intervene", "run", "--images", "6", *experiments]) == 0
    assert main(["fold", "run", "--gates", gate, "--out", "folded"]) == 0
    assert json.loads(Path("folded/fold.json").read_text())["folded"] == {gate: "norm"}
    assert main(["figures", "run"]) == 0
    assert main(["report", "run", "--out", "report.html"]) == 0
    names = {file.name for file in Path("run/figures").iterdir()}
    assert {"decodable_and_used.png", "attention_grid.pdf", "training_curves.png"} <= names


def test_interventions_give_the_outcomes_of_the_version_before_donors_were_stored(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the run of 0.1: the same images, donors and edits, and the same network."""
    monkeypatch.chdir(unpacked)
    earlier = unpack_outcomes(tmp_path / "earlier")
    expected = pd.read_parquet(earlier / "replacement.parquet")
    edits = ["mean", "predicted", "swap_same", "swap_other"]
    found = intervene(
        unpacked / "run",
        experiments=["replace"],
        edits=edits,
        images=6,
        batch_size=6,
        device="cpu",
        out=tmp_path / "out",
        progress=False,
    )
    assert found.replacement is not None
    keys = {"target": str, "edit": str}
    both = (
        expected[expected["edit"].isin(["own", *edits])]
        .astype(keys)
        .merge(found.replacement.astype(keys), on=[*keys, "row"], suffixes=("", "_now"))
    )
    assert len(both) == len(found.replacement) == 6 * (25 * 4 + 1)
    assert found.logits is not None
    now = margins(found.logits, found.replacement["label"].to_numpy())
    order = found.replacement.astype(keys).assign(margin_now=now)[[*keys, "row", "margin_now"]]
    both = both.merge(order, on=[*keys, "row"])
    np.testing.assert_allclose(both["margin_now"], both["margin"], rtol=0, atol=1e-5)
    assert (both["prediction_now"] == both["prediction"]).all()
    assert (both["label_now"] == both["label"]).all()
    effects = pd.read_csv(earlier / "effects.csv").merge(
        found.tables["effects"], on=[*keys], suffixes=("", "_now")
    )
    assert len(effects) == 25 * 4
    for column in ("change", "flips", "lost"):
        np.testing.assert_allclose(effects[f"{column}_now"], effects[column], rtol=0, atol=1e-5)
    # The intervals of swaps now include the dependence of images that share a donor.
    constant = effects[effects["edit"].isin(("mean", "predicted"))]
    for column in ("low", "high"):
        np.testing.assert_allclose(constant[f"{column}_now"], constant[column], rtol=0, atol=1e-5)


def margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the logit of the true class minus the largest other one, as earlier versions did."""
    is_true = np.eye(logits.shape[1], dtype=bool)[labels]
    return logits[is_true] - np.where(is_true, -np.inf, logits).max(1)


def ablate_with_margins(
    setup: InterventionSetup, patch: pytest.MonkeyPatch, **options: Any
) -> pd.DataFrame:
    """Ablate channels, with the measure of earlier versions in the place of the log loss."""
    measure = "attnscope.interventions.ablation.calibrated_log_losses"
    patch.setattr(measure, lambda logits, labels: -margins(logits.astype(float), labels))
    found = ablate_channels(setup, **options)
    for end, opposite in (("change", "change"), ("low", "high"), ("high", "low")):
        found[f"margin_{end}"] = -found[f"log_loss_{opposite}"]
    null = -found[["null", "null_high", "null_low"]]
    return found.assign(
        **dict(zip(["null", "null_low", "null_high"], null.T.to_numpy(), strict=True))
    )


def test_experiments_give_the_tables_of_the_version_before_they_could_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all random draws, on the toy network of the tests."""
    earlier = unpack_outcomes(tmp_path / "earlier")
    model, images = Weighted().eval(), toy_images(60)
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    setup = InterventionSetup(model, images, recording, batch_size=7)
    some = {"images": 20, "progress": False}
    erased = erase(setup, steps=4, **some)
    found = {
        "ablation": ablate_with_margins(
            setup, monkeypatch, shares=(1 / 12, 0.5), draws=50, exceedances=None, **some
        ),
        "erasing_areas": erased.areas,
        "erasing_curves": erased.curves,
        "randomization": randomize_gates(setup, **some),
    }
    for name, table in found.items():
        expected = pd.read_csv(earlier / f"toy-{name}.csv")
        pd.testing.assert_frame_equal(
            table[expected.columns], expected, check_dtype=False, rtol=0, atol=1e-5
        )


def test_equal_gates_are_ordered_at_random_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gates are 0 or 1, so that which of them are the highest is drawn for each batch."""
    earlier = unpack_outcomes(tmp_path / "earlier")
    model, images = Weighted().eval(), toy_images(60)
    with torch.no_grad():
        model.gate[0].weight.mul_(1000)
        model.gate[0].bias.copy_(-0.4 * model.gate[0].weight.sum(1))
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    setup = InterventionSetup(model, images, recording, batch_size=7)
    some = {"shares": (1 / 12, 0.5), "draws": 10, "images": 20, "progress": False}
    found = ablate_with_margins(setup, monkeypatch, exceedances=None, **some)
    expected = pd.read_csv(earlier / "toy-ties.csv")
    pd.testing.assert_frame_equal(
        found[expected.columns], expected, check_dtype=False, rtol=0, atol=1e-5
    )


def test_split_of_0_1_is_read(unpacked: Path) -> None:
    """Version 0.1 stored it under another key."""
    for captured in (Recording(unpacked / "run"), Moments(unpacked / "run")):
        manifest = json.loads((captured.folder / "manifest.json").read_text())
        assert manifest["about"]["part"] == "test"
        assert "split" not in manifest["about"]
        assert captured.split == captured.about["split"] == "test"
        assert "part" not in captured.about
    outcomes = read_outcomes(unpacked / "run" / "interventions" / "test")
    assert outcomes.about["split"] == "test"


def test_recordings_of_0_1_and_of_this_version_are_of_one_kind(
    unpacked: Path, tmp_path: Path
) -> None:
    """Seeds are grouped by network, data, split and settings, under the keys of either version."""
    shutil.copytree(unpacked / "run", tmp_path / "other" / "run")
    file = tmp_path / "other" / "run" / "recordings" / "test" / "manifest.json"
    manifest = read_json(file)
    about = manifest["about"]
    about |= {"split": about.pop("part"), "seed": about["seed"] + 1}
    file.write_text(json.dumps(manifest))
    old, new = Recording(unpacked / "run"), Recording(tmp_path / "other" / "run")
    (kind,) = statistics.group_by_kind([new, old]).values()
    assert [recording.folder for recording in kind] == [old.folder, new.folder]
    about["split"] = "validation"
    file.write_text(json.dumps(manifest))
    file.write_text(json.dumps({**manifest, "about": {**about, "name": "other"}}))
    assert len(statistics.group_by_kind([Recording(new.folder), old])) == 2


def test_new_recordings_store_the_split(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(unpacked)
    recording = capture_run(Path("run"), out=tmp_path / "new", progress=False)
    manifest = json.loads((recording.folder / "manifest.json").read_text())
    assert manifest["about"]["split"] == recording.split == "test"
    assert "part" not in manifest["about"]
    assert recording.verify() == []


def test_unfinished_recording_of_0_1_is_refused_with_its_version(tmp_path: Path) -> None:
    """Its plan, and so its id, differs in the key of the split."""

    def stop(part: str) -> None:
        with RecordingWriter(
            tmp_path / "r",
            gates=GATES,
            classes=CLASSES,
            grad_cam_layers=["layer1"],
            about={"name": "toy", part: "test"},
        ) as writer:
            writer.add_shard(arrays, rows)
            raise RuntimeError

    arrays = make_arrays()
    rows = make_rows(arrays)
    with pytest.raises(RuntimeError):
        stop("part")
    with refused("AS653", names=(tmp_path / ".r.partial", "(attnscope 0.1)")):
        stop("split")
