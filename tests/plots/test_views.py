"""Figures of every kind of gate: what is drawn, and which mean the caption names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from attnscope.kinds import MAP, PER_CHANNEL
from attnscope.plots import Unavailable, plots_of
from attnscope.plots.builtin import gate_profiles
from attnscope.plots.images import draw_map
from attnscope.plots.subjects import Comparison
from attnscope.plots.views import noun_of, size_of, view_about
from attnscope.recording.recording import Recording
from attnscope.report import render
from attnscope.statistics import class_mean_maps, class_profiles
from attnscope.statistics.maps import comparable_gates
from tests.kinds_making import AXES, record_kind
from tests.making import refused
from tests.plots.reading import ASKED_FOR, IN_A_RUN_ONLY, draw_plot, maps, shown


@pytest.mark.parametrize("kind", AXES)
def test_every_figure_is_drawn_and_names_the_mean(tmp_path: Path, kind: str) -> None:
    recording = record_kind(tmp_path / "r", kind)
    captions = {}
    for plot in plots_of(Recording):
        if plot.name in IN_A_RUN_ONLY | ASKED_FOR:
            continue
        try:
            drawing = plot.make(recording)
        except Unavailable:  # counted below
            continue
        render(drawing.figures[0], "png", 20)
        captions[plot.name] = drawing.caption
    lacking = {"channel_gates", "map_agreement"} - captions.keys()
    assert ("channel_gates" in lacking) == (not recording.gates_with(PER_CHANNEL))
    assert ("map_agreement" in lacking) == (not comparable_gates(recording))
    assert len(captions) + len(lacking) == len(plots_of(Recording)) - len(IN_A_RUN_ONLY | ASKED_FOR)
    for trait, names in (
        (PER_CHANNEL, ["channel_gates"]),
        (MAP, ["spatial_maps", "attention_grid"]),
    ):
        for gate in recording.gates_with(trait):
            for name in names:
                assert view_about(gate, trait) in captions[name]


@pytest.mark.parametrize("kind", ["full", "strip", "branch"])
def test_figures_of_two_networks_are_drawn(tmp_path: Path, kind: str) -> None:
    a, b = (record_kind(tmp_path / name, kind) for name in "ab")
    for plot in plots_of(Comparison):
        drawing = plot.make(Comparison(a, b))
        render(drawing.figures[0], "png", 20)
        if plot.name == "per_class_gates":
            assert view_about(a.gates_with(PER_CHANNEL)[-1], PER_CHANNEL) in drawing.caption


def test_channels_of_a_full_gate_are_those_of_the_statistic(tmp_path: Path) -> None:
    recording = record_kind(tmp_path / "r", "full")
    (figure,) = draw_plot("channel_gates", recording).figures
    panel = figure.axes[0]
    assert panel.get_title(loc="left").startswith("block1.gate")
    table = class_profiles(recording, "block1.gate").pivot(index="class", columns="channel")["mean"]
    np.testing.assert_allclose(np.sort(shown(panel), 1), np.sort(table.to_numpy(), 1))


def test_maps_of_a_full_gate_are_those_of_the_statistic(tmp_path: Path) -> None:
    recording = record_kind(tmp_path / "r", "full")
    (figure,) = draw_plot("spatial_maps", recording).figures
    drawn = [image.get_array() for image in maps(figure, "cividis")]
    means = class_mean_maps(recording, "block1.gate")
    for mean in means:
        assert any(each.shape == mean.shape and np.allclose(each, mean) for each in drawn)


def test_a_map_of_one_row_or_column_has_its_values_as_a_curve(ax: Axes) -> None:
    values = np.array([[0.25, 1.0, 0.5]])
    draw_map(ax, values, low=0, high=1)
    x, y = ax.lines[-1].get_data()
    assert x.tolist() == [0, 1, 2]
    bottom, top = ax.get_ylim()  # of the row: low at its bottom, high at its top
    np.testing.assert_allclose((np.asarray(y) - bottom) / (top - bottom), [0.25, 1.0, 0.5])
    ax.clear()
    draw_map(ax, values.T, low=0, high=1)
    x, y = ax.lines[-1].get_data()
    assert list(y) == [0, 1, 2]
    left, right = ax.get_xlim()
    np.testing.assert_allclose((np.asarray(x) - left) / (right - left), [0.25, 1.0, 0.5])
    ax.clear()
    draw_map(ax, np.ones((2, 2)), low=0, high=1)
    assert not ax.lines


def test_what_cannot_be_compared_with_grad_cam_is_named(tmp_path: Path) -> None:
    assert "block2.gate" in draw_plot("map_agreement", record_kind(tmp_path / "f", "full")).caption
    with refused("AS904", names=("block1.gate",)):
        draw_plot("map_agreement", record_kind(tmp_path / "s", "sequence"))


def test_one_gate_shows_the_interval_of_each_class_side_by_side(tmp_path: Path, ax: Axes) -> None:
    profiles = gate_profiles.compute(record_kind(tmp_path / "r", "scalar", count=60)).profiles
    gate_profiles.draw(ax, profiles)
    whiskers = sorted(tuple(c.get_segments()[0][:, 1]) for c in ax.collections)
    np.testing.assert_allclose(
        whiskers, sorted(zip(profiles["low"], profiles["high"], strict=True))
    )
    places = [line.get_xdata()[0] for line in ax.lines]
    assert len(set(places)) == 3


def test_words_for_gates_with_and_without_the_trait(tmp_path: Path) -> None:
    branch = record_kind(tmp_path / "r", "branch").gates
    assert size_of(branch[0], 2) == "2 branches"
    assert size_of(branch[1], 12) == "12 channels in branches"
    assert noun_of(branch, PER_CHANNEL) != noun_of([], PER_CHANNEL)
