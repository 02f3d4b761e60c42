"""What the tracer refuses, and what it leaves behind: nothing."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import edit_gates, watch_gates
from tests.gates.nets import (
    CHANNELS,
    MidForward,
    Net,
    Squeeze,
    build,
    images,
    pictures,
)
from tests.making import refused


def test_the_tracer_works_again_after_a_forward_that_raised() -> None:
    model = build("resnet18", "se", "block").eval()
    gates = find_gates(model, pictures())
    with torch.no_grad(), watch_gates(model, gates) as seen:
        with pytest.raises(RuntimeError):
            model(pictures()[:, :2])
        model(pictures())
        assert list(seen) == [gate.name for gate in gates]


def test_the_tracer_works_again_after_an_interrupt_that_was_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Torch calls no hook after a KeyboardInterrupt, such as one in a convolution."""
    model = MidForward().eval()
    gates = find_gates(model, images())

    def interrupt(*args: Any) -> Tensor:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with torch.no_grad(), watch_gates(model, gates) as seen:
        for module in (nn.Conv2d, nn.Linear):
            name = "_conv_forward" if module is nn.Conv2d else "forward"
            monkeypatch.setattr(module, name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                model(images())
            seen.clear()
            model(images())
            expected = model.gate(model.conv(images()).relu())
            assert torch.equal(seen[gates[0].name], expected)
    # The modes are on, and only once: a mode of somebody else sees the operations.
    called = []

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            called.append(func)
            return func(*args, **(kwargs or {}))

    with Mode():
        torch.ones(2).sigmoid()
    assert torch.Tensor.sigmoid in called


def test_a_network_that_catches_its_own_exception_keeps_its_names() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("not today")

    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fails = Fails()

        def forward(self, x: Tensor) -> Tensor:
            with suppress(RuntimeError):
                x = self.fails(x)
            return x * torch.sigmoid(x.mean((2, 3), keepdim=True))

    (gate,) = find_gates(nn.Sequential(Careful()), pictures())
    assert (gate.name, gate.applied_in) == ("0", "0")


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_modules_are_refused_by_name(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, CHANNELS, 1)
            self.se = Squeeze()
            self.on = True

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return checkpoint(self.se, y, use_reentrant=reentrant) if self.on else self.se(y)

    model, x = Checkpointed(), images()
    with refused("AS405", names=("se",)):
        find_gates(model, x)
    model.on = False
    gates = find_gates(model, x)
    model.on = True
    with edit_gates(model, {"se": lambda g, f: g}, gates), refused("AS405", names=("se",)):
        model(x)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_scripted_and_compiled_modules_are_refused_by_name() -> None:
    class Outer(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sigmoid())
    for inner, how in (
        (torch.jit.trace(block, images()), "torch.jit"),
        (torch.compile(block), "torch.compile"),
    ):
        with refused("AS406", names=("inner", how)):
            find_gates(Outer(inner), images())


def test_marks_pin_no_memory() -> None:
    """Every tensor that was marked is gone when the network would have let go of it."""
    alive: list[Any] = []

    def body(net: Net, y: Tensor) -> Tensor:
        for _ in range(4):
            y = F.relu6(net.other(y))
            alive.append(weakref.ref(y))
        gone = [ref() is None for ref in alive[:-1]]
        assert all(gone), gone
        return y

    model = Net(body)
    with torch.no_grad(), watch_gates(model, []):
        model(images())
    alive.clear()
    find_gates(model, images())


def test_a_parameter_returned_by_an_operation_remains_static() -> None:
    """``to`` returns the tensor itself where nothing has to change, and the input has a part in it."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.scale = nn.Linear(3, 3), nn.Parameter(torch.rand(1, 3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]
            gated = x * (gate * self.scale)
            return gated + 0 * self.scale.to(x)

    torch.manual_seed(0)
    model, x = Scaled().eval(), torch.rand(2, 3, 4, 4)
    found = find_gates(model, x)
    wanted = torch.sigmoid(model.fc(x.mean((2, 3)))) * model.scale.flatten()
    with torch.no_grad(), watch_gates(model, found) as seen:
        for write in (False, True, False):
            if write:
                model.scale.mul_(1)
            model(x)
            torch.testing.assert_close(seen[found[0].name], wanted)


def test_a_replaced_buffer_is_released() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.seen = self.seen + 1
            return x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]

    torch.manual_seed(0)
    model, x = Counts().eval(), torch.rand(2, 3, 4, 4)
    old = []
    with torch.no_grad(), watch_gates(model, find_gates(model, x)):
        for _ in range(5):
            model(x)
            old.append(weakref.ref(model.seen))
        # The tracer may hold the one that the last forward began with, and no older one.
        assert [ref() is not None for ref in old] == [False] * 3 + [True] * 2


class Padded(nn.Module):
    """Writes images into a larger batch through views, as the detectors of torchvision do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.squeeze = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 6)

    def padded(self, x: Tensor) -> Tensor:
        batch = torch.zeros(len(x), 3, x.shape[2] + 2, x.shape[3] + 2)
        for own, image in zip(batch, x, strict=True):
            own[:, : image.shape[1], : image.shape[2]].copy_(image)
        return batch

    def gate(self, y: Tensor) -> Tensor:
        return torch.sigmoid(self.squeeze(y.mean((2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.padded(x))
        return (y * self.gate(y)[:, :, None, None]).mean((2, 3))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_batch_that_was_written_through_views_holds_features(mode: Any) -> None:
    model, x = Padded().eval(), images()
    with mode():
        (found,) = find_gates(model, x)
        assert (found.kind, found.axes) == ("channel", "NC")
        with watch_gates(model, [found]) as seen:
            model(x)
        expected = model.gate(model.conv(model.padded(x)))
    assert torch.equal(seen[found.name], expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_gate_that_was_written_through_a_view_is_none_anymore(mode: Any) -> None:
    class Overwritten(Padded):
        def gate(self, y: Tensor) -> Tensor:
            gate = super().gate(y)
            gate[:, :].copy_(y.amax((2, 3)))
            return gate

        def padded(self, x: Tensor) -> Tensor:
            return x

    with mode():
        assert find_gates(Overwritten().eval(), images()) == []


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_mask_that_other_memory_was_written_beside_remains_static(mode: Any) -> None:
    class Masked(Padded):
        def forward(self, x: Tensor) -> Tensor:
            mask = torch.ones(6, 1, 1)
            y = self.conv(self.padded(x))
            return (y * torch.sigmoid(mask)).mean((2, 3))

    with mode():
        assert find_gates(Masked().eval(), images()) == []
        (found,) = find_gates(Masked().eval(), images(), ["static"])
    assert found.kind == "static"
