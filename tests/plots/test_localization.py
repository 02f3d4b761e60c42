"""Where maps lie: what is drawn, and which sentences a table may and may not produce."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from attnscope.plots.builtin import localization, masked_images
from attnscope.plots.localization_sentences import (
    count,
    describe_localization,
    describe_masks,
)
from attnscope.recording.masks import MaskFacts
from attnscope.recording.recording import Recording
from attnscope.statistics import localization_summary
from tests.making import refused
from tests.plots.reading import add_masks, draw_plot, labels, numbers

Make = Callable[..., Recording]
FACTS = MaskFacts("masks", "", 100, 90, 6, 3, 1, 0)


def table(*rows: dict[str, object]) -> pd.DataFrame:
    """Rows of `localization_summary` that differ from one in which nothing is found."""
    usual = {
        "kind": "spatial", "depth": 1, "measure": "energy", "images": 90, "constant": 0,
        "area": 0.2, "value": 0.21, "low": 0.2, "high": 0.22, "center": 0.2, "over_center": 0.01,
        "over_center_low": -0.01, "over_center_high": 0.03, "p_center": 0.3, "p_center_holm": 0.5,
        "detectable_center": 0.04, "other": 0.2, "over_other": 0.01, "over_other_low": -0.02,
        "over_other_high": 0.04, "p_other": 0.4, "p_other_holm": 0.6, "detectable_other": 0.05,
        "on_object": False,
    }  # fmt: skip
    return pd.DataFrame([{"map": f"layer{i}", **usual, **row} for i, row in enumerate(rows)])


ON = {"p_center_holm": 0.01, "p_other_holm": 0.01, "on_object": True, "value": 0.5}
OFF: dict[str, object] = {}
BELOW = {"p_center_holm": 0.001, "over_center": -0.1}
ONLY_OTHER = {"p_other_holm": 0.01}
ONLY_CENTER = {"p_center_holm": 0.01}
UNTESTED = {
    f"{name}": np.nan
    for null in ("center", "other")
    for name in (f"p_{null}", f"p_{null}_holm", f"detectable_{null}", f"over_{null}_low")
}


def test_maps_are_counted_by_what_both_tests_found() -> None:
    counts = count(table(ON, OFF, BELOW, ONLY_OTHER, ONLY_CENTER, UNTESTED))
    assert (counts.tested, counts.both, counts.only_other, counts.only_center) == (5, 1, 1, 1)
    assert counts.neither == 2
    assert counts.below == {"center": 1, "other": 0}


@pytest.mark.parametrize("row", [OFF, BELOW, ONLY_OTHER, ONLY_CENTER, UNTESTED])
def test_no_map_is_said_to_be_on_the_object_unless_both_nulls_are_exceeded(
    row: dict[str, object],
) -> None:
    assert "above both nulls" not in describe_localization(table(row), "energy")
    assert "above both nulls" in describe_localization(table(ON), "energy")


def test_a_significant_difference_of_the_wrong_sign_is_no_finding() -> None:
    wrong = {**ON, "over_other": -0.2, "over_center": -0.2, "on_object": False}
    text = describe_localization(table(wrong), "energy")
    assert "above both" not in text
    assert "below" in text


def test_without_a_test_no_difference_is_claimed() -> None:
    text = describe_localization(table(UNTESTED, UNTESTED), "energy")
    assert "above" not in text
    assert "power" not in text
    assert "90" in numbers(text)
    assert "0 images" in describe_localization(table(OFF).iloc[:0], "energy")


def test_maps_without_a_test_against_one_null_are_counted() -> None:
    no_center = {"p_center": np.nan, "p_center_holm": np.nan, "detectable_center": np.nan}
    text = describe_localization(table({**ONLY_OTHER, **no_center}, OFF, UNTESTED), "energy")
    assert numbers(text)[0] == "2"
    assert "1 map is not tested against a Gaussian" in text
    assert "not tested against" not in describe_localization(table(ON, OFF, UNTESTED), "energy")


def test_what_could_have_been_seen_is_said_where_something_was_not_seen() -> None:
    text = describe_localization(table(OFF, {**OFF, "detectable_other": 0.07}), "energy")
    assert {"7.0", "4.0"} <= set(numbers(text))  # points, of the worst map
    assert "power" not in describe_localization(table(ON, ON), "energy")


def test_blocks_are_no_maps_of_their_own() -> None:
    summary = table(ON, {**ON, "kind": "block"})
    assert count(summary[summary["kind"] != "block"]).both == 1
    assert "of 1 tested map" in describe_localization(summary, "energy")
    # They are tested, too, which the correction includes.
    assert "blocks" in describe_localization(summary, "energy")
    assert "blocks" not in describe_localization(table(ON, ON), "energy")


def test_the_best_map_is_named_with_its_numbers() -> None:
    text = describe_localization(table(OFF, ON), "energy")
    assert "layer1" in text
    assert {"50.0%", "20.0%", "+1.0", "90"} <= set(numbers(text))
    cam = {**ON, "kind": "attribution", "map": "grad_cam"}
    assert "Grad-CAM" in describe_localization(table(cam), "energy")


def test_images_without_a_usable_mask_are_counted() -> None:
    assert numbers(describe_masks(FACTS)) == ["90", "100", "6", "3", "1"]
    whole = MaskFacts("ink", "", 100, 100, 0, 0, 0, 0)
    assert "left out" not in describe_masks(whole)


def test_each_map_is_drawn_beside_both_nulls(ax: Axes) -> None:
    summary = table(ON, {**OFF, "value": 0.3, "other": 0.25, "center": 0.4, "area": 0.1})
    localization.draw(ax, summary, "energy")
    lines = {line.get_label(): line for line in ax.lines}
    drawn = {label: line.get_ydata().tolist() for label, line in lines.items()}
    assert drawn == {
        "map, above both nulls (95% CI)": [0.5],
        "map, not above both nulls (95% CI)": [0.3],
        "null: maps of all other images": [0.2, 0.25],
        "null: Gaussian at the image center": [0.2, 0.4],
    }
    area, interval = (c.get_segments() for c in ax.collections)
    assert [segment[0][1] for segment in area] == [0.2, 0.1]
    np.testing.assert_allclose([s[:, 1] for s in interval], [[0.2, 0.22]] * 2)
    assert labels(ax.get_xticklabels()) == ["layer0", "layer1"]


def test_both_plots_draw_what_the_statistics_say(make_recording: Make) -> None:
    recording = make_recording()
    for name in ("localization", "masked_images"):
        with refused("AS915", names=(recording.folder,)):
            draw_plot(name, recording)
    add_masks(recording, 40)
    drawing = draw_plot("localization", recording)
    summary = localization_summary(recording)
    for ax, measure in zip(drawing.figures[0].axes, ("energy", "pointing"), strict=True):
        shown = [y for line in ax.lines[:2] for y in line.get_ydata()]
        rows = summary[summary["measure"] == measure]
        assert sorted(shown) == pytest.approx(sorted(rows["value"]))
    assert {"40", "60", "20"} <= set(numbers(drawing.caption))
    drawing = draw_plot("masked_images", recording)
    axes = drawing.figures[0].axes
    scores = [ax.get_xlabel() for ax in axes if ax.get_xlabel()]
    assert len(scores) == 8 * 4  # eight images, each with two gates and Grad-CAM
    assert all(ax.collections for ax in axes if ax.get_xlabel())


def test_the_outline_of_a_mask_lies_on_its_edge(ax: Axes) -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[:8, 4:] = 255
    ax.imshow(np.zeros((4, 4)))
    masked_images.draw(ax, mask, (4, 4))
    points = np.concatenate([p.vertices for c in ax.collections for p in c.get_paths()])
    # Column 4 of 16 is the border between cells 0 and 1 of 4; row 8 that between cells 1 and 2.
    assert points[:, 0].min() == pytest.approx(0.5)
    assert points[:, 1].max() == pytest.approx(1.5)
    assert points[:, 0].max() == pytest.approx(3.5, abs=0.2)  # it closes at the border of the image
