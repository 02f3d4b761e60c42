"""What is drawn is what was given: values, scales, labels."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope import figures


@pytest.fixture
def ax() -> Iterator[Axes]:
    with figures.style():
        yield Figure(figsize=(6, 6), dpi=50).subplots()


def shown(ax: Axes) -> np.ndarray:
    return np.ma.filled(ax.images[-1].get_array().astype(float), np.nan)


def labels(texts) -> list[str]:
    return [text.get_text() for text in texts]


def class_profiles(means: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"class": name, "channel": channel, "mean": value}
            for name, values in means.items()
            for channel, value in enumerate(values)
        ]
    )


def gate_profiles(classes: list[str]) -> pd.DataFrame:
    rows = [
        {
            "gate": f"layer{depth}.attention.channel",
            "kind": "channel",
            "class": name,
            "mean": depth + i / 10,
            "low": depth + i / 10 - 0.05,
            "high": depth + i / 10 + 0.05,
        }
        for depth in (1, 2, 3)
        for i, name in enumerate(classes)
    ]
    return pd.DataFrame(rows)


def accuracy_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "class": ["all", "cat", "dog"],
            "accuracy_a": [0.6, 0.5, 0.7],
            "accuracy_b": [0.8, 0.9, 0.7],
            "only_a": [3, 1, 2],
            "only_b": [23, 21, 2],
            "p": [1e-4, 1e-5, 1.0],
            "p_holm": [1e-4, 2e-5, 1.0],
        }
    )


def test_map_is_drawn_raw_on_the_given_scale(ax: Axes) -> None:
    values = np.array([[0.2, 0.4], [0.6, np.nan]])
    assert figures.draw_map(ax, values, low=0.1, high=0.9) is ax
    np.testing.assert_array_equal(shown(ax), values)
    assert ax.images[0].get_clim() == (0.1, 0.9)
    assert ax.images[0].get_interpolation() == "nearest"
    missing = ax.images[0].cmap(np.ma.masked)
    assert missing[:3] not in [tuple(c[:3]) for c in ax.images[0].cmap(np.linspace(0, 1, 256))]


def test_overlay_lies_on_the_whole_picture_and_hides_it_where_it_is_high(ax: Axes) -> None:
    image = np.zeros((8, 6, 3), np.uint8)
    image[..., 1] = 100
    heat = np.array([[0.0, 1.0], [2.0, 4.0]])
    figures.draw_overlay(ax, image, heat, low=0, high=2)
    below, above = ax.images
    np.testing.assert_allclose(below.get_array(), 58.7)  # green weighs 0.587 in grey
    np.testing.assert_array_equal(above.get_array(), heat)
    assert above.get_clim() == (0, 2)
    assert list(above.get_extent()) == list(below.get_extent()) == [-0.5, 5.5, 7.5, -0.5]
    alpha = above.get_alpha()
    assert alpha[0, 0] < alpha[0, 1] < alpha[1, 0] == alpha[1, 1] <= 1


def test_image_keeps_its_pixels(ax: Axes) -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    figures.draw_image(ax, image, "owl")
    np.testing.assert_array_equal(ax.images[0].get_array(), image)
    assert ax.get_title("center") == "owl"


def test_colorbar_states_both_ends_also_of_an_overlay(ax: Axes) -> None:
    figures.draw_overlay(ax, np.zeros((4, 4, 3), np.uint8), np.eye(2), low=0, high=0.123)
    bar = figures.draw_colorbar(ax, "Grad-CAM", [ax])
    ends = labels(bar.ax.get_yticklabels())
    assert (ends[0], ends[-1]) == ("0", "0.123")
    assert bar.ax.get_ylabel() == "Grad-CAM"
    assert bar.mappable.get_alpha() in (None, 1)


def test_confusion_matrix_shows_counts_and_shares_of_rows(ax: Axes) -> None:
    counts = pd.DataFrame([[6, 2], [0, 0]], index=["cat", "dog"], columns=["cat", "dog"])
    figures.draw_confusion_matrix(ax, counts)
    np.testing.assert_array_equal(shown(ax), [[0.75, 0.25], [np.nan, np.nan]])
    assert ax.images[0].get_clim() == (0, 1)
    # The class without images has no share, and no text.
    assert labels(ax.texts) == ["6\n75.0 %", "2\n25.0 %"]
    assert labels(ax.get_yticklabels()) == ["cat", "dog"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")


def test_confusion_matrix_of_a_hundred_classes_has_no_text_and_fewer_labels(ax: Axes) -> None:
    names = [f"class {i}" for i in range(100)]
    figures.draw_confusion_matrix(ax, pd.DataFrame(np.eye(100), index=names, columns=names))
    assert not ax.texts
    ticks = ax.get_yticks()
    assert 10 < len(ticks) < 60
    assert labels(ax.get_yticklabels()) == [names[int(t)] for t in ticks]
    ax.figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in ax.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_channel_gates_are_ordered_as_given(ax: Axes) -> None:
    profiles = class_profiles({"owl": [0.1, 0.2, 0.3], "cat": [0.4, 0.5, 0.6]})
    figures.draw_channel_gates(ax, profiles, low=0, high=1, order=[2, 0, 1])
    np.testing.assert_array_equal(shown(ax), [[0.3, 0.1, 0.2], [0.6, 0.4, 0.5]])
    assert labels(ax.get_yticklabels()) == ["owl", "cat"]
    assert labels(ax.get_xticklabels()) == ["1", "2", "3"]  # ranks, not channels


def test_channel_differences_are_centred_on_the_mean_over_classes(ax: Axes) -> None:
    profiles = class_profiles({"owl": [0.1, 0.5], "cat": [0.3, 0.5]})
    figures.draw_channel_differences(ax, profiles, limit=0.2)
    np.testing.assert_allclose(shown(ax), [[-0.1, 0], [0.1, 0]], atol=1e-12)
    assert ax.images[0].get_clim() == (-0.2, 0.2)
    middle = ax.images[0].cmap(0.5)
    assert min(middle[:3]) > 0.9  # no difference is almost white


def test_gate_profiles_draw_means_and_intervals(ax: Axes) -> None:
    figures.draw_gate_profiles(ax, gate_profiles(["cat", "dog"]))
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(lines["dog"].get_ydata(), [1.1, 2.1, 3.1])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(0.95)
    assert band.max() == pytest.approx(3.05)
    assert labels(ax.get_xticklabels()) == ["layer1", "layer2", "layer3"]


def test_gate_profiles_centred(ax: Axes) -> None:
    figures.draw_gate_profiles(ax, gate_profiles(["cat", "dog"]), centred=True)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), -0.05)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), 0.05)


def test_gate_profiles_of_many_classes_name_the_highlighted_only(ax: Axes) -> None:
    names = [f"c{i}" for i in range(100)]
    figures.draw_gate_profiles(ax, gate_profiles(names), highlight=["c7", "c42"])
    assert len(ax.lines) == 100
    assert ax.get_legend_handles_labels()[1] == ["98 other classes", "c7", "c42"]


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
    figures.draw_gate_state(ax, state, high=0.9)
    heights = [[bar.get_height() for bar in group] for group in ax.containers]
    assert heights == [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]]
    assert ax.get_ylim() == (0, 0.9)
    words = ax.get_legend_handles_labels()[1]
    assert ["lower" in words[0], "upper" in words[1], "stuck" in words[2]] == [True] * 3


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
    for k, name in enumerate(("same_class", "centre"), start=2):
        for each in ("spearman", "iou"):
            summary[f"{name}_{each}"] = summary[f"null_{each}"] * k
    for each in ("spearman", "iou"):
        summary[f"{each}_low"], summary[f"{each}_high"] = summary[each] - 0.1, summary[each] + 0.2
    figures.draw_map_agreement(ax, summary, measure)
    lines = {line.get_label(): line for line in ax.lines}
    own = next(line for name, line in lines.items() if "same image" in name)
    np.testing.assert_array_equal(own.get_ydata(), summary[measure][[0, 3]])
    for column, words in (
        ("null", "another image"),
        ("same_class", "of another image of the same class"),
        ("centre", "Gaussian in the middle"),
    ):
        null = next(line for name, line in lines.items() if name.endswith(words))
        np.testing.assert_array_equal(null.get_ydata(), summary[f"{column}_{measure}"][[0, 3]])
    intervals = [path.vertices[:, 1] for path in ax.collections[1].get_paths()]
    np.testing.assert_array_equal(
        intervals, summary.loc[[0, 3], [f"{measure}_low", f"{measure}_high"]]
    )
    np.testing.assert_array_equal(
        ax.collections[0].get_offsets()[:, 1], summary[measure][[1, 2, 4, 5]]
    )
    assert labels(ax.get_xticklabels()) == ["layer1", "layer2"]


def test_training_curves(ax: Axes) -> None:
    metrics = pd.DataFrame(
        {"epoch": [1, 2], "train_loss": [2.0, 1.0], "validation_loss": [2.5, 1.5]}
    )
    figures.draw_training_curves(ax, metrics, "loss")
    lines = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert lines == {"training": [2.0, 1.0], "validation": [2.5, 1.5]}
    assert list(ax.lines[0].get_xdata()) == [1, 2]


def test_training_curves_with_single_batches(ax: Axes) -> None:
    metrics = pd.DataFrame(
        {
            "epoch": [1, 2],
            "step": [50, 100],
            "train_loss": [2.0, 1.0],
            "validation_loss": [2.5, 1.5],
            "learning_rate": [0.2, 0.1],
        }
    )
    steps = pd.DataFrame(
        {"step": [25, 50, 75], "loss": [2.5, 2.0, 1.5], "learning_rate": [0.1, 0.2, 0.15]}
    )
    figures.draw_training_curves(ax, metrics, "loss", steps)
    lines = {line.get_label(): line for line in ax.lines}
    assert set(lines) == {"training, one batch", "training", "validation"}
    batches = lines["training, one batch"]
    assert list(batches.get_xdata()) == [0.5, 1, 1.5], "in epochs"
    assert list(batches.get_ydata()) == [2.5, 2.0, 1.5]
    ax.clear()
    figures.draw_training_curves(ax, metrics, "learning_rate", steps)
    (line,) = ax.lines
    assert list(line.get_ydata()) == [0.1, 0.2, 0.15]
    assert ax.get_title("left") == "learning rate"


def test_per_class_accuracy(ax: Axes) -> None:
    figures.draw_per_class_accuracy(ax, accuracy_frame(), ("SE", "CBAM"))
    lines = {line.get_label(): list(line.get_xdata()) for line in ax.lines}
    assert lines["SE"] == [0.6, 0.5, 0.7]
    assert lines["CBAM"] == [0.8, 0.9, 0.7]
    assert labels(ax.get_yticklabels()) == ["all", "cat", "dog"]
    low, high = ax.get_ylim()
    assert low > high  # the first row is on top


def test_disagreements(ax: Axes) -> None:
    figures.draw_disagreements(ax, accuracy_frame(), ("SE", "CBAM"))
    widths = [[bar.get_width() for bar in group] for group in ax.containers]
    assert widths == [[-1, -2], [21, 2]]  # without the row of all, which would flatten them
    bold = [text.get_text() for text in ax.texts if text.get_fontweight() == "bold"]
    assert bold == ["p < 0.001", "p < 0.001"]
    assert "3   |   23" in labels(ax.texts)
    assert "p = 1.000" in labels(ax.texts)


def test_class_distances_and_order(ax: Axes) -> None:
    distances = pd.DataFrame(
        {
            "gate": ["g1", "g1", "g2", "g2"],
            "class": ["owl", "cat"] * 2,
            "distance_a": [1.0, 2.0, 3.0, 4.0],
            "distance_b": [5.0, 6.0, 7.0, np.nan],
        }
    )
    figures.draw_class_distances(ax, distances, "distance_b", high=8)
    np.testing.assert_array_equal(shown(ax), [[5, 7], [6, np.nan]])
    assert ax.images[0].get_clim() == (0, 8)
    other = Figure().subplots()
    order = pd.DataFrame({"gate": ["g1", "g2"], "spearman": [0.9, -0.2], "p": [0.01, 0.6]})
    figures.draw_class_order(other, order)
    assert [bar.get_height() for bar in other.patches] == [0.9, -0.2]
    assert other.patches[0].get_facecolor() != other.patches[1].get_facecolor()
    assert other.get_ylim() == (-1, 1)


def test_per_class_grad_cam(ax: Axes) -> None:
    comparison = pd.DataFrame(
        {"class": ["all", "cat"], "spearman": [0.5, 0.4], "null_spearman": [0.1, 0.0]}
    )
    figures.draw_per_class_grad_cam(ax, comparison, "spearman")
    lines = {line.get_label(): list(line.get_xdata()) for line in ax.lines}
    assert lines["the same image"] == [0.5, 0.4]
    assert lines["null: another image"] == [0.1, 0.0]


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
    figures.draw_per_class_agreement(ax, (a, b), ("SE", "CBAM"))
    lines = {line.get_label(): line for line in ax.lines}
    for name, frame, color in zip(("SE", "CBAM"), (a, b), figures.NETWORK_COLORS, strict=True):
        own = lines[f"{name}, 95 % interval"]
        null = lines[f"{name}, null: Grad-CAM of another image"]
        np.testing.assert_array_equal(own.get_xdata(), frame["spearman"])
        np.testing.assert_array_equal(null.get_xdata(), frame["null_spearman"])
        assert own.get_color() == color
        assert null.get_color() not in figures.NETWORK_COLORS
        assert null.get_markerfacecolor() == "white"
        np.testing.assert_array_equal(own.get_ydata(), null.get_ydata())
    ends = [[path.vertices[:, 0] for path in bars.get_paths()] for bars in ax.collections]
    np.testing.assert_allclose(ends[0][:2], [[0.4, 0.8], [0.3, 0.7]])
    np.testing.assert_allclose(ends[1], [[0.1, 0.5], [0.0, 0.4], [0.3, 0.3]])
    # The first network is above the second within the line of the class, and none touches another.
    above, below = (lines[f"{name}, 95 % interval"].get_ydata() for name in ("SE", "CBAM"))
    assert np.all(above < below)
    assert np.all(below[:-1] < above[1:])
    assert labels(ax.get_yticklabels()) == ["all", "cat", "dog"]
    assert ax.get_xlabel() == "Spearman correlation"


def test_per_class_agreement_of_one_network_keeps_its_colour(ax: Axes) -> None:
    figures.draw_per_class_agreement(ax, (None, agreement_rows([0.2, 0.1, 0.3])), ("SE", "CBAM"))
    words = ax.get_legend_handles_labels()[1]
    assert words == ["CBAM, 95 % interval", "CBAM, null: Grad-CAM of another image"]
    own = next(line for line in ax.lines if line.get_label() == words[0])
    assert own.get_color() == figures.NETWORK_COLORS[1]
    assert list(own.get_ydata()) == [0, 1, 2]


def test_note_is_text_without_axes(ax: Axes) -> None:
    figures.draw_note(ax, "SE has no spatial gates")
    assert labels(ax.texts) == ["SE has no spatial gates"]
    assert not ax.axison


def test_class_colors_are_distinct() -> None:
    for count in (3, 10, 100):
        assert len(set(figures.class_colors(count))) == count


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["layer1.0.attention.channel", "layer1.1.attention.channel"], ["0", "1"]),
        (["layer1.0.attention.channel", "layer2.0.attention.channel"], ["layer1", "layer2"]),
        (
            ["layer1.0.attention.channel", "layer2.0.attention.spatial"],
            ["layer1.channel", "layer2.spatial"],
        ),
        (["a.gate", "a.gate#2"], ["gate", "gate#2"]),
        (["only.one.gate"], ["only.one.gate"]),
        (["gate", "b.gate"], ["gate", "b.gate"]),
        ([], []),
    ],
)
def test_short_names_stay_different(names: list[str], short: list[str]) -> None:
    assert figures.short_names(names) == short


def test_names_without_a_font_are_numbered_boxes_and_warn_of_nothing() -> None:
    # U+10FFFF is no character, and no font ever has it.
    names = ["cat", "\U0010ffff\U0010ffff", "dog \U0010ffff"]
    drawn = figures.drawable_names(names)
    assert drawn == ["cat", "1 □□", "2 dog □"]
    assert figures.missing_characters(names) == "\U0010ffff"
    with figures.style():
        figure = Figure(dpi=30)
        figures.draw_confusion_matrix(
            figure.subplots(), pd.DataFrame(np.eye(3), index=drawn, columns=drawn)
        )
        figure.draw_without_rendering()  # a missing glyph would warn, and a warning is an error


def test_dollar_signs_are_no_formulas(ax: Axes) -> None:
    names = [r"$\frac$", "$10 to $20"]
    figures.draw_confusion_matrix(ax, pd.DataFrame(np.eye(2), index=names, columns=names))
    ax.figure.draw_without_rendering()
    assert labels(ax.get_yticklabels()) == names


def test_style_embeds_text_and_leaves_settings_as_they_were() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with figures.style():
        assert matplotlib.rcParams["pdf.fonttype"] == 42
        assert matplotlib.rcParams["font.family"][0] == "DejaVu Sans"
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("module", ["figures", "report"])
def test_pyplot_and_package_imports(module: str) -> None:
    source = Path(figures.__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    names = [
        name
        for node in ast.walk(ast.parse(source))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [f"{node.module}.{alias.name}" for alias in node.names]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    ]
    assert not [name for name in names if "pyplot" in name or name.split(".")[0] == "torch"]
    if module == "figures":
        assert not [name for name in names if name.startswith("attnscope")]
