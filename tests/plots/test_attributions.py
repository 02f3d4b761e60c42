"""The plots of attribution methods beside Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from attnscope import statistics
from attnscope.plots import PLOTS, plots_for
from attnscope.recording.recording import Recording
from tests.making import refused

Make = Callable[..., Recording]
NAMES = {"attributions", "attribution_agreement"}


def test_they_are_spoken_of_only_where_attributions_were_recorded(make_recording: Make) -> None:
    without, with_some = make_recording("without"), make_recording("with", attributed=9)
    assert not NAMES & {plot.name for plot in plots_for(without)}
    assert {plot.name for plot in plots_for(with_some)} >= NAMES
    for name in NAMES:
        with refused("AS908", names=(without.folder,)):
            PLOTS[name].make(without)


def test_maps_are_those_of_the_images_that_have_them(make_recording: Make) -> None:
    recording = make_recording(attributed=5)
    rows = [0, 15, 30, 44, 59]
    assert recording.attributed_rows("occlusion").tolist() == rows
    shown = PLOTS["attributions"].result(recording)
    assert list(shown.maps) == ["grad_cam", "occlusion", "layer_integrated_gradients"]
    np.testing.assert_array_equal(shown.maps["grad_cam"], recording.grad_cam()[rows])
    np.testing.assert_array_equal(shown.maps["occlusion"], recording.attribution("occlusion"))
    assert shown.labels == recording.labels[rows].tolist()
    for image, row in zip(shown.images, rows, strict=True):
        np.testing.assert_array_equal(image, recording.image(row))


def test_each_method_has_one_scale_with_zero_in_its_middle(make_recording: Make) -> None:
    drawing = PLOTS["attributions"].make(make_recording(attributed=5))
    columns = [
        ax for ax in drawing.figures[0].axes if ax.images and ax.images[0].cmap.name == "RdBu_r"
    ]
    assert len(columns) == 3 * 5
    assert {ax.images[0].get_clim() for ax in columns} == {(-1.0, 1.0)}
    assert max(np.abs(ax.images[0].get_array()).max() for ax in columns) == pytest.approx(1)


def test_agreement_is_that_of_each_method_by_itself(make_recording: Make) -> None:
    recording = make_recording(attributed=20)
    shown = PLOTS["attribution_agreement"].result(recording)
    assert shown.images == {"grad_cam": 60, "occlusion": 20, "layer_integrated_gradients": 20}
    for method, summary in shown.summaries.items():
        for gate, found in zip(summary["gate"], summary["spearman"], strict=True):
            alone = statistics.map_agreement(recording, gate, attribution=method)
            assert found == pytest.approx(alone.loc[alone["scored"], "spearman"].mean())
            assert alone["row"].tolist() == recording.attributed_rows(method).tolist()
