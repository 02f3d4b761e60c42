"""The way in which a network runs during a capture: under the tracer, as a graph, or compiled.

All give the same values: the graph those of the tracer bit for bit in float32, compiled code within
the rounding of its other operations. Exporting and compiling take seconds, so the way is the one
that is expected to end first for the number of images. On a CPU the tracer costs so little that it
is always taken, unless compiled code is asked for.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from attnscope.capturing.graph_way import GraphWay, compiled_gradients, graph_way
from attnscope.errors import first_line
from attnscope.gates.hooks import watch_gates
from attnscope.kinds import Gate
from attnscope.recording.partial import planned

TRACER, GRAPH, COMPILED = "tracer", "graph", "compiled"
WAY = "way"
"""The key of the way in the plan of a recording. Without it, the way is the tracer."""
_EXPORT_SECONDS = 12.0  # 5 to 20 s for networks of 60 to 250 layers
_COMPILE_SECONDS = 25.0  # of each part of a graph, on a GPU
_GRAPH_SPEED = 0.93  # of bare forwards: 0.87 and 0.98 on an H200
_COMPILED_SPEED = 1.5  # 1.72 and 1.58 on an H200
_TRACED_AT_MOST = 2.0  # times of a bare forward
_FEWEST_BATCHES = 50  # for which forwards are measured
_TIMED = 3  # forwards


@dataclass(frozen=True)
class Way:
    """How the network runs."""

    name: str = TRACER
    graph: GraphWay | None = None
    line: str = ""
    """What a user should know about the choice, as a sentence; empty if nothing."""

    @property
    def identity(self) -> dict[str, str]:
        """What must be equal to resume a recording; nothing for the tracer, as in version 0.1."""
        return {} if self.name == TRACER else {WAY: self.name}


@dataclass(frozen=True)
class Subject:
    """What a way is chosen for."""

    model: nn.Module
    """The network, in eval mode."""
    sample: Tensor
    """Some images as the network gets them."""
    gates: Sequence[Gate]
    layers: Sequence[str]
    """Layers of Grad-CAM."""
    images: int
    """The number of images of the data set."""
    batch_size: int
    bf16: bool = False
    needs_tracer: str = ""
    """What only the tracer can do, in words; empty if nothing."""

    def batch(self) -> Tensor:
        """Return a batch of full size, of copies of the sample."""
        x = self.sample[torch.arange(self.batch_size, device=self.sample.device) % len(self.sample)]
        is_last = x.ndim == 4 and self.sample.is_contiguous(memory_format=torch.channels_last)
        return x.contiguous(memory_format=torch.channels_last) if is_last else x


def choose_way(
    subject: Subject, compile: bool, folder: Path, wait: Callable[[], None] | None = None
) -> Way:
    """Choose how the network runs, and prepare it.

    Args:
        subject: The network and the images.
        compile: Whether compiled code is asked for.
        folder: Folder of the recording. An unfinished one goes on in its own way.
        wait: In a process that is not the main one: waits for the plan of the main one.

    Returns:
        The way. It is the tracer if the network has no graph, or cannot be compiled, which its line
        says.
    """
    on_gpu = subject.sample.device.type == "cuda"
    if wait is not None and on_gpu:
        wait()
    plan = planned(folder)
    if compile:
        name = COMPILED
    elif plan is not None:
        name = plan.get(WAY, TRACER)
    elif on_gpu and not subject.needs_tracer:
        name = _quickest(subject)
    else:
        name = TRACER
    if name == TRACER:
        return Way()
    if subject.needs_tracer:
        return Way(line=f"the network is not compiled, because {subject.needs_tracer}")
    return _prepare(subject, name)


def expected_seconds(subject: Subject, bare: float, traced: float) -> dict[str, float]:
    """Return how long a capture is expected to take in each way, without what all have in common.

    Args:
        subject: The network and the images.
        bare: Seconds of a forward of a batch.
        traced: Seconds of the same under the tracer.
    """
    batches = subject.images / subject.batch_size
    parts = 1 + len(subject.layers)
    return {
        TRACER: batches * traced,
        GRAPH: _EXPORT_SECONDS + batches * bare / _GRAPH_SPEED,
        COMPILED: _EXPORT_SECONDS + parts * _COMPILE_SECONDS + batches * bare / _COMPILED_SPEED,
    }


def _quickest(subject: Subject) -> str:
    """Measure forwards of a batch, and return the way that is expected to end first.

    Where the tracer ends soon, measuring would take a large part of the time.
    """
    batches = subject.images / subject.batch_size
    if batches < _FEWEST_BATCHES:
        return TRACER
    x = subject.batch()
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        torch.autocast(x.device.type, torch.bfloat16, enabled=subject.bf16),
    ):
        first = _seconds(subject.model, x, 1)
        if batches * first * (_TRACED_AT_MOST - 1 / _COMPILED_SPEED) < _EXPORT_SECONDS:
            return TRACER
        bare = _seconds(subject.model, x, _TIMED)
        with watch_gates(subject.model, subject.gates, checks=[]):
            traced = _seconds(subject.model, x, _TIMED)
    seconds = expected_seconds(subject, bare, traced)
    return min(seconds, key=seconds.__getitem__)


def _seconds(model: nn.Module, x: Tensor, timed: int) -> float:
    """Return the median time of forwards, after one that is not timed."""
    times = []
    for _ in range(1 + timed):
        began = time.perf_counter()
        model(x.clone())  # the network may write into its input
        torch.cuda.synchronize(x.device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _prepare(subject: Subject, name: str) -> Way:
    """Export the network, and compile it if that is the way."""
    try:
        graph = graph_way(subject.model, subject.sample, subject.gates, subject.layers)
    except Exception as error:  # the network and the exporter may raise anything
        return Way(line=f"the network runs under the tracer, because {_reason(error)}")
    if name == COMPILED:
        try:
            with (
                compiled_gradients(),
                torch.random.fork_rng(devices=[]),
                torch.autocast(subject.sample.device.type, torch.bfloat16, enabled=subject.bf16),
            ):
                graph.compile(subject.batch())
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of the compiler
            return Way(
                line=f"the network runs under the tracer, because it cannot be compiled "
                f"({_reason(error)})"
            )
        return Way(
            name, graph, "the network runs as compiled code, which took some seconds to make"
        )
    return Way(
        name, graph, "the network runs as an exported graph, which is faster than the tracer"
    )


def _reason(error: Exception) -> str:
    """Return in a few words why something failed, without a remedy."""
    return first_line(error).partition("; ")[0]
