"""What holds for every plot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attnscope.kinds import MAP
from attnscope.plots import PLOTS, plots_of
from attnscope.plots.builtin import channel_gates, spatial_maps
from attnscope.plots.subjects import no_gate
from attnscope.recording.recording import Recording
from attnscope.report import render
from tests.making import refused
from tests.plots.reading import ASKED_FOR, IN_A_RUN_ONLY, draw_plot, maps

Make = Callable[..., Recording]


def test_the_architecture_page_names_every_plot() -> None:
    page = (Path(__file__).parents[2] / "docs/architecture.md").read_text(encoding="utf-8")
    section = page.split("\n## Figures")[1].split("\n## ")[0]
    for name in PLOTS:
        assert f"`{name}`" in section


def test_many_gates_take_several_pages_on_one_scale(
    make_recording: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_gates, "GATES_A_PAGE", 1)
    monkeypatch.setattr(spatial_maps, "CLASSES_A_PAGE", 2)
    recording = make_recording(count=12)
    for name, pages in (("channel_gates", 2), ("spatial_maps", 2)):
        drawing = draw_plot(name, recording)
        assert len(drawing.figures) == pages
        assert len({i.get_clim() for f in drawing.figures for i in maps(f, "cividis")}) == 1


@pytest.mark.parametrize("name", ["spatial_maps", "attention_grid"])
def test_missing_spatial_gates_are_named_in_the_caption(make_recording: Make, name: str) -> None:
    recording = make_recording("se", spatial=False)
    assert no_gate(recording, MAP) in draw_plot(name, recording).caption


@pytest.mark.parametrize(
    "name", sorted({plot.name for plot in plots_of(Recording)} - IN_A_RUN_ONLY - ASKED_FOR)
)
def test_a_network_without_gates_or_grad_cam_has_no_figure_of_them(
    write_recording: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No figure consists of a sentence that says what the network lacks."""
    recording = write_recording(labels=[0, 1, 2, 0], predictions=[0, 1, 2, 1])
    picture = np.zeros((4, 4, 3), np.uint8)
    monkeypatch.setattr(Recording, "image", lambda self, i: picture)
    if "gate" in name or "map" in name:
        with refused("AS904", names=(no_gate(recording).removesuffix("."),)):
            draw_plot(name, recording)
        return
    render(draw_plot(name, recording).figures[0], "png", 20)
