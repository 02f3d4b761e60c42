"""Whether a network is compiled, and how: without a compiler, which the tests stand in for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnscope.training import compiling as module
from attnscope.training import fitting
from attnscope.training.compiling import (
    COMPILE_SECONDS,
    Compilation,
    CompiledNetwork,
    choose_compilation,
    compile_network,
    measure_step,
)
from attnscope.training.processes import ProcessGroup
from tests.making import refused
from tests.training.toys import CPU, TINY, Spy, make_data, run, small, states_equal

CUDA = torch.device("cuda")
LONG, SHORT = 10 * COMPILE_SECONDS, 0.1 * COMPILE_SECONDS


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets what is wrong with the compiler; and puts tensors for a GPU on the CPU."""

    def set_problem(problem: str) -> None:
        monkeypatch.setattr(module, "find_compiler_problem", lambda device: problem)

    real = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda values, device=None: real(values))
    set_problem("")
    return set_problem


def chosen(
    wanted: bool | None = None,
    stored: str | None = None,
    seconds: float = LONG,
    device: torch.device = CUDA,
    **options: Any,
) -> Compilation:
    defaults = {"sizes": 1, "deterministic": False, "accumulate": 1}
    options = {**defaults, "process_group": ProcessGroup(), **options}
    return choose_compilation(wanted, stored, lambda: seconds, device=device, **options)


@pytest.mark.usefixtures("compiler")
def test_a_long_training_on_a_gpu_is_compiled_and_one_line_says_so() -> None:
    found = chosen()
    assert found.mode == "reduce-overhead"
    assert "\n" not in found.note
    assert f"{LONG:.0f} s" in found.note
    assert "--no-compile" in found.note


@pytest.mark.usefixtures("compiler")
def test_a_training_that_is_shorter_than_compiling_is_not_compiled() -> None:
    found = chosen(seconds=SHORT)
    assert found.mode == "none"
    for value in (f"{SHORT:.0f} s", f"{COMPILE_SECONDS:.0f} s", "--compile"):
        assert value in found.note
    # Two sizes of images are compiled one after the other.
    assert chosen(seconds=1.5 * COMPILE_SECONDS).mode == "reduce-overhead"
    assert chosen(seconds=1.5 * COMPILE_SECONDS, sizes=2).mode == "none"


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("wanted", "options", "mode"),
    [
        (False, {}, "none"),
        (True, {"seconds": SHORT}, "reduce-overhead"),
        (True, {"device": CPU}, "default"),
        (None, {"device": CPU}, "none"),
        # CUDA graphs would overwrite gradients that are still needed.
        (None, {"accumulate": 2}, "default"),
        (True, {"process_group": ProcessGroup(0, 1), "accumulate": 2}, "default"),
        (None, {"deterministic": True}, "none"),
        # A resumed run.
        (None, {"stored": "none"}, "none"),
        (None, {"stored": "reduce-overhead", "seconds": SHORT}, "reduce-overhead"),
        (None, {"stored": "default", "seconds": SHORT}, "default"),
        (None, {"stored": "reduce-overhead", "device": CPU}, "none"),
        (False, {"stored": "reduce-overhead"}, "none"),
        (True, {"stored": "none"}, "reduce-overhead"),
    ],
)
def test_the_mode_depends_on_the_device_the_wish_and_the_stored_mode(
    wanted: bool | None, options: dict[str, Any], mode: str
) -> None:
    assert chosen(wanted, **options).mode == mode


def test_without_a_compiler_a_wish_is_refused_and_the_default_says_why(
    compiler: Callable[[str], None],
) -> None:
    compiler("gcc is missing")
    found = chosen()
    assert found.mode == "none"
    assert "gcc is missing" in found.note
    with refused("AS134", names=("cuda", "gcc is missing", "--no-compile")):
        chosen(True)


def test_a_compiler_that_fails_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("no Python.h\nmore lines")

    monkeypatch.setattr(torch, "compile", broken)
    assert module.find_compiler_problem(CPU) == "no Python.h"
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    assert module.find_compiler_problem(CPU) == ""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert "triton" in module.find_compiler_problem(CUDA)


class Reused(nn.Module):
    """Stands in for a compiled network: its outputs share one memory, as with CUDA graphs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.memory: Tensor | None = None
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        found: Tensor = self.model(x)
        if self.memory is None:
            self.memory = torch.empty_like(found)
        self.memory.data.copy_(found)
        return _Alias.apply(found, self.memory)  # type: ignore[no-any-return]


class _Alias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, found: Tensor, memory: Tensor) -> Tensor:
        return memory.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What torch.compile is asked for; it returns `Reused`."""
    asked: list[dict[str, Any]] = []

    def compile_(model: nn.Module, **options: Any) -> nn.Module:
        asked.append(options)
        return Reused(model)

    monkeypatch.setattr(torch, "compile", compile_)
    return asked


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_outputs_of_a_compiled_network_are_not_overwritten(compiled: list[dict[str, Any]]) -> None:
    model = Spy().eval()
    network = CompiledNetwork(model, "reduce-overhead", 4)
    assert compiled == [{"mode": "reduce-overhead", "dynamic": False}]
    first = network(images(4))
    kept = first.clone()
    second = network(images(4, 1))
    assert torch.equal(first, kept)
    assert not torch.equal(first, second)
    assert torch.equal(first, model(images(4)))


def test_batches_of_another_size_run_without_compilation(compiled: list[dict[str, Any]]) -> None:
    network = CompiledNetwork(Spy(), "default", 4)
    for count, calls in ((4, 1), (3, 1), (4, 2), (5, 2)):
        network(images(count))
        assert vars(network)["compiled"].calls == calls
    assert len(compiled) == 1


@pytest.mark.usefixtures("compiled")
def test_a_compiled_network_has_the_parameters_of_the_network_once() -> None:
    model = Spy()
    network = CompiledNetwork(model, "default", 4)
    assert [id(p) for p in network.parameters()] == [id(p) for p in model.parameters()]
    assert len(network.state_dict()) == len(model.state_dict())


@pytest.mark.usefixtures("compiled")
def test_warming_up_leaves_no_trace_and_happens_once_per_size() -> None:
    model = small(attention="cbam")
    network = CompiledNetwork(model, "default", 4)
    seconds = network.warm_up(network, 32, 3, CPU, False, (True,))
    assert seconds > 0
    calls = vars(network)["compiled"].calls
    assert calls > 1
    assert states_equal(model, small(attention="cbam"))
    assert all(p.grad is None for p in model.parameters())
    assert network.warm_up(network, 32, 3, CPU, False, (True,)) == 0
    assert vars(network)["compiled"].calls == calls
    assert network.warm_up(network, 24, 3, CPU, False, (True,)) > 0
    assert network.warm_up(network, 24, 3, CPU, False, (False,)) > 0


def test_measuring_a_step_leaves_the_network_as_it_was() -> None:
    model = small(attention="se").eval()
    assert measure_step(model, (4, 3, 32, 32), CPU, False) > 0
    assert states_equal(model, small(attention="se"))
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.usefixtures("compiled")
def test_on_a_cpu_a_network_is_compiled_for_any_batch() -> None:
    """As in earlier versions, so that the weights of a compiled training are the same."""
    model = Spy()
    assert compile_network(model, "none", CPU, 4) is model
    assert isinstance(compile_network(model, "default", CPU, 4), Reused)
    assert isinstance(compile_network(model, "default", torch.device("meta"), 4), CompiledNetwork)


def config(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "config.json").read_text())
    return found


def test_the_mode_is_stored_in_the_run_and_the_weights_are_those_of_the_plain_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = replace(TINY, epochs=1)
    plain = small()
    run(tmp_path / "plain", plain, recipe=recipe)
    assert "compile" not in config(tmp_path / "plain")
    made = Compilation("reduce-overhead", "compiled, says the test")
    monkeypatch.setattr(fitting, "choose_compilation", lambda *_, **__: made)
    monkeypatch.setattr(
        "attnscope.training.loop.compile_network",
        lambda model, mode, device, count: CompiledNetwork(model, mode, count),
    )
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    model = small()
    result = run(tmp_path / "compiled", model, recipe=recipe)
    assert config(tmp_path / "compiled")["compile"] == "reduce-overhead"
    assert "The network is compiled, says the test." in capfd.readouterr().err.splitlines()
    assert result.compile_seconds > 0
    assert states_equal(model, plain), "warming up changes nothing"


def test_a_resumed_run_asks_for_the_mode_that_it_was_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def choose(wanted: bool | None, stored: str | None, *_: Any, **__: Any) -> Compilation:
        asked.append(stored)
        return Compilation("default")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "choose_compilation", choose)
    monkeypatch.setattr(torch, "compile", lambda model: model)
    with monkeypatch.context() as patch:
        patch.setattr("attnscope.training.loop.TrainingLoop.step", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", Spy())
    run(tmp_path / "run", Spy(), resume=True)
    assert asked == [None, "default"]


# --- deterministic --------------------------------------------------------------------------------


class Random(Spy):
    """A network with an operation that has no deterministic kernel."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("sway does not have a deterministic implementation, but you set ...")
        return super().forward(x)


def settings() -> tuple[Any, ...]:
    debug = torch.utils.deterministic
    return (
        torch.get_deterministic_debug_mode(),
        torch.backends.cudnn.benchmark,
        debug.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )


def test_a_deterministic_training_has_deterministic_kernels_only_and_restores_the_settings(
    tmp_path: Path,
) -> None:
    before, seen = settings(), []

    class Looking(Spy):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((torch.are_deterministic_algorithms_enabled(), self.training))
            return super().forward(x)

    run(tmp_path / "run", Looking(), deterministic=True, recipe=replace(TINY, epochs=1))
    assert (True, True) in seen
    assert (False, True) not in seen
    assert settings() == before
    assert config(tmp_path / "run")["deterministic"] is True
    run(tmp_path / "plain", Looking())
    assert (False, True) in seen
    assert "deterministic" not in config(tmp_path / "plain")


def test_an_operation_without_a_deterministic_kernel_is_named(tmp_path: Path) -> None:
    before = settings()
    with refused("AS509", names=("sway", "--deterministic")):
        run(tmp_path / "run", Random(), deterministic=True)
    assert settings() == before
    with pytest.raises(RuntimeError, match="broken"):  # other errors are no business of the option
        run(tmp_path / "other", Broken(), deterministic=True)


class Broken(Spy):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("broken")
        return super().forward(x)


def test_a_deterministic_training_is_not_compiled(tmp_path: Path) -> None:
    with refused("AS102", names=("deterministic", "compile")):
        run(tmp_path / "run", Spy(), deterministic=True, compiled=True)
    assert not (tmp_path / "run").exists()


def test_a_run_with_another_choice_of_kernels_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("attnscope.training.loop.TrainingLoop.step", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", Spy(), data=make_data())
    with refused("AS522", names=("deterministic",)):
        run(tmp_path / "run", Spy(), data=make_data(), resume=True, deterministic=True)
