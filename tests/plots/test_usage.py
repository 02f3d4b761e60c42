"""Tables of usage from interventions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from attnscope.plots.usage import usages_of
from attnscope.recording.outcomes import read_outcomes
from attnscope.recording.recording import Recording
from tests.making import refused

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
