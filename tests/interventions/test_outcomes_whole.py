"""Outcomes are stored whole: donors, their classes and all logits, against a plain edit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from attnscope import edit_gates
from attnscope.files import read_json, sha256_of, write_json, write_sealed
from attnscope.interventions import (
    DEFAULT_EDITS,
    REPLACEMENTS,
    InterventionSetup,
    run_experiments,
    run_experiments_in,
)
from attnscope.interventions.replacement import replace_and_keep
from attnscope.recording.outcomes import read_outcomes
from tests.interventions.known import best_losses
from tests.interventions.toy import toy_images, toy_setup
from tests.making import refused


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> InterventionSetup:
    return toy_setup("used", tmp_path_factory.mktemp("toy"), images=30, batch_size=7)


def test_each_row_has_the_logits_of_the_network_with_the_gate_of_its_donor(
    setup: InterventionSetup,
) -> None:
    found = replace_and_keep(setup, progress=False)
    table, labels = found.table, setup.recording.labels
    assert len(found.logits) == len(table)
    assert found.logits.dtype == np.float32
    means = setup.class_mean_gates("gate")
    gates = setup.recording.gate("gate")
    for edit in ("own", *REPLACEMENTS):
        rows = table[table["edit"] == edit]
        logits = found.logits[rows.index]
        donor, of_class = rows["donor"].to_numpy(), rows["donor_class"].to_numpy()
        if edit.startswith(("swap", "matched")):
            assert setup.donors[donor].all()
            np.testing.assert_array_equal(of_class, labels[donor])
            new = gates[donor]
        else:
            assert (donor == -1).all()
            if edit in ("predicted", "true", "random"):
                new = means[of_class]
            else:
                assert (of_class == -1).all()
                every = {
                    "neutral": np.ones(3),
                    "mean": setup.mean_gate("gate"),
                    "median": np.median(gates[setup.donors], axis=0),
                }
                best = found.constants.set_index("candidate")["chosen"].idxmax()
                every["constant"] = every[best]
                new = (
                    gates[rows["row"]] if edit == "own" else np.repeat([every[edit]], len(rows), 0)
                )
        value = torch.from_numpy(np.asarray(new, np.float32))[:, :, None, None]
        x = toy_images().tensors[0][rows["row"].tolist()]
        with torch.no_grad(), edit_gates(setup.model, {"gate": lambda g, f, v=value: v}):
            expected = setup.model(x).numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-5, err_msg=edit)
        np.testing.assert_array_equal(rows["prediction"], logits.argmax(1))
        losses = best_losses(logits, rows["label"].to_numpy())
        np.testing.assert_allclose(rows["log_loss"], losses, atol=2e-3, err_msg=edit)
    same = table[table["edit"] == "swap_same"]
    assert (same["donor_class"] == same["label"]).all()
    other = table[table["edit"] == "swap_other"]
    assert (other["donor_class"] != other["label"]).all()


def test_swap_any_takes_each_donor_alike(setup: InterventionSetup) -> None:
    """Whatever its class; the other donors do not depend on it."""
    table = replace_and_keep(setup, edits=["swap_any"], progress=False).table
    donors = table.loc[table["edit"] == "swap_any", ["label", "donor_class"]]
    shares = (donors["label"] == donors["donor_class"]).mean()
    assert 0.1 < shares < 0.6  # a third of the donors is of the class
    both = replace_and_keep(setup, progress=False).table
    for edit in ("swap_any", "swap_same"):
        one = replace_and_keep(setup, edits=[edit], progress=False).table
        pd.testing.assert_frame_equal(
            one[one["edit"] == edit].reset_index(drop=True).astype({"edit": str, "target": str}),
            both[both["edit"] == edit].reset_index(drop=True).astype({"edit": str, "target": str}),
        )


def test_logits_are_read_from_the_folder_when_they_are_asked_for(
    setup: InterventionSetup, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    made = run_experiments_in(out, setup, experiments=["replace"], progress=False)
    whole = run_experiments(setup, experiments=["replace"], progress=False)
    assert made.about["edits"] == list(DEFAULT_EDITS)
    assert made.logits is not None
    assert whole.logits is not None
    np.testing.assert_array_equal(made.logits, whole.logits)
    pd.testing.assert_frame_equal(made.replacement, whole.replacement)
    file = out / "replacement.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert read_outcomes(out).replacement is not None
    with refused("AS633", names=(file,)):
        _ = read_outcomes(out).logits
    file.write_bytes(content)
    table, about = out / "replacement.parquet", out / "about.json"
    made.replacement.iloc[1:].to_parquet(table, index=False)
    with refused("AS632", names=(table,)):
        read_outcomes(out)
    known = read_json(about)
    known["files"]["replacement.parquet"] = [sha256_of(table)]  # a whole table, but another one
    write_sealed(about, known)
    with refused("AS633", names=(file, table)):
        _ = read_outcomes(out).logits
    file.unlink()
    assert read_outcomes(out).logits is None


def test_edits_that_are_named_later_are_added(setup: InterventionSetup, tmp_path: Path) -> None:
    """The folder is that of one call with all edits, and nothing is repeated."""
    wanted = ["mean", "swap_any", "neutral"]
    run_experiments_in(tmp_path / "whole", setup, edits=wanted, progress=False)
    out = tmp_path / "out"
    run_experiments_in(out, setup, edits=["swap_any"], progress=False)
    run_experiments_in(out, setup, experiments=["erase"], progress=False)
    with pytest.MonkeyPatch.context() as patch:
        made: list[str] = []
        whole = replace_and_keep

        def noted(*args: object, edits: list[str], **kwargs: object) -> object:
            made.extend(edits)
            return whole(*args, edits=edits, **kwargs)  # type: ignore[arg-type]

        patch.setattr("attnscope.interventions.study.replace_and_keep", noted)
        run_experiments_in(out, setup, edits=wanted, progress=False)
        run_experiments_in(out, setup, edits=["neutral"], progress=False)
    assert made == ["neutral", "mean"]
    found = read_outcomes(out)
    assert found.about["edits"] == ["neutral", "mean", "swap_any"]
    assert found.experiments == ["decode", "replace", "erase"]
    expected = read_outcomes(tmp_path / "whole")
    pd.testing.assert_frame_equal(found.replacement, expected.replacement)
    pd.testing.assert_frame_equal(found.tables["effects"], expected.tables["effects"])
    np.testing.assert_array_equal(found.logits, expected.logits)


def test_earlier_outcomes_without_logits_are_made_again_if_an_edit_is_missing(
    setup: InterventionSetup, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = run_experiments_in(
        out, setup, experiments=["replace"], edits=["mean", "neutral"], progress=False
    )
    (out / "replacement.safetensors").unlink()
    old = first.replacement.drop(columns=["donor", "donor_class"])
    old.to_parquet(out / "replacement.parquet", index=False)
    about = read_json(out / "about.json")
    del about["files"]  # earlier versions wrote neither hashes nor a seal
    write_json(out / "about.json", about)
    again = run_experiments_in(out, setup, experiments=["replace"], edits=["mean"], progress=False)
    assert again.logits is None  # nothing was missing
    found = run_experiments_in(
        out, setup, experiments=["replace"], edits=["swap_any"], progress=False
    )
    assert found.about["edits"] == ["neutral", "mean", "swap_any"]
    assert len(found.logits) == len(found.replacement) == 30 * 4
    merged = old.merge(found.replacement, on=["target", "edit", "row"], suffixes=("", "_new"))
    assert len(merged) == len(old)
    np.testing.assert_array_equal(merged["log_loss"], merged["log_loss_new"])


def test_unknown_edits_are_refused(setup: InterventionSetup, tmp_path: Path) -> None:
    with refused("AS823", names=("cut", "swap_any")):
        run_experiments_in(tmp_path / "o", setup, edits=["mean", "cut"], progress=False)
