"""Images that only one network classifies correctly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import special

from attnscope.kinds import MAP
from attnscope.plots import PLOTS
from attnscope.plots.subjects import Comparison, no_gate, no_grad_cam
from attnscope.recording.recording import Recording
from tests.plots.reading import draw_plot, maps, numbers, words

Make = Callable[..., Recording]


def right_in(recording: Recording) -> np.ndarray:
    """Whether each image is classified correctly, without the statistics of the package."""
    return recording.logits.argmax(1) == recording.rows["label"].to_numpy()


def certain_first(a: Recording, b: Recording, rows: np.ndarray) -> np.ndarray:
    sure = [special.softmax(r.logits[rows].astype(float), axis=1).max(1) for r in (a, b)]
    return rows[np.argsort(-np.minimum(*sure), kind="stable")]


def test_disagreements_are_counted_and_shown(make_recording: Make) -> None:
    a = make_recording("se", spatial=False, accuracy=0.9)
    b = make_recording("cbam", seed=1, accuracy=0.5)
    drawing = draw_plot("disagreements", a, b)
    only_a = np.flatnonzero(right_in(a) & ~right_in(b))
    only_b = np.flatnonzero(right_in(b) & ~right_in(a))
    assert len(only_a) > 6 > len(only_b) > 0  # a full band, and one that is not
    said = numbers(drawing.caption)
    assert said[:5] == ["60", str(len(only_a)), str(len(only_b)), "6", str(len(only_b))]
    wanted = [certain_first(a, b, only_a)[:6], certain_first(a, b, only_b)]
    figure = drawing.figures[0]
    axes = np.array([ax for ax in figure.axes if ax.get_label() != "<colorbar>"]).reshape(2, 4, 6)
    headings = [[ax.get_ylabel() for ax in band[:, 0]] for band in axes]
    networks = [[text.split("\n")[-1] for text in band[1:]] for band in headings]
    assert networks == [["se", "cbam", "cbam"]] * 2  # Grad-CAM of both, the spatial gate of one
    assert [" se\n" in headings[0][0], " cbam\n" in headings[1][0]] == [True, True]
    limits: list[set] = [set(), set(), set()]
    for band, rows, wrong in zip(axes, wanted, (b, a), strict=True):
        for column, i in zip(band.T, rows, strict=False):
            image, *heats = (ax.images[-1] for ax in column)
            one = slice(i, i + 1)
            np.testing.assert_array_equal(image.get_array(), a.image(i))
            title = column[0].get_title("center").split("\n")
            classes = [a.classes[a.labels[i]], a.classes[wrong.logits[i].argmax()]]
            assert [line.split(": ")[1] for line in title] == classes
            for heat, recording in zip(heats, (a, b), strict=False):
                cam = np.maximum(recording.grad_cam(rows=one)[0], 0)
                np.testing.assert_array_equal(heat.get_array(), cam)
            gate = b.spatial("layer2.attention.spatial", one)[0]
            np.testing.assert_array_equal(heats[2].get_array(), gate)
            assert heats[2].get_interpolation() == "nearest"
            for found, heat in zip(limits, heats, strict=True):
                found.add(heat.get_clim())
        for ax in band[:, len(rows) :].ravel():
            assert not ax.axison
            assert not ax.images
    rows = np.concatenate(wanted)
    tops = [np.maximum(r.grad_cam()[rows], 0).max() for r in (a, b)]
    assert limits == [{(0, tops[0])}, {(0, tops[1])}, {(0, 1)}]
    shown = b.spatial("layer2.attention.spatial")[rows]
    scales = ["0", f"{tops[0]:.3g}", "0", f"{tops[1]:.3g}"]
    assert said[5:] == [*scales, "0", "1", f"{shown.min():.3g}", f"{shown.max():.3g}", "2"]
    note = no_gate(a, MAP)
    assert drawing.caption.endswith(note)
    assert note in words(figure)


def test_without_disagreements_the_figure_is_a_note(make_recording: Make) -> None:
    a, b = make_recording("a", accuracy=2), make_recording("b", accuracy=2, seed=1)
    drawing = draw_plot("disagreements", a, b)
    assert drawing.caption == words(drawing.figures[0]).strip()
    assert numbers(drawing.caption) == ["60", "60"]
    worse = make_recording("worse", accuracy=0, seed=2)
    one_way = draw_plot("disagreements", a, worse)
    assert numbers(one_way.caption)[:5] == ["60", "60", "0", "6", "0"]
    result = PLOTS["disagreements"].result(Comparison(a, worse))
    assert [len(images) for images in result.shown] == [6, 0]
    panels = 1 + len(result.strips)
    pictures = [ax for ax in one_way.figures[0].axes if ax.get_label() != "<colorbar>"]
    assert len(pictures) == 6 * panels  # one band only


def test_disagreements_name_what_was_not_recorded(
    write_recording: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = write_recording("a", labels=[0, 1, 2], predictions=[0, 1, 0])
    b = write_recording("b", labels=[0, 1, 2], predictions=[0, 2, 2], grad_cam=-np.ones((3, 2, 2)))
    monkeypatch.setattr(Recording, "image", lambda self, i: np.zeros((4, 4, 3), np.uint8))
    drawing = draw_plot("disagreements", a, b)
    for note in (no_grad_cam(a, b), no_gate(a, MAP), no_gate(b, MAP)):
        assert note in words(drawing.figures[0])
        assert note in drawing.caption
    assert numbers(drawing.caption)[:5] == ["3", "1", "1", "1", "1"]
    # One row of Grad-CAM, b's, which has no value above 0; both of its images say so.
    heats = maps(drawing.figures[0], "viridis")
    assert len([i for i in heats if i.get_array().shape == (2, 2)]) == 2
    assert sum(len(ax.texts) for ax in drawing.figures[0].axes if len(ax.images) == 2) == 2
    assert not maps(drawing.figures[0], "cividis")
