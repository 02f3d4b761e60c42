"""The control task of the probe, with gates whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from scipy import special, stats

from attnscope.recording.recording import Recording
from attnscope.statistics import control_task, decode_gates, linear_probe, probe_selectivity
from attnscope.statistics.control_task import control_tasks
from tests.making import refused

Write = Callable[..., Recording]
IMAGES = 240


@pytest.fixture
def planted(write_recording: Write, monkeypatch: pytest.MonkeyPatch) -> Recording:
    """Pictures in 12 tight clusters, and classes that do not depend on them.

    Gate ``looks`` says which cluster a picture is in, ``label`` which class, ``noise`` nothing.
    """
    rng = np.random.default_rng(0)
    cluster = rng.permutation(np.arange(IMAGES) % 12)
    labels = np.arange(IMAGES) % 3
    pictures = 100 * rng.normal(size=(12, 20))[cluster] + rng.normal(size=(IMAGES, 20))
    monkeypatch.setattr(control_task, "small_pictures", lambda recording: pictures)
    noise = rng.normal(size=(3, IMAGES, 12))
    values = {
        "looks": 4 * np.eye(12)[cluster] + noise[0],
        "label": 4 * np.eye(12)[labels] + noise[1],
        "noise": noise[2],
    }
    gates = {name: special.expit(each) for name, each in values.items()}
    return write_recording(labels=labels, gates=gates)


def test_a_gate_of_looks_and_a_gate_of_the_class_are_told_apart(planted: Recording) -> None:
    found = probe_selectivity(planted, seed=1).set_index("gate")
    assert (found["draws"] == 5).all()
    assert found.loc["looks", "control_accuracy"] > 0.7
    assert found.loc["looks", "selectivity_high"] < 0
    assert found.loc["label", "control_accuracy"] == pytest.approx(1 / 3, abs=0.08)
    assert found.loc["label", "selectivity_low"] > 0.4
    assert found.loc["noise", "selectivity_low"] < 0 < found.loc["noise", "selectivity_high"]
    probe = linear_probe(planted, 1, seed=1).set_index("gate")
    for ours, theirs in (("accuracy", "balanced_accuracy"), ("low", "low"), ("high", "high")):
        np.testing.assert_array_equal(found[ours], probe[theirs])
    difference = found["accuracy"] - found["control_accuracy"]
    np.testing.assert_allclose(found["selectivity"], difference)


def test_a_class_of_copies_of_one_image_is_left_out(planted: Recording) -> None:
    # Otherwise the probe of the class could not be fitted, and all numbers would be missing.
    labels = np.where(planted.labels == 2, np.arange(IMAGES) % 2, planted.labels)
    labels[-2:] = 2
    groups = np.append(np.arange(IMAGES - 2), [IMAGES, IMAGES])
    recording = _relabeled(planted, labels)
    found = probe_selectivity(recording, seed=1, groups=groups)
    probe = linear_probe(recording, 1, seed=1, groups=groups)
    np.testing.assert_array_equal(found["accuracy"], probe["balanced_accuracy"])
    assert found["selectivity"].notna().all()


def test_the_interval_of_the_control_is_that_of_its_draws(planted: Recording) -> None:
    tasks = control_tasks(planted, 3, 4, seed=2)
    scores = [
        linear_probe(_relabeled(planted, task), 1, seed=2)["balanced_accuracy"].to_numpy()
        for task in tasks
    ]
    found = probe_selectivity(planted, draws=4, seed=2)
    low, high = stats.t.interval(0.95, 3, np.mean(scores, 0), stats.sem(scores, axis=0))
    np.testing.assert_allclose(found["control_accuracy"], np.mean(scores, 0))
    np.testing.assert_allclose(found["control_low"], np.maximum(low, 0))
    np.testing.assert_allclose(found["control_high"], np.minimum(high, 1))
    one = probe_selectivity(planted, draws=1, seed=2)
    assert one[["control_low", "control_high", "selectivity_low"]].isna().all(axis=None)
    assert one["control_accuracy"].notna().all()


def _relabeled(recording: Recording, labels: np.ndarray) -> Recording:
    """The same recording with other labels."""
    changed = Recording(recording.folder)
    changed.rows = recording.rows.assign(label=labels)
    return changed


def test_the_tasks_depend_on_the_pictures_alone(
    planted: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = np.round(control_task.small_pictures(planted), -2)  # equal within a cluster
    _, cluster = np.unique(pictures, axis=0, return_inverse=True)
    monkeypatch.setattr(control_task, "small_pictures", lambda recording: pictures)
    tasks = control_tasks(planted, 3, 6, seed=3)
    for task in tasks:
        assert set(task) == {0, 1, 2}
        assert all(len(set(task[cluster == each])) == 1 for each in cluster)
    assert any((a != b).any() for a, b in pairwise(tasks))
    again = control_tasks(planted, 3, 6, seed=3)
    assert all((a == b).all() for a, b in zip(tasks, again, strict=True))


def test_without_a_second_class_or_a_second_picture_there_is_no_control(
    write_recording: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"g": np.random.default_rng(0).random((30, 4))}
    one = write_recording("one", labels=[0] * 30, gates=values)
    assert probe_selectivity(one)["accuracy"].isna().all()
    monkeypatch.setattr(control_task, "small_pictures", lambda recording: np.zeros((30, 4)))
    same = write_recording("same", labels=[0, 1, 2] * 10, gates=values)
    found = probe_selectivity(same)
    assert found["draws"].tolist() == [0]
    assert found["selectivity"].isna().all()
    with refused("AS701", names=(0,)):
        probe_selectivity(same, draws=0)
    with refused("AS717", names=(30,)):
        probe_selectivity(same, groups=[1, 2])


def test_decoding_has_the_control_if_there_are_pictures(
    make_recording: Write, write_recording: Write
) -> None:
    recording = make_recording(count=60)
    found = decode_gates(recording, probe_permutations=9, permutations=9)
    control = probe_selectivity(recording, draws=3)
    for column in ("control_accuracy", "control_high", "selectivity", "selectivity_low"):
        np.testing.assert_array_equal(found[column], control[column])
    values = {"g": np.random.default_rng(0).random((30, 4))}
    bare = write_recording(labels=[0, 1, 2] * 10, gates=values)
    assert decode_gates(bare, None, 9, 9)["selectivity"].isna().all()


def test_decoding_keeps_copies_together(write_recording: Write) -> None:
    """Every image three times: without groups the probe has seen each scored image."""
    rng = np.random.default_rng(4)
    labels, groups = np.repeat(rng.integers(0, 3, 40), 3), np.repeat(np.arange(40), 3)
    values = special.expit(np.repeat(rng.normal(size=(40, 30)), 3, axis=0))
    recording = write_recording(labels=labels, gates={"g": values})
    found = decode_gates(recording, None, 99, 99, groups=groups).iloc[0]
    plain = decode_gates(recording, None, 99, 99).iloc[0]
    assert plain["balanced_accuracy"] > found["balanced_accuracy"] + 0.2
    assert plain["p_max"] < 0.05
    assert plain["omega_p"] < found["omega_p"]
    probe = linear_probe(recording, 99, groups=groups).iloc[0]
    assert found["p_max"] == probe["p_max"]
