"""Every command on networks of others: each does its work, or says in one line what it cannot.

One network for each kind of gate, input and output. Each plot is drawn, or named with a code.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest
from torch import Tensor

from attnscope import Recording
from attnscope.commands.main import main
from attnscope.plots.registry import plots_of
from attnscope.plots.subjects import Intervened
from tests.commands.any_networks import Inputs, network
from tests.making import refused_command
from tests.streamlit_app.test_dashboard import APP, PAGES

EXPERIMENTS = ("decode", "replace", "ablate", "erase", "randomize")
OF_A_TRAINING = "AS909"  # plots of files that only a training of attnscope writes
AGREEMENT = "map_agreement"  # of networks without maps, or without Grad-CAM
PER_CLASS = ("confusion_matrix", "gate_profiles", "misclassified")


@dataclass(frozen=True)
class Expected:
    """What becomes of a network, beside its gates."""

    intervene: str = ""
    """The code of the refusal; empty if interventions are measured."""
    left_out: tuple[str, ...] = ()
    """Plots that are left out for want of labels."""
    lacking: tuple[str, ...] = ()
    """Plots that are left out for want of gates or maps."""
    said: tuple[str, ...] = ()
    """Words that a line of the capture holds."""
    has_figures: bool = True
    """Whether the figures are drawn; those of some networks are as those of others."""
    has_pages: bool = False
    """Whether the report and the pages of the dashboard are looked at, too."""


NETWORKS = {
    "cbam": Expected(),
    "one_value_an_image": Expected(lacking=("channel_gates", AGREEMENT)),
    "selective_kernel_stack": Expected(lacking=(AGREEMENT,)),
    "bottleneck_attention": Expected(),
    "volume": Expected(
        lacking=(AGREEMENT,), said=("slice", "Grad-CAM is not recorded"), has_pages=True
    ),
    "sequence_cbam": Expected(lacking=(AGREEMENT,), said=("curve", "Grad-CAM is not recorded")),
    "frames_as_images": Expected(lacking=(AGREEMENT,), said=("Grad-CAM is not recorded",)),
    "half_precision": Expected(has_figures=False),
    "one_plus_gate_in_place": Expected(said=("inplace operation",), has_figures=False),
    "channels_last_of_one_size": Expected(
        "AS806",
        lacking=("channel_gates", "gate_profiles", "gate_state", AGREEMENT),
        said=("sigmoid in the network (2 times)", "attnscope inspect"),
    ),
    "triplet_attention": Expected(
        "AS825",
        left_out=(*PER_CLASS, "channel_gates", "spatial_maps"),
        lacking=(AGREEMENT,),
        said=("without class scores",),
        has_pages=True,
    ),
    "calls_backbone": Expected(
        "AS648",
        left_out=(*PER_CLASS, "channel_gates", "spatial_maps"),
        lacking=(AGREEMENT,),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_command_does_its_work_or_says_what_it_cannot(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = NETWORKS[name]
    folder = tmp_path / "runs" / "recording"
    source = f"tests.commands.any_networks:{name}"

    run = partial(run_command, capsys, caplog)
    said = run("capture", "--model", source, "--data", f"{source}_data", "--out", folder)
    for words in expected.said:
        assert words.lower() in said.lower()
    run("verify", folder)
    assert_values(Recording(folder), name)

    for experiment in EXPERIMENTS:
        command = ("intervene", folder, "--images", 8, "--experiments", experiment)
        if expected.intervene:
            refused_command(capsys, expected.intervene, *command, names=(folder,))
        else:
            run(*command)

    if not expected.has_figures:
        return
    said = run("figures", folder, "--out", tmp_path / "figures")
    left_out = {
        plot: code
        for plots, code in re.findall(r"^left out: ([\w, ]+): .* \[(AS\d+)\]$", said, re.M)
        for plot in plots.split(", ")
    }
    assert left_out == {
        **dict.fromkeys(expected.left_out, "AS648"),
        **dict.fromkeys(expected.lacking, "AS904"),
    }
    drawn = {file.stem for file in (tmp_path / "figures").glob("*.png")}
    subjects = [Recording] if expected.intervene else [Recording, Intervened]
    plots = {
        plot.name
        for subject in subjects
        for plot in plots_of(subject)
        if not any(need.asked_for or need.code == OF_A_TRAINING for need in plot.needs)
    }
    assert plots - drawn == set(left_out)

    if expected.has_pages:
        run("report", folder, "--out", tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        not_shown = {
            name
            for names in re.findall(r"Not shown: ([\w, ]+):", page)
            for name in names.split(", ")
        }
        assert plots & not_shown == set(left_out)
        assert_pages(folder.parent, expected, monkeypatch)


@pytest.mark.parametrize(
    ("name", "code", "named"),
    [
        ("dict_input", "AS675", "(4, 3, 8, 8)"),
        ("two_tensors", "AS668", "tuple"),
        ("vectors", "AS668", "(5,)"),
        ("scripted_function", "AS406", "script"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")
def test_a_network_that_cannot_be_recorded_is_refused_in_one_line(
    name: str, code: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"tests.commands.any_networks:{name}"
    command = ("capture", "--model", source, "--data", f"{source}_data", "--out", tmp_path / "r")
    refused_command(capsys, code, *command, names=(named,))
    assert not (tmp_path / "r").exists()


def run_command(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, *arguments: object
) -> str:
    """What a command prints to the standard error and logs; it must end well."""
    capsys.readouterr()
    caplog.clear()
    code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr().err
    assert code == 0, printed
    assert "Traceback" not in printed
    return "\n".join([printed, *caplog.messages])


def assert_values(recording: Recording, name: str) -> None:
    """The recorded gates and logits are those of a bare forward of the network."""
    model, data = network(name), Inputs(name)
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        output = model(torch.stack(data.items).to(dtype))
    tolerance = 1e-3 if dtype == torch.half else 1e-6
    unclear = name == "channels_last_of_one_size"
    assert len(recording.gates) == (0 if unclear else len(model.expected))
    for label, axes in ({} if unclear else model.expected).items():
        truth = model.truth[label].float()
        assert any(
            is_close(recording.gate(gate.name), gate.axes, truth, axes, tolerance)
            for gate in recording
        ), label
    if recording.has_scores:
        np.testing.assert_allclose(recording.logits, output.float(), atol=tolerance)


def is_close(values: np.ndarray, got: str, truth: Tensor, wanted: str, tolerance: float) -> bool:
    """Whether values with the axes `got` are the truth, but for rounding, in one of the readings.

    Args:
        values: the recorded gate.
        got: letters of its axes.
        truth: what multiplied the features.
        wanted: letters of its axes; "NGC|NDC" are two readings.
        tolerance: largest difference.
    """
    for axes in wanted.split("|"):
        if values.ndim == len(got) and sorted(got) == sorted(axes):
            found = torch.from_numpy(values).permute([got.index(letter) for letter in axes])
            return found.numel() == truth.numel() and torch.allclose(
                found.reshape(truth.shape), truth, rtol=0, atol=tolerance
            )
    return False


def assert_pages(folder: Path, expected: Expected, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page of the dashboard opens; errors are lines with a code."""
    monkeypatch.setattr(sys, "argv", [str(APP), str(folder)])
    for page in PAGES:
        app = AppTest.from_file(str(APP), default_timeout=120).run()
        if page != "runs":
            app.switch_page(f"views/{page}.py").run()
        assert [error.message for error in app.exception] == [], page
        codes = {"[AS648]"} if expected.left_out else set()
        assert {error.value[-8:-1] for error in app.error} <= codes, page
