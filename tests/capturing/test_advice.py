"""The accuracy of a recording beside that which the training reported."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from attnscope.capturing.advice import describe_difference
from attnscope.recording.recording import Recording
from tests.plots.reading import numbers
from tests.report.test_page import edit_manifest

Make = Callable[..., Recording]


@pytest.fixture
def recorded(make_recording: Make) -> Callable[..., Recording]:
    """Makes a recording in fp32, in a run whose training reported ``right`` correct images more."""

    def make(right: int, precision: str, **about: object) -> Recording:
        recording = make_recording(count=60)
        run = recording.folder.parents[1]
        accuracy = float(recording.right.mean()) + right / 60
        (run / "config.json").write_text("{}")
        result = {"test": {"accuracy": accuracy}, "precision": precision}
        (run / "result.json").write_text(json.dumps(result))
        edit_manifest(recording, precision="fp32", **about)
        return Recording(recording.folder)

    return make


def test_a_difference_between_training_and_recording_is_named(
    recorded: Callable[..., Recording],
) -> None:
    recording = recorded(2, "bf16")
    said = describe_difference(recording)
    assert said is not None
    shown = f"{100 * recording.right.mean():.2f}%"
    assert {shown, "2", "60"} <= set(numbers(said))
    assert "bf16" in said
    assert "fp32" in said


def test_the_reason_is_not_the_precision_if_that_is_the_same(
    recorded: Callable[..., Recording],
) -> None:
    said = describe_difference(recorded(-1, "fp32"))
    assert said is not None
    assert "bf16" not in said
    assert "1" in numbers(said)


def test_equal_accuracies_and_other_splits_need_no_words(
    recorded: Callable[..., Recording], make_recording: Make
) -> None:
    assert describe_difference(recorded(0, "bf16")) is None
    assert describe_difference(make_recording("alone")) is None


@pytest.mark.parametrize("about", [{"split": "validation"}, {"untrained": True}])
def test_what_the_training_did_not_test_is_not_compared(
    recorded: Callable[..., Recording], about: dict[str, object]
) -> None:
    assert describe_difference(recorded(5, "bf16", **about)) is None
