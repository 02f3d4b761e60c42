"""Which classes are drawn where there are more than a figure can hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from attnscope import statistics
from attnscope.comparison import Comparison, SeedComparison
from attnscope.plots.builtin import channel_gates
from attnscope.plots.choosing import (
    MOST_CLASSES,
    MOST_ROWS,
    largest_rows,
    most_confused,
    most_different,
)
from attnscope.recording.recording import Recording
from tests.plots.reading import draw_plot, labels, maps, shown

Make = Callable[..., Recording]
MANY = MOST_CLASSES + 1


@pytest.fixture
def many(make_recording: Make) -> Recording:
    """A recording of one class more than a plot shows, most of them with two images."""
    names = [f"c{k}" for k in range(MANY)]
    return make_recording(count=2 * MANY, names=names, accuracy=0.7)


def test_the_classes_with_the_largest_distance_are_chosen_whatever_the_size_of_a_gate() -> None:
    few, large = np.zeros((MANY, 1)), np.zeros((MANY, 50))
    few[[5, 90], 0] = 3, -3
    large[7] = 2
    large[100] = np.nan  # has no images
    assert most_different([few, large], MANY, 3) == [5, 7, 90]
    assert most_different([few, large], MANY, 2) == [5, 90]
    assert most_different([few[:MOST_CLASSES]], MOST_CLASSES, 3) == list(range(MOST_CLASSES))


def test_the_classes_of_the_most_frequent_errors_are_chosen() -> None:
    counts = 9 * np.eye(MANY, dtype=np.int64)
    counts[4, 60], counts[60, 2], counts[80, 81] = 7, 6, 5
    assert most_confused(counts, 3) == [2, 4, 60]
    assert most_confused(counts, 5) == [2, 4, 60, 80, 81]
    assert most_confused(counts[:9, :9], 3) == list(range(9))
    right = np.eye(MANY, dtype=np.int64)
    right[30, 30] = 4
    assert 30 in most_confused(right, 1), "without errors, the largest classes"


def test_the_confusion_matrix_of_many_classes_shows_shares_of_all_images(many: Recording) -> None:
    drawing = draw_plot("confusion_matrix", many)
    counts = statistics.confusion_matrix(many).to_numpy()
    chosen = most_confused(counts, 40)
    assert 30 < len(chosen) <= 40
    image = drawing.figures[0].axes[0].images[0].get_array()
    shares = (counts / counts.sum(1, keepdims=True))[np.ix_(chosen, chosen)]
    np.testing.assert_allclose(image, shares)
    assert f"Of {MANY} classes, the figure shows the {len(chosen)} " in drawing.caption


def test_channel_gates_of_many_classes_differ_from_the_mean_over_all(many: Recording) -> None:
    drawing = draw_plot("channel_gates", many)
    gates = [gate.name for gate in many.gates if gate.kind == "channel"]
    means = [
        statistics.class_profiles(many, gate)["mean"].to_numpy().reshape(MANY, -1) for gate in gates
    ]
    chosen = most_different(means, MANY, 40)
    assert len(chosen) == 40
    differences = maps(drawing.figures[0], "RdBu_r")[0].get_array()
    order = (
        channel_gates.tested_effects(many, gates[0])
        .sort_values("omega_squared", ascending=False, na_position="last", kind="stable")["channel"]
        .tolist()
    )
    apart = means[0] - means[0].mean(0)
    np.testing.assert_allclose(differences, apart[chosen][:, order], atol=1e-12)
    assert labels(drawing.figures[0].axes[0].get_yticklabels())[0] == f"c{chosen[0]}"
    assert f"Of {MANY} classes, the figure shows the 40 " in drawing.caption


@pytest.mark.parametrize("spatial", [True, False])
def test_spatial_maps_of_many_classes_fill_one_page(make_recording: Make, spatial: bool) -> None:
    names = [f"c{k}" for k in range(MANY)]
    recording = make_recording(count=2 * MANY, names=names, spatial=spatial)
    drawing = draw_plot("spatial_maps", recording)
    (figure,) = drawing.figures
    assert f"Of {MANY} classes, the figure shows the 20 " in drawing.caption
    gate = "layer2.attention.spatial"
    if spatial:
        gates = [g.name for g in recording.gates if g.kind == "spatial"]
        every = {name: statistics.class_mean_maps(recording, name) for name in gates}
        chosen = most_different(every.values(), MANY, 20)
        drawn = maps(figure, "cividis")
        assert len(drawn) == 20 * len(gates)
        np.testing.assert_allclose(drawn[-1].get_array(), every[gate][chosen[-1]])
    else:
        cams = statistics.class_mean_grad_cam(recording, "predicted")
        chosen = most_different([cams], MANY, 20)
        drawn = [ax for ax in figure.axes if ax.images and ax.get_title()]
        assert [ax.get_title() for ax in drawn] == [names[k] for k in chosen]
        np.testing.assert_allclose(shown(drawn[0]), cams[chosen[0]])


def test_a_large_recording_has_fewer_permutations_and_says_so(
    make_recording: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = make_recording(effect=0.3)
    usual = draw_plot("channel_gates", recording)
    monkeypatch.setattr(channel_gates, "_LARGE", 60 * 24 - 1)  # images × channels, less one
    few = draw_plot("channel_gates", recording)
    assert channel_gates.permutations_for(recording) == channel_gates.FEWER_PERMUTATIONS == 39
    assert "with 39 permutations" in few.caption
    assert "39 permutations" not in usual.caption
    assert "p is at least 0.025" in few.caption, "the smallest p that there can be"
    found = channel_gates.tested_effects(recording, "layer1.attention.channel")
    assert found["p"].min() == pytest.approx(1 / 40)


def test_rows_of_the_largest_values_are_chosen_below_that_of_all_classes() -> None:
    values = np.zeros(1 + MANY)
    values[[0, 3, 50, MANY]] = 9, 2, 3, 4
    values[8] = np.nan
    found = largest_rows(values)
    assert len(found) == 1 + MOST_ROWS
    assert found == sorted(found)
    assert {0, 3, 50, MANY} <= set(found)
    assert 8 not in found
    assert largest_rows(values[: 1 + MOST_CLASSES]) == list(range(1 + MOST_CLASSES))


@pytest.mark.parametrize(
    "name",
    ["per_class_accuracy", "seed_differences", "per_class_grad_cam", "per_class_agreement"],
)
def test_plots_with_a_row_for_each_class_show_some_and_say_so(
    make_recording: Make, name: str
) -> None:
    names = [f"c{k}" for k in range(MANY)]
    a, b = (
        make_recording(f"{seed}", seed=seed, count=2 * MANY, names=names, accuracy=accuracy)
        for seed, accuracy in ((0, 0.5), (1, 0.7))
    )
    pair = SeedComparison(("a", "b"), [a], [b]) if "seed" in name else Comparison(a, b)
    drawing = draw_plot(name, pair)
    rows = labels(drawing.figures[0].axes[0].get_yticklabels())
    assert len(rows) == 1 + MOST_ROWS
    assert rows[0] == "all"
    assert set(rows[1:]) < set(names)
    if "cam" not in name and "agreement" not in name:
        table = Comparison(a, b).accuracy.iloc[1:].set_index("class")["difference"].abs()
        assert table[rows[1:]].min() >= table.drop(rows[1:]).max()
    assert f"Of {MANY} classes, the figure shows the {MOST_ROWS} " in drawing.caption
