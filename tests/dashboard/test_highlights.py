"""What stands out, on results that show it and on results that must not be said to show it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attnscope import statistics
from attnscope.dashboard import highlights
from attnscope.dashboard.highlights import (
    all_gates_at_once,
    confused_pairs,
    gates_that_could_be_constants,
    gates_that_never_move,
    still_gates,
    weakest_classes,
)
from attnscope.recording.recording import Recording
from attnscope.statistics.verdicts import CONSTANT, NOT_NEEDED, NOTHING, UNTESTED, UNUSED, USED
from tests.plots.reading import numbers as numbers_as_written
from tests.plots.test_sentences import usage

Write = Callable[..., Recording]


def numbers(text: str) -> list[str]:
    return [number.rstrip("%") for number in numbers_as_written(text)]


def wilson(count: int, total: int) -> tuple[str, str]:
    """The 95% interval of a share as scipy has it, in percent."""
    interval = stats.binomtest(count, total).proportion_ci(method="wilson")
    return f"{100 * interval.low:.1f}", f"{100 * interval.high:.1f}"


def joint(**columns: object) -> pd.DataFrame:
    frame = usage().iloc[:2].assign(gate=["block x", "all"], kind=["block", "all"])
    return frame.assign(**columns)


def test_names_are_kept_apart_from_the_words() -> None:
    found = highlights.Highlight("{0} before {1}, and {0}.", ("<b>", "{2}"), "usage")
    assert found.write() == "<b> before {2}, and <b>."
    assert found.write(lambda name: f"`{name}`") == "`<b>` before `{2}`, and `<b>`."


def test_gates_are_still_if_no_unit_moves_by_more_than_the_threshold(
    write_recording: Write,
) -> None:
    rng = np.random.default_rng(0)
    images = 500
    moving = np.full((images, 3), 0.5)
    moving[-1, 2] = 0.54
    still = 0.5 + rng.uniform(-0.009, 0.009, (images, 3))
    maps = np.broadcast_to(rng.random((4, 4)), (images, 4, 4))
    recording = write_recording(
        labels=np.arange(images) % 3, bounds=(0, 2),
        gates={"moving": moving, "still": still, "maps": maps},
    )  # fmt: skip
    table = still_gates(recording).set_index("gate")
    assert list(table["still"]) == [False, True, True], "0.04 of 2 is more than 1%"
    assert table.loc["still", "span"] == pytest.approx(
        np.ptp(recording["still"], axis=0).max() / 2, rel=1e-6
    )
    assert table.loc["maps", "span"] == 0
    assert np.isnan(table.loc["moving", "span"])
    assert list(table["has_channels"]) == [True, True, False]
    assert still_gates(recording, 0.021)["still"].all()
    (said,) = gates_that_never_move(still_gates(recording), images)
    assert said.names == ("maps", "still")
    assert said.page == highlights.MAPS
    assert numbers(said.write())[:2] == ["2", "3"]
    assert "500" in numbers(said.write())
    # 0 of 500 images is an exception: Clopper and Pearson's upper end.
    most = stats.beta.ppf(0.95, 1, images)
    assert f"{100 * most:.2g}" in numbers(said.write())


def test_no_gate_is_said_to_be_still_if_all_move_or_have_no_range(write_recording: Write) -> None:
    rng = np.random.default_rng(0)
    recording = write_recording(labels=np.arange(60) % 3, gates={"a": rng.random((60, 2))})
    assert gates_that_never_move(still_gates(recording), 60) == []
    without = write_recording(
        "unbounded", labels=np.arange(60) % 3, gates={"a": np.ones((60, 2))},
        bounds=(-np.inf, np.inf),
    )  # fmt: skip
    assert still_gates(without).empty
    assert gates_that_never_move(still_gates(without), 60) == []


def test_a_still_channel_gate_is_linked_by_its_name(write_recording: Write) -> None:
    recording = write_recording(labels=np.arange(60) % 3, gates={"a": np.ones((60, 2))})
    (said,) = gates_that_never_move(still_gates(recording), 60)
    assert (said.page, said.query) == (highlights.CHANNELS, {"gate": "a"})


def test_many_gates_are_counted_and_three_are_named(write_recording: Write) -> None:
    gates = {f"g{k}": np.ones((60, 2)) for k in range(5)}
    recording = write_recording(labels=np.arange(60) % 3, gates=gates)
    (said,) = gates_that_never_move(still_gates(recording), 60)
    assert len(said.names) == 3
    assert "2 other gates" in said.write()


@pytest.mark.parametrize("verdict", [USED, UNTESTED, CONSTANT])
def test_gates_that_are_used_or_untested_are_not_called_replaceable(verdict: str) -> None:
    assert gates_that_could_be_constants(usage(verdict=verdict)) == []


def test_gates_that_are_not_needed_are_named_with_the_largest_possible_cost() -> None:
    (said,) = gates_that_could_be_constants(
        usage(
            verdict=[NOT_NEEDED, NOT_NEEDED, USED], removal_value=[0.001, 0.002, 0.5],
            removal_low=[-0.008, -0.002, 0.4], removal_high=[0.008, 0.004, 0.6],
        )
    )  # fmt: skip
    assert said.names == ("a", "b")
    assert numbers(said.write()) == [
        "2",
        "3",
        "95",
        "0.8",
    ]  # not the interval of b, whose loss is larger


def test_gates_without_a_detected_use_are_not_said_to_be_unused() -> None:
    (said,) = gates_that_could_be_constants(
        usage(
            verdict=[NOTHING, USED, UNUSED], removal_value=[0.01, 0.3, 0.02],
            removal_low=[-0.02, 0.2, -0.03], removal_high=[0.04, 0.4, 0.07],
        )
    )  # fmt: skip
    assert said.names == ("a", "c")
    assert numbers(said.write()) == ["2", "3", "2.0", "95", "−3.0", "7.0", "8.0", "80"]
    unknown = gates_that_could_be_constants(usage(detectable=np.nan))[0].write()
    assert "80" not in numbers(unknown)


def test_all_gates_together_name_the_effect_that_is_significant() -> None:
    effect = {
        "removal_value": 0.12, "removal_low": 0.1, "removal_high": 0.2,
        "removal_log_loss": 0.7, "removal_log_loss_low": 0.5, "removal_log_loss_high": 0.9,
    }  # fmt: skip
    nothing = all_gates_at_once(joint(**effect))[0].write()
    sure = all_gates_at_once(joint(**effect, p_removal_log_loss=0.001))[0].write()
    worse = all_gates_at_once(joint(**effect, p_removal=0.001))[0].write()
    assert len({nothing, sure, worse}) == 3
    assert "0.7" not in numbers(nothing)
    assert numbers(sure)[:4] == ["0.7", "95", "0.5", "0.9"]
    assert numbers(worse) == ["12.0", "95", "10.0", "20.0"]
    better = {**effect, "removal_value": -0.12, "removal_low": -0.2, "removal_high": -0.1}
    none = {"removal_log_loss_low": -0.1}
    gained = all_gates_at_once(joint(**{**better, **none}, p_removal=0.001))[0].write()
    assert numbers(gained)[0] == "12.0"
    assert gained.split("12.0")[0] != worse.split("12.0")[0]
    mixed = all_gates_at_once(joint(**better, p_removal=0.001))[0].write()
    assert {"−12.0", "0.7"} <= set(numbers(mixed))


def test_all_gates_together_are_not_mentioned_if_that_was_not_measured() -> None:
    assert all_gates_at_once(joint(removal_value=np.nan)) == []
    assert all_gates_at_once(joint().iloc[:1]) == [], "blocks only"
    assert all_gates_at_once(joint().iloc[:0]) == []


def counts(rows: list[list[int]]) -> pd.DataFrame:
    names = [f"class {k}" for k in range(len(rows))]
    return pd.DataFrame(rows, index=names, columns=names)


def test_the_most_frequent_errors_are_said_with_their_share_of_the_true_class() -> None:
    found = confused_pairs(counts([[90, 10, 0], [2, 30, 8], [1, 0, 5]]))
    assert [each.query for each in found] == [
        {"true": "class 0", "predicted": "class 1"},
        {"true": "class 1", "predicted": "class 2"},
        {"true": "class 1", "predicted": "class 0"},
    ]
    assert {each.page for each in found} == {highlights.CONFUSION}
    assert found[1].names == ("class 1", "class 2")
    said = found[1].write("N".format)
    assert numbers(said) == ["8", "40", "20.0", "95", *wilson(8, 40)]


def test_errors_that_occur_once_are_not_called_confusion() -> None:
    assert confused_pairs(counts([[5, 1], [1, 5]])) == []
    assert confused_pairs(counts([[5, 0], [0, 0]])) == []


def metrics(right: list[int], support: list[int]) -> pd.DataFrame:
    recall = [r / n if n else np.nan for r, n in zip(right, support, strict=True)]
    names = [f"class {k}" for k in range(len(right))]
    return pd.DataFrame({"class": names, "recall": recall, "support": support})


def test_a_class_is_hard_if_its_accuracy_is_lower_after_the_correction() -> None:
    (said,) = weakest_classes(metrics([95, 94, 60, 0], [100, 100, 100, 0]))
    assert said.names == ("class 2",)
    assert said.query == {"true": "class 2"}
    shown = numbers(said.write("N".format))
    assert shown == ["60.0", "95", *wilson(60, 100), "83.0", "0.05", "3"]


def test_no_class_is_called_hard_by_chance() -> None:
    rng = np.random.default_rng(0)
    named = 0
    for _ in range(200):
        right = rng.binomial(30, 0.8, 20)
        found = weakest_classes(metrics(right.tolist(), [30] * 20))
        named += numbers(found[0].write("N".format))[0] != "20"  # the sentence that none is shown
    assert named <= 16, "5% of 200, and chance"


def test_nothing_is_said_of_classes_without_errors_or_of_one_class() -> None:
    assert weakest_classes(metrics([10, 10], [10, 10])) == []
    assert weakest_classes(metrics([5], [10])) == []


def test_many_hard_classes_are_counted() -> None:
    found = weakest_classes(metrics([100] * 20 + [10] * 5, [100] * 25))
    assert len(found) == 4
    assert numbers(found[-1].write())[:2] == ["5", "25"]
    assert found[-1].names == ()


def test_a_recording_gives_the_tables_that_the_sentences_take(
    make_recording: Callable[..., Recording],
) -> None:
    recording = make_recording(accuracy=0.5)
    assert confused_pairs(statistics.confusion_matrix(recording))
    assert len(weakest_classes(statistics.class_metrics(recording))) == 1
    assert gates_that_never_move(still_gates(recording), len(recording)) == []
