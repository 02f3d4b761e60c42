"""Images that one network alone gets right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import special

from attnscope.recording.recording import Recording
from tests.plots.reading import draw_plot, maps, words

Make = Callable[..., Recording]


def right_in(recording: Recording) -> np.ndarray:
    """What a network gets right, from what was written, without the package's own statistics."""
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
    assert drawing.caption.startswith(
        f"Of 60 images se alone gets {len(only_a)} right, cbam alone {len(only_b)}. Shown are 6 "
        f"and {len(only_b)}, those first of which both networks are most certain. "
    )
    wanted = [certain_first(a, b, only_a)[:6], certain_first(a, b, only_b)]
    figure = drawing.figures[0]
    axes = np.array([ax for ax in figure.axes if ax.get_label() != "<colorbar>"]).reshape(2, 4, 6)
    headings = [[ax.get_ylabel() for ax in band[:, 0]] for band in axes]
    of_maps = ["Grad-CAM\nse", "Grad-CAM\ncbam", "last spatial gate\ncbam"]
    assert headings == [["only se\nis right", *of_maps], ["only cbam\nis right", *of_maps]]
    limits: list[set] = [set(), set(), set()]
    for band, rows, wrong in zip(axes, wanted, (b, a), strict=True):
        for column, i in zip(band.T, rows, strict=False):
            image, *heats = (ax.images[-1] for ax in column)
            one = slice(i, i + 1)
            np.testing.assert_array_equal(image.get_array(), a.image(i))
            assert column[0].get_title("center") == (
                f"is {a.classes[a.labels[i]]}\ntaken for {a.classes[wrong.logits[i].argmax()]}"
            )
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
    assert f"se from 0 to {tops[0]:.3g}; cbam from 0 to {tops[1]:.3g}." in drawing.caption
    shown = b.spatial("layer2.attention.spatial")[rows]
    assert (
        f"layer2.attention.spatial of cbam, bounds 0 to 1, here {shown.min():.3g} to "
        f"{shown.max():.3g}."
    ) in drawing.caption
    note = "se has no spatial gates (its gates: 2 channel)."
    assert drawing.caption.endswith(note)
    assert note in words(figure)


def test_no_disagreement_is_called_none(make_recording: Make) -> None:
    a, b = make_recording("a", accuracy=2), make_recording("b", accuracy=2, seed=1)
    drawing = draw_plot("disagreements", a, b)
    said = "Of 60 images none is right in one network alone: a and b are right in the same 60."
    assert drawing.caption == words(drawing.figures[0]).strip() == said
    worse = make_recording("worse", accuracy=0, seed=2)
    one_way = draw_plot("disagreements", a, worse)
    assert "a alone gets 60 right, worse alone none. Shown are 6 and none," in one_way.caption
    headings = [ax.get_ylabel() for ax in one_way.figures[0].axes]
    assert "only a\nis right" in headings
    assert "only worse\nis right" not in headings


def test_disagreements_without_grad_cam_say_so(
    write_recording: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = write_recording("a", labels=[0, 1, 2], predictions=[0, 1, 0])
    b = write_recording("b", labels=[0, 1, 2], predictions=[0, 2, 2], grad_cam=-np.ones((3, 2, 2)))
    monkeypatch.setattr(Recording, "image", lambda self, i: np.zeros((4, 4, 3), np.uint8))
    drawing = draw_plot("disagreements", a, b)
    for said in ("No Grad-CAM was recorded for a.", "a has no gates at all.", "b has no gates at"):
        assert said in words(drawing.figures[0])
        assert said in drawing.caption
    assert "Shown are 1 and 1" in drawing.caption
    # One row of Grad-CAM, b's, which is nowhere above 0 and says so in both of its images.
    heats = maps(drawing.figures[0], "viridis")
    assert len([i for i in heats if i.get_array().shape == (2, 2)]) == 2
    assert words(drawing.figures[0]).count("nowhere above 0") == 2
    assert not maps(drawing.figures[0], "cividis")
