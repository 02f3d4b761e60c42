"""Spatial gates beside Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from attnscope import statistics
from attnscope.plots.builtin import attribution_agreement, map_agreement
from attnscope.recording.recording import Recording
from tests.plots.reading import draw_plot, labels

Make = Callable[..., Recording]


@pytest.mark.parametrize("measure", ["spearman", "iou"])
def test_map_agreement_sets_own_beside_null(ax: Axes, measure: str) -> None:
    summary = pd.DataFrame(
        {
            "gate": ["layer1.spatial"] * 3 + ["layer2.spatial"] * 3,
            "class": ["all", "all", "dog"] * 2,  # the second is a class of that name
            "spearman": [0.3, 0.2, 0.4, 0.6, 0.5, 0.7],
            "iou": [0.31, 0.21, 0.41, 0.61, 0.51, 0.71],
            "null_spearman": [0.03, 0.02, 0.04, 0.06, 0.05, 0.07],
            "null_iou": [0.13, 0.12, 0.14, 0.16, 0.15, 0.17],
        }
    )
    for k, name in enumerate(("same_class", "center"), start=2):
        for each in ("spearman", "iou"):
            summary[f"{name}_{each}"] = summary[f"null_{each}"] * k
    for each in ("spearman", "iou"):
        summary[f"{each}_low"], summary[f"{each}_high"] = summary[each] - 0.1, summary[each] + 0.2
    map_agreement.draw(ax, summary, measure)
    lines = {line.get_label(): line for line in ax.lines}
    own = next(line for name, line in lines.items() if "same image" in name)
    np.testing.assert_array_equal(own.get_ydata(), summary[measure][[0, 3]])
    for column, _, _, label in map_agreement._NULLS:
        null = lines[label]
        np.testing.assert_array_equal(null.get_ydata(), summary[f"{column}_{measure}"][[0, 3]])
    intervals = [path.vertices[:, 1] for path in ax.collections[1].get_paths()]
    np.testing.assert_array_equal(
        intervals, summary.loc[[0, 3], [f"{measure}_low", f"{measure}_high"]]
    )
    np.testing.assert_array_equal(
        ax.collections[0].get_offsets()[:, 1], summary[measure][[1, 2, 4, 5]]
    )
    assert labels(ax.get_xticklabels()) == ["layer1", "layer2"]


def test_map_agreement_draws_the_summary(make_recording: Make) -> None:
    recording = make_recording()
    axes = draw_plot("map_agreement", recording).figures[0].axes
    whole = statistics.agreement_summary(recording).groupby("gate", sort=False).first()
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), whole["spearman"])
    np.testing.assert_allclose(axes[1].lines[1].get_ydata(), whole["null_iou"])


def test_a_grid_without_a_center_is_not_compared_with_one(make_recording: Make) -> None:
    shown = map_agreement.compute(make_recording())
    assert shown.grid == (4, 4)
    whole, gaussian = map_agreement.caption(shown), map_agreement._NULLS[2][3]
    assert "4×4" in whole
    assert "cell," not in whole
    none = {"center_spearman": np.nan, "center_iou": np.nan}
    small = replace(shown, summary=shown.summary.assign(**none), grid=(2, 2))
    said = map_agreement.caption(small)
    assert "2×2 cells" in said
    assert "1 cell," in said  # the top 20%
    assert "of 2 (" in whole
    assert "of 2 (" not in said  # no count beside the center
    for axes, there in (
        (map_agreement.lay_out(each)[0].axes, each is shown) for each in (shown, small)
    ):
        assert [(gaussian in labels_of(ax)) for ax in axes] == [there] * 2
    # One gate of two has a coarser grid than Grad-CAM.
    first = shown.summary["gate"].iloc[0]
    one = shown.summary.copy()
    one.loc[one["gate"] == first, list(none)] = np.nan
    said = map_agreement.caption(replace(shown, summary=one))
    assert " of 1 (" in said
    assert "1 gate," in said


def labels_of(ax: Axes) -> list[str]:
    return ax.get_legend_handles_labels()[1]


def test_gates_that_cannot_be_compared_with_another_image_are_not_counted(
    make_recording: Make,
) -> None:
    recording = make_recording(attributed=12)
    shown, other = map_agreement.compute(recording), attribution_agreement.compute(recording)
    low = shown.summary.copy()
    low.loc[low["gate"] == low["gate"].iloc[0], "above_null_low"] = np.nan
    said = map_agreement.caption(replace(shown, summary=low))
    assert " of 1 spatial gates" in said
    assert "1 gate." in said  # is not tested
    none = map_agreement.caption(replace(shown, summary=low.assign(above_null_low=np.nan)))
    assert " of 2 spatial gates" not in none
    method, table = next(iter(other.summaries.items()))
    for count in (1, 2):
        lost = table.assign(above_null_low=table["above_null_low"].where(table.index >= count))
        said = attribution_agreement.caption(replace(other, summaries={method: lost}))
        assert "of 2 gates" not in said
        assert ("of 1 gate, 1 " in said) == (count == 1)
