"""The registry of statistics is complete, and packages can add to it."""

from __future__ import annotations

import inspect

import pytest

from attnscope import statistics
from attnscope.kinds import MAP, PER_CHANNEL
from attnscope.statistics import STATISTICS, statistic
from tests.making import refused

NOT_STATISTICS = {
    "order_by_confusion",
    "STATISTICS",
    "statistic",
    "group_by_kind",
}  # public names that are not statistics


@pytest.fixture
def own_names(monkeypatch):
    """Undo the registrations of a test."""
    monkeypatch.setattr(STATISTICS, "_known", dict(STATISTICS))


def test_every_public_statistic_is_registered():
    assert set(STATISTICS) == set(statistics.__all__) - NOT_STATISTICS
    for name, known in STATISTICS.items():
        assert known.function is getattr(statistics, name)
        assert known.about.endswith(".")


@pytest.mark.parametrize("name", sorted(set(statistics.__all__) - NOT_STATISTICS))
def test_takes_lists_the_required_arguments(name):
    known = STATISTICS.find(name)
    needed = [
        parameter
        for parameter in inspect.signature(known.function).parameters.values()
        if parameter.default is parameter.empty
    ]
    assert len(needed) == len(known.takes)
    assert [p.name for p in needed if p.name == "gate"] == [t for t in known.takes if t == "gate"]


def test_all_statistics_that_apply_to_a_recording_can_be_iterated(make_recording):
    recording = make_recording(count=40)
    found = {}
    for name, known in STATISTICS.items():
        if not known.concerns(recording):  # nobody gave it masks
            assert "localization" in name
            continue
        options = {
            option: 5
            for option in ("permutations", "probe_permutations", "resamples")
            if option in inspect.signature(known.function).parameters
        }
        if known.takes == ("recording",):
            found[name] = known.function(recording, **options)
        for gate in known.gates_of(recording):
            found[name, gate.name] = known.function(recording, gate.name, **options)
    kinds = [gate.kind for gate in recording.gates]
    assert kinds == ["channel", "spatial"] * 2
    by_name = {name: [key for key in found if key[0] == name] for name in STATISTICS}
    assert len(by_name["class_profiles"]) == len(by_name["map_agreement"]) == 2
    assert len(by_name["image_states"]) == 4
    assert found["class_metrics"].equals(statistics.class_metrics(recording))


@pytest.mark.parametrize("name", ["class_profiles", "class_mean_maps"])
def test_a_gate_without_the_trait_is_refused(make_recording, name):
    recording, known = make_recording(), STATISTICS.find(name)
    others = [gate for gate in recording.gates if gate not in known.gates_of(recording)]
    assert len(others) == 2
    for gate in others:
        with refused("AS609", names=(gate.name,)):
            known.function(recording, gate.name)


@pytest.mark.usefixtures("own_names")
def test_a_package_can_register_a_statistic(make_recording):
    @statistic("The largest value.", takes=("recording", "gate"), trait=MAP)
    def largest(recording, gate):
        return float(recording.spatial(gate).max())

    recording, known = make_recording(), STATISTICS.find("largest")
    assert [gate.kind for gate in known.gates_of(recording)] == ["spatial"] * 2
    assert known.function(recording, "layer1.attention.spatial") == pytest.approx(0.8, abs=0.01)
    with refused("AS121", names=("largest",)):
        statistic("Another.")(largest)


@pytest.mark.usefixtures("own_names")
@pytest.mark.parametrize(
    "wrong",
    [
        {"about": " "},
        {"about": "Two\nlines."},
        {"takes": ()},
        {"takes": ("recording", "weather")},
        {"trait": PER_CHANNEL},  # a trait without a gate
        {"takes": ("recording", "gate"), "trait": "round"},
    ],
)
def test_an_incomplete_statistic_is_refused(wrong):
    def new(recording):
        """Return nothing."""

    with refused("AS123", names=("new",)):
        statistic(**{"about": "Something.", **wrong})(new)
    assert "new" not in STATISTICS


def test_an_unknown_statistic_is_refused_with_the_known_names():
    with refused("AS120", names=("nonsense", "class_metrics")):
        STATISTICS.find("nonsense")
