"""Shares of saturated, stuck and constant gates."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes

from attnscope import statistics
from attnscope.plots.builtin import gate_state
from attnscope.recording.recording import Recording
from tests.plots.reading import draw_plot, numbers

Make = Callable[..., Recording]


def test_gate_state_bars(ax: Axes) -> None:
    state = pd.DataFrame(
        {
            "gate": ["layer1.channel", "layer2.channel"],
            "saturated_low": [0.1, 0.2],
            "saturated_high": [0.3, 0.4],
            "stuck": [0.5, 0.6],
            "constant": [0.7, 0.8],
        }
    )
    gate_state.draw(ax, state, high=0.9)
    heights = [[bar.get_height() for bar in group] for group in ax.containers]
    assert heights == [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]]
    assert ax.get_ylim() == (0, 0.9)
    assert len(set(ax.get_legend_handles_labels()[1])) == 4


def test_gate_state_shares_a_scale_and_names_the_constant(make_recording: Make) -> None:
    recording = make_recording()
    state = statistics.gate_state(recording)
    drawing = draw_plot("gate_state", recording)
    channel, spatial = drawing.figures[0].axes
    assert channel.get_ylim() == spatial.get_ylim()
    assert [bar.get_height() for bar in channel.containers[3]] == [1 / 8, 0]
    stuck, constant = (f"{100 * frame.max():.1f}%" for frame in (state["stuck"], state["constant"]))
    # Images, the thresholds of saturation at both bounds, and that of stuck values.
    thresholds = ["60", "1%", "1%", "0.02"]
    assert numbers(drawing.caption) == [*thresholds, stuck, constant]
    assert constant == "12.5%"
    assert "layer1.attention.channel" in drawing.caption
