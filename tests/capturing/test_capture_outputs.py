"""Networks with other outputs and number types are recorded, and later commands take them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attnscope import Recording, capture, intervene
from attnscope.interventions.setup import InterventionSetup
from attnscope.interventions.study import run_experiments_in
from attnscope.plots import Unavailable, plots_of
from attnscope.recording.recording import Recording as Recorded
from tests.making import refused, refused_command, write_images

N = 12


class Net(nn.Module):
    """A gate per channel, and an output that a test defines from scores and maps."""

    def __init__(self, change: Callable[[Tensor, Tensor], Any], classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.gate = nn.Linear(6, 6)
        self.head = nn.Linear(6, classes)
        self.change = change
        for parameter in self.parameters():  # so that images differ in their scores
            parameter.data.mul_(3)

    def maps(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y * torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None]

    def forward(self, x: Tensor) -> Any:
        maps = self.maps(x)
        return self.change(self.head(maps.mean((2, 3))), maps)


def plain(scores: Tensor, maps: Tensor) -> Tensor:
    return scores


CHANGES: dict[str, tuple[Callable[[Tensor, Tensor], Any], int]] = {
    "tuple": (lambda scores, maps: (maps, scores), 3),
    "dict": (lambda scores, maps: {"maps": maps, "logits": scores}, 3),
    "softmax": (lambda scores, maps: scores.softmax(1), 3),
    "log_softmax": (lambda scores, maps: scores.log_softmax(1), 3),
    "one number": (lambda scores, maps: scores, 1),
    "one probability": (lambda scores, maps: scores.sigmoid()[:, 0], 1),
    "a map": (lambda scores, maps: scores[..., None, None] * torch.ones(2, 2).to(scores), 3),
}


def images(classes: int = 3, named: bool = True) -> TensorDataset:
    x = torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(x, torch.arange(N) % classes)
    if named:
        data.classes = [f"class {k}" for k in range(classes)]
    return data


def record(net: nn.Module, data: Any, out: Path, **options: Any) -> Recording:
    found = capture(net, data, out, progress=False, batch_size=5, **options)
    assert isinstance(found, Recorded)
    assert found.verify() == []
    return found


def by_hand(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    """The gate and the class probabilities, without attnscope."""
    with torch.no_grad():
        gate = torch.sigmoid(net.gate(net.conv(x).mean((2, 3))))
        z = net.head(net.maps(x).mean((2, 3)))
    if z.shape[1] == 1:
        return gate, torch.cat([1 - z.sigmoid(), z.sigmoid()], 1)
    return gate, z.softmax(1)


@pytest.mark.parametrize("kind", CHANGES)
def test_gates_and_confidences_of_any_output_are_right(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    change, outputs = CHANGES[kind]
    net = Net(change, outputs)
    data = images(max(outputs, 2))
    found = record(net, data, tmp_path / "r")
    gate, probabilities = by_hand(net, data.tensors[0])
    np.testing.assert_allclose(found[found.gates[0].name], gate, atol=1e-6)
    np.testing.assert_allclose(found.probabilities, probabilities, atol=1e-5)
    assert (found.predictions == probabilities.argmax(1).numpy()).all()
    own = probabilities[torch.arange(N), data.tensors[1]]
    np.testing.assert_allclose(found.rows["loss"], -own.log(), atol=1e-4)
    assert found.classes == data.classes
    (line,) = [r for r in caplog.records if r.name == "attnscope.capturing.capture"]
    assert line.levelno == logging.WARNING
    assert found.output["scores"]


def test_plain_logits_are_recorded_as_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = record(Net(plain), images(), tmp_path / "r")
    assert found.output == {}
    assert '"output":' not in (tmp_path / "r" / "plan.json").read_text()
    assert not caplog.records


@pytest.mark.parametrize(("kind", "sign"), [("one number", 0.5), ("dict", None), ("a map", None)])
def test_grad_cam_of_any_output_is_that_of_its_logits(
    tmp_path: Path, kind: str, sign: float | None
) -> None:
    change, outputs = CHANGES[kind]
    net, data = Net(change, outputs), images(max(outputs, 2))
    found = record(net, data, tmp_path / "r", grad_cam_layers=["conv"])
    x, labels = data.tensors
    reference = Net(plain, outputs)  # the same weights, by the seed
    if sign is None:
        wanted = LayerGradCam(reference, reference.conv).attribute(x, labels)
    else:  # plus and minus half of the gradient of the number
        wanted = LayerGradCam(reference, reference.conv).attribute(x, 0)
        wanted = wanted * sign * (2 * labels - 1)[:, None, None, None]
    np.testing.assert_allclose(
        found.grad_cam(target="true"), wanted[:, 0].detach(), rtol=5e-3, atol=2e-3
    )


def test_other_attributions_explain_the_same_logits(tmp_path: Path) -> None:
    options = {"attributions": ["occlusion", "integrated_gradients"], "attribution_images": 6}
    plain_one = record(Net(plain), images(), tmp_path / "plain", **options)
    found = record(Net(CHANGES["dict"][0]), images(), tmp_path / "r", **options)
    for method in options["attributions"]:
        np.testing.assert_array_equal(found.attribution(method), plain_one.attribution(method))


@pytest.mark.parametrize(
    ("dtype", "within"), [(torch.float64, 1e-6), (torch.float16, 0.01), (torch.bfloat16, 0.05)]
)
def test_images_take_the_number_type_of_the_network(
    tmp_path: Path, dtype: torch.dtype, within: float
) -> None:
    data = images()
    gate, probabilities = by_hand(Net(plain), data.tensors[0])
    net = Net(plain).to(dtype)
    found = record(net, data, tmp_path / "r", pooled_inputs=True, attributions=["occlusion"])
    assert next(net.parameters()).dtype == dtype
    np.testing.assert_allclose(found[found.gates[0].name], gate, atol=within)
    np.testing.assert_allclose(found.probabilities, probabilities, atol=4 * within)
    setup = InterventionSetup(net, data, found, images=6)
    outcomes = run_experiments_in(
        tmp_path / "i", setup, [], experiments=["replace", "erase"], progress=False
    )
    assert outcomes.replacement is not None
    assert set(outcomes.tables) >= {"erasing_areas", "effects"}


def test_single_precision_networks_take_images_in_double_precision(tmp_path: Path) -> None:
    data = images()
    found = record(
        Net(plain), TensorDataset(data.tensors[0].double(), data.tensors[1]), tmp_path / "d"
    )
    same = record(Net(plain), images(named=False), tmp_path / "s")
    np.testing.assert_array_equal(found.logits, same.logits)


# --- without class scores ------------------------------------------------------------------------


def boxes(scores: Tensor, maps: Tensor) -> list[dict[str, Tensor]]:
    return [{"boxes": torch.rand(2, 4), "labels": torch.ones(2)} for _ in scores]


@pytest.fixture
def without(tmp_path: Path) -> Recording:
    return record(Net(boxes), images(), tmp_path / "boxes")


def test_without_scores_everything_that_needs_no_class_is_recorded(without: Recording) -> None:
    gate, _ = by_hand(Net(boxes), images().tensors[0])
    name = without.gates[0].name
    np.testing.assert_allclose(without[name], gate, atol=1e-6)
    assert not without.has_scores
    assert not without.has_accuracy
    assert (without.labels == images().tensors[1].numpy()).all()
    assert without.classes == images().classes
    assert without.rows["loss"].isna().all()
    assert without.grad_cam_layers == []
    table = without.to_pandas(name)
    assert list(table)[:3] == ["path", "label", "channel_0"]
    assert "no class scores" in repr(without)
    assert "no class scores" in without._repr_html_()
    xarray = pytest.importorskip("xarray")
    assert isinstance(without.to_xarray(), xarray.Dataset)
    assert "logits" not in without.to_xarray()


@pytest.mark.parametrize("what", ["predictions", "right", "logits", "probabilities"])
def test_without_scores_what_needs_them_is_refused(without: Recording, what: str) -> None:
    with refused("AS618", names=(str(without.folder), "--output")):
        getattr(without, what)


def test_without_scores_there_is_no_explanation_and_no_intervention(
    without: Recording, tmp_path: Path
) -> None:
    with refused("AS618", names=("Grad-CAM",)):
        without.grad_cam()
    with refused("AS825", names=(str(without.folder),)):
        InterventionSetup(Net(boxes), images(), without)
    for options in (
        {"grad_cam_layers": ["conv"]},
        {"attributions": ["occlusion"]},
        {"moments": True},
    ):
        with refused("AS677", names=("dict",)):
            record(Net(boxes), images(), tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_without_scores_and_names_classes_are_those_of_the_labels(tmp_path: Path) -> None:
    found = record(Net(boxes), images(named=False), tmp_path / "r")
    assert found.classes == ["0", "1", "2"]
    assert found.to_pandas()["label"].tolist()[:3] == ["0", "1", "2"]


def test_without_scores_each_plot_is_drawn_or_says_why_not(without: Recording) -> None:
    drawn, reasons = [], {}
    for plot in plots_of(Recorded):
        try:
            drawn.append(plot.make(without) and plot.name)
        except Unavailable as reason:
            reasons[plot.name] = reason.code
    assert {"channel_gates", "gate_profiles", "gate_state", "attention_grid"} <= set(drawn)
    assert {name for name, code in reasons.items() if code == "AS618"} == {
        "confusion_matrix",
        "misclassified",
    }


# --- commands ------------------------------------------------------------------------------------

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)
    def forward(self, x):
        y = self.conv(x)
        z = self.head((y * torch.sigmoid(y.mean((2, 3), keepdim=True))).mean((2, 3)))
        return {"first": z, "second": (-z, z.softmax(1))}

def choose(output):
    return 2 * output["first"]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_images(tmp_path / "data", train=2, test=4)
    (tmp_path / "outputs_of_a_user.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(out: str, *more: str) -> list[str]:
    given = ["--model", "outputs_of_a_user:Net", "--data", "folder:data", "--out", out]
    return ["capture", *given, "--mean", "0", "0", "0", "--std", "1", "1", "1", *more]


@pytest.mark.usefixtures("place")
def test_a_command_takes_the_chosen_output_and_later_ones_take_it_again(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from attnscope.commands.main import main

    refused_command(capsys, "AS361", *command("none"), names=("--output first", "second.1"))
    chosen = {"first": "first", "negative": "second.0", "function": "outputs_of_a_user:choose"}
    for out, output in chosen.items():
        assert main(command(out, "--output", output)) == 0
        assert output in caplog.messages[-1]
    first, negative, function = (Recording(out) for out in chosen)
    np.testing.assert_allclose(negative.logits, -first.logits)
    np.testing.assert_allclose(function.logits, 2 * first.logits)
    for recording in (negative, function):
        outcomes = intervene(recording, experiments=["replace"], images=4, progress=False)
        assert outcomes.replacement is not None
    refused_command(capsys, "AS362", *command("x", "--output", "third"), names=("third", "first"))
    assert main(command("gates", "--output", "none")) == 0
    assert "no class scores" in capsys.readouterr().out
    assert not Recording("gates").has_scores
