"""Tables of usage from interventions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from attnscope.plots.builtin import static_gates
from attnscope.plots.builtin.decodable_and_used import _replacements
from attnscope.plots.subjects import Intervened
from attnscope.plots.usage import usages_of
from attnscope.plots.usage_sentences import misinformation_sentence
from attnscope.recording.outcomes import Outcomes, read_outcomes
from attnscope.recording.recording import Recording
from attnscope.statistics import replacement_effects
from attnscope.statistics.inference import significant
from attnscope.statistics.questions import ask
from tests.making import refused
from tests.plots.test_sentences import usage

Make = Callable[..., Recording]


def test_seeds_scored_on_different_images_are_not_pooled(
    make_recording: Make, add_interventions: Callable[..., Path]
) -> None:
    recordings = [make_recording(name, count=30) for name in ("a", "b")]
    made = [read_outcomes(add_interventions(recording)) for recording in recordings]
    assert len(usages_of(recordings, made)) == 2
    other = replace(made[1], about={**made[1].about, "seed": 1})
    with refused("AS907", names=("b", "a", "seed", "1", "0")):
        usages_of(recordings, [made[0], other])
    with refused("AS721", names=(30, 33)):
        usages_of([recordings[0], make_recording("c", count=33)], made)


@pytest.mark.parametrize("edit", ["constant", "mean"])
def test_constants_are_tested_as_in_the_verdicts(make_recording: Make, edit: str) -> None:
    """Losses of 9, 10, 11 and 12 of 250 images beside 21 targets whose log losses move only."""
    rng = np.random.default_rng(0)
    images, losses = 250, [9, 10, 11, 12] + [0] * 21
    right = pd.DataFrame({"row": range(images), "label": 0, "prediction": 0})
    log_loss = 1 + rng.random(images)
    frames = [right.assign(target="", edit="own", log_loss=log_loss)]
    p = []
    for target, lost in enumerate(losses):
        moved = rng.normal(0, 0.5, images)
        wrong = (right["row"] < lost).astype(int)
        edited = right.assign(target=f"g{target}", edit=edit, prediction=wrong)
        frames.append(edited.assign(log_loss=log_loss + moved))
        accuracy = stats.binomtest(lost, lost, 0.5).pvalue if lost else 1.0
        p += [accuracy, stats.ttest_1samp(moved, 0).pvalue]
    outcomes = pd.concat(frames, ignore_index=True)
    wanted = multipletests(p, 0.05, "holm")[0][::2]
    assert 1 < wanted.sum() < multipletests(p[::2], 0.05, "holm")[0].sum()
    tables = {"effects": replacement_effects(outcomes, 10)}
    made = Outcomes({"images": images}, outcomes, tables)
    shown = static_gates.compute(Intervened(make_recording(count=30), made))
    np.testing.assert_array_equal(shown.lost, wanted)
    if edit == "constant":
        np.testing.assert_array_equal(significant(ask(outcomes)["p_removal"]), wanted)


def test_matched_donors_are_about_equal() -> None:
    # They are matched within a caliper, so that they still differ.
    for said in (_replacements(usage()), misinformation_sentence(usage(p_matched=0.01))):
        assert re.findall(r"(\w+ \w+) brightness", said) == ["about equal"]
