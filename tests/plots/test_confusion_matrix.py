"""The confusion matrix: counts, shares, labels that fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from statsmodels.stats.proportion import proportion_confint

from attnscope import statistics
from attnscope.plots.builtin import confusion_matrix
from attnscope.recording.recording import Recording
from tests.plots.reading import draw_plot, labels, numbers, shown

Make = Callable[..., Recording]


def test_confusion_matrix_shows_counts_and_shares_of_rows(ax: Axes) -> None:
    counts = pd.DataFrame([[6, 2], [0, 0]], index=["cat", "dog"], columns=["cat", "dog"])
    confusion_matrix.draw(ax, counts)
    np.testing.assert_array_equal(shown(ax), [[0.75, 0.25], [np.nan, np.nan]])
    assert ax.images[0].get_clim() == (0, 1)
    # The class without images has no share, and no text.
    assert labels(ax.texts) == ["6\n75.0%", "2\n25.0%"]
    assert labels(ax.get_yticklabels()) == ["cat", "dog"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")


def test_confusion_matrix_of_a_hundred_classes_has_no_text_and_fewer_labels(ax: Axes) -> None:
    names = [f"class {i}" for i in range(100)]
    confusion_matrix.draw(ax, pd.DataFrame(np.eye(100), index=names, columns=names))
    assert not ax.texts
    ticks = ax.get_yticks()
    assert 10 < len(ticks) < 60
    assert labels(ax.get_yticklabels()) == [names[int(t)] for t in ticks]
    ax.figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in ax.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_dollar_signs_are_not_parsed_as_formulas(ax: Axes) -> None:
    names = [r"$\frac$", "$10 to $20"]
    confusion_matrix.draw(ax, pd.DataFrame(np.eye(2), index=names, columns=names))
    ax.figure.draw_without_rendering()
    assert labels(ax.get_yticklabels()) == names


def test_confusion_matrix_has_the_counts(make_recording: Make) -> None:
    recording = make_recording()
    drawing = draw_plot("confusion_matrix", recording)
    counts = statistics.confusion_matrix(recording).to_numpy()
    image = drawing.figures[0].axes[0].images[0]
    np.testing.assert_allclose(image.get_array(), counts / counts.sum(1, keepdims=True))
    right = int(np.trace(counts))
    low, high = proportion_confint(right, 60, method="wilson")
    shares = [f"{100 * share:.1f}%" for share in (right / 60, low, high)]
    wrong = counts - np.diag(np.diag(counts))
    i, j = np.unravel_index(wrong.argmax(), wrong.shape)
    said = numbers(drawing.caption)
    assert said[:6] == [shares[0], "95%", *shares[1:], str(right), "60"]
    pairs = zip(recording.labels, recording.predictions, strict=True)
    errors = sorted(Counter(pair for pair in pairs if pair[0] != pair[1]).values())
    ties = errors.count(errors[-1]) - 1
    assert ties, "this recording has another error that is as frequent"
    share = f"{100 * errors[-1] / (recording.labels == i).sum():.1f}%"
    assert said[6:] == [str(errors[-1]), share, str(ties)]
    assert drawing.caption.index(recording.classes[i]) < drawing.caption.index(recording.classes[j])
