"""Channel gates per class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from attnscope import statistics
from attnscope.plots.builtin import channel_gates
from attnscope.plots.text import with_minus
from attnscope.recording.recording import Recording
from tests.plots.reading import draw_plot, labels, maps, numbers, shown

Make = Callable[..., Recording]


def class_profiles(means: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"class": name, "channel": channel, "mean": value}
            for name, values in means.items()
            for channel, value in enumerate(values)
        ]
    )


def test_channel_gates_are_ordered_as_given(ax: Axes) -> None:
    profiles = class_profiles({"owl": [0.1, 0.2, 0.3], "cat": [0.4, 0.5, 0.6]})
    channel_gates.draw(ax, profiles, low=0, high=1, order=[2, 0, 1])
    np.testing.assert_array_equal(shown(ax), [[0.3, 0.1, 0.2], [0.6, 0.4, 0.5]])
    assert labels(ax.get_yticklabels()) == ["owl", "cat"]
    assert labels(ax.get_xticklabels()) == ["1", "2", "3"]  # ranks, not channels


def test_channel_differences_are_centered_on_the_mean_over_classes(ax: Axes) -> None:
    profiles = class_profiles({"owl": [0.1, 0.5], "cat": [0.3, 0.5]})
    channel_gates.draw_differences(ax, profiles, limit=0.2)
    np.testing.assert_allclose(shown(ax), [[-0.1, 0], [0.1, 0]], atol=1e-12)
    assert ax.images[0].get_clim() == (-0.2, 0.2)
    middle = ax.images[0].cmap(0.5)
    assert min(middle[:3]) > 0.9  # no difference is almost white


def test_channel_gates_share_scales_and_start_with_the_planted_channel(
    make_recording: Make,
) -> None:
    recording = make_recording(effect=0.3)
    drawing = draw_plot("channel_gates", recording)
    gates, differences = maps(drawing.figures[0], "cividis"), maps(drawing.figures[0], "RdBu_r")
    assert len(gates) == len(differences) == 2
    assert len({i.get_clim() for i in gates}) == len({i.get_clim() for i in differences}) == 1
    low, high = gates[0].get_clim()
    everything = np.concatenate([i.get_array().ravel() for i in gates])
    assert (low, high) == (everything.min(), everything.max())
    profiles = statistics.class_profiles(recording, "layer1.attention.channel")
    planted = profiles[profiles["channel"] == 0]["mean"].to_numpy()
    np.testing.assert_allclose(gates[0].get_array()[:, 0], planted, rtol=1e-6)
    np.testing.assert_allclose(
        differences[0].get_array()[:, 0], planted - planted.mean(), rtol=1e-5
    )
    bottom, top = differences[0].get_clim()
    assert bottom == -top
    said = numbers(drawing.caption)
    effects = statistics.channel_effects(recording, "layer1.attention.channel")
    omega = effects["omega_squared"].max()
    assert effects["omega_squared"].idxmax() == 0
    # Channels, gates, images, the scale, its bounds, the largest difference, channels that differ ...
    assert said.pop(2) == "60"
    assert said[:7] == ["24", "2", f"{low:.3g}", f"{high:.3g}", "0", "1", f"±{top:.3g}"]
    # ... of those that were tested, with the level; the best channel, its effect and p, and the
    # smallest p that is possible; channels that are constant.
    assert said[7:11] == ["1", "23", "4.3%", "0.05"]
    assert said[11:] == ["0", f"{omega:.2f}", "0.005", "199", "0.005", "1"]
    assert "layer1.attention.channel" in drawing.caption


def test_the_panel_names_the_channel_that_the_caption_names(make_recording: Make) -> None:
    recording = make_recording(effect=0.3)
    drawing = draw_plot("channel_gates", recording)
    gates = ("layer1.attention.channel", "layer2.attention.channel")
    axes = [ax for ax in drawing.figures[0].axes if ax.images]
    for gate, ax in zip(gates, axes[1::2], strict=True):
        effects = statistics.channel_effects(recording, gate)
        best = effects.loc[effects["omega_squared"].idxmax()]
        share = with_minus(f"{best['omega_squared']:.3f}")
        assert numbers(ax.get_title(loc="left")) == [share, str(best["channel"])]
    assert "channel 0 of layer1.attention.channel" in drawing.caption
    assert all("omega squared" in ax.get_xlabel() for ax in axes[-2:])


def test_channels_without_a_test_are_not_said_to_be_alike(write_recording: Make) -> None:
    rng = np.random.default_rng(0)

    def caption(counts: list[int], values: float = 1.0) -> list[str]:
        labels = np.repeat(np.arange(3), counts)
        gates = {"layer1.gate": 0.5 + values * rng.uniform(0, 0.1, (len(labels), 4))}
        recording = write_recording(f"net-{counts}-{values}", labels=labels, gates=gates)
        return numbers(channel_gates.caption(channel_gates.compute(recording)))

    few = caption([4, 4, 4])
    assert "0.0%" not in few
    assert "0.05" not in few  # the level of a test
    assert few[8:11] == ["10", "0", "3"]  # images, and classes that have them
    some = caption([20, 20, 4])
    assert some[9] == "4"
    assert some[12:15] == ["10", "1", "3"]
    none = caption([20, 20, 20], values=0.0)
    assert "0.05" not in none
    assert none[-1] == "4"  # constant
