"""Numbers in the captions about seeds and about gates that are replaced together.

`tests/plots/snapshots` has the wording.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from attnscope.plots import PLOTS
from attnscope.plots.usage_sentences import joint_sentence
from attnscope.recording.recording import Recording
from attnscope.statistics import compare_seeds, joint_usage, usage_over_seeds
from tests.statistics.making import outcomes_with_errors, usage_table

Make = Callable[..., Recording]


def module_of(plot: str) -> Any:
    """The module of a plot, in which its sentences are."""
    return import_module(PLOTS[plot].caption.__module__)


def seeds_sentence(frame, *names):
    return module_of("seed_differences").seeds_sentence(frame, *names)


def seed_usage_sentence(frame, name):
    return module_of("seed_usage").seed_usage_sentence(frame, name)


def numbers(text: str) -> list[float]:
    """All numbers of a text, with their signs."""
    assert not re.search(r"\bnan\b", text.lower())
    found = re.findall("[+\N{MINUS SIGN}]?[0-9][0-9,]*(?:[.][0-9]+)?", text)
    return [float(n.replace("\N{MINUS SIGN}", "-").replace(",", "")) for n in found]


@pytest.fixture
def kinds(make_recording: Make) -> tuple[list[Recording], list[Recording]]:
    """Three seeds of two kinds; the second is better."""
    first = [make_recording(f"a{i}", seed=i, accuracy=0.5, count=90) for i in range(3)]
    second = [make_recording(f"b{i}", seed=20 + i, accuracy=0.8, count=90) for i in range(3)]
    return first, second


def test_one_seed_has_a_difference_and_no_interval(kinds):
    found = compare_seeds(kinds[0][:1], kinds[1][:1])
    shown = numbers(seeds_sentence(found, "SE", "CBAM"))
    assert round(100 * found["difference"][0], 1) in shown
    assert 95 not in shown


def test_equal_networks_are_counted_as_untested(make_recording):
    a = [make_recording(f"a{i}", seed=i) for i in range(2)]
    shown = numbers(seeds_sentence(compare_seeds(a, a), "SE", "CBAM"))
    assert 95 not in shown
    assert {0, 2, 3} <= set(shown)  # points, seeds, classes that cannot be tested


def test_only_a_class_that_differs_is_named_with_its_difference(make_recording):
    a = [make_recording(f"a{i}", seed=i, accuracy=0.0, count=90) for i in range(3)]
    b = [make_recording(f"b{i}", seed=i, accuracy=1.0, count=90) for i in range(3)]
    assert {100, 3} <= set(numbers(seeds_sentence(compare_seeds(a, b), "SE", "CBAM")))
    b[0] = make_recording("b9", seed=3, accuracy=0.9, count=90)
    table = compare_seeds(a, b)
    table["p_holm"] = [np.nan, 0.5, 0.01, 0.7]
    sentence = seeds_sentence(table, "SE", "CBAM")
    assert round(100 * table.loc[2, "difference"], 1) in numbers(sentence)
    assert "dog" in sentence
    assert "cat" not in sentence
    assert "owl" not in sentence


def test_the_figure_has_the_table_and_images(kinds):
    plot, names = PLOTS["seed_differences"], ("SE", "CBAM")
    picture = plot.make(plot.subject(names, *kinds))
    same = plot.make(plot.subject(names, kinds[0], kinds[0]))
    assert len(picture.figures) == 2
    assert len(same.figures) == 1  # a network has no disagreements with itself
    difference = compare_seeds(*kinds)["difference"][0]
    assert {round(100 * difference, 1), 3} <= set(numbers(picture.caption))
    assert sum(bool(ax.images) for ax in picture.figures[1].axes) == 5 * 12  # maps of 12 images


def test_usage_over_seeds_names_the_gate_with_the_largest_effect():
    values = np.array([[0.01, 0.30], [-0.01, 0.32], [0.02, 0.29]])
    tables = [usage_table(list(row), [-0.02 * k, 0.0]) for k, row in enumerate(values)]
    said = seed_usage_sentence(usage_over_seeds(tables), "se")
    assert "late" in said
    assert 30.3 in numbers(said)  # points
    assert 60.0 in numbers(said)  # balanced accuracy of the best gate, in percent
    moved = [
        table.assign(removal_value=0.0, removal_log_loss=[0, 0.1 + k / 999])
        for k, table in enumerate(tables)
    ]
    shown = numbers(seed_usage_sentence(usage_over_seeds(moved), "se"))
    assert 0.1 in shown  # logits


def test_usage_of_one_seed_has_no_interval():
    frame = usage_over_seeds([usage_table([0.1, 0.2], [0, 0], p=0.001)])
    assert 20.0 not in numbers(seed_usage_sentence(frame, "se"))


def test_the_largest_end_of_an_interval_is_shown_if_no_use_is_found():
    tables = [usage_table([0.01 * k, -0.01 * k], [0.0, 0.0]) for k in (1, -1, 0.5)]
    frame = usage_over_seeds(tables)
    shown = numbers(seed_usage_sentence(frame, "cbam"))
    assert round(100 * frame["removal_high"].max(), 1) in shown
    worse = usage_over_seeds(
        [
            table.assign(removal_value=[0, -0.2 - k / 999], removal_log_loss=[0, -0.1])
            for k, table in enumerate(tables)
        ]
    )
    said = seed_usage_sentence(worse, "x")
    assert 20.1 in numbers(said)  # accuracy rises
    assert "rises by 20.1" in said
    assert "late" in said
    nowhere = usage_over_seeds([table.assign(p_read=1.0) for table in tables])
    assert 60.0 not in numbers(seed_usage_sentence(nowhere, "cbam"))


def test_seeds_that_find_an_effect_by_themselves_are_counted():
    tables = [usage_table([0.1, -0.1], [0, 0], p=0.01)] * 2
    found = seed_usage_sentence(usage_over_seeds(tables), "x")
    none = seed_usage_sentence(usage_over_seeds(tables, level=0.001), "x")
    assert numbers(found).count(1) > numbers(none).count(1)


def test_gates_that_are_replaced_together_are_shown_with_their_effect():
    wrong = {"x.a": 0, "x.b": 0, "y.a": 1, "block x": 20, "block y": 5, "all": 30}
    said = joint_sentence(joint_usage(outcomes_with_errors(wrong)))
    shown = numbers(said)
    assert {20.0, 30.0, 0.6} <= set(shown)
    assert {1, 2} <= set(shown)  # of two blocks one is used
    assert "block x" in said
    assert "block y" not in said
    assert 5.0 not in shown


def test_effects_of_gates_replaced_together_have_their_sign():
    said = joint_sentence(joint_usage(outcomes_with_errors({"a": 0, "block x": 0, "all": 1})))
    assert 1.0 in numbers(said)
    assert "block x" not in said
    better = outcomes_with_errors({"a": 0, "all": 30})
    # The unedited network is wrong where the edited one was, and right the other way around.
    lost = better[(better["target"] == "all") & (better["edit"] == "constant")]
    own = better["edit"] == "own"
    for column in ("prediction", "log_loss"):
        values = better[column].to_numpy().copy()
        values[own], values[lost.index] = lost[column], better.loc[own, column]
        better[column] = values
    assert "rises by 30.0" in joint_sentence(joint_usage(better))
    assert joint_sentence(joint_usage(outcomes_with_errors({"a": 3}))) == ""


def test_gates_without_a_probe_are_not_said_to_hold_no_class():
    none = usage_table([0.0, 0.0], [0.0, 0.0]).assign(
        balanced_accuracy=np.nan, chance=np.nan, p_read=np.nan
    )
    found = seed_usage_sentence(usage_over_seeds([none]), "se")
    weak = seed_usage_sentence(usage_over_seeds([none.assign(balanced_accuracy=0.1)]), "se")
    assert "in every seed" in weak
    assert "in every seed" not in found
