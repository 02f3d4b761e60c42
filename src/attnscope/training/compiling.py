"""Whether a network is compiled for a training, and the compiled network."""

from __future__ import annotations

import copy
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.errors import InputError, first_line
from attnscope.networks.memory import channels_last
from attnscope.training.devices import autocast_block
from attnscope.training.processes import ProcessGroup

COMPILE_SECONDS = 60.0
"""About how long compiling a training step takes for one size of images. A forward pass alone took
25 seconds on an H200 with 16 cores of the host; a training step has a backward pass as well."""
NOT_COMPILED, DEFAULT, CUDA_GRAPHS = "none", "default", "reduce-overhead"
"""Modes: not compiled, compiled, and compiled with CUDA graphs. The names are those of torch."""
_MEASURED_STEPS = 3
_WARM_UPS = 3  # with CUDA graphs, a call compiles, the next one records, and the next one replays


@dataclass(frozen=True)
class Compilation:
    """A mode, and what is to be said about it."""

    mode: str
    note: str = ""
    """One line for the user, or nothing."""


def choose_compilation(
    wanted: bool | None,
    stored: str | None,
    expected_seconds: Callable[[], float],
    *,
    sizes: int,
    device: torch.device,
    deterministic: bool,
    accumulate: int,
    process_group: ProcessGroup,
) -> Compilation:
    """Choose whether a network is compiled. All processes come to the same choice.

    Args:
        wanted: what the user asks for; None if attnscope chooses. Then a network is compiled on a
            GPU, if there is a compiler and the training is longer than compiling.
        stored: the mode with which the run was started, if it is resumed. It is used again unless
            the user asks for another one.
        expected_seconds: returns how long the training takes without compilation. It is called only
            where the answer matters.
        sizes: how many times the network is compiled: for each size of images, and for each set of
            trained modules.
        device: where the network runs.
        deterministic: whether the training must be deterministic.
        accumulate: number of batches of a step.
        process_group: the processes that train together.

    Raises:
        InputError: AS134, the user asks for compilation, and there is no compiler.
    """
    on_gpu = device.type == "cuda"
    # The memory of CUDA graphs is overwritten by the next call, and with it the gradients of
    # earlier batches of a step, or those that other processes wait for.
    graphs = on_gpu and accumulate == 1 and process_group.size == 1
    mode = CUDA_GRAPHS if graphs else DEFAULT
    if wanted is None and stored is not None:
        wanted = stored != NOT_COMPILED and on_gpu
        if stored != NOT_COMPILED and not on_gpu:
            return Compilation(NOT_COMPILED, "not compiled, because there is no GPU any more")
        mode = DEFAULT if stored == DEFAULT else mode
    if wanted is False or (wanted is None and not on_gpu):
        return Compilation(NOT_COMPILED)
    if wanted is None and deterministic:
        return Compilation(NOT_COMPILED, "not compiled, because the training is deterministic")
    problem = find_compiler_problem(device)
    missing = bool(process_group.max(torch.tensor([float(bool(problem))], device=device)).item())
    if missing:
        problem = problem or "another process has no compiler"
        if wanted:
            raise InputError(
                "AS134",
                f"the network cannot be compiled on {device} ({problem:.300}); install what is "
                "missing, or train with --no-compile",
            )
        return Compilation(NOT_COMPILED, f"not compiled, because there is no compiler ({problem})")
    if wanted:
        return Compilation(mode)
    expected = expected_seconds()
    expected = process_group.max(torch.tensor([expected], device=device)).item()
    needed = COMPILE_SECONDS * sizes
    if expected <= needed:
        return Compilation(
            NOT_COMPILED,
            f"not compiled, because about {expected:.0f} s of training are expected and compiling "
            f"takes about {needed:.0f} s; --compile compiles it",
        )
    return Compilation(
        mode,
        f"compiled, because about {expected:.0f} s of training are expected without; "
        "--no-compile does not compile it",
    )


def find_compiler_problem(device: torch.device) -> str:
    """Return why torch.compile does not work on a device, or an empty string if it works."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    try:
        torch.compile(_double, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # of a compiler, a linker, a driver ...
        return first_line(error)
    return ""


def _double(x: Tensor) -> Tensor:
    return 2 * x


def measure_step(
    model: nn.Module, shape: tuple[int, ...], device: torch.device, autocast: bool
) -> float:
    """Return the seconds of a forward and backward pass on a GPU, without compilation.

    Args:
        model: the network. A copy of it is run.
        shape: shape of a batch.
        device: where it is measured.
        autocast: run under bfloat16 autocast.
    """
    network = channels_last(copy.deepcopy(model).to(device)).train()
    began = 0.0
    for step in range(1 + _MEASURED_STEPS):
        if step == 1:  # the first one chooses kernels and allocates memory
            _wait_for(device)
            began = time.perf_counter()
        _run(network, shape, device, autocast)
    _wait_for(device)
    return (time.perf_counter() - began) / _MEASURED_STEPS


def compile_network(
    model: nn.Module, mode: str, device: torch.device, images: int
) -> nn.Module | CompiledNetwork:
    """Return the compiled network, or the network itself if it is not to be compiled.

    Args:
        model: the network, on its device.
        mode: one of `NOT_COMPILED`, `DEFAULT` and `CUDA_GRAPHS`.
        device: where it runs.
        images: number of images of a batch, for which it is compiled on a GPU.
    """
    if mode == NOT_COMPILED:
        return model
    if device.type == "cpu":
        compiled: nn.Module = torch.compile(model)  # type: ignore[assignment]
        return compiled
    return CompiledNetwork(model, mode, images)


class CompiledNetwork(nn.Module):
    """A network that is compiled for batches of a fixed shape.

    Other batches, such as the smaller one at the end of an epoch, run without compilation, because
    compiling for them would take longer than they do.
    """

    def __init__(self, model: nn.Module, mode: str, images: int) -> None:
        """Wrap a network. It is compiled by its first call.

        Args:
            model: the network.
            mode: ``default`` or ``reduce-overhead``.
            images: number of images of a batch.
        """
        super().__init__()
        self.model = model
        self.mode, self.images = mode, images
        # Not a submodule: its parameters are those of the network.
        vars(self)["compiled"] = torch.compile(model, mode=mode, dynamic=False)
        self.ready: set[object] = set()
        """What it has been compiled for."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, which later calls do not overwrite."""
        if len(x) != self.images:
            logits: Tensor = self.model(x)
            return logits
        if self.mode != CUDA_GRAPHS:
            logits = vars(self)["compiled"](x)
            return logits
        if x.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        # The next call writes into the same memory.
        logits = vars(self)["compiled"](x).clone()
        return logits

    def warm_up(
        self,
        network: nn.Module,
        side: int,
        channels: int,
        device: torch.device,
        autocast: bool,
        trained: object,
    ) -> float:
        """Compile for images of a size, and return the seconds it took; 0 if that is done.

        Weights, buffers and gradients are as before.

        Args:
            network: this network, or DistributedDataParallel around it.
            side: side of the images, in pixels.
            channels: their number of channels.
            device: where the network runs.
            autocast: run under bfloat16 autocast.
            trained: what is trained. Another set of parameters is compiled anew.
        """
        if (side, trained) in self.ready:
            return 0.0
        _wait_for(device)
        began = time.perf_counter()
        buffers = [(buffer, buffer.detach().clone()) for buffer in self.model.buffers()]
        for _ in range(_WARM_UPS):
            _run(network, (self.images, channels, side, side), device, autocast)
            for parameter in self.model.parameters():
                parameter.grad = None
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        _wait_for(device)
        self.ready.add((side, trained))
        return time.perf_counter() - began


def _run(network: nn.Module, shape: tuple[int, ...], device: torch.device, autocast: bool) -> None:
    """Run a forward and backward pass on a batch of zeros."""
    x = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
    with autocast_block(device, autocast):
        logits = network(x)
    labels = torch.zeros(len(x), dtype=torch.int64, device=device)
    torch.autograd.backward(F.cross_entropy(logits.float(), labels))


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
