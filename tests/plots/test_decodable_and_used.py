"""What the panels of decodable and used gates show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from attnscope.plots.builtin import decodable_and_used as plot
from attnscope.plots.subjects import Intervened, Seeds
from attnscope.plots.theme import style
from attnscope.recording.outcomes import read_outcomes
from attnscope.recording.recording import Recording
from attnscope.statistics.inference import significant
from attnscope.statistics.probe import decoding_p
from tests.plots.reading import draw_plot, labels, numbers

Make = Callable[..., Recording]
Add = Callable[..., Path]


def entries(figure: Figure) -> dict[str, tuple[object, ...]]:
    """Marker, edge and face of each line in the legend."""
    (legend,) = figure.legends
    names = labels(legend.get_texts())
    return {
        name: (line.get_marker(), to_rgba(line.get_color()), to_rgba(line.get_markerfacecolor()))
        for name, line in zip(names, legend.legend_handles, strict=True)
        if hasattr(line, "get_marker")
    }


def drawn(figure: Figure) -> Figure:
    with style():
        figure.draw_without_rendering()
    return figure


def test_entries_of_the_legend_are_hollow_and_differ(
    make_recording: Make, add_interventions: Add
) -> None:
    recordings = [make_recording(name, count=90) for name in ("a", "b")]
    made = [read_outcomes(add_interventions(each)) for each in recordings]
    for name, subject in (
        ("decodable_and_used", Intervened(recordings[0], made[0])),
        ("seed_usage", Seeds("cbam", recordings, made)),
    ):
        shown = entries(draw_plot(name, subject).figures[0])
        assert len(set(shown.values())) == len(shown)
        filled = [
            text for text, (form, edge, face) in shown.items() if form in "os^D" and edge == face
        ]
        assert filled == ["filled: significant"]


def test_upper_panels_are_as_wide_as_their_gates(
    make_recording: Make, add_interventions: Add
) -> None:
    recordings = [make_recording(name, count=90) for name in ("a", "b")]
    made = [read_outcomes(add_interventions(each)) for each in recordings]
    for name, subject, upper in (
        ("decodable_and_used", Intervened(recordings[0], made[0]), 2),
        ("seed_usage", Seeds("cbam", recordings, made), 1),
    ):
        axes = drawn(draw_plot(name, subject).figures[0]).axes
        for gate in range(4):
            places = {round(ax.transData.transform((gate, 0))[0], 3) for ax in axes}
            assert len(places) == 1
        assert all(ax.get_xlim()[1] < 4 for ax in axes[:upper])
        assert all(
            ax.get_window_extent().x1 < axes[-1].get_window_extent().x1 for ax in axes[:upper]
        )


def test_what_is_significant_lies_above_the_band(
    make_recording: Make, add_interventions: Add
) -> None:
    recording = make_recording(count=90)
    shown = plot.compute(Intervened(recording, read_outcomes(add_interventions(recording))))
    ax = plot.lay_out(shown)[0].axes[0]
    decoding = shown.decoding
    tops = np.array([bar.get_y() + bar.get_height() for bar in ax.patches])
    np.testing.assert_allclose(tops, decoding["limit"])
    filled = significant(decoding_p(decoding))
    assert 0 < filled.sum() < len(filled)
    np.testing.assert_array_equal(decoding["balanced_accuracy"] > tops, filled)
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    ends = {line.get_markerfacecolor() == "white": line.get_ydata() for line in marks}
    np.testing.assert_array_equal(ends[False], decoding["balanced_accuracy"][filled])
    np.testing.assert_array_equal(ends[True], decoding["balanced_accuracy"][~filled])
    # Outcomes of earlier versions have no limit, and the band is the central 95%.
    old = replace(shown, decoding=decoding.drop(columns="limit"))
    tops = [bar.get_y() + bar.get_height() for bar in plot.lay_out(old)[0].axes[0].patches]
    np.testing.assert_allclose(tops, decoding["null_high"])


@pytest.mark.parametrize(("scored", "tested"), [(9, False), (10, True)])
def test_few_images_are_not_tested(
    make_recording: Make, add_interventions: Add, scored: int, tested: bool
) -> None:
    recording = make_recording(count=90)
    outcomes = read_outcomes(add_interventions(recording))
    outcomes.tables["decoding"] = outcomes.table("decoding").assign(scored=scored)
    shown = plot.compute(Intervened(recording, outcomes))
    with style():
        ax = plot.lay_out(shown)[0].axes[0]
    assert (plot.TOO_FEW in ax.get_title(loc="left")) != tested
    assert bool(ax.patches) == tested
    assert shown.usage["p_read"].notna().all() == tested
    assert (plot.TOO_FEW in plot.caption(shown)) != tested
    if not tested:
        assert {"9", "10"} <= set(numbers(plot.caption(shown)))
