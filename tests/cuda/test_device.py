"""Trainings, recordings, edits, interventions and folds on the device, against the CPU.

Each tolerance is stated with its reason. Products of matrices are in full float32.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnscope import Moments, Recording, Run, capture, find_gates, watch_gates
from attnscope.data.images import LabeledImages
from attnscope.folding.algebra import fold_gates
from attnscope.gates.hooks import edit_gates
from attnscope.interventions import InterventionSetup
from attnscope.interventions.replacement import replace_and_keep
from attnscope.monitoring import GateMonitor
from attnscope.training.loop import TrainingLoop
from tests.cuda import device_name
from tests.folding import networks as folded
from tests.interventions.toy import toy_images, toy_setup
from tests.training.test_checkpoints import interrupted
from tests.training.toys import TINY, make_split, rows, run, small, states_equal

if device_name() == "cuda" and not torch.cuda.is_available():
    # One line for all tests of this file.
    pytest.skip("there is no CUDA GPU", allow_module_level=True)

pytestmark = pytest.mark.cuda

CPU = torch.device("cpu")
KINDS = ("se", "eca", "cbam")
# float32 with another order of summation: some units of the last place of 24 bits, over 20 layers.
GATES, LOGITS = 1e-5, 1e-4
# Six steps amplify such differences. On a CPU, changing the initial weights by one part in a million
# changes the losses by up to 3e-4 and the weights by up to 1.4e-3, which is 1% of their movement.
LOSSES, WEIGHTS = 2e-3, 1e-2
# bfloat16 has a mantissa of 8 bits: steps of 0.4% of a gate at 1.
BFLOAT16 = 2e-2


def trained(out: Path, device: torch.device, **options: Any) -> nn.Module:
    model = small(attention="cbam")
    run(out, model, device=str(device), **options)
    return model.cpu()


def losses(out: Path) -> list[float]:
    return [float(row[key]) for row in rows(out) for key in ("train_loss", "validation_loss")]


def largest_difference(a: nn.Module, b: nn.Module) -> float:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return max(float((x.double() - y.double()).abs().max()) for x, y in pairs)


def test_a_training_equals_that_on_the_cpu(device: torch.device, tmp_path: Path) -> None:
    reference, model = trained(tmp_path / "cpu", CPU), trained(tmp_path / "device", device)
    np.testing.assert_allclose(losses(tmp_path / "device"), losses(tmp_path / "cpu"), atol=LOSSES)
    assert largest_difference(model, reference) <= WEIGHTS
    assert largest_difference(model, small(attention="cbam")) > 5 * WEIGHTS  # it was trained
    assert Run(tmp_path / "device").config["device"] == str(device)


def test_a_training_in_bf16_and_with_every_augmentation_runs(
    device: torch.device, tmp_path: Path
) -> None:
    jitter = replace(TINY.augmentation, brightness=0.2, hue=0.1, rotation=10.0, cutout=8)
    options = {"recipe": replace(TINY, augmentation=jitter, accumulate=2), "precision": "bf16"}
    trained(tmp_path / "device", device, **options)
    trained(tmp_path / "cpu", CPU, **options)
    # The first epoch: later ones differ more, as rounding errors of 0.4% are amplified.
    a, b = (losses(tmp_path / name)[0] for name in ("device", "cpu"))
    assert a == pytest.approx(b, abs=0.05)


def test_a_resumed_training_equals_one_without_a_stop(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(tmp_path / "whole", device)
    options: dict[str, Any] = {"model": small(attention="cbam"), "device": str(device)}
    interrupted(tmp_path / "stopped", 5, monkeypatch, **options)
    resumed = trained(tmp_path / "stopped", device, resume=True)
    np.testing.assert_allclose(
        losses(tmp_path / "stopped"), losses(tmp_path / "whole"), atol=LOSSES
    )
    assert largest_difference(resumed, model) <= WEIGHTS


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_deterministic_training_is_resumed_bit_for_bit(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    chosen: dict[str, Any] = {"deterministic": True, "precision": precision}
    model = trained(tmp_path / "whole", device, **chosen)
    options: dict[str, Any] = {"model": small(attention="cbam"), "device": str(device), **chosen}
    interrupted(tmp_path / "stopped", 5, monkeypatch, **options)
    assert states_equal(trained(tmp_path / "stopped", device, resume=True, **chosen), model)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_training_step_never_waits_for_the_device(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device.type != "cuda":
        pytest.skip(
            "only CUDA sees waiting; tests/analysis/test_gpu.py counts copies on any machine"
        )
    step, watched = TrainingLoop.step, []

    def watching(loop: TrainingLoop, *arguments: Any) -> Tensor:
        if loop.position.step:  # the first step allocates memory and chooses kernels
            torch.cuda.set_sync_debug_mode("error")
            watched.append(loop.position.step)
        try:
            return step(loop, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(TrainingLoop, "step", watching)
    trained(tmp_path / "run", device)
    assert watched == [1, 2, 3, 4, 5]


def captured(model: nn.Module, out: Path, device: torch.device, **options: Any) -> Recording:
    images: LabeledImages = make_split("test", 24)
    recording = capture(
        model.to(device), images, out, batch_size=10, progress=False, pooled_inputs=True, **options
    )
    assert isinstance(recording, Recording)
    return recording


@pytest.mark.parametrize("kind", KINDS)
def test_a_recording_equals_that_on_the_cpu(
    device: torch.device, tmp_path: Path, kind: str
) -> None:
    model = small(attention=kind)
    a, b = (captured(model, tmp_path / str(d.type + n), d) for d, n in ((CPU, "a"), (device, "b")))
    assert [gate.name for gate in a.gates] == [gate.name for gate in b.gates]
    for gate in a.gates:
        np.testing.assert_allclose(b.gate(gate.name), a.gate(gate.name), atol=GATES)
        inputs = a.pooled_input(gate.name)
        scale = float(np.abs(inputs).max())
        np.testing.assert_allclose(b.pooled_input(gate.name), inputs, atol=LOGITS * scale)
    scale = float(np.abs(a.logits).max())
    np.testing.assert_allclose(b.logits, a.logits, atol=LOGITS * scale)
    (layer,) = a.grad_cam_layers
    for target in ("predicted", "true"):
        maps = a.grad_cam(layer, target).astype(np.float32)
        scale = float(np.abs(maps).max())
        # They are stored in float16, with a mantissa of 10 bits.
        np.testing.assert_allclose(b.grad_cam(layer, target), maps, atol=2e-3 * scale)


@pytest.mark.parametrize("kind", KINDS)
def test_gates_in_bf16_are_close_to_those_in_fp32(
    device: torch.device, tmp_path: Path, kind: str
) -> None:
    model = small(attention=kind)
    a = captured(model, tmp_path / "fp32", device)
    b = captured(model, tmp_path / "bf16", device, precision="bf16")
    for gate in a.gates:
        np.testing.assert_allclose(b.gate(gate.name), a.gate(gate.name), atol=BFLOAT16)


def test_moments_equal_those_on_the_cpu(device: torch.device, tmp_path: Path) -> None:
    model, images = small(attention="cbam"), make_split("test", 24)
    found = [
        capture(model.to(d), images, tmp_path / name, moments=True, progress=False)
        for d, name in ((CPU, "a"), (device, "b"))
    ]
    a, b = (each for each in found if isinstance(each, Moments))
    for gate in a.gates:
        np.testing.assert_allclose(b.mean_gate(gate.name), a.mean_gate(gate.name), atol=GATES)


def normalized(count: int = 8) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_edited_gates_give_the_logits_of_the_cpu(device: torch.device) -> None:
    model, x = small(attention="cbam").eval(), normalized()
    gates = find_gates(model, x)
    edits = {gates[0].name: lambda g, f: g.flip(0), gates[-1].name: lambda g, f: 0 * g + 0.7}

    def logits(where: torch.device) -> Tensor:
        with torch.no_grad(), edit_gates(model.to(where), edits, gates):
            return model(x.to(where)).cpu()

    expected = logits(CPU)
    with torch.no_grad():
        plain = model(x)
    assert (expected - plain).abs().max() > 100 * LOGITS * plain.abs().max()  # edits do something
    torch.testing.assert_close(
        logits(device), expected, rtol=0, atol=LOGITS * float(expected.abs().max())
    )


def test_interventions_equal_those_on_the_cpu(device: torch.device, tmp_path: Path) -> None:
    setup = toy_setup("used", tmp_path)
    a = replace_and_keep(setup, progress=False)
    moved = InterventionSetup(setup.model.to(device), toy_images(), setup.recording)
    b = replace_and_keep(moved, progress=False)
    keys = ["target", "edit", "row"]
    np.testing.assert_array_equal(a.table[keys], b.table[keys])
    tolerance = LOGITS * float(np.abs(a.logits).max())
    np.testing.assert_allclose(b.logits, a.logits, rtol=0, atol=tolerance)
    np.testing.assert_allclose(b.table["log_loss"], a.table["log_loss"], rtol=0, atol=1e-4)
    second, first = np.sort(a.logits, axis=1)[:, -2:].T
    clear = first - second > 2 * tolerance
    assert clear.mean() > 0.7  # the logits of an edit to the mean are equal for some images
    np.testing.assert_array_equal(a.table["prediction"][clear], b.table["prediction"][clear])


@pytest.mark.parametrize("placement", ["block", "stage"])
def test_a_folded_network_equals_the_edited_one(device: torch.device, placement: str) -> None:
    model = folded.network(placement=placement)
    x = folded.pictures(model)
    gates = find_gates(model, x)
    rng = torch.Generator().manual_seed(2)
    means = {gate.name: folded.random_mean(gate, number=False, rng=rng) for gate in gates}
    expected = folded.edited_logits(model, x, means, gates)
    model.to(device)
    means = {name: mean.to(device) for name, mean in means.items()}
    edited = folded.edited_logits(model, x.to(device), means, gates)
    with torch.no_grad():
        logits = fold_gates(model, means)(x.to(device))
    # Logits are at most about 10. Folding changes the order of the products.
    torch.testing.assert_close(logits, edited, rtol=0, atol=1e-4)
    torch.testing.assert_close(edited.cpu(), expected, rtol=0, atol=1e-3)


def test_a_monitor_observes_what_the_cpu_observes(device: torch.device) -> None:
    model, x, labels = small(attention="cbam"), normalized(16), torch.arange(16) % 2
    a, b = (GateMonitor(model.to(d), x, labels).history for d in (CPU, device))
    for measured in ("mean", "spread", "saturated"):
        np.testing.assert_allclose(b.values(measured), a.values(measured), atol=GATES)
    # A quotient of variances, which are small in an untrained network.
    np.testing.assert_allclose(b.values("between_class"), a.values("between_class"), atol=1e-2)


@pytest.mark.usefixtures("deterministic")
def test_a_training_with_a_monitor_is_the_same(device: torch.device, tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", device)
    watched = trained(tmp_path / "watched", device, monitor_every=2)
    assert states_equal(plain, watched)
    assert losses(tmp_path / "plain") == losses(tmp_path / "watched")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("kind", KINDS)
def test_the_forward_of_a_capture_never_waits_for_the_device(
    device: torch.device, tmp_path: Path, kind: str
) -> None:
    if device.type != "cuda":
        pytest.skip(
            "only CUDA sees waiting; tests/analysis/test_gpu.py counts copies on any machine"
        )
    model = small(attention=kind).to(device).eval()
    forwards = []

    def begin(*_: object) -> None:
        forwards.append(torch.is_grad_enabled())
        torch.cuda.set_sync_debug_mode("error")

    def end(*_: object) -> None:
        torch.cuda.set_sync_debug_mode("default")

    # The gates are found before, on a sample, which reads values.
    gates = find_gates(model, normalized(4).to(device))
    x = normalized().to(device)
    handles = [
        model.register_forward_pre_hook(begin),
        model.register_forward_hook(end, always_call=True),
    ]
    try:
        with torch.inference_mode(), watch_gates(model, gates) as values:
            model(x)
    finally:
        for handle in handles:
            handle.remove()
        end()
    assert len(forwards) == 1
    assert len(values) == len(gates)
