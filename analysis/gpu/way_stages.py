"""The stage about the ways in which a network runs during a capture."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from unittest.mock import patch

import torch
from torch import Tensor, nn

from analysis.gpu.measures import Row, rows_of, times
from analysis.gpu.networks import network
from analysis.gpu.stage import Setting, stage
from attnscope.capturing import graph_way
from attnscope.gates.detect import inspect_gates
from attnscope.gates.hooks import watch_gates
from attnscope.networks.targets import load_target

_WAYS = {
    "bare": "bare forward",
    "tracer": "tracer",
    "graph": "graph with gates as outputs",
    "compiled": "the same, compiled",
    "bare compiled": "bare forward, compiled",
}
_NETWORKS = ("ResNet18-CBAM, 32 pixels, batch 512", "timm seresnet50, 224 pixels, batch 128")
_EQUAL = "largest difference of a gate, tracer and graph"


@stage(
    "ways",
    "Forwards of a capture in each way, fp32, gates and maps, values thrown away, relative to bare",
    150,
    {
        f"{name}: {work}": goal
        for name in _NETWORKS
        for work, goal in [*((w, "") for w in _WAYS.values()), (_EQUAL, "0")]
    },
)
def ways(setting: Setting) -> Iterator[Row]:
    """Compare the tracer, the exported graph and compiled code with a bare forward."""
    small = network("cbam", setting.pick(64, 16))
    yield from _ways(_NETWORKS[0], small, setting.pick(512, 4), 32, setting)
    if importlib.util.find_spec("timm") is None:
        raise ModuleNotFoundError("timm is not installed")
    large = load_target("timm:seresnet18" if setting.tiny else "timm:seresnet50").model
    size = setting.pick(224, 32)
    yield from _ways(_NETWORKS[1], large, setting.pick(128, 2), size, setting)


def _ways(name: str, model: nn.Module, batch: int, size: int, setting: Setting) -> Iterator[Row]:
    model = model.to(setting.device).to(memory_format=torch.channels_last).eval()
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(batch, 3, size, size, generator=rng).to(setting.device)
    x = x.contiguous(memory_format=torch.channels_last)
    # Without code generation, a trial on a CPU takes seconds.
    backend = "aot_eager" if setting.tiny else graph_way.BACKEND
    with torch.inference_mode(False), torch.no_grad(), patch.object(graph_way, "BACKEND", backend):
        gates = inspect_gates(model, x[:4]).gates
        graph = graph_way.graph_way(model, x[:4], gates, [])
        compiled = graph_way.graph_way(model, x[:4], gates, [])
        compiled.compile(x)
        bare_compiled = torch.compile(model, backend=backend, dynamic=False)

        def traced() -> dict[str, Tensor]:
            with watch_gates(model, gates, checks=[]) as values:
                model(x)
            return dict(values)

        expected = traced()
        _, found = graph(x, [])
        largest = max(float((found[g] - expected[g]).abs().max()) for g in expected)
        variants = {
            "bare": lambda: model(x),
            "tracer": traced,
            "graph": lambda: graph(x, []),
            "compiled": lambda: compiled(x, []),
            "bare compiled": lambda: bare_compiled(x),
        }
        calls = setting.pick(20, 1)
        seconds = times(variants, setting.device, setting.pick(5, 1), calls)
    yield from rows_of(seconds, batch, {key: f"{name}: {w}" for key, w in _WAYS.items()}, "bare")
    note = f"{len(expected)} gates"
    yield Row(f"{name}: {_EQUAL}", largest, note=note)
