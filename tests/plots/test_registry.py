"""What every registered plot keeps to, and a new one that is registered from outside."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnscope.gate_history import GateHistory
from attnscope.plots import PLOTS, Note, Plot, plots_of, register_plot
from attnscope.plots.needs import Need
from attnscope.plots.subjects import SUBJECTS, Comparison, Intervened, SeedComparison, Seeds
from attnscope.recording.outcomes import read_outcomes
from attnscope.recording.recording import Recording
from attnscope.report import write_comparison, write_figures, write_report
from tests.making import refused
from tests.plots.reading import (
    add_masks,
    add_run_files,
    make_history,
    only,
    with_named_experiments,
)

Make = Callable[..., Recording]


@dataclass(frozen=True)
class Count:
    images: int


TOY: Plot[Recording, Count] = Plot(
    name="toy",
    title="A toy",
    about="How many images there are.",
    subject=Recording,
    compute=lambda recording: Count(len(recording)),
    draw=lambda ax, count: ax.set_title(f"{count.images}") and ax,
    caption=lambda count: f"There are {count.images} images & no more.",
)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(PLOTS, "_known", dict(PLOTS))


@pytest.fixture
def subjects(make_recording: Make, add_interventions: Callable[..., Path]) -> dict[type, Any]:
    """One of each that a plot can be of."""
    a, b = (
        make_recording(name, count=30, seed=i, accuracy=0.6, attributed=6)
        for i, name in enumerate("ab")
    )
    add_run_files(a)
    add_masks(a, 24)
    made = [read_outcomes(add_interventions(recording)) for recording in (a, b)]
    return {
        Recording: a,
        GateHistory: make_history(),
        Intervened: Intervened(a, with_named_experiments(made[0], [gate.name for gate in a.gates])),
        Comparison: Comparison(a, b),
        Seeds: Seeds("kind", [a, b], made),
        SeedComparison: SeedComparison(("one", "other"), [a], [b]),
    }


def test_every_plot_of_numbers_gives_them_as_a_table(subjects: dict[type, Any]) -> None:
    without = set()
    for plot in PLOTS.values():
        table = plot.numbers(plot.result(subjects[plot.subject]))
        if plot.table is None:
            without.add(plot.name)
            assert table.empty
            continue
        assert not table.empty, plot.name
        again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
        assert list(again) == [str(name) for name in table], plot.name
        assert len(again) == len(table), plot.name
        numeric = table.select_dtypes("number")
        np.testing.assert_allclose(again[list(numeric)], numeric, rtol=1e-6, err_msg=plot.name)
    assert without == {"training_images"}


def test_every_plot_draws_and_tells(subjects: dict[type, Any]) -> None:
    assert set(subjects) == set(SUBJECTS)
    assert {plot.name for subject in SUBJECTS for plot in plots_of(subject)} == set(PLOTS)
    for plot in PLOTS.values():
        drawing = plot.make(subjects[plot.subject])
        assert drawing.figures, plot.name
        assert all(figure.axes for figure in drawing.figures), plot.name
        assert len(drawing.caption.split()) > 5, plot.name
        assert drawing.caption == drawing.caption.strip(), plot.name


def test_a_caption_needs_no_drawing(
    subjects: dict[type, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {name: plot.make(subjects[plot.subject]).caption for name, plot in PLOTS.items()}

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a figure was made")

    monkeypatch.setattr(Figure, "__init__", refuse)
    for name, plot in PLOTS.items():
        result = plot.result(subjects[plot.subject])
        assert is_dataclass(result), name
        assert plot.words(result) == wanted[name]


@pytest.mark.usefixtures("registry")
def test_a_new_plot_is_in_the_files_and_in_the_report(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "confusion_matrix")
    register_plot(TOY)
    other = replace(TOY, name="pair", subject=Comparison, compute=lambda pair: Count(len(pair.a)))
    register_plot(other)
    a, b = make_recording("a", count=30), make_recording("b", count=30, seed=1)
    files = write_figures(a.folder, tmp_path / "out")
    assert [file.name for file in files[-2:]] == ["toy.png", "toy.pdf"]
    files = write_comparison(a.folder, b.folder, tmp_path / "pair")
    assert [file.name for file in files[-2:]] == ["pair.png", "pair.pdf"]
    text = write_report([a.folder, b.folder], tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<h3>A toy</h3>") == 3
    assert text.count("There are 30 images &amp; no more.") == 3


@pytest.mark.usefixtures("registry")
def test_a_plot_stands_where_its_place_is() -> None:
    for name, place in (("last", 1000), ("between", 45), ("very_last", 1000)):
        register_plot(replace(TOY, name=name, place=place))
    names = [plot.name for plot in plots_of(Recording)]
    assert names[names.index("between") - 1 :][:3] == ["channel_gates", "between", "gate_profiles"]
    assert names[-2:] == ["last", "very_last"]


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("AS123", {"title": ""}),
        ("AS123", {"about": "two\nlines"}),
        ("AS123", {"about": None}),
        ("AS123", {"subject": int}),
        ("AS123", {"compute": None}),
        ("AS123", {"draw": "no function"}),
        ("AS123", {"caption": None}),
        ("AS123", {"lay_out": 3}),
        ("AS123", {"needs": ("Grad-CAM",)}),
        ("AS121", {"name": "gate_state"}),
        ("AS122", {"name": "../up"}),
    ],
)
def test_an_incomplete_plot_is_refused(code: str, change: dict[str, Any]) -> None:
    with refused(code, names=(change.get("name", "toy"),)):
        register_plot(replace(TOY, **change))
    assert "toy" not in PLOTS


@pytest.mark.usefixtures("registry")
def test_a_need_that_is_not_met_is_said_on_the_figure(make_recording: Make) -> None:
    need = Need("a wish", lambda recording: f"{recording.name} has none.")
    drawing = replace(TOY, needs=(need,)).make(make_recording("x", count=12))
    assert drawing.caption == "x has none."
    (ax,) = drawing.figures[0].axes
    assert [text.get_text() for text in ax.texts] == ["x has none."]
    assert drawing.figures[0].get_suptitle() == "A toy: x (test, 12 images)"


def test_draw_is_handed_the_result_and_the_callers_axes(make_recording: Make) -> None:
    recording = make_recording(count=12)
    result = TOY.result(recording)
    assert not isinstance(result, Note)
    ax = Figure().subplots()
    assert isinstance(TOY.draw(ax, result), Axes)
    assert ax.get_title() == "12"
