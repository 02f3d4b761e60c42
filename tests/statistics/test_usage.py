"""Gates that are replaced together, where one stands in for the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attnscope.plots.usage import joint_sentence
from attnscope.recording.recording import Recording
from attnscope.statistics import decode_gates, joint_usage, linear_probe


def outcomes(wrong: dict[str, int]) -> pd.DataFrame:
    """Of 100 images, all right; under swap_other the first ``wrong[target]`` are not."""
    rng = np.random.default_rng(0)
    right = pd.DataFrame({"row": range(100), "label": 0, "prediction": 0})
    margin = 1 + rng.random(100)
    frames = [right.assign(target="", edit="own", margin=margin)]
    for target, count in wrong.items():
        for edit in ("mean", "swap_same", "swap_other"):
            lost = count if edit == "swap_other" else 0
            said = (np.arange(100) < lost).astype(int)
            moved = margin - 2 * said + 1e-3 * rng.normal(size=100)
            frames.append(right.assign(target=target, edit=edit, prediction=said, margin=moved))
    return pd.concat(frames, ignore_index=True)


def test_what_no_gate_shows_alone_shows_in_all_of_them() -> None:
    made = outcomes({"x.a": 0, "x.b": 0, "y.a": 1, "block x": 20, "block y": 5, "all": 30})
    found = joint_usage(made).set_index("gate")
    assert list(found.index) == ["block x", "block y", "all"]
    assert list(found["kind"]) == ["block", "block", "all"]
    assert found["class_value"].tolist() == pytest.approx([0.2, 0.05, 0.3])
    p = [stats.binomtest(0, n).pvalue for n in (20, 5, 30)]
    # Two blocks are two tests; all gates together are one question of their own.
    assert found["p_used"].tolist() == pytest.approx([2 * p[0], p[1], p[2]])
    assert found.loc["all", "class_margin"] == pytest.approx(0.6, abs=0.001)
    assert found["dynamic_value"].eq(0).all()
    assert found["p_dynamic"].eq(1).all()
    said = joint_sentence(joint_usage(made))
    assert said.startswith(
        " With all gates of a block at once the class is used at 1 of 2 blocks, most at block x: "
        "+20.0 points. With all gates of the network at once the class is used: those of another "
        "class cost +30.0 points (95 % "
    )
    assert said.endswith(") and +0.6 logits of margin against those of the same class.")


def test_what_gates_together_do_not_show_is_said() -> None:
    said = joint_sentence(joint_usage(outcomes({"a": 0, "b": 0, "block x": 0, "all": 1})))
    assert " With all gates of a block at once the class is used at none of 1 block." in said
    assert (
        "With all gates of the network at once the class is not seen to be used: those of another "
        "class cost +1.0 points" in said
    )
    worse = outcomes({"a": 0, "all": 30})
    worse["edit"] = worse["edit"].replace({"swap_same": "swap_other", "swap_other": "swap_same"})
    assert "at once the class does harm: those of another class cost \N{MINUS SIGN}30.0" in (
        joint_sentence(joint_usage(worse))
    )


def test_decode_gates_has_the_intervals_of_its_controls(
    make_recording: Callable[..., Recording],
) -> None:
    recording, untrained = (make_recording(name, count=60, seed=i) for i, name in enumerate("ab"))
    found = decode_gates(recording, untrained, probe_permutations=9, permutations=9)
    control = linear_probe(untrained, 1)
    for ours, its in (("accuracy", "balanced_accuracy"), ("low", "low"), ("high", "high")):
        np.testing.assert_array_equal(found[f"untrained_{ours}"], control[its])
        assert found[f"input_{ours}"].isna().all()  # no pooled input was recorded


def test_one_gate_has_nothing_to_be_replaced_with() -> None:
    alone = joint_usage(outcomes({"a": 3}))
    assert alone.empty
    assert {"gate", "kind", "class_value", "p_used", "margin_std"} <= set(alone.columns)
    assert joint_sentence(alone) == ""
