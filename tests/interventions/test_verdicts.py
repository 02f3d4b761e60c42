"""Verdicts on networks in which it is known what the gates are used for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attnscope.interventions import DEFAULT_EDITS, run_experiments
from attnscope.interventions.constants import choice_rows
from attnscope.recording.outcomes import Outcomes
from attnscope.statistics import gate_usage, joint_usage
from attnscope.statistics.verdicts import (
    CLASS_USED,
    HARMS,
    JOINTLY,
    NOT_NEEDED,
    NOTHING,
    SENSITIVE,
    UNUSED,
    USED,
)
from tests.interventions.known import known_images, known_setup

Answers = tuple[Outcomes, dict[str, str]]


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Answers]:
    """Returns the outcomes of a network of `Known`, and its verdicts by target."""
    folder = tmp_path_factory.mktemp("known")
    made: dict[str, Answers] = {}

    def answered(of: str) -> Answers:
        if of not in made:
            outcomes = run_experiments(known_setup(of, folder), progress=False)
            table = outcomes.replacement
            assert table is not None
            verdicts = pd.concat(
                [gate_usage(outcomes.table("decoding"), table), joint_usage(table)]
            ).set_index("gate")["verdict"]
            made[of] = outcomes, verdicts.to_dict()
        return made[of]

    return answered


@pytest.mark.parametrize(
    ("of", "wanted"),
    [
        ("class", {"a": CLASS_USED}),
        ("ignored", {"a": UNUSED}),
        ("brightness", {"": USED}),
        ("bimodal", {"": NOTHING}),
        ("harmful", {"a": HARMS}),
        ("backup", {"a": SENSITIVE, "b": SENSITIVE, "all": JOINTLY}),
        ("majority", {"a": UNUSED, "b": UNUSED, "c": UNUSED, "all": JOINTLY}),
        (
            "block",
            {
                "pair": SENSITIVE,
                "pair#2": SENSITIVE,
                "a": UNUSED,
                "block pair": JOINTLY,
                "all": CLASS_USED,
            },
        ),
    ],
)
def test_what_a_gate_is_used_for_is_told(
    of: str, wanted: dict[str, str], answer: Callable[[str], Answers]
) -> None:
    found = answer(of)[1]
    shortened = {name.removesuffix("sigmoid").removesuffix("."): v for name, v in found.items()}
    assert shortened == wanted


def test_a_bimodal_gate_is_replaced_by_a_constant_at_no_cost_although_its_mean_is_dear(
    answer: Callable[[str], Answers],
) -> None:
    outcomes = answer("bimodal")[0]
    effects = outcomes.table("effects").set_index("edit")
    assert effects.loc["mean", "change"] < -0.5
    assert effects.loc["constant", "change"] == 0
    constants = outcomes.table("constants").set_index("candidate")
    assert constants.loc["mean", "accuracy"] < 0.5
    assert not constants.loc["mean", "chosen"]
    assert constants["chosen"].sum() == 1


def test_only_matched_donors_tell_the_class_from_the_brightness(
    answer: Callable[[str], Answers],
) -> None:
    outcomes = answer("brightness")[0]
    table = outcomes.replacement
    usage = gate_usage(outcomes.table("decoding"), table).iloc[0]
    assert usage["misinformation_value"] > 0.2
    assert usage["p_misinformation"] < 0.05
    assert abs(usage["matched_value"]) < 0.05
    assert usage["p_matched"] > 0.05
    assert usage["p_matched_log_loss"] > 0.05
    matching = outcomes.about["matching"]
    assert matching["on"] == ["brightness", "contrast"]
    assert matching["distance"] < 0.2 < matching["caliper"] < 1 < matching["random_distance"]
    # Several donors of each image, in pairs of equal brightness.
    images = known_images("brightness").tensors[0].mean((1, 2, 3)).numpy()
    matched = table[table["edit"].isin(("matched_same", "matched_other"))]
    level = {edit: images[part["donor"]] for edit, part in matched.groupby("edit", observed=True)}
    shift = np.abs(level["matched_other"] - level["matched_same"])
    assert shift.max() < 0.3 * images.std()
    assert matched.groupby(["edit", "row"], observed=True)["donor"].nunique().max() == 2
    is_other = matched["edit"] == "matched_other"
    assert ((matched["donor_class"] != matched["label"]) == is_other).all()
    assert not matched["donor"].isin(table["row"]).any()


def test_the_best_constant_is_chosen_on_images_that_are_not_scored(tmp_path: Path) -> None:
    setup = known_setup("class", tmp_path)
    rows = choice_rows(setup)
    assert len(rows) == len(setup.scored) // 2
    assert setup.donors[rows].all()


def test_a_gate_is_not_needed_only_if_a_smallest_effect_was_stated(
    answer: Callable[[str], Answers],
) -> None:
    outcomes = answer("ignored")[0]
    decoding, table = outcomes.table("decoding"), outcomes.replacement
    usage = gate_usage(decoding, table).iloc[0]
    assert np.isnan(usage["p_equivalent"])
    # 90 images without a change. If the loss were s, nothing would be lost with (1 - s)^90.
    for smallest, verdict in ((0.03, UNUSED), (0.04, NOT_NEEDED)):
        found = gate_usage(decoding, table, smallest_effect=smallest).iloc[0]
        assert found["verdict"] == verdict
        assert found["equivalent"] == (verdict == NOT_NEEDED)
        assert found["p_equivalent"] == pytest.approx((1 - smallest) ** 90, abs=2e-3)
    # No log loss moves, so that nothing tells how much the edit changes.
    found = gate_usage(decoding, table, smallest_effect=0.04, smallest_log_loss=1e-3).iloc[0]
    assert found["verdict"] == UNUSED
    assert found["p_equivalent"] == 1
    used = answer("class")[0]
    stated = gate_usage(used.table("decoding"), used.replacement, smallest_effect=0.5)
    assert stated["verdict"].tolist() == [CLASS_USED]


def test_the_default_edits_are_those_of_the_verdict() -> None:
    assert {"constant", "swap_any", "matched_same", "matched_other"} <= set(DEFAULT_EDITS)
