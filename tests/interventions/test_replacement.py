"""Replaced gates, in networks whose outcomes are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attnscope import Recording, capture, edit_gates
from attnscope.interventions import (
    REPLACEMENTS,
    InterventionSetup,
    replace_gates,
    run_experiments,
)
from attnscope.plots import plots_of
from attnscope.plots.subjects import Intervened
from attnscope.plots.usage import usage_of
from attnscope.recording.outcomes import find_outcomes, read_outcomes, write_outcomes
from attnscope.statistics.effects import (
    edit_contrast,
)
from attnscope.statistics.inference import significant
from attnscope.statistics.verdicts import CONSTANT, UNUSED, USED
from tests.interventions.known import best_losses
from tests.interventions.toy import CLASSES, Toy, effects, toy_images, toy_setup
from tests.making import refused

OF_OTHER_EXPERIMENTS = {"concept", "pairs", "sufficiency"}
"""Plots of experiments that are run only if they are named."""


def test_replacing_a_used_gate_costs_accuracy(tmp_path: Path) -> None:
    found = effects(toy_setup("used", tmp_path)).loc["gate"]
    assert len(found) == len(REPLACEMENTS)
    # Without the image's own gate all logits are equal, and the first class is predicted.
    assert found.loc["mean", "accuracy"] == pytest.approx(1 / 3)
    assert found.loc["neutral", "accuracy"] == pytest.approx(1 / 3)
    assert found.loc["swap_other", "accuracy"] == 0
    assert found.loc[["swap_same", "true", "predicted"], "change"].eq(0).all()
    assert found.loc["swap_other", "flips"] == 1
    assert found.loc["swap_other", "high"] < -0.85
    assert 0.15 < found.loc["random", "accuracy"] < 0.55


def test_replacing_an_ignored_gate_changes_nothing(tmp_path: Path) -> None:
    setup = toy_setup("ignored", tmp_path)
    profile = setup.class_mean_gates("gate")
    assert (profile.argmax(1) == np.arange(3)).all()  # the class is decodable
    found = effects(setup).loc["gate"]
    assert found["change"].eq(0).all()
    assert found["log_loss_change"].eq(0).all()
    assert (found["low"] < 0).all()  # the interval of no change has a width
    assert (found["low"] > -0.15).all()


def test_only_neutral_changes_a_constant_gate(tmp_path: Path) -> None:
    found = effects(toy_setup("constant", tmp_path)).loc["gate"]
    static = found.drop(["neutral", "constant"])
    assert found.loc["constant", "change"] == 0
    assert static["change"].eq(0).all()
    assert static["log_loss_change"].abs().max() < 1e-5  # means of one value, in float32
    # Neutral is a gate of 1, so that every logit is divided by the gate: no prediction is better.
    assert found.loc["neutral", ["change", "log_loss_change"]].abs().max() < 1e-5


def test_contrasts_distinguish_used_ignored_and_constant_gates(tmp_path: Path) -> None:
    change = {}
    for mode in ("used", "ignored", "constant"):
        outcomes = replace_gates(toy_setup(mode, tmp_path), progress=False)
        contrast = edit_contrast(outcomes, "swap_other", "swap_same").set_index("target")
        dynamic = edit_contrast(outcomes, "mean", "own").set_index("target")
        change[mode] = (contrast.loc["gate", "change"], dynamic.loc["gate", "change"])
    assert change["used"] == (1, pytest.approx(2 / 3))
    assert change["ignored"] == (0, 0)
    assert change["constant"] == (0, 0)


def test_verdicts_distinguish_used_ignored_and_constant_gates(tmp_path: Path) -> None:
    usages, captions = {}, {}
    for mode in ("used", "ignored", "constant"):
        setup = toy_setup(mode, tmp_path)
        outcomes = run_experiments(setup, experiments=["decode", "replace"], progress=False)
        assert set(outcomes.tables) == {"decoding", "effects", "constants"}
        folder = tmp_path / f"{mode}-interventions"
        write_outcomes(folder, outcomes)
        stored = read_outcomes(folder)
        usages[mode] = usage_of(stored)
        pd.testing.assert_frame_equal(
            usages[mode], usage_of(outcomes), check_exact=False, rtol=1e-12
        )
        subject = Intervened(setup.recording, stored)
        drawings = {}
        for plot in plots_of(Intervened):
            if plot.name in OF_OTHER_EXPERIMENTS:
                with refused("AS906", names=(plot.name,)):
                    plot.make(subject)
            else:
                drawings[plot.name] = plot.make(subject)
        captions[mode] = drawings["decodable_and_used"].caption
        assert all(len(drawing.figures) == 1 for drawing in drawings.values())
        assert find_outcomes(setup.recording) is not None
    rows = pd.concat(usages).droplevel(1)
    assert rows["verdict"].to_dict() == {
        "used": USED,
        "ignored": UNUSED,
        "constant": CONSTANT,
    }
    assert significant(rows["p_read"]).tolist() == [True, True, False]
    for question in ("removal", "resample", "misinformation"):
        assert significant(rows[f"p_{question}"])[:2].tolist() == [True, False]
    assert significant(rows["p_misinformation_log_loss"]).tolist() == [True, False, False]
    assert rows["misinformation_value"].tolist() == [1, 0, 0]
    assert rows["removal_value"].iloc[0] == pytest.approx(2 / 3)
    assert "100.0" in captions["used"]  # percentage points
    assert "1 of 1" in captions["ignored"]


def test_the_only_image_of_a_class_is_a_donor(tmp_path: Path) -> None:
    images, labels = toy_images(31).tensors
    labels = labels.clone()
    labels[labels == 2] = 1
    labels[30] = 2  # the only image of its class
    model = Toy("used").eval()
    data = TensorDataset(images, labels)
    recording = capture(
        model, data, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    setup = InterventionSetup(model, data, recording)
    assert 30 not in setup.scored
    outcomes = replace_gates(setup, progress=False)
    counts = outcomes.groupby("edit", observed=True)["row"].count()
    assert counts["mean"] == counts["true"] == len(setup.scored)
    assert np.isnan(setup.class_mean_gates("gate")).sum() == 0


def test_predicted_and_true_use_the_means_of_their_classes(tmp_path: Path) -> None:
    """The network always predicts the next class."""

    class Shifted(Toy):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).roll(1, dims=1)

    model, images = Shifted("used").eval(), toy_images()
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    setup = InterventionSetup(model, images, recording, images=30)
    found = replace_gates(setup, edits=["predicted", "true"], progress=False)
    means = setup.class_mean_gates("gate")
    for edit, ahead in (("predicted", 1), ("true", 0)):
        rows = found[found["edit"] == edit]
        labels = rows["label"].to_numpy()
        gates = torch.from_numpy(means[(labels + ahead) % CLASSES])
        x = images.tensors[0][rows["row"].tolist()]
        edits = {"gate": lambda g, f, gates=gates: gates[:, :, None, None]}
        with torch.no_grad(), edit_gates(model, edits):
            wanted = best_losses(model(x).numpy(), labels)
        np.testing.assert_allclose(rows["log_loss"], wanted, atol=2e-3)


def test_a_gate_over_branches_has_no_neutral_value(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = x.mean((2, 3))
            weights = torch.stack([z, -z], 1).softmax(1)[..., None, None]
            y = (torch.stack([x, x.square()], 1) * weights).sum(1)
            return (y * torch.sigmoid(y.mean((2, 3), keepdim=True))).mean((2, 3))

    model, data = Branches().eval(), toy_images()
    recording = capture(model, data, tmp_path / "r", grad_cam_layers=(), progress=False)
    assert isinstance(recording, Recording)
    kinds = {gate.name: gate.kind for gate in recording.gates}
    assert sorted(kinds.values()) == ["branch", "channel"]
    outcomes = replace_gates(InterventionSetup(model, data, recording), progress=False)
    edits = outcomes.groupby("target", observed=True)["edit"].agg(set)
    for name, kind in kinds.items():
        assert ("neutral" in edits[name]) == (kind == "channel")
        assert "mean" in edits[name]
    assert "neutral" not in edits["all"]
