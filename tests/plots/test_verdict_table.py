"""The verdicts that the report and the command print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from attnscope.plots.usage import usage_of
from attnscope.plots.verdict_table import verdict_table
from attnscope.recording.outcomes import read_outcomes
from attnscope.recording.recording import Recording
from attnscope.statistics.verdicts import UNTESTED
from tests.plots.reading import numbers

Make = Callable[..., Recording]
Add = Callable[..., Path]


def test_each_gate_has_its_accuracy_its_losses_and_its_verdict(
    make_recording: Make, add_interventions: Add
) -> None:
    outcomes = read_outcomes(add_interventions(make_recording(count=90)))
    usage, table = usage_of(outcomes), verdict_table(outcomes)
    assert table["gate"].tolist() == usage["gate"].tolist()
    assert table["verdict"].tolist() == usage["verdict"].tolist()
    first, row = table.iloc[0], usage.iloc[0]
    assert first["decodable"].startswith("yes")
    shares = [f"{100 * row[name]:.1f}%" for name in ("balanced_accuracy", "chance")]
    assert numbers(first["decodable"]) == shares
    points = [f"{100 * row[f'removal_{end}']:.1f}" for end in ("value", "low", "high")]
    assert numbers(first["accuracy_lost"]) == points
    nats = [f"{row[f'removal_log_loss{end}']:.3f}" for end in ("", "_low", "_high")]
    assert numbers(first["log_loss_added"]) == nats
    assert table["decodable"].iloc[1:].str.startswith("not shown").all()


def test_what_was_not_measured_has_no_number(make_recording: Make, add_interventions: Add) -> None:
    outcomes = read_outcomes(add_interventions(make_recording(count=90)))
    few = outcomes.tables["decoding"]
    outcomes.tables["decoding"] = few.assign(scored=4)
    assert verdict_table(outcomes)["decodable"].str.startswith("not tested").all()
    outcomes.tables["decoding"] = few.assign(balanced_accuracy=np.nan, p_max=np.nan)
    assert [numbers(text) for text in verdict_table(outcomes)["decodable"]] == [[]] * 4
    made = outcomes.replacement
    outcomes.tables["decoding"] = few
    untested = type(outcomes)(outcomes.about, made[made["edit"] != "constant"], outcomes.tables)
    table = verdict_table(untested)
    assert set(table["verdict"]) == {UNTESTED}
    for column in ("accuracy_lost", "log_loss_added", "effect"):
        assert [numbers(text) for text in table[column]] == [[]] * 4
    del outcomes.tables["decoding"]
    assert len(verdict_table(outcomes)) == 0
