"""Gates that are observed during training, against the same training without a monitor, and
against the statistics of a recording.

This file has more than 400 lines, because all tests share the loops at its top.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope import GateHistory, GateMonitor, capture, statistics
from attnscope.gate_history import MEASURES
from attnscope.gates.aside import aside, unwrapped
from attnscope.gates.detect import find_gates
from attnscope.networks.build import build_model
from tests.making import refused
from tests.training.test_distributed import torchrun

SIZE = 12


class Block(nn.Module):
    """CBAM in a few lines, after a convolution and a norm."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.mlp = nn.Linear(channels, channels)
        self.map = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        x = x * torch.sigmoid(self.mlp(x.mean((2, 3))))[:, :, None, None]
        return x * torch.sigmoid(self.map(x.mean(1, keepdim=True)))


class Net(nn.Module):
    """Two blocks, dropout, and all that a forward could leave behind."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(3, 6), nn.Dropout(0.3), Block(6, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean((2, 3)))


class Restless(Net):
    """Draws random numbers, counts its calls and writes a buffer, also in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("last", torch.zeros(1))
        self.drawn = torch.Generator().manual_seed(5)
        self.numpy = np.random.default_rng(5)
        self.python = random.Random(5)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen += x.mean((0, 2, 3))
        self.last = x.mean().detach().reshape(1)
        noise = torch.rand(1, generator=self.drawn) + torch.rand(1)
        noise = noise + float(self.numpy.random()) + self.python.random()
        noise = noise + random.random() + np.random.random()  # noqa: NPY002
        return super().forward(x + 0.01 * noise) + 1e-3 * self.seen + 1e-3 * self.calls


class Remembering(Net):
    """Keeps tensors in plain attributes, writes into them, and lets its output depend on them."""

    def __init__(self) -> None:
        super().__init__()
        self.average = torch.zeros(3)
        self.log: list[Any] = []
        self.cache = {"sums": [torch.zeros(3)], "last": (torch.zeros(1), {"count": 0})}
        self.grid = torch.zeros(1, 3).expand(4, 3)  # cannot be written into
        self.register_buffer("repeated", torch.ones(1, 3).expand(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.detach().mean((0, 2, 3))
        self.average.mul_(0.9).data.add_(0.1 * mean)  # `data` has a version of its own
        self.log += [mean, len(self.log)]
        self.cache["sums"][0] += mean
        self.cache["last"][0].copy_(mean[:1])
        self.cache["last"][1]["count"] += 1
        self.cache[f"more {len(self.cache)}"] = mean
        memory = self.average + self.cache["sums"][0] + self.cache["last"][0] + len(self.log)
        return super().forward(x) + 1e-3 * memory + 1e-3 * self.cache["last"][1]["count"]

    def memory(self) -> tuple[Any, ...]:
        sums, (last, inner) = self.cache["sums"], self.cache["last"]
        log = [each.tolist() if isinstance(each, Tensor) else each for each in self.log]
        tensors = [each.tolist() for each in (self.average, sums[0], last)]
        return tensors, log, list(self.cache), dict(inner)


def make(kind: Callable[[], nn.Module] = Net) -> nn.Module:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    return kind()


def probes(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    labels = torch.arange(count) % 3
    return x + labels[:, None, None, None], labels


def steps(network: nn.Module, monitor: GateMonitor | None, count: int = 6) -> Iterator[Tensor]:
    """Train with everything that depends on a random state, and yield the losses."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(count):
        x = torch.randn(8, 3, SIZE, SIZE) + random.random() + np.random.random()  # noqa: NPY002
        loss = F.cross_entropy(network(x), torch.randint(3, (8,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if monitor is not None:
            monitor.step()
        yield loss.detach()


def state(model: nn.Module) -> dict[str, Any]:
    """Everything that training could see of a network."""
    return {
        **{name: value.clone() for name, value in model.state_dict().items()},
        **{f"{n}.grad": p.grad.clone() for n, p in model.named_parameters() if p.grad is not None},
        "modes": [module.training for module in model.modules()],
        "calls": getattr(model, "calls", 0),
        "memory": model.memory() if isinstance(model, Remembering) else (),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "python": random.getstate(),
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
    }


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        same = torch.equal(value, b[name]) if isinstance(value, Tensor) else value == b[name]
        assert same, name


def trained(
    kind: Callable[[], nn.Module],
    wrap: Callable[[nn.Module], nn.Module],
    every: int | None,
    tmp_path: Path,
) -> tuple[dict[str, Any], list[float], GateMonitor | None]:
    model = make(kind).train()
    model.get_submodule("blocks.2.norm").eval()  # a mixture of modes must come back as it was
    network = wrap(model)
    monitor = None
    if every is not None:
        monitor = GateMonitor(network, *probes(), every=every, file=tmp_path / "h.jsonl")
    losses = [float(loss) for loss in steps(network, monitor)]
    return state(model), losses, monitor


WAYS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], nn.Module]]] = {
    "eager": (Net, lambda model: model),
    "restless": (Restless, lambda model: model),
    "remembering": (Remembering, lambda model: model),
    "data-parallel": (Net, nn.DataParallel),
    "compiled": (Net, lambda model: torch.compile(model, backend="aot_eager")),
}


@pytest.mark.parametrize("way", WAYS)
def test_training_is_the_same_bit_for_bit(way: str, tmp_path: Path) -> None:
    plain, losses, _ = trained(*WAYS[way], None, tmp_path)
    watched, watched_losses, monitor = trained(*WAYS[way], 2, tmp_path)
    assert watched_losses == losses
    assert len(set(losses)) == len(losses)
    assert_same(watched, plain)
    assert monitor is not None
    assert monitor.history.steps.tolist() == [0, 2, 4, 6]
    moved = monitor.history.values("distance")
    assert (moved[0] == 0).all()
    assert (moved[1:] > 0).all()


@pytest.mark.parametrize("raises", [False, True])
def test_attributes_have_their_content_again_after_a_look(raises: bool) -> None:
    model = make(Remembering).train()
    model(probes()[0])
    parts = [model.average, model.log, model.cache, model.cache["sums"], model.cache["last"]]
    before = model.memory()
    versions = model.average._version
    with suppress(ZeroDivisionError), aside(model):
        model(probes()[0])
        model.log.pop(0)
        model.cache["sums"][0] = torch.ones(3)
        assert model.memory() != before
        if raises:
            raise ZeroDivisionError
    assert model.memory() == before
    after = [model.average, model.log, model.cache, model.cache["sums"], model.cache["last"]]
    assert all(a is b for a, b in zip(parts, after, strict=True))
    # The version is that of the write in the block: the content was put back without another one.
    assert model.average._version == versions + 1


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of dynamo, for parts
def test_a_network_compiled_in_place_or_in_parts_is_observed(tmp_path: Path) -> None:
    eager = trained(Net, lambda model: model, 3, tmp_path / "a")[2]
    assert eager is not None

    def in_place(model: nn.Module) -> nn.Module:
        model.compile(backend="aot_eager")
        return model

    def in_parts(model: nn.Module) -> nn.Module:
        model.blocks[2] = torch.compile(model.blocks[2], backend="aot_eager")
        return model

    def forward(model: nn.Module) -> nn.Module:
        model.forward = torch.compile(model.forward, backend="aot_eager")
        return model

    for number, wrap in enumerate((in_place, in_parts, forward)):
        model = make().train()
        network = wrap(model)
        monitor = GateMonitor(network, *probes(), every=3)
        list(steps(network, monitor))
        before = [name for name, _ in network.named_modules()]
        assert monitor.history.gates == eager.history.gates, number
        np.testing.assert_allclose(
            monitor.history.values("mean"), eager.history.values("mean"), atol=1e-3
        )
        assert any("_orig_mod" in name for name in before) == (wrap is in_parts)
        assert (network._compiled_call_impl is not None) == (wrap is in_place)
        assert hasattr(vars(network).get("forward"), "_torchdynamo_orig_callable") == (
            wrap is forward
        )


def test_observing_compiles_nothing_again() -> None:
    compiled = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(len(graph.graph.nodes))
        return graph.forward

    model = make().train()
    network = torch.compile(model, backend=backend)
    list(steps(network, None, 2))
    count = len(compiled)
    assert count > 0
    monitor = GateMonitor(network, *probes(), every=1)
    list(steps(network, monitor, 3))
    assert len(monitor.history.observations) == 4
    assert len(compiled) == count


def test_observing_between_forward_and_backward_changes_no_gradient() -> None:
    def gradients(observe: bool) -> list[Tensor]:
        model = make().train()
        model.get_submodule("blocks.0.norm").eval()  # its statistics are saved for backward
        monitor = GateMonitor(model, *probes())
        x, y = probes()
        with torch.autocast("cpu", torch.bfloat16):
            first = F.cross_entropy(model(x).float(), y)
            if observe:
                monitor.step(1)
                monitor.observe()
            # Weights that were cast before come from autocast's cache.
            loss = first + F.cross_entropy(model(x + 1).float(), y)
        loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    plain, observed = gradients(False), gradients(True)
    assert len(plain) == len(observed) > 0
    assert all(map(torch.equal, plain, observed))


def test_the_numbers_do_not_depend_on_the_autocast_around_a_step() -> None:
    model = make().train()
    monitor = GateMonitor(model, *probes())
    with torch.autocast("cpu", torch.bfloat16):
        monitor.step(100)
        x, y = probes()
        F.cross_entropy(model(x).float(), y).backward()
    assert (monitor.history.values("distance") == 0).all()
    assert all(p.grad is not None for p in model.parameters())


DDP = """
import sys
from pathlib import Path
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from attnscope import GateMonitor
from tests.test_monitoring import make, probes, state, steps

# A network in a global variable would keep the threads of gloo alive while the interpreter ends. A
# thread that then asks for the interpreter's lock aborts the process.
def train(every, out):
    model = make().train()
    network = DistributedDataParallel(model)
    torch.manual_seed(distributed.get_rank())
    monitor = None
    if every:
        monitor = GateMonitor(network, *probes(), every=every, file=out / "gates.jsonl")
        assert bool(monitor.stopped) == (distributed.get_rank() > 0)
        assert bool(monitor.gates) == (distributed.get_rank() == 0)
    losses = torch.stack(list(steps(network, monitor)))
    return {**state(model), "losses": losses}

torch.set_num_threads(1)
distributed.init_process_group("gloo")
out, rank = Path(sys.argv[1]), distributed.get_rank()
plain, monitored = train(None, out), train(2, out)
same = all(
    torch.equal(value, monitored[name]) if hasattr(value, "shape") else value == monitored[name]
    for name, value in plain.items()
)
(out / f"{rank}.txt").write_text(f"{same} {plain['losses'].tolist()}")
distributed.destroy_process_group()
"""


def test_two_processes_train_the_same_and_one_observes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(DDP)
    done = torchrun(2, str(script), str(tmp_path))
    assert done.returncode == 0, done.stderr
    told = [(tmp_path / f"{rank}.txt").read_text().split(" ", 1) for rank in (0, 1)]
    assert [same for same, _ in told] == ["True", "True"]
    assert told[0][1] != told[1][1], "the processes have other images"
    assert GateHistory.read(tmp_path / "gates.jsonl").steps.tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize("raises", [False, True], ids=["well", "raising"])
def test_a_forward_aside_is_undone_also_after_an_exception(raises: bool) -> None:
    model = make(Restless).train()
    list(steps(model, None, 1))
    before, buffers = state(model), dict(model.named_buffers())
    generators = model.drawn.get_state(), model.python.getstate(), str(model.numpy.bit_generator)
    hidden = []
    try:
        with aside(model) as network:
            hidden = [m.training for m in network.modules()]
            network(probes()[0])
            network.new_attribute = 1
            assert network.calls == 2
            assert not torch.is_grad_enabled()
            if raises:
                raise KeyError
    except KeyError:
        assert raises
    assert not any(hidden)
    assert_same(state(model), before)
    assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
    after = model.drawn.get_state(), model.python.getstate(), str(model.numpy.bit_generator)
    assert torch.equal(after[0], generators[0])
    assert after[1] == generators[1]
    assert not hasattr(model, "new_attribute")


def test_a_network_that_does_more_in_eval_is_not_asked_to() -> None:
    class Merging(Net):
        def train(self, mode: bool = True) -> Merging:
            assert mode, "eval() would merge weights"
            return super().train(mode)

    model = make(Merging).train()
    monitor = GateMonitor(model, *probes(), every=1)
    assert monitor.step()
    assert model.training


@pytest.fixture
def observed(tmp_path: Path) -> tuple[nn.Module, GateMonitor]:
    torch.manual_seed(0)
    model = build_model("cnn", num_classes=3, attention="cbam")
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(24) % 3
    images = torch.rand(24, 3, 32, 32, generator=generator) * (1 + labels[:, None, None, None]) / 3
    monitor = GateMonitor(model, images, labels, every=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    monitor.step()
    return model, monitor


def test_the_numbers_are_those_of_a_recording_of_the_same_images(
    observed: tuple[nn.Module, GateMonitor], tmp_path: Path
) -> None:
    model, monitor = observed
    images, labels = monitor._inputs.args[0], torch.arange(24) % 3
    names = ["a", "b", "c"]
    data = torch.utils.data.TensorDataset(images, labels)
    recording = capture(model, data, tmp_path / "r", classes=names, progress=False)
    table = monitor.history.table.query("step == 1").reset_index()
    assert list(table["gate"]) == [gate.name for gate in recording.gates]
    assert {gate.kind for gate in recording.gates} == {"channel", "spatial"}
    profiles = statistics.gate_profiles(recording).groupby("gate", sort=False)["mean"].mean()
    np.testing.assert_allclose(table["mean"], profiles, rtol=1e-5)
    state = statistics.gate_state(recording)
    saturated = state["saturated_low"] + state["saturated_high"]
    np.testing.assert_allclose(table["saturated"], saturated, rtol=1e-6)
    assert table["saturated"].max() > 0
    variance = statistics.between_class_variance(recording, permutations=1)
    np.testing.assert_allclose(table["between_class"], variance["omega_squared"], rtol=1e-3)
    assert table["between_class"].max() > 0.05
    for name, spread in zip(table["gate"], table["spread"], strict=True):
        values = recording.gate(name).reshape(24, -1).astype(float)
        np.testing.assert_allclose(spread, np.sqrt(values.var(0).mean()), rtol=1e-5)


def test_the_distance_is_that_of_the_values_of_a_plain_hook() -> None:
    model, (x, y) = make().eval(), probes()
    seen: list[Tensor] = []
    model.blocks[0].mlp.register_forward_hook(lambda m, a, out: seen.append(out.sigmoid()))
    with torch.no_grad():
        model(x)
        monitor = GateMonitor(model, x, y)
        model.blocks[0].mlp.bias += torch.linspace(-1, 1, 6)
        monitor.step(7)
        observation = monitor.observe()
        model(x)
    first, last = seen[0].double(), seen[-1].double()
    assert observation is not None
    assert observation.step == 7
    assert observation.distance[0] == pytest.approx(float((last - first).pow(2).mean().sqrt()))


def test_shares_are_of_the_range_of_the_gate() -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = self.blocks[0].conv(x)
            return y * (2 * torch.sigmoid(self.blocks[0].mlp(y.mean((2, 3)))))[:, :, None, None]

    class Once(Twice):
        def forward(self, x: Tensor) -> Tensor:
            y = self.blocks[0].conv(x)
            return y * torch.sigmoid(self.blocks[0].mlp(y.mean((2, 3))))[:, :, None, None]

    one, two = (GateMonitor(make(kind), *probes()).history for kind in (Once, Twice))
    assert [(gate.lo, gate.hi) for gate in (*one.gates, *two.gates)] == [(0, 1), (0, 2)]
    np.testing.assert_allclose(two.values("mean"), 2 * one.values("mean"), rtol=1e-6)
    np.testing.assert_allclose(two.values("spread"), one.values("spread"), rtol=1e-6)


def test_large_maps_are_read_on_a_grid() -> None:
    class Large(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * torch.sigmoid(x.mean(1, keepdim=True))).mean((2, 3))

    x = torch.randn(3, 2, 100, 80, generator=torch.Generator().manual_seed(0))
    history = GateMonitor(Large(), x).history
    assert history.gates[0].shape == (50, 80)
    expected = torch.sigmoid(x.mean(1))[:, ::2].double().mean()
    assert history.values("mean")[0, 0] == pytest.approx(float(expected), rel=1e-6)


def test_values_that_are_not_finite_are_noted_and_the_training_goes_on(tmp_path: Path) -> None:
    model = make()
    monitor = GateMonitor(model, *probes(), every=1, file=tmp_path / "h.jsonl")
    with torch.no_grad():
        model.blocks[2].mlp.bias[0] = torch.nan
    assert monitor.step()
    history = GateHistory.read(tmp_path / "h.jsonl")
    for measure in MEASURES:
        is_finite = np.isfinite(history.values(measure))
        assert is_finite.tolist() == [[True] * 4, [True, True, False, False]], measure


def test_the_file_has_what_the_monitor_has_also_while_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "gates.jsonl"
    model = make().train()
    monitor = GateMonitor(model, *probes(), every=2, file=file)
    list(steps(model, monitor))
    history = GateHistory.read(file)
    assert history == monitor.history
    assert history.classes == 3
    assert 0 < history.overhead < 1
    assert history.overhead == monitor.overhead
    file.write_text(file.read_text()[:-20])
    assert GateHistory.read(file).steps.tolist() == [0, 2, 4]


def test_a_resumed_history_is_that_of_one_training(tmp_path: Path) -> None:
    def train(file: Path, stop: int | None) -> GateMonitor:
        model = make().train()
        monitor = GateMonitor(model, *probes(), every=2, file=file)
        for step, _ in enumerate(steps(model, monitor, 8), start=1):
            if step == stop:
                saved = state(model)
            if stop is not None and step == stop + 2:  # later than the checkpoint
                break
        if stop is not None:
            model.load_state_dict({name: saved[name] for name in model.state_dict()})
            monitor = GateMonitor(model, *probes(), every=2, file=file, resume=stop)
        return monitor

    whole, part = train(tmp_path / "a.jsonl", None), train(tmp_path / "b.jsonl", 4)
    assert part.history.steps.tolist() == [0, 2, 4]
    assert GateHistory.read(tmp_path / "b.jsonl").steps.tolist() == [0, 2, 4]
    for measure in ("mean", "distance"):
        kept = whole.history.values(measure)[:3]
        np.testing.assert_array_equal(part.history.values(measure), kept)
    part.step(6)
    moved = GateHistory.read(tmp_path / "b.jsonl").values("distance")
    np.testing.assert_array_equal(moved[-1], moved[-2])  # the same weights as after step 4


def test_a_history_is_continued_only_with_the_same_gates_and_images(tmp_path: Path) -> None:
    file = tmp_path / "gates.jsonl"
    x, y = probes()
    GateMonitor(make(), x, y, file=file)
    with refused("AS113", names=(file,)):
        GateMonitor(make(), x, y, file=file)
    for images, labels, kind in ((x + 1, y, Net), (x, y.flip(0), Net), (x, None, Net)):
        with refused("AS554", names=(file, "images or labels")):
            GateMonitor(make(kind), images, labels, file=file, resume=0)
    with refused("AS554", names=(file, "other gates")):
        GateMonitor(make(lambda: Block(3, 6)), x, y, file=file, resume=0)
    start = tmp_path / "gates.start.safetensors"
    save_file({"other": np.zeros(1)}, start)
    with refused("AS555", names=(start,)):
        GateMonitor(make(), x, y, file=file, resume=0)
    start.unlink()
    with refused("AS555", names=(start,)):
        GateMonitor(make(), x, y, file=file, resume=0)
    # Nothing was observed before the interruption.
    later = GateMonitor(make(), x, y, file=tmp_path / "new.jsonl", resume=5)
    assert later.history.steps.tolist() == [5]
    assert len(load_file(tmp_path / "new.start.safetensors")) == 4


def test_a_failing_observation_does_not_stop_the_training() -> None:
    model = make().train()
    monitor = GateMonitor(model, *probes(), every=1)
    monitor.step()
    model.blocks[2].mlp = nn.Linear(2, 2)  # a forward raises
    before = state(model)
    with pytest.warns(RuntimeWarning, match="step 2"):
        assert not monitor.step()
    assert monitor.stopped
    assert_same(state(model), before)
    assert not monitor.step()
    assert monitor.history.steps.tolist() == [0, 1]
    assert "stopped" in repr(monitor)


def test_what_cannot_be_monitored_is_refused(tmp_path: Path) -> None:
    x, y = probes()
    with refused("AS552", names=("Sequential",)):
        GateMonitor(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2)), x)
    with refused("AS553", names=(11, 12)):
        GateMonitor(make(), x, y[:11])
    with refused("AS553", names=((12, 3),)):
        GateMonitor(make(), x, F.one_hot(y))
    with refused("AS102", names=("every", 0)):
        GateMonitor(make(), x, y, every=0)
    with refused("AS550", names=("nothing.jsonl",)):
        GateHistory.read(tmp_path / "nothing.jsonl")
    model = make()
    model.head = type("FullyShardedDataParallel", (nn.Linear,), {})(8, 3)
    with refused("AS415", names=("FullyShardedDataParallel",)):
        GateMonitor(model, x, y)


@pytest.mark.parametrize("content", ["", "1\n", "{}\n", '{"format":9}\n', "\x00\xff\n"])
def test_other_files_are_no_history(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(content, encoding="latin-1")
    with refused("AS551", names=("x.jsonl",)):
        GateHistory.read(tmp_path / "x.jsonl")


def test_labels_may_be_names_and_steps_may_be_given() -> None:
    x, y = probes()
    numbers = GateMonitor(make(), x, y).history
    names = GateMonitor(make(), x, [["cat", "dog", "fish"][i] for i in y.tolist()]).history
    np.testing.assert_array_equal(names.values("between_class"), numbers.values("between_class"))
    model = make()
    monitor = GateMonitor(model, x, every=10)
    assert np.isnan(monitor.history.values("between_class")).all()
    assert [monitor.step(number) for number in (9, 10, 10, 15, 20)] == [
        False, True, False, False, True,
    ]  # fmt: skip


def test_the_images_are_a_copy() -> None:
    x, y = probes()
    monitor = GateMonitor(make(), x, y, every=1)
    x.zero_()
    monitor.step()
    assert (monitor.history.values("distance") == 0).all()


def test_a_board_gets_scalars_and_histograms() -> None:
    class Board:
        def __init__(self) -> None:
            self.scalars: dict[tuple[str, int], float] = {}
            self.histograms: dict[tuple[str, int], np.ndarray] = {}

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            self.scalars[tag, step] = value

        def add_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
            self.histograms[tag, step] = values

    board = Board()
    model = make()
    monitor = GateMonitor(model, *probes(), every=5, board=board)
    monitor.step(5)
    names = [gate.name for gate in monitor.gates]
    measures = ("mean", "spread", "saturated", "distance", "between_class")
    assert set(board.scalars) == {
        (f"gate_{measure}/{name}", step)
        for measure in measures
        for name in names
        for step in (0, 5)
    }
    assert set(board.histograms) == {(f"gates/{name}", step) for name in names for step in (0, 5)}
    shown = board.histograms[f"gates/{names[0]}", 5]
    assert shown.size == 12 * 6
    assert shown.mean() == pytest.approx(board.scalars[f"gate_mean/{names[0]}", 5])


def test_wrappers_are_taken_off() -> None:
    model = make()
    assert unwrapped(torch.compile(nn.DataParallel(model))) is model
    assert [gate.name for gate in GateMonitor(nn.DataParallel(model), *probes()).gates] == [
        gate.name for gate in find_gates(model, probes()[0])
    ]
