"""Values on their way to the host: nothing waits, nothing is lost, and files stay the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import TensorDataset

from analysis.gpu.counting import DeviceCounter
from attnscope.capturing import filling, forwards
from attnscope.capturing.background import Background
from attnscope.capturing.batching import Batch
from attnscope.capturing.capture import capture
from attnscope.capturing.forwards import Forwards
from attnscope.capturing.pooling import pooling_edits
from attnscope.capturing.transfer import Sender, pack, unpack
from attnscope.gates import find_gates
from attnscope.gates.hooks import watch_gates
from attnscope.gates.values import Constancy
from attnscope.networks.build import build_model
from attnscope.networks.outputs import OutputAdapter
from tests.making import refused


def values() -> dict[str, Tensor]:
    """Tensors of several types and memory formats."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 4, 5, 2, generator=generator)
    return {
        "finite": torch.tensor([True, False, True]),
        "maps": maps.contiguous(memory_format=torch.channels_last),
        "turned": maps[:, :, 0].transpose(1, 2),
        "half": maps[:, 0].half(),
        "number": torch.arange(3),
        "none": torch.empty(0, 4),
        "one": torch.tensor(2.5).requires_grad_(),
    }


def test_packed_tensors_arrive_bit_for_bit() -> None:
    sent = values()
    packed, places = pack(sent)
    assert packed.nbytes == sum(tensor.nbytes for tensor in sent.values())
    arrived = unpack(packed, places)
    assert arrived.keys() == sent.keys()
    for name, tensor in sent.items():
        array = tensor.detach().numpy()
        assert arrived[name].dtype == array.dtype
        np.testing.assert_array_equal(arrived[name], array)


def test_a_batch_leaves_a_device_in_one_copy_and_a_cpu_in_none() -> None:
    here = {"labels": torch.arange(3)}
    with DeviceCounter("meta") as counter:
        there = {name: tensor.to("meta") for name, tensor in values().items()}
        before = counter.counts.to_host
        parcel = Sender(torch.device("meta")).send(there | here)
        assert counter.counts.to_host == before
        arrays = parcel.arrays()
        assert counter.counts.to_host == before + 1
    assert {name: array.shape for name, array in arrays.items()} == {
        name: tuple(tensor.shape) for name, tensor in (values() | here).items()
    }
    sent = values()
    arrived = Sender(torch.device("cpu")).send(sent).arrays()
    assert all(np.shares_memory(arrived[name], sent[name].detach().numpy()) for name in ("maps",))


# --- the forward ----------------------------------------------------------------------------------


class Probabilities(nn.Module):
    """Returns probabilities in a dict, and its gate was written out along the columns."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.conv(x)
        gate = torch.sigmoid(x.mean((2, 3), keepdim=True)).repeat(1, 1, 1, x.shape[3])
        # A divisor is a gate, too.
        x = x * gate / (1 + torch.sigmoid(x.mean(1, keepdim=True)))
        return {"p": self.fc(x.mean((2, 3))).softmax(1)}


def cbam() -> nn.Module:
    return build_model("resnet18", attention="cbam", width=16, reduction=4)


@pytest.mark.parametrize(
    ("make", "adapter", "layers", "gates"),
    [
        (cbam, OutputAdapter(), (), 16),
        (cbam, OutputAdapter(), ("layer4",), 16),
        (Probabilities, OutputAdapter(("p",), form="probabilities"), (), 2),
        (Probabilities, OutputAdapter(form="none"), (), 2),
    ],
)
def test_the_device_part_of_a_capture_never_waits(
    make: Callable[[], nn.Module],
    adapter: OutputAdapter,
    layers: tuple[str, ...],
    gates: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On fake CUDA tensors, reading a value raises, and copies to the host are counted."""
    found = find_gates(make().eval(), torch.rand(4, 3, 16, 16))
    assert len(found) == gates
    monkeypatch.setattr(forwards, "send", lambda tensor, device: tensor.to(device))
    # Autograd needs a device for its thread. The test in analysis counts the copies of a backward.
    monkeypatch.setattr(torch.autograd, "grad", lambda inputs, **_: [*map(torch.ones_like, inputs)])
    device = torch.device("cuda:0")
    with FakeTensorMode():
        with device:
            model = make().eval()
            x = torch.empty(4, 3, 16, 16)
        labels = torch.zeros(4, dtype=torch.int64)
        batch = Batch(x, torch.empty(0), labels, ["a", "b", "c", "d"])
        classes = 10 if adapter.is_plain else 3
        inputs: dict[str, Tensor] = {}
        edits = pooling_edits(found, inputs)
        work = Forwards(model, device, found, adapter, layers, classes, edits=edits, inputs=inputs)
        monkeypatch.setattr(forwards, "Sender", lambda device: None)  # it needs a GPU
        with work.hooks(), DeviceCounter("cuda") as counter:
            sent = work.values(batch)
            packed, _ = pack(sent)
    copied = {"to device: _to_copy (4,)": 1} if adapter.has_scores else {}
    assert counter.copies == copied
    assert packed.device == device
    names = [name for name in sent if name.startswith(("gate/", "pooled/"))]
    assert len(names) == 2 * gates
    assert sum(name.startswith("grad_cam/") for name in sent) == 2 * len(layers)
    checks = {name for name in sent if name.startswith("check/")}
    if make is Probabilities:
        assert "check/gate/0" in checks
        assert ("check/form" in checks) == adapter.has_scores
    assert ("check/finite" in checks) == adapter.has_scores


def test_a_gate_that_varies_on_a_device_is_refused_where_its_values_arrive() -> None:
    model, x = Probabilities().eval(), torch.rand(2, 3, 8, 8)
    gate = next(gate for gate in find_gates(model, x) if gate.kind == "channel")
    checks: list[Constancy] = []
    with torch.no_grad(), watch_gates(model.to("meta"), [gate], checks=checks):
        model(x.to("meta"))
    (check,) = checks
    assert (check.gate, check.axis, check.holds.device.type) == (gate.name, "W", "meta")
    parcel = Sender(torch.device("cpu")).send({"check/gate/0": torch.tensor([False])})
    batch = Batch(x, x, torch.zeros(2), ["a", "b"])
    with refused("AS404", names=(gate.name, "W")):
        filling.Arrival(batch, parcel, OutputAdapter(), checks).arrays()


# --- threads --------------------------------------------------------------------------------------


def test_work_in_a_thread_is_done_in_order_and_waits_for_its_limits() -> None:
    done: list[int] = []
    most = 0
    begun = threading.Event()

    def work(number: int) -> None:
        begun.set()
        time.sleep(0.005)
        done.append(number)

    with Background(1, ahead=3, limit=10) as background:
        for number, size in enumerate([1, 1, 1, 1, 20, 20, 1]):
            background.submit(lambda number=number: work(number), size)
            most = max(most, number + 1 - len(done))
            if size == 20:
                assert len(done) >= number  # it is done alone
    assert done == list(range(7))
    assert 1 < most <= 3
    assert begun.is_set()


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_after_a_failed_piece_no_other_is_begun_and_the_error_is_raised(threads: int) -> None:
    done: list[int] = []
    may_end = threading.Event()

    def first() -> None:
        may_end.wait(5 if threads else 0)
        done.append(0)

    def fail() -> None:
        raise ValueError("of the test")

    def submit() -> None:
        with Background(threads, 9, 9) as background:
            background.submit(first)
            background.submit(fail)
            background.submit(lambda: done.append(1))
            may_end.set()

    with pytest.raises(ValueError, match="of the test"):
        submit()
    assert done == [0]


def test_an_error_of_the_block_is_raised_after_all_work_is_done() -> None:
    done: list[int] = []

    def work() -> None:
        time.sleep(0.01)
        done.append(0)

    def submit() -> None:
        with Background(1, 9, 9) as background:
            background.submit(work)
            background.submit(work)
            raise KeyError

    with pytest.raises(KeyError):
        submit()
    assert done == [0, 0]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def images(count: int = 22) -> Any:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.rand(count, 3, 16, 16, generator=generator), torch.arange(count) % 3)


@pytest.mark.parametrize("moments", [False, True])
def test_files_are_the_same_with_and_without_threads(
    moments: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = build_model("resnet18", attention="cbam", width=16, reduction=4, num_classes=3)
    given = {"batch_size": 4, "shard_images": 8, "moments": moments, "progress": False}
    capture(model, images(), tmp_path / "plain", **given)
    monkeypatch.setattr(filling, "has_threads", lambda device: True)
    seen = set()
    real = filling.Shard.add

    def add(self: filling.Shard, arrival: filling.Arrival) -> None:
        seen.add(threading.current_thread())
        real(self, arrival)

    monkeypatch.setattr(filling.Shard, "add", add)
    capture(model, images(), tmp_path / "threads", **given)
    assert threading.main_thread() not in seen
    assert contents(tmp_path / "plain") == contents(tmp_path / "threads")


def test_a_batch_that_fails_in_a_thread_ends_the_capture_and_keeps_complete_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "has_threads", lambda device: True)
    torch.manual_seed(0)
    model = build_model("resnet18", attention="se", width=16, reduction=4, num_classes=3)
    given = {"batch_size": 4, "shard_images": 8, "grad_cam_layers": (), "progress": False}
    whole = capture(model, images(), tmp_path / "whole", **given)
    calls = []

    def spoil(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        calls.append(len(output))
        # The third batch of four images is the first one of the second shard.
        return output * torch.nan if calls.count(4) == 3 + before else None

    handle = model.register_forward_hook(lambda *a: calls.append(len(a[2])))
    capture(model, images(4), tmp_path / "sample", **given)
    before = calls.count(4) - 1  # forwards on the sample
    handle.remove()
    calls.clear()
    handle = model.register_forward_hook(spoil)
    out = tmp_path / "out"
    with refused("AS664", names=("8",)):
        capture(model, images(), out, **given)
    handle.remove()
    assert [path.name for path in (tmp_path / ".out.partial" / "shards").iterdir()] == ["00000"]
    capture(model, images(), out, **given)
    assert contents(out) == contents(whole.folder)
