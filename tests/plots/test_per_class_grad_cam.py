"""Grad-CAM of two networks."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from attnscope.plots.builtin import per_class_grad_cam


def test_per_class_grad_cam(ax: Axes) -> None:
    comparison = pd.DataFrame(
        {"class": ["all", "cat"], "spearman": [0.5, 0.4], "null_spearman": [0.1, 0.0]}
    )
    per_class_grad_cam.draw(ax, comparison, "spearman")
    lines = {line.get_label(): list(line.get_xdata()) for line in ax.lines}
    assert lines["the same image"] == [0.5, 0.4]
    assert lines["null: another image"] == [0.1, 0.0]
