"""Count operations on a device, and copies between it and the host, per step and per batch.

`counting` sees every operation below Python's functions. It also works where there is no GPU: with
the device ``meta``, tensors have a shape and no values, so nothing is computed, and a value that is
read is 0 or True. The choice of operations is then that of a device that is not a CPU, without
autocast, which adds its casts on a GPU.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from analysis.gpu.networks import made_data, made_images, network
from attnscope.capturing.capture import capture
from attnscope.data.images import LabeledImages
from attnscope.gates.detect import inspect_gates
from attnscope.training.loop import Plan, TrainingLoop
from attnscope.training.processes import ProcessGroup
from attnscope.training.recipes import RECIPES

_NO_KERNEL = ("empty", "new_empty", "lift", "detach", "alias", "_unsafe_view", "set_")
_WAITS_FOR_SIZE = ("nonzero", "masked_select", "_unique", "unique_")
_REPORT = 4  # in the counted training, the sums are read after so many steps


@dataclass(frozen=True)
class Counts:
    """What happened between two points of a program."""

    operations: float = 0
    """Operations on the device, each of which launches at least one kernel."""
    to_device: float = 0
    """Copies from the host to the device."""
    to_host: float = 0
    """Copies from the device to the host, for which the host waits."""

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.operations - other.operations,
            self.to_device - other.to_device,
            self.to_host - other.to_host,
        )

    def per(self, number: int) -> Counts:
        """Return the counts divided by a number."""
        return Counts(self.operations / number, self.to_device / number, self.to_host / number)


class DeviceCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is active."""

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.names: Counter[str] = Counter()
        """How often each operation ran on the device."""
        self.copies: Counter[str] = Counter()
        """``to device`` and ``to host`` with the operation and shape -> how often."""

    @property
    def counts(self) -> Counts:
        """What was counted up to now."""
        to_device = sum(n for name, n in self.copies.items() if name.startswith("to device"))
        return Counts(sum(self.names.values()), to_device, sum(self.copies.values()) - to_device)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        on_device = [t for t in tensors if t.device.type == self.device]
        on_host = [t for t in tensors if t.device.type == "cpu"]
        if name == "to":  # of a tensor of an inference mode; other tensors get `_to_copy`
            with self:
                return func.decompose(*args, **kwargs)
        if name in ("_to_copy", "copy_"):
            return self._copy(func, name, args, kwargs)
        if on_device and name in ("_local_scalar_dense", "equal", "is_nonzero"):
            self.copies[f"to host: {name}"] += 1
            if self.device == "meta":
                return True if name != "_local_scalar_dense" else on_device[0].dtype == torch.bool
            return func(*args, **kwargs)
        if (
            name.startswith("_fused_") and self.device == "meta"
        ):  # there is no kernel without values
            self.names[name] += 1
            return None
        result = func(*args, **kwargs)
        made = [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)]
        if on_device or any(t.device.type == self.device for t in made):
            if name.startswith(_WAITS_FOR_SIZE):
                self.copies[f"to host: size of {name}"] += 1
            for tensor in on_host:
                if tensor.ndim:  # a number is an argument of the kernel
                    self.copies[f"to device: argument of {name} {tuple(tensor.shape)}"] += 1
            if not func.is_view and not name.startswith(_NO_KERNEL):
                self.names[name] += 1
        return result

    def watch(self, make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return a function like `make` that counts the tensors on the device that it makes."""

        def made(*args: Any, **kwargs: Any) -> Tensor:
            tensor = make(*args, **kwargs)
            if tensor.device.type == self.device:
                self.copies[f"to device: torch.tensor {tuple(tensor.shape)}"] += 1
            return tensor

        return made

    def _copy(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        source = args[0] if name == "_to_copy" else args[1]
        wanted = kwargs.get("device") or source.device if name == "_to_copy" else args[0].device
        target = torch.device(wanted).type
        shape = tuple(source.shape)
        if source.device.type == target:
            if target == self.device:
                self.names[name] += 1
        elif target == self.device:
            self.copies[f"to device: {name} {shape}"] += 1
        elif source.device.type == self.device:
            self.copies[f"to host: {name} {shape}"] += 1
            if self.device == "meta":  # there are no values to copy
                dtype = kwargs.get("dtype") or source.dtype
                # Of packed values, answers to checks are then True.
                make = torch.ones if dtype == torch.uint8 else torch.zeros
                return args[0] if name == "copy_" else make(source.shape, dtype=dtype)
        return func(*args, **kwargs)


@contextmanager
def counting(device: str) -> Iterator[DeviceCounter]:
    """Count in a block what happens on a device, ``cuda`` or ``meta``."""
    with ExitStack() as stack:
        if device == "meta":
            # The optimizer updates all weights by one operation, as on a GPU.
            for kind in ("foreach", "fused"):
                supported = f"torch.optim.optimizer._get_{kind}_kernels_supported_devices"
                stack.enter_context(patch(supported, lambda: ["cuda", "meta"]))
            stack.enter_context(patch("torch.autocast", lambda *_, **__: nullcontext()))
        counter = DeviceCounter(device)
        # torch.tensor copies its values to the device, unseen by dispatch modes.
        stack.enter_context(patch("torch.tensor", counter.watch(torch.tensor)))
        yield stack.enter_context(counter)


class _EnoughStepsError(Exception):
    pass


@dataclass(frozen=True)
class TrainingCounts:
    """What a training does per step."""

    step: Counts
    """Of a step after which nothing is reported."""
    report: Counts
    """What a report adds, which is made after every 20 steps."""


def count_training(
    device: str,
    *,
    attention: str = "cbam",
    recipe: str = "fast",
    width: int = 64,
    batch_size: int = 128,
    size: int = 32,
) -> TrainingCounts:
    """Count the operations and copies of a training step, and of a report.

    Args:
        device: ``cuda``, or ``meta``, which computes nothing.
        attention: attention of resnet18.
        recipe: name of the recipe. Its phase at the start of the training is counted.
        width: channels of the first stage.
        batch_size: number of images of a step.
        size: image size, in pixels.
    """
    steps = _REPORT + 2
    chosen = RECIPES.find(recipe)
    data = made_data(steps * batch_size, size)
    model = network(attention, width, size)
    # A schedule as long as that of a training, so that its first phase is counted.
    plan = Plan(chosen, chosen.epochs, 0, [batch_size] * steps, None)
    entries: list[Counts] = []

    class Loop(TrainingLoop):
        def step(self, *args: Any) -> Tensor:
            entries.append(counter.counts)
            if len(entries) == steps:
                raise _EnoughStepsError
            return super().step(*args)

    with (
        tempfile.TemporaryDirectory() as folder,
        patch("attnscope.training.loop._REPORT_STEPS", _REPORT),
        patch("attnscope.training.batches.place_images", lambda images, where: images.to(where)),
        counting(device) as counter,
    ):
        bf16 = device == "cuda"
        loop = Loop(model, data, plan, Path(folder), torch.device(device), bf16, ProcessGroup())
        loop.start_phase()
        with suppress(_EnoughStepsError):
            loop.run(progress=False, checkpoint_seconds=float("inf"))
    # The first step allocates the momentum. After the step _REPORT the sums are read.
    plain = (entries[_REPORT - 1] - entries[1]).per(_REPORT - 2)
    return TrainingCounts(plain, entries[_REPORT] - entries[_REPORT - 1] - plain)


def count_capture(
    device: str,
    *,
    attention: str = "cbam",
    width: int = 64,
    batch_size: int = 128,
    size: int = 32,
    grad_cam: bool = True,
) -> Counts:
    """Count the operations and copies per batch of a capture.

    Two captures of different numbers of batches are compared, so that finding the gates and the
    other work of a whole capture are not counted.

    Args:
        device: ``cuda``, or ``meta``, which computes nothing.
        attention: attention of resnet18.
        width: channels of the first stage.
        batch_size: batch size.
        size: image size, in pixels.
        grad_cam: whether Grad-CAM of both classes is recorded for the last map.
    """
    model = network(attention, width, size).eval()
    # Finding the gates reads values, which tensors on ``meta`` do not have.
    inspection = inspect_gates(model, torch.rand(4, 3, size, size))
    model.to(device)
    layers = None if grad_cam else ()
    found: list[Counts] = []
    for batches in (2, 4):
        images: LabeledImages = made_images(batches * batch_size, size)
        with (
            tempfile.TemporaryDirectory() as folder,
            patch("attnscope.capturing.capture.inspect_gates", lambda *_: inspection),
            counting(device) as counter,
        ):
            capture(
                model,
                images,
                Path(folder) / "recording",
                grad_cam_layers=layers,
                batch_size=batch_size,
                output="logits",
                progress=False,
            )
        found.append(counter.counts)
    return (found[1] - found[0]).per(2)
