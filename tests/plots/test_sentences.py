"""Sentences that captions compute, on results that must not produce them.

The numbers and names in a sentence are compared, never its words: `snapshots/captions.txt` has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attnscope.plots import PLOTS
from attnscope.plots.builtin import concept, confusion_matrix, pairs, sufficiency
from attnscope.plots.builtin.decodable_and_used import _replacements, usage_sentence
from attnscope.plots.builtin.per_class_accuracy import no_difference_sentence
from attnscope.plots.builtin.per_class_gates import geometry_sentence
from attnscope.plots.power import seen_in_classes
from attnscope.plots.subjects import Comparison, Identity, Intervened
from attnscope.plots.usage_sentences import (
    effect_of,
    joint_sentence,
    misinformation_sentence,
    oracle_sentence,
    removal_sentence,
)
from attnscope.recording.outcomes import Outcomes
from attnscope.recording.recording import Recording
from attnscope.statistics import compare_accuracy
from attnscope.statistics.questions import QUESTIONS, columns_of
from attnscope.statistics.verdicts import NOT_NEEDED, NOTHING, USED
from tests.plots.reading import numbers, with_named_experiments

Make = Callable[..., Recording]
OF = Identity("net", "test", 40)


def usage(**columns: object) -> pd.DataFrame:
    """Gates a, b and c with an effect of 0 and p = 1 in each question; columns replace these."""
    frame = pd.DataFrame({"gate": ["a", "b", "c"], "kind": "channel", "depth": [1, 2, 3]})
    for question in QUESTIONS:
        frame[columns_of(question.name)] = 0.0
        frame[[f"p_{question.name}", f"p_{question.name}_log_loss"]] = 1.0
    frame = frame.assign(
        balanced_accuracy=[0.4, 0.5, 0.6], chance=0.1, p_read=1.0, equivalent=False,
        detectable=0.08, detectable_log_loss=0.2, verdict=NOTHING, own_log_loss=1.0,
    )  # fmt: skip
    return frame.assign(**columns)


def test_a_log_loss_that_falls_alone_is_a_better_prediction() -> None:
    frame = usage(
        removal_log_loss=[-0.2, 0.0, 0.0], removal_log_loss_low=[-0.3, -0.1, -0.1],
        removal_log_loss_high=[-0.1, 0.1, 0.1], p_removal_log_loss=[1e-9, 1.0, 1.0],
    )  # fmt: skip
    said = removal_sentence(frame)
    assert "helps at 1 of 3" in said
    assert "falls by 0.2 nats (95% CI 0.1 to 0.3)" in said


def test_a_gate_without_a_test_is_not_one_without_an_effect() -> None:
    nan = float("nan")
    said = removal_sentence(usage(p_removal=[1.0, nan, nan], p_removal_log_loss=[1.0, nan, 1.0]))
    assert numbers(said)[:2] == ["2", "3"]  # nothing is seen at two of three
    assert numbers(said)[-2:] == ["1", "3"]  # and one was not tested
    none = removal_sentence(usage(p_removal=nan, p_removal_log_loss=nan))
    assert "8.0" not in numbers(none)  # nothing could have been seen
    asked = usage(
        p_misinformation=[0.001, nan, 1.0], p_misinformation_log_loss=[0.001, nan, 1.0],
        misinformation_value=[0.3, 0.9, 0.0], misinformation_low=0.1, misinformation_high=0.5,
        p_matched=nan, p_matched_log_loss=nan,
    )  # fmt: skip
    said = misinformation_sentence(asked)
    assert numbers(said)[:2] == ["1", "2"]
    assert "30.0" in numbers(said)
    assert "90.0" not in numbers(said)
    assert oracle_sentence(usage(p_oracle=[1.0, nan, 1.0], p_oracle_log_loss=nan)).count("2 gates")


def test_the_largest_cost_is_that_of_the_log_loss_if_no_accuracy_falls() -> None:
    frame = usage(
        removal_log_loss=[0.0, 0.2, 0.7], removal_log_loss_low=[-0.1, 0.1, 0.5],
        removal_log_loss_high=[0.1, 0.3, 0.9], p_removal_log_loss=[1.0, 0.01, 0.001],
    )  # fmt: skip
    said = removal_sentence(frame)
    assert numbers(said)[:2] == ["2", "3"]
    assert "at c:" in said
    assert "at b:" not in said
    assert "0.7" in numbers(said)


def test_what_is_not_significant_beside_a_cost_is_said_to_be_so() -> None:
    frame = usage(
        removal_value=[-0.006, 0, 0], removal_low=-0.02, removal_high=0.01,
        removal_log_loss=[0.2, 0, 0], removal_log_loss_low=0.1, removal_log_loss_high=0.3,
        p_removal_log_loss=[0.001, 1, 1],
    )  # fmt: skip
    row = frame.iloc[0]
    accuracy, log_loss = effect_of(row, "removal").split(" and ")
    assert "not significant" in accuracy
    assert "not significant" not in log_loss
    both = effect_of(row.where(row.index != "p_removal", 0.01), "removal")
    assert "not significant" not in both
    untested = effect_of(row.where(row.index != "p_removal", np.nan), "removal")
    assert "not significant" not in untested, "no test is no result"


def test_a_gain_is_no_cost_and_a_block_that_loses_is_counted() -> None:
    gain = usage(
        removal_value=[-0.023, 0, 0], removal_low=[-0.03, 0, 0], removal_high=[-0.01, 0, 0]
    )
    said = removal_sentence(gain.assign(p_removal=[1e-4, 1.0, 1.0]))
    assert "2.3" in numbers(said)
    assert "−2.3" not in numbers(said)
    assert "rises by 2.3" in said
    block = usage(kind=["block", "block", "all"], gate=["block x", "block y", "all"])
    lost = block.assign(
        removal_value=[0.08, 0, 0], removal_low=[0.06, 0, 0], removal_high=[0.1, 0, 0],
        p_removal=[1e-6, 1.0, 1.0],
    )  # fmt: skip
    said = joint_sentence(lost)
    assert "1 of 2 blocks" in said
    assert "8.0" in numbers(said)
    assert "block y" not in said


def test_a_caption_names_the_replacements_that_were_made() -> None:
    made = usage(resample_value=np.nan, matched_value=np.nan, misinformation_value=np.nan)
    assert "another class" not in _replacements(made)
    assert "any other image" not in _replacements(made)
    assert "another class" in _replacements(usage())


def test_a_significant_cost_within_the_smallest_effect_is_said_to_be_one() -> None:
    frame = usage(
        removal_value=[0.01, 0, 0], removal_low=[0.005, 0, 0], removal_high=[0.015, 0, 0],
        p_removal=[0.01, 1, 1], equivalent=[True, True, False],
        verdict=[NOT_NEEDED, NOT_NEEDED, USED],
    )  # fmt: skip
    said = removal_sentence(frame)
    assert numbers(said)[:2] == ["1", "3"]
    assert (
        said.count("smallest effect") == 2
    )  # of the gate that costs, and of the one that does not
    assert "8.0" in numbers(said)  # what would have been seen at the third
    assert "smallest effect" not in removal_sentence(frame.assign(equivalent=False))


def test_the_probe_says_its_interval_and_no_probe_is_no_result() -> None:
    decoding = pd.DataFrame(
        {
            "gate": ["a", "b", "c"], "balanced_accuracy": [0.4, 0.5, 0.6], "null": 0.1,
            "low": [0.3, 0.4, 0.5], "high": [0.5, 0.6, 0.7], "scored": 77,
            "selectivity_low": [-0.1, 0.1, np.nan],
        }
    )  # fmt: skip
    found = usage_sentence(usage(p_read=[1.0, 1.0, 0.001]), decoding)
    assert numbers(found)[:3] == ["1", "3", "60.0%"]
    assert {"77", "50.0%", "70.0%"} <= set(numbers(found))
    assert "at 1 of 2 gates" in found  # above the control task
    nowhere = usage_sentence(usage(), decoding)
    assert numbers(nowhere)[:2] == ["3", "77"]
    assert {"60.0%", "50.0%", "70.0%"} <= set(numbers(nowhere))
    old = usage_sentence(usage(), decoding.drop(columns="selectivity_low"))
    assert "control" not in old
    failed = usage_sentence(usage(p_read=[np.nan, 1.0, np.nan]), decoding)
    assert numbers(failed)[0] == "1"
    assert "2 gates" in failed
    assert "60.0%" not in usage_sentence(usage(p_read=np.nan), decoding)


def test_classes_that_are_too_small_for_a_test_are_not_said_to_be_equal(
    write_recording: Make,
) -> None:
    labels = np.repeat([0, 1, 2], 4)
    good = write_recording("good", labels=labels)
    bad = write_recording("bad", labels=labels, predictions=(labels + 1) % 3)
    table = compare_accuracy(bad, good)
    said = no_difference_sentence(table.iloc[1:])  # 4 of 4 images against 0 of 4 in each class
    assert numbers(said)[0] == "3"
    assert numbers(said)[-1] == "4"
    assert "80%" not in numbers(said)


def test_what_would_have_been_seen_is_seen_with_this_power() -> None:
    said = seen_in_classes([200, 40, 3], 10)
    percent = [float(number) for number in numbers(said) if "." in number]
    assert len(percent) == 1  # three images are too few for any difference
    needed = int(np.ceil(1 - np.log2(0.05 / 10)))
    assert stats.binom.sf(needed - 1, 200, percent[0] / 100) == pytest.approx(0.8, abs=0.01)
    both = [float(number) for number in numbers(seen_in_classes([200, 40], 10)) if "." in number]
    assert stats.binom.sf(needed - 1, 40, both[1] / 100) == pytest.approx(0.8, abs=0.01)
    assert numbers(seen_in_classes([3, 3], 2)) == ["3"]
    assert seen_in_classes([], 1) == ""


def test_classes_of_pure_noise_are_not_called_alike(write_recording: Make) -> None:
    """Unequal classes have distances of noise that both networks order alike."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), [8, 10, 14, 20, 30, 50, 80, 160])
    names = list("abcdefgh")
    networks = [
        write_recording(
            name, labels=labels, names=names, grad_cam=np.ones((len(labels), 2, 2)),
            gates={f"g{i}": rng.normal(0.5, 0.1, (len(labels), 16)) for i in range(4)},
        )
        for name in ("a", "b")
    ]  # fmt: skip
    plot = PLOTS["per_class_gates"]
    result = plot.result(Comparison(*networks))
    assert result.order["spearman"].median() > 0.7
    assert (result.order["p"] < 0.05).sum() >= 2
    said = geometry_sentence(result.geometry)
    assert result.geometry["p"].isna().all()
    assert numbers(said) == ["4"]  # of four gates, without a correlation
    assert "0.05" not in numbers(plot.words(result))


def test_classes_that_are_alike_are_found() -> None:
    geometry = pd.DataFrame(
        {
            "gate": ["a", "b", "c"], "spearman": [0.9, 0.2, 0.99], "low": [0.8, -0.1, np.nan],
            "high": [0.95, 0.4, np.nan], "ceiling": [0.97, 0.9, 0.3],
            "p_holm": [0.001, 0.4, np.nan], "classes": 10,
        }
    )  # fmt: skip
    said = geometry_sentence(geometry)
    assert numbers(said) == ["0.05", "1", "2", "0.90", "95%", "0.80", "0.95", "0.97", "1"]


def test_too_few_classes_for_any_test_are_said_to_be_so(make_recording: Make) -> None:
    a = make_recording("one")
    geometry = PLOTS["per_class_gates"].result(Comparison(a, a)).geometry
    tested = geometry.assign(p_holm=1.0, spearman=0.5, low=0.0, high=1.0, ceiling=0.9)
    # With three classes p is at least 1/6, twice as much after the correction over two gates.
    assert numbers(geometry_sentence(tested))[-3:] == ["3", "2", "0.333"]
    assert numbers(geometry_sentence(tested.assign(classes=6)))[-3:-1] != ["6", "2"]
    # One test of four classes could be significant (1/24), and two cannot.
    assert numbers(geometry_sentence(tested.assign(classes=4)))[-3:] == ["4", "2", "0.083"]
    assert "0.042" not in numbers(geometry_sentence(tested.assign(classes=4).iloc[:1]))


def test_errors_that_are_equally_frequent_are_counted() -> None:
    counts = pd.DataFrame([[5, 2, 2], [2, 6, 0], [0, 1, 7]], index=list("abc"), columns=list("abc"))
    matrix = confusion_matrix.ConfusionMatrix(OF, list("abc"), counts)
    assert numbers(confusion_matrix.caption(matrix))[-3:] == ["2", "22.2%", "2"]
    counts.loc["a", "b"] = 3
    assert numbers(confusion_matrix.caption(matrix))[-2:] == ["3", "30.0%"]


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    gates = ["lost", "gained", "third", "fourth"]
    empty = Outcomes({"name": "net", "images": 40}, None, {})
    return dict(with_named_experiments(empty, gates).tables)


def test_erasing_a_class_that_helps_is_no_use(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["concept"]
    said = concept.concept_sentence(table)
    assert numbers(said)[:2] == ["1", "4"]
    assert "falls by 20.0" in said
    assert said.index("lost") < said.index("gained")
    assert "rises by 20.0" in said
    assert "1 of 1 such gate" in said
    common = concept.concept_sentence(table.assign(p_random=0.5))
    assert "0 of 1 such gate" in common
    removed = concept.concept_sentence(table.assign(is_removal=[True, False, False, False]))
    assert "such gate" not in removed  # removal says nothing about the class
    nothing = concept.concept_sentence(table.iloc[2:])
    assert numbers(nothing)[:2] == ["0", "2"]
    assert "5.0" in numbers(nothing)  # the end of the intervals


def test_a_class_that_clipping_restores_is_not_called_erased(
    tables: dict[str, pd.DataFrame],
) -> None:
    table = tables["concept"]
    assert "0 of 4 probed gates" in concept.concept_sentence(table)
    clipped = table.assign(probe_after=[0.34, 0.46, 0.41, np.nan])
    clipped = clipped.assign(probe_low=[0.3, 0.42, 0.36, np.nan], probe_high=0.5)
    said = concept.concept_sentence(clipped)
    assert "2 of 3 probed gates" in said
    assert "46.0" in said.partition("gained; it was")[0]
    assert {"46.0", "42.0", "50.0", "80.0", "33.3"} <= set(re.findall(r"[\d.]+(?=%)", said))
    assert "41.0%" not in said
    before = table.drop(columns=[name for name in table if str(name).startswith("probe")])
    assert "probe" not in concept.concept_sentence(before)  # a table of version 0.2.0


def test_no_loss_that_is_seen_is_not_called_sufficient(tables: dict[str, pd.DataFrame]) -> None:
    said = sufficiency.sufficiency_sentence(tables["sufficiency"])
    assert "2 of 4 gates" in said
    assert "−5.0" in numbers(said)  # what may be lost
    assert "1 of 4 gates, most at gained" in said
    lost = sufficiency.sufficiency_sentence(tables["sufficiency"].iloc[:1])
    assert "0 of 1 gate." in lost
    assert numbers(lost)[:2] == ["1", "1"]


def test_pairs_that_cost_more_together_are_told_from_those_that_cost_less(
    tables: dict[str, pd.DataFrame],
) -> None:
    said = pairs.pairs_sentence(tables["pairs"])
    assert numbers(said)[:3] == ["1", "4", "0.4"]
    assert said.index("lost and fourth") < said.index("gained and third")
    none = pairs.pairs_sentence(tables["pairs"].assign(p_excess_log_loss=0.2))
    assert numbers(none)[:3] == ["0", "4", "4"]
    assert "0.5" in numbers(none)  # the farthest end of the intervals
    unknown = pairs.pairs_sentence(tables["pairs"].assign(p_excess_log_loss=np.nan))
    assert numbers(unknown)[:3] == ["0", "4", "4"]


@pytest.mark.parametrize("name", ["concept", "sufficiency", "pairs"])
def test_experiments_that_are_run_by_name_have_a_figure(
    make_recording: Make, tables: dict[str, pd.DataFrame], name: str
) -> None:
    recording = make_recording(count=12)
    plot = PLOTS[name]
    about = {"name": "net", "images": 40}
    made = Intervened(recording, Outcomes(about, None, {name: tables[name]}))
    assert plot.concerns(made)
    drawing = plot.make(made)
    assert "40" in numbers(drawing.caption)
    drawn = [line.get_ydata() for ax in drawing.figures[0].axes for line in ax.lines]
    assert any(len(each) for each in drawn)
    assert not plot.concerns(Intervened(recording, Outcomes(about, None, {})))  # not listed
    empty = Intervened(recording, Outcomes(about, None, {name: tables[name].iloc[:0]}))
    with pytest.raises(Exception, match="AS904"):
        plot.make(empty)
