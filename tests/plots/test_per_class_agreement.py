"""Last spatial gates of two networks beside their Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from attnscope import statistics
from attnscope.kinds import MAP
from attnscope.plots import theme
from attnscope.plots.builtin import per_class_agreement
from attnscope.plots.subjects import no_gate, no_grad_cam
from attnscope.recording.recording import Recording
from tests.making import refused
from tests.plots.reading import draw_plot, labels, numbers, words

Make = Callable[..., Recording]


def agreement_rows(spearman: list[float]) -> pd.DataFrame:
    own = np.array(spearman)
    return pd.DataFrame(
        {
            "class": ["all", "cat", "dog"],
            "spearman": own,
            "spearman_low": own - 0.1,
            "spearman_high": own + 0.3,
            "null_spearman": own / 10,
        }
    )


def test_per_class_agreement_of_two_networks(ax: Axes) -> None:
    # The dog has one image in the second network, and no interval; none in the first.
    a, b = agreement_rows([0.5, 0.4, np.nan]), agreement_rows([0.2, 0.1, 0.3])
    b.loc[2, ["spearman_low", "spearman_high"]] = np.nan
    per_class_agreement.draw(ax, (a, b), ("SE", "CBAM"))
    lines = {line.get_label(): line for line in ax.lines}
    for name, frame, color in zip(("SE", "CBAM"), (a, b), theme.NETWORK_COLORS, strict=True):
        own = lines[f"{name}, 95% CI"]
        null = lines[f"{name}, null: Grad-CAM of another image"]
        np.testing.assert_array_equal(own.get_xdata(), frame["spearman"])
        np.testing.assert_array_equal(null.get_xdata(), frame["null_spearman"])
        assert own.get_color() == color
        assert null.get_color() not in theme.NETWORK_COLORS
        assert null.get_markerfacecolor() == "white"
        np.testing.assert_array_equal(own.get_ydata(), null.get_ydata())
    ends = [[path.vertices[:, 0] for path in bars.get_paths()] for bars in ax.collections]
    np.testing.assert_allclose(ends[0][:2], [[0.4, 0.8], [0.3, 0.7]])
    np.testing.assert_allclose(ends[1], [[0.1, 0.5], [0.0, 0.4], [0.3, 0.3]])
    # The first network is above the second within the line of the class, and none touches another.
    above, below = (lines[f"{name}, 95% CI"].get_ydata() for name in ("SE", "CBAM"))
    assert np.all(above < below)
    assert np.all(below[:-1] < above[1:])
    assert labels(ax.get_yticklabels()) == ["all", "cat", "dog"]
    assert ax.get_xlabel() == "Spearman correlation"


def test_per_class_agreement_of_one_network_keeps_its_color(ax: Axes) -> None:
    per_class_agreement.draw(ax, (None, agreement_rows([0.2, 0.1, 0.3])), ("SE", "CBAM"))
    words = ax.get_legend_handles_labels()[1]
    assert [word.split(",")[0] for word in words] == ["CBAM", "CBAM"]
    own = next(line for line in ax.lines if line.get_label() == words[0])
    assert own.get_color() == theme.NETWORK_COLORS[1]
    assert list(own.get_ydata()) == [0, 1, 2]


def planted(write_recording: Make, name: str, seed: int = 0) -> Recording:
    """Cats' last spatial gate is their Grad-CAM with noise, dogs' knows nothing, owls' is flat."""
    rng = np.random.default_rng(seed)
    labels = np.arange(90) % 3
    cams = rng.uniform(0.1, 1, (90, 4, 4)).astype(np.float16)
    last = rng.uniform(0, 1, (90, 4, 4))
    cats = labels == 0
    last[cats] = 0.5 * cams[cats] + 0.5 * last[cats]
    last[labels == 2] = 0.5
    gates = {"one.spatial": rng.uniform(0, 1, (90, 4, 4)), "two.spatial": last}
    return write_recording(name, labels=labels, gates=gates, grad_cam=cams)


def test_agreement_per_class_as_scipy(write_recording: Make) -> None:
    rng = np.random.default_rng(7)
    labels = np.arange(90) % 3
    se = write_recording(
        "se", labels=labels, gates={"one.channel": rng.random((90, 4))},
        grad_cam=rng.random((90, 4, 4)),
    )  # fmt: skip
    cbam = planted(write_recording, "cbam")
    drawing = draw_plot("per_class_agreement", se, cbam)
    ax = drawing.figures[0].axes[0]
    lines = {line.get_label(): line for line in ax.lines}
    own, null = (lines[f"cbam, {text}"] for text in ("95% CI", "null: Grad-CAM of another image"))
    assert not any("se," in label for label in lines)
    assert own.get_color() == theme.NETWORK_COLORS[1]
    gate, cam = cbam.spatial("two.spatial"), cbam.grad_cam()
    rho = np.array(
        [
            stats.spearmanr(gate[i].ravel(), cam[i].ravel())[0] if labels[i] < 2 else np.nan
            for i in range(90)
        ]
    )
    groups = [labels < 2, labels == 0, labels == 1]
    means = [rho[inside].mean() for inside in groups]
    np.testing.assert_allclose(own.get_xdata(), [*means, np.nan], atol=1e-12)
    # Intervals as the central limit has them, which the bootstrap is near to.
    half = [1.96 * rho[inside].std(ddof=1) / np.sqrt(inside.sum()) for inside in groups]
    ends = np.array([path.vertices[:, 0] for path in ax.collections[0].get_paths()[:3]])
    np.testing.assert_allclose(
        ends, np.transpose([means, means]) + np.outer(half, [-1, 1]), atol=0.03
    )
    scores = statistics.map_agreement(cbam, "two.spatial")
    nulls = [scores["null_spearman"][inside].mean() for inside in groups]
    np.testing.assert_allclose(null.get_xdata(), [*nulls, np.nan], atol=1e-12)
    assert abs(nulls[0]) < 0.1 < means[0]
    above = 0
    for inside in groups[1:]:
        difference = (rho - scores["null_spearman"])[inside]
        above += difference.mean() > 1.96 * difference.std(ddof=1) / np.sqrt(inside.sum())
    assert above == 1
    said = numbers(drawing.caption.partition("two.spatial")[2])
    written = [f"{mean:.3f}".replace("-", "−") for mean in means]
    # The intervals are those that are drawn, which are compared above.
    intervals = [["95%", *(f"{end:.3f}".replace("-", "−") for end in pair)] for pair in ends]
    assert said[:5] == [written[0], "60", *intervals[0]]
    # The null; classes above and below it, of how many, and the level.
    assert said[5:10] == [f"{nulls[0]:.3f}".replace("-", "−"), "1", "2", "0", "95%"]
    # The lowest, the highest; not scored.
    assert said[10:] == [written[2], *intervals[2], written[1], *intervals[1], "30"]
    for text in (drawing.caption, words(drawing.figures[0])):
        assert no_gate(se, MAP) in text
        assert "two.spatial" in text


def test_agreement_per_class_of_two_networks_with_spatial_gates(write_recording: Make) -> None:
    a, b = planted(write_recording, "first"), planted(write_recording, "second", seed=1)
    drawing = draw_plot("per_class_agreement", a, b)
    lines = {line.get_label(): line for line in drawing.figures[0].axes[0].lines}
    for recording in (a, b):
        summary = statistics.agreement_summary(recording)
        summary = summary[summary["gate"] == "two.spatial"]
        drawn = lines[f"{recording.name}, 95% CI"]
        np.testing.assert_array_equal(drawn.get_xdata(), summary["spearman"])
    assert drawing.caption.index("first, two.spatial") < drawing.caption.index("second, two.spat")


def test_without_scored_images_there_is_no_figure(write_recording: Make) -> None:
    labels = np.arange(6) % 3
    flat = write_recording(
        "flat", labels=labels, gates={"x.spatial": np.full((6, 2, 2), 0.5)},
        grad_cam=np.random.default_rng(0).random((6, 2, 2)),
    )  # fmt: skip
    bare = write_recording("bare", labels=labels)
    reasons = ("x.spatial", no_gate(bare, MAP), no_grad_cam(bare).removesuffix("."))
    with refused("AS904", names=reasons):
        draw_plot("per_class_agreement", flat, bare)
    other = write_recording("other", labels=labels[::-1])
    for name in ("per_class_agreement", "disagreements"):
        with refused("AS723"):
            draw_plot(name, bare, other)


def test_a_class_of_one_scored_image_is_not_counted_as_like_the_null() -> None:
    rows = pd.DataFrame(
        {"above_null_low": [0.1, -0.1, np.nan], "above_null_high": [0.2, 0.1, np.nan]}
    )
    said = per_class_agreement._beside_null(rows)
    assert numbers(said)[:3] == ["1", "2", "0"]
    assert numbers(said)[-1] == "1"
    assert numbers(per_class_agreement._beside_null(rows.iloc[2:])) == []
