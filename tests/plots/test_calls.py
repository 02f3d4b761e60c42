"""Plots that are called by name: `attnscope.plots.NAME`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import attnscope.plots
from attnscope import statistics
from attnscope.comparison import Comparison, SeedComparison
from attnscope.plots import PLOTS, Plot, PlotFigure, Unavailable, channel_gates, register_plot
from attnscope.plots.builtin import channel_gates as channel_gates_module
from attnscope.plots.subjects import Intervened, Seeds
from attnscope.recording.outcomes import read_outcomes
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from tests.making import refused
from tests.plots.reading import shown, with_named_experiments

Make = Callable[..., Recording]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what a test registers."""
    monkeypatch.setattr(PLOTS, "_known", dict(PLOTS))


def test_every_registered_plot_is_an_attribute() -> None:
    for name, plot in PLOTS.items():
        assert getattr(attnscope.plots, name) is plot
        assert name in dir(attnscope.plots)
        assert name in repr(plot)
        assert plot.about in (plot.__doc__ or "")
    with pytest.raises(AttributeError, match="no_such_plot"):
        _ = attnscope.plots.no_such_plot


@pytest.mark.parametrize(
    "first",
    [
        "attnscope.plots.builtin.gate_state",
        "attnscope.plots.registry",
        "attnscope.report",
    ],
)
def test_names_do_not_depend_on_the_order_of_imports(first: str) -> None:
    code = (
        f"import {first}\n"
        "import attnscope.plots.builtin.confusion_matrix, attnscope.plots as plots\n"
        "from attnscope.plots import gate_state, confusion_matrix, text, PLOTS\n"
        "assert gate_state is PLOTS['gate_state'] is plots.gate_state\n"
        "assert confusion_matrix is plots.PLOTS['confusion_matrix']\n"
        "assert text.as_percent(0.5) == '50.0%'\n"
        "print(len(PLOTS))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(PLOTS)


def test_importing_the_package_imports_no_matplotlib() -> None:
    code = (
        "import sys, attnscope.plots, attnscope.plots.subjects, attnscope.comparison\n"
        "print([m for m in ('matplotlib', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_recordings_runs_and_paths_draw_the_same(make_recording: Make) -> None:
    recording = make_recording(count=30)
    counts = statistics.confusion_matrix(recording).to_numpy()
    run = Run(recording.folder.parent.parent)
    for target in (recording, run, run.folder, str(recording.folder)):
        figure = attnscope.plots.confusion_matrix(target)
        assert isinstance(figure, PlotFigure)
        np.testing.assert_allclose(shown(figure.axes[0]), counts / counts.sum(1, keepdims=True))
        assert figure.caption == PLOTS["confusion_matrix"].make(recording).caption


def test_the_split_of_a_run_is_chosen(make_recording: Make) -> None:
    recording = make_recording(count=30)
    recording.folder.rename(recording.folder.with_name("validation"))
    run = recording.folder.parent.parent
    assert attnscope.plots.confusion_matrix(run, split="validation").pages == 1
    with refused("AS535", names=(run,)):
        attnscope.plots.confusion_matrix(run)


def test_two_recordings_and_a_comparison_draw_the_same(make_recording: Make) -> None:
    a, b = make_recording("a", count=30), make_recording("b", count=30, seed=1)
    plot = attnscope.plots.per_class_accuracy
    captions = {plot(a, b).caption, plot(Comparison(a, b)).caption, plot(a.folder, b).caption}
    assert len(captions) == 1


def test_interventions_and_seeds_are_found(
    make_recording: Make, add_interventions: Callable[..., Path]
) -> None:
    recordings = [make_recording(name, count=30) for name in ("a", "b")]
    with refused("AS905", names=(recordings[0].folder,)):
        attnscope.plots.static_gates(recordings[0])
    made = [read_outcomes(add_interventions(recording)) for recording in recordings]
    wanted = PLOTS["static_gates"].make(Intervened(recordings[0], made[0])).caption
    assert attnscope.plots.static_gates(recordings[0].folder).caption == wanted
    for seed, recording in enumerate(recordings):
        recording.about |= {"model": {"attention": "cbam"}, "seed": seed}
    wanted = PLOTS["seed_usage"].make(Seeds("cbam", recordings, made)).caption
    assert attnscope.plots.seed_usage(recordings).caption == wanted
    assert attnscope.plots.seed_usage(*recordings).caption == wanted
    recordings[1].about["model"] = {"attention": "se"}
    with refused("AS903", names=("cbam", "se")):
        attnscope.plots.seed_usage(recordings)
    recordings[1].about["seed"] = 0
    over_seeds = attnscope.plots.seed_differences([recordings[0]], [recordings[1]])
    subject = SeedComparison(("cbam", "se"), [recordings[0]], [recordings[1]])
    assert over_seeds.caption == PLOTS["seed_differences"].make(subject).caption


def test_other_arguments_are_refused(make_recording: Make) -> None:
    a = make_recording("a", count=12)
    with refused("AS900", names=("gate_state", "Recording")):
        attnscope.plots.gate_state(a, a)
    with refused("AS900", names=("per_class_accuracy",)):
        attnscope.plots.per_class_accuracy(a)
    with refused("AS900", names=("gate_state",)):
        attnscope.plots.gate_state()
    with refused("AS923", names=("list",)):
        attnscope.plots.gate_state([a])
    with pytest.raises(Unavailable) as caught:
        attnscope.plots.attributions(a)
    assert caught.value.code == "AS908"


def test_pages_are_numbered_and_chosen(
    make_recording: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_gates_module, "GATES_A_PAGE", 1)
    recording = make_recording(count=12)
    first, second = channel_gates(recording), channel_gates(recording, page=2)
    assert [(figure.page, figure.pages) for figure in (first, second)] == [(1, 2), (2, 2)]
    assert "2 of 2" in second.get_suptitle()
    assert second.axes[0].get_title("left").startswith("layer2")
    for page in (0, 3):
        with refused("AS902", names=("channel_gates", page, 2)):
            channel_gates(recording, page=page)


def test_one_panel_is_drawn_on_the_callers_axes(make_recording: Make, ax: Axes) -> None:
    recording = make_recording(count=30)
    assert attnscope.plots.confusion_matrix(recording, ax=ax) is ax
    counts = statistics.confusion_matrix(recording).to_numpy()
    np.testing.assert_allclose(shown(ax), counts / counts.sum(1, keepdims=True))
    assert "toy" in ax.get_title("left")


def test_every_plot_of_one_panel_can_be_drawn_on_axes(
    make_recording: Make, add_interventions: Callable[..., Path]
) -> None:
    a, b = (make_recording(n, count=30, seed=i, attributed=6) for i, n in enumerate("ab"))
    outcomes = read_outcomes(add_interventions(a))
    subjects = {
        Recording: a,
        Intervened: Intervened(a, with_named_experiments(outcomes, [g.name for g in a.gates])),
        Comparison: Comparison(a, b),
        SeedComparison: SeedComparison(("x", "y"), [a], [b]),
    }
    drawn = []
    for plot in PLOTS.values():
        if plot.draw_on is None or plot.name == "gate_state":
            continue
        figure = Figure(figsize=(6, 6), layout="constrained")
        ax = figure.subfigures(1, 2)[0].subplots()
        assert plot(subjects[plot.subject], ax=ax) is ax
        figure.draw_without_rendering()
        assert ax.get_title("left"), plot.name
        assert plot.name in ("confusion_matrix", "pairs") or ax.get_legend() is not None, plot.name
        drawn.append(plot.name)
    assert set(drawn) == {
        "attribution_agreement", "confusion_matrix", "pairs", "per_class_agreement",
        "seed_differences", "static_gates",
    }  # fmt: skip


def test_several_panels_are_refused_on_one_axes(make_recording: Make, ax: Axes) -> None:
    recording = make_recording(count=30)
    for name in ("gate_profiles", "gate_state", "training_curves"):
        if name == "training_curves":
            with refused("AS909", names=(recording.folder,)):
                attnscope.plots.training_curves(recording, ax=ax)
        else:
            with refused("AS901", names=(name,)):
                getattr(attnscope.plots, name)(recording, ax=ax)
    assert not ax.has_data()
    # The gates of an SE network are of one kind, and one panel shows them.
    se = make_recording("se", count=30, spatial=False)
    assert attnscope.plots.gate_state(se, ax=ax) is ax
    state = statistics.gate_state(se)
    assert [bar.get_height() for bar in ax.containers[3]] == state["constant"].tolist()


def test_a_plot_without_anything_to_draw_leaves_the_callers_axes_alone(
    write_recording: Make, ax: Axes
) -> None:
    recording = write_recording(labels=[0, 1, 2])
    with refused("AS904", names=(recording.name,)):
        attnscope.plots.gate_state(recording, ax=ax)
    assert not ax.has_data()


@pytest.mark.usefixtures("registry")
def test_a_plot_of_a_package_is_called_like_any_other(make_recording: Make, ax: Axes) -> None:
    plot: Plot[Recording, int] = Plot(
        name="toy_count",
        title="A toy",
        about="How many images there are.",
        subject=Recording,
        compute=len,
        draw=lambda ax, count: ax.set_title(f"{count}") and ax,
        caption=lambda count: f"{count} images.",
    )
    register_plot(plot)
    recording = make_recording(count=12)
    figure = attnscope.plots.toy_count(recording.folder)
    assert isinstance(figure, PlotFigure)
    assert figure.axes[0].get_title("left") == "12"
    assert figure.caption == "12 images."
    assert attnscope.plots.toy_count(recording, ax=ax) is ax
    for taken in ("text", "builtin", "PLOTS", "plots_of"):
        with refused("AS123", names=(taken,)):
            register_plot(replace(plot, name=taken))


def test_a_figure_is_a_png_for_a_notebook_and_keeps_text_in_a_pdf(
    make_recording: Make, tmp_path: Path
) -> None:
    figure = attnscope.plots.confusion_matrix(make_recording(count=12))
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "confusion_matrix" in repr(figure)
    figure.savefig(tmp_path / "figure.pdf")
    content = (tmp_path / "figure.pdf").read_bytes()
    assert b"/Type3" not in content  # Type 42: the text stays text


@pytest.mark.parametrize("before", ["", "%matplotlib inline"])
def test_a_notebook_shows_the_figure_once(make_recording: Make, before: str) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    recording = make_recording(count=12)
    code = f"import attnscope.plots\nattnscope.plots.gate_state({str(recording.folder)!r})"
    cells = [nbformat.v4.new_code_cell(text) for text in (before, code)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[-1].outputs
    assert [output.output_type for output in outputs] == ["execute_result"]
    assert set(outputs[0]["data"]) == {"image/png", "text/plain"}
