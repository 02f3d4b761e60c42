"""The ways in which a network runs during a capture give the same recordings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnscope.capturing import graph_way as graphs
from attnscope.capturing import ways
from attnscope.capturing.capture import capture
from attnscope.capturing.graph_way import graph_way
from attnscope.capturing.ways import (
    COMPILED,
    GRAPH,
    TRACER,
    Subject,
    Way,
    choose_way,
    expected_seconds,
)
from attnscope.commands.main import main
from attnscope.gates import find_gates, watch_gates
from attnscope.recording import writer
from tests.capturing.test_transfer import contents, images
from tests.making import refused


class Small(nn.Module):
    """Divides by a gate, multiplies by two others, and returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.fc = nn.BatchNorm2d(6), nn.Linear(6, 3)
        self.eval()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.first(x)
        x = x / (1 + torch.sigmoid(x.mean((2, 3), keepdim=True)))
        x = self.norm(self.second(x)).relu_()
        x = x * torch.sigmoid(x.amax((2, 3), keepdim=True))
        x = x * torch.sigmoid(x.mean(1, keepdim=True))
        return {"features": x, "logits": self.fc(x.mean((2, 3)))}


def gates_under_the_tracer(model: nn.Module, x: Tensor) -> tuple[Any, dict[str, Tensor]]:
    with torch.no_grad(), watch_gates(model, find_gates(model, x[:4])) as seen:
        returned = model(x)
        return returned, dict(seen)


def test_a_cut_graph_returns_what_the_network_returns_bit_for_bit() -> None:
    """The gradient begins at the first layer."""
    model, x, layers = Small(), torch.rand(5, 3, 16, 16), ["second", "first"]
    expected, gates = gates_under_the_tracer(model, x)
    way = graph_way(model, x[:4], find_gates(model, x[:4]), layers)
    returned, found = way(x, [])
    for one, other in zip(
        torch.utils._pytree.tree_leaves(returned),
        torch.utils._pytree.tree_leaves(expected),
        strict=True,
    ):
        assert torch.equal(one, other)
    assert found.keys() == gates.keys()
    for name, values in gates.items():
        assert torch.equal(found[name], values), name
        assert not found[name].requires_grad
    kept: dict[str, Tensor] = {}
    for layer in layers:
        model.get_submodule(layer).register_forward_hook(
            lambda m, a, out, layer=layer: kept.update({layer: out})
        )
    model(x)
    outputs = way.head.outputs
    for layer in layers:
        assert torch.equal(outputs[layer], kept[layer])
    assert len(way._parts) == 3
    assert outputs["first"].is_leaf
    assert outputs["first"].requires_grad
    assert outputs["second"].grad_fn is not None
    assert not returned["logits"].is_leaf


class Repeated(nn.Module):
    """Calls one module twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.conv(x))
        x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def test_a_layer_that_is_no_single_value_of_the_graph_is_refused() -> None:
    model, x = Repeated().eval(), torch.rand(4, 3, 8, 8)
    for layer in ("conv", "missing"):
        with refused("AS676", names=(layer,)):
            graph_way(model, x, find_gates(model, x), [layer])


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Compiles without generating code, which takes long."""
    monkeypatch.setattr(graphs, "BACKEND", "aot_eager")
    return monkeypatch


def said(caplog: pytest.LogCaptureFixture) -> int:
    """How many lines there are that a user sees, of which the output that is taken makes one."""
    own = [r for r in caplog.records if r.name.startswith("attnscope")]
    caplog.clear()
    return len(own)


GIVEN: dict[str, Any] = {"batch_size": 8, "shard_images": 8, "progress": False}


def choose(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Take a way that a GPU would be measured for."""
    monkeypatch.setattr(
        "attnscope.capturing.capture.choose_way",
        lambda subject, *_: ways._prepare(subject, name) if name != TRACER else Way(),
    )


@pytest.mark.parametrize("moments", [False, True])
def test_the_graph_records_what_the_tracer_records(
    moments: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files but those that name the plan are equal bit for bit."""
    model = Small()
    layers = ("first", "second")
    given = GIVEN | {"moments": moments, "grad_cam_layers": layers}
    capture(model, images(), tmp_path / "tracer", **given)
    choose(monkeypatch, GRAPH)
    capture(model, images(), tmp_path / "graph", **given)
    tracer, graph = contents(tmp_path / "tracer"), contents(tmp_path / "graph")
    assert tracer.keys() == graph.keys()
    differ = {name.rpartition("/")[2] for name in tracer if tracer[name] != graph[name]}
    assert differ == {"manifest.json", "plan.json", "shard.json"}  # they hold the id
    assert json.loads(graph["plan.json"])["way"] == GRAPH
    assert "way" not in json.loads(tracer["plan.json"])


def test_autocast_gives_the_same_in_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Small()
    given = GIVEN | {"precision": "bf16"}
    tracer = capture(model, images(8), tmp_path / "tracer", **given)
    choose(monkeypatch, GRAPH)
    graph = capture(model, images(8), tmp_path / "graph", **given)
    for gate in tracer.gates:
        np.testing.assert_allclose(graph.gate(gate.name), tracer.gate(gate.name), atol=4e-3)


def test_compiled_code_gives_the_values_of_the_tracer_also_for_a_smaller_batch(
    tmp_path: Path, forced: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = Small()
    caplog.clear()
    tracer = capture(model, images(), tmp_path / "tracer", **GIVEN)
    lines = said(caplog)
    compiled = capture(model, images(), tmp_path / "compiled", compile=True, **GIVEN)
    assert said(caplog) == lines + 1
    assert len(compiled) == 22  # the last batch has six images
    assert compiled.verify() == []
    for gate in tracer.gates:
        np.testing.assert_allclose(compiled.gate(gate.name), tracer.gate(gate.name), atol=1e-6)
    for target in ("predicted", "true"):
        a, b = (each.grad_cam("norm", target).astype(float) for each in (tracer, compiled))
        np.testing.assert_allclose(b, a, atol=2e-3 * np.abs(a).max())


class Averaging(Small):
    """Has no maximum among features."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.norm(self.second(self.first(x)))
        x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
        return {"features": x, "logits": self.fc(x.mean((2, 3)))}


@pytest.mark.parametrize(("network", "compiled"), [(Small, [True, False]), (Averaging, [True] * 2)])
def test_a_part_whose_gradient_compares_features_with_their_maximum_is_not_compiled(
    network: type[Small], compiled: list[bool], forced: pytest.MonkeyPatch
) -> None:
    model, x = network(), torch.rand(6, 3, 8, 8)
    graph = graphs.graph_way(model, x[:4], find_gates(model, x[:4]), ["norm"])
    graph.compile(x)
    assert [part.compiled is not None for part in graph._parts] == compiled


def test_an_unfinished_capture_goes_on_in_its_own_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is made once here, and is not compiled."""
    model, given = Small(), GIVEN | {"grad_cam_layers": ()}
    sample = images().tensors[0][:4]
    made = Way(COMPILED, graph_way(model, sample, find_gates(model, sample), ()))
    seen = []

    def prepare(subject: Subject, name: str) -> Way:
        seen.append(name)
        return made

    monkeypatch.setattr(ways, "_prepare", prepare)
    out = tmp_path / "out"
    whole = capture(model, images(), tmp_path / "whole", compile=True, **given)
    interrupted(monkeypatch, model, out, compile=True, **given)
    capture(model, images(), out, **given)  # without asking for it again
    assert seen == [COMPILED] * 3
    assert contents(out) == contents(whole.folder)
    other = tmp_path / "other"
    interrupted(monkeypatch, model, other, **given)
    with refused("AS653", names=("(way)",)):
        capture(model, images(), other, compile=True, **given)
    capture(model, images(), other, **given)
    assert seen == [COMPILED] * 4


def interrupted(patch: pytest.MonkeyPatch, model: nn.Module, out: Path, **given: Any) -> None:
    """A capture that ends after its first shard."""
    real = writer.write_bytes
    count = 0

    def fail(file: Path, content: Any) -> None:
        nonlocal count
        count += file.name == "rows.parquet"
        if count == 2:
            raise RuntimeError("of the test")
        real(file, content)

    with patch.context() as patched:
        patched.setattr(writer, "write_bytes", fail)
        with pytest.raises(RuntimeError, match="of the test"):
            capture(model, images(), out, **given)


@pytest.mark.parametrize("why", ["export", "compiler", "pooled inputs"])
def test_where_a_network_cannot_be_compiled_one_line_says_so(
    why: str, tmp_path: Path, forced: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Depends(nn.Module):
        """Its operations depend on values."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = Small()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)["logits"] * (1 if x.sum() > 0 else 2)

    model = Depends().eval() if why == "export" else Small()
    if why == "compiler":
        forced.setattr(graphs, "BACKEND", "no such compiler")
    given = GIVEN | {"pooled_inputs": why == "pooled inputs"}
    caplog.clear()
    plain = capture(model, images(8), tmp_path / "plain", **given)
    lines = said(caplog)
    found = capture(model, images(8), tmp_path / "found", compile=True, **given)
    assert said(caplog) == lines + 1
    assert contents(found.folder) == contents(plain.folder)


def subject(count: int, layers: tuple[str, ...] = ()) -> Subject:
    return Subject(nn.Identity(), torch.rand(4, 3, 8, 8), [], layers, count, 128)


def test_the_way_that_is_expected_to_end_first_depends_on_the_number_of_images() -> None:
    def first(count: int, layers: tuple[str, ...] = ()) -> str:
        # SE-ResNet50 at 224 pixels on an H200: 128 of 6,240 images in a second, 0.55 with tracer.
        seconds = expected_seconds(subject(count, layers), 128 / 6240, 128 / 6240 / 0.55)
        return min(seconds, key=seconds.__getitem__)

    assert first(10_000) == first(50_000) == TRACER
    assert first(120_000) == GRAPH
    assert first(1_281_167) == first(1_281_167, ("layer4",)) == COMPILED
    assert first(500_000) == COMPILED
    assert first(500_000, ("layer4",)) == GRAPH  # two parts are compiled


def test_a_cpu_takes_the_tracer_without_a_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "_seconds", lambda *_: pytest.fail("it was measured"))
    assert choose_way(subject(10**9), False, tmp_path / "r") == Way()


def test_a_short_capture_on_a_gpu_is_not_delayed_by_measurements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[int] = []

    def seconds(model: nn.Module, x: Tensor, timed: int) -> float:
        measured.append(timed)
        return [0.02, 0.02, 0.037][len(measured) - 1]

    monkeypatch.setattr(ways, "_seconds", seconds)
    for count, way, number in ((49 * 128, TRACER, 0), (20_000, TRACER, 1), (120_000, GRAPH, 3)):
        measured.clear()
        found = Subject(Small(), torch.rand(4, 3, 16, 16), [], (), count, 128)
        assert ways._quickest(found) == way
        assert len(measured) == number


def test_a_batch_of_copies_has_the_size_and_the_memory_format_of_a_batch() -> None:
    sample = torch.rand(3, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    x = Subject(nn.Identity(), sample, [], (), 9, 8).batch()
    assert x.shape == (8, 3, 8, 8)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x[3], sample[0])


def test_the_command_asks_for_compiled_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def choose(subject: Subject, compile: bool, *_: Any) -> Way:
        asked.append((compile, subject.images, subject.batch_size))
        return Way()

    monkeypatch.setattr("attnscope.capturing.capture.choose_way", choose)
    given = ["--model", f"{__name__}:small10", "--data", "digits", "--image-size", "8"]
    given += ["--device", "cpu", "--no-grad-cam", "--batch-size", "64"]
    for number, option in enumerate([["--compile"], []]):
        assert main(["capture", *given, "--out", str(tmp_path / str(number)), *option]) == 0
    assert asked == [(True, 359, 64), (False, 359, 64)]


def small10() -> nn.Module:
    model = Small()
    model.fc = nn.Linear(6, 10)
    return model.eval()
