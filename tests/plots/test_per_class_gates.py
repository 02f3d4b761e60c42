"""Class profiles of two networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope.kinds import PER_CHANNEL
from attnscope.plots import PLOTS, needs
from attnscope.plots.builtin import per_class_gates
from attnscope.plots.subjects import Comparison, no_grad_cam
from attnscope.recording.recording import Recording
from tests.making import refused
from tests.plots.reading import draw_plot, maps, numbers, shown

Make = Callable[..., Recording]


def test_class_distances_and_order(ax: Axes) -> None:
    distances = pd.DataFrame(
        {
            "gate": ["g1", "g1", "g2", "g2"],
            "class": ["owl", "cat"] * 2,
            "distance_a": [1.0, 2.0, 3.0, 4.0],
            "distance_b": [5.0, 6.0, 7.0, np.nan],
        }
    )
    per_class_gates.draw(ax, distances, "distance_b", high=8)
    np.testing.assert_array_equal(shown(ax), [[5, 7], [6, np.nan]])
    assert ax.images[0].get_clim() == (0, 8)
    other = Figure().subplots()
    order = pd.DataFrame({"gate": ["g1", "g2"], "spearman": [0.9, -0.2]})
    per_class_gates.draw_order(other, order)
    assert [bar.get_height() for bar in other.patches] == [0.9, -0.2]
    assert other.patches[0].get_facecolor() == other.patches[1].get_facecolor()  # not tested
    assert other.get_ylim() == (-1, 1)


def test_gates_and_grad_cam_of_a_network_with_itself(make_recording: Make) -> None:
    a = make_recording("one")
    drawing = draw_plot("per_class_gates", a, a)
    left, right = (i.get_array() for i in maps(drawing.figures[0], "cividis"))
    np.testing.assert_array_equal(left, right)
    found = numbers(drawing.caption)
    assert found[found.index("1.00") :][:2] == ["1.00", "2"]
    geometry = PLOTS["per_class_gates"].result(Comparison(a, a)).geometry
    assert found[-1] == str(int(geometry["p_holm"].isna().sum()))
    titles = [ax.get_title("left") for ax in drawing.figures[0].axes[:2]]
    assert titles[0] != titles[1]
    assert numbers(draw_plot("per_class_grad_cam", a, a).caption)[:2] == ["60", "1.00"]


def test_what_two_networks_do_not_share_is_named(write_recording: Make) -> None:
    values = np.random.default_rng(0).random((6, 4))
    a, b = (
        write_recording(n, labels=[0, 1, 2] * 2, gates={f"{n}.gate": values}) for n in ("a", "b")
    )
    pair = Comparison(a, b)
    missing = needs.shared_gate(PER_CHANNEL, "channel").missing(pair).removesuffix(".")
    with refused("AS904", names=("a and b", missing)):
        PLOTS["per_class_gates"].result(pair)
    with refused("AS904", names=(no_grad_cam(a, b).removesuffix("."),)):
        PLOTS["per_class_grad_cam"].result(pair)
