"""`GateMonitor`: observe the gates of a network while it trains, in any training loop."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save
from torch import Tensor, distributed, nn

from attnscope.errors import InputError, first_line
from attnscope.files import make_folder, refuse_existing, write_bytes
from attnscope.gate_history import (
    MEASURES,
    GateHistory,
    MonitoredGate,
    Observation,
    line_of,
    measure,
    rounded,
)
from attnscope.gates.aside import aside, unwrapped
from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import watch_gates
from attnscope.gates.inputs import Inputs
from attnscope.kinds import Gate
from attnscope.layout import GATE_START_SUFFIX
from attnscope.settings import require

_SAMPLE = 4  # images on which the gates are found; more would only take longer
_MOST_VALUES = 4096  # of a gate and image: all channels, and maps up to 64×64
_SHOWN_VALUES = 8192  # of a gate in a histogram of TensorBoard


class Board(Protocol):
    """Where scalars and histograms go: `torch.utils.tensorboard.SummaryWriter` or the like."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Add a number."""

    def add_histogram(self, tag: str, values: NDArray[Any], global_step: int) -> object:
        """Add the distribution of values."""


class GateMonitor:
    """Observes the gates of a network while it trains.

    >>> monitor = GateMonitor(model, images, labels, every=100, file="gates.jsonl")
    >>> for batch in loader:
    ...     train(batch)
    ...     monitor.step()
    >>> attnscope.plots.gates_over_training(monitor)

    Every ``every`` steps, the network runs on the same images, in eval mode and in the precision of
    its weights. For each gate the monitor notes its mean, its spread over the images, the share of
    saturated values, the distance from the first observation, and, with labels, the share of its
    variance between classes (`attnscope.gate_history.Observation` defines them). Gates with more
    than 4096 values per image are read on a regular grid.

    **Training is the same as without a monitor, bit for bit** (`attnscope.gates.aside`): the mode
    of each module, BatchNorm statistics, attributes, gradients and random states are restored;
    `aside` lists what a forward could change beyond that. A compiled network is observed without
    compilation. Under DistributedDataParallel only the process of rank 0 observes, and no other
    process waits for it before the next synchronization.

    An observation that fails, as on a full disk, does not stop the training: the monitor warns once
    and observes no more (`stopped`).
    """

    def __init__(
        self,
        model: nn.Module,
        images: Any,
        labels: Sequence[object] | Tensor | NDArray[Any] | None = None,
        every: int = 100,
        *,
        gates: Sequence[Gate] | None = None,
        file: str | Path | None = None,
        board: Board | None = None,
        resume: int | None = None,
    ) -> None:
        """Find the gates and observe them once, before the first step.

        Args:
            model: the network that is trained, also compiled or wrapped in DistributedDataParallel.
            images: some dozen images, normalized as the network expects them; anything that
                `attnscope.find_gates` takes. They are moved to the device of the network.
            labels: the class of each image, as numbers or names. Several images per class are
                needed to compute the variance between classes.
            every: number of steps between two observations.
            gates: gates from `attnscope.find_gates`. By default they are found on the images.
            file: a file for the history, ``.jsonl``, which `attnscope.GateHistory.read` reads. A
                second file with the values of the first observation is written beside it.
            board: a SummaryWriter of TensorBoard, which gets scalars and histograms.
            resume: the number of steps after which training continues. Later observations are
                removed from the file, and distances still refer to its first observation.

        Raises:
            InputError: AS102, every is below 1; AS113, the file exists; AS415, the parameters are
                distributed over processes; AS552, the network has no gates; AS553, there is not one
                label per image; AS554, the file to continue is of other gates or images; AS555, its
                first observation is missing; or the gates cannot be found.
        """
        require(every >= 1, "every", every, "at least 1")
        self.every, self.board = every, board
        self.stopped = ""
        """Why the gates are no longer observed. Empty while they are."""
        self._file = None if file is None else Path(file)
        self._number = resume or 0
        self._model = unwrapped(model)
        self._inputs = Inputs.of(images)
        self._inputs = self._placed()  # a copy, because the caller may reuse the memory
        self._labels = _class_numbers(labels)
        self._start: list[NDArray[np.float32]] = []
        self._ended: float | None = None
        name = "gates" if self._file is None else self._file.stem
        self._history = GateHistory(name, (), 0, 0, every, "")
        self._gates: list[Gate] = []
        if not _is_main():
            self.stopped = "another process observes the gates"
            return
        # A new file, if training is resumed before anything was observed.
        continued = resume is not None and self._file is not None and self._file.exists()
        if self._file is not None and not continued:
            refuse_existing(self._file)
        self._gates = self._find() if gates is None else list(gates)
        expect_gates(self._model, self._gates)
        began = time.perf_counter()
        values = self._read()
        self._history = self._describe(values)
        if continued:
            self._continue(resume or 0)
        else:
            self._begin(values, began)

    def __repr__(self) -> str:
        state = f", stopped: {self.stopped}" if self.stopped else ""
        return f"<GateMonitor of {self._history!r}{state}>"

    @property
    def gates(self) -> list[Gate]:
        """The gates, in the order in which they act. Empty in processes that do not observe."""
        return list(self._gates)

    @property
    def history(self) -> GateHistory:
        """What was observed so far."""
        return self._history

    @property
    def overhead(self) -> float:
        """Share of the time that the observations took, 0 to 1: `GateHistory.overhead`."""
        return self._history.overhead

    def step(self, number: int | None = None) -> bool:
        """Count a training step, and observe the gates if it is their turn. Call it in each step.

        Args:
            number: the number of training steps so far. By default the calls are counted.

        Returns:
            Whether the gates were observed.
        """
        self._number = self._number + 1 if number is None else number
        if self.stopped or self._number % self.every or self._is_last(self._number):
            return False
        try:
            self.observe()
        except Exception as error:  # whatever fails, the training goes on
            self.stopped = first_line(error)
            warnings.warn(
                f"the gates are no longer observed after step {self._number}: {self.stopped}",
                RuntimeWarning,
                stacklevel=2,
            )
            return False
        return True

    def observe(self) -> Observation | None:
        """Observe the gates now.

        Returns:
            The observation, which is also in the history; None in processes that do not observe.

        Raises:
            InputError: a gate did not multiply anything in this forward, or another error of
                `attnscope.watch_gates`.
            OSError: the file cannot be written.
        """
        if not self._start:
            return None
        if self._is_last(self._number):
            return self._history.observations[-1]
        began = time.perf_counter()
        return self._note(self._read(), began)

    def _find(self) -> list[Gate]:
        with aside(self._model) as model:
            return find_gates(model, self._placed().limited(_SAMPLE).args)

    def _read(self) -> list[NDArray[np.float32]]:
        """Run the network and return the values of each gate, ``(N, ...)``, as float32."""
        with aside(self._model) as model, watch_gates(model, self._gates) as seen:
            model(*self._placed().args)
        return [_thinned(seen[gate.name], gate).float().cpu().numpy() for gate in self._gates]

    def _placed(self) -> Inputs:
        """Return a copy of the images on the device and in the precision of the network.

        It is a copy, because a network may write to its input.
        """
        tensors = [*self._model.parameters(), *self._model.buffers()]
        device = next((each.device for each in tensors), torch.device("cpu"))
        dtype = next((each.dtype for each in tensors if each.is_floating_point()), torch.float32)
        return self._inputs.placed(device, dtype)

    def _describe(self, values: Sequence[NDArray[np.float32]]) -> GateHistory:
        """Return a history without observations."""
        count = len(values[0])
        if self._labels is not None and len(self._labels) != count:
            raise InputError(
                "AS553",
                f"there are {len(self._labels)} labels for {count} images; give one label per "
                "image, or none",
            )
        digest = hashlib.sha256(b"" if self._labels is None else self._labels.tobytes())
        for tensor in self._inputs.tensors:
            digest.update(np.ascontiguousarray(tensor.detach().double().cpu().numpy()).tobytes())
        gates = tuple(
            MonitoredGate(gate.name, gate.kind, gate.lo, gate.hi, tuple(each.shape[1:]))
            for gate, each in zip(self._gates, values, strict=True)
        )
        classes = 0 if self._labels is None else len(np.unique(self._labels))
        history = self._history
        return GateHistory(history.name, gates, count, classes, self.every, digest.hexdigest())

    def _begin(self, values: list[NDArray[np.float32]], began: float) -> None:
        """Write the files, and make the first observation."""
        self._start = values
        if self._file is not None:
            if not self._file.parent.is_dir():
                make_folder(self._file.parent)
            arrays = {gate.name: each for gate, each in zip(self._gates, values, strict=True)}
            write_bytes(_start_file(self._file), save(arrays))
            write_bytes(self._file, self._history.header().encode())
        self._note(values, began)

    def _continue(self, step: int) -> None:
        """Read the files, and remove what was observed after a step."""
        assert self._file is not None
        found, new = GateHistory.read(self._file), self._history
        for what, old, own in (
            ("gates", found.gates, new.gates),
            ("images or labels", found.fingerprint, new.fingerprint),
        ):
            if old != own:
                raise InputError(
                    "AS554",
                    f"{self._file} is a history of other {what}; continue it with the same, or "
                    "choose another file",
                )
        file = _start_file(self._file)
        try:
            start = load_file(file)
            self._start = [start[gate.name] for gate in self._gates]
        except Exception as error:  # safetensors has several
            raise InputError(
                "AS555",
                f"{file} cannot be read ({first_line(error)}); restore it, or choose another file "
                "for the history",
            ) from None
        self._history = replace(found.before(step), every=self.every)
        write_bytes(self._file, "".join(self._history.lines()).encode())

    def _note(self, values: Sequence[NDArray[np.float32]], began: float) -> Observation:
        """Add an observation to the history, the file and the board."""
        measured = [
            measure(each, start, gate, self._labels)
            for each, start, gate in zip(values, self._start, self._gates, strict=True)
        ]
        step = self._number
        if self.board is not None:
            self._show(step, values, measured)
        columns = {name: rounded([each[i] for each in measured]) for i, name in enumerate(MEASURES)}
        ended = time.perf_counter()
        observation = Observation(
            step=step,
            seconds=round(ended - began, 4),
            since=None if self._ended is None else round(began - self._ended, 4),
            **columns,
        )
        if self._file is not None:
            with self._file.open("a", encoding="utf-8", newline="\n") as stream:
                stream.write(line_of(observation))
        observations = (*self._history.observations, observation)
        self._history = replace(self._history, observations=observations)
        self._ended = ended
        return observation

    def _show(
        self,
        step: int,
        values: Sequence[NDArray[np.float32]],
        measured: Sequence[Sequence[float]],
    ) -> None:
        """Write scalars and histograms to TensorBoard."""
        assert self.board is not None
        for gate, each, numbers in zip(self._gates, values, measured, strict=True):
            for name, number in zip(MEASURES, numbers, strict=True):
                if np.isfinite(number):
                    self.board.add_scalar(f"gate_{name}/{gate.name}", number, step)
            flat = each.reshape(-1)
            shown = flat[:: -(-flat.size // _SHOWN_VALUES)]
            if np.isfinite(shown).all():
                self.board.add_histogram(f"gates/{gate.name}", shown, step)

    def _is_last(self, step: int) -> bool:
        observations = self._history.observations
        return bool(observations) and observations[-1].step == step


def expect_gates(model: nn.Module, gates: Sequence[Gate]) -> None:
    """Check that there is something to monitor.

    Raises:
        InputError: AS552, there are no gates.
    """
    if not gates:
        raise InputError(
            "AS552",
            f"the network ({type(model).__name__}) has no gates to monitor; attnscope inspect "
            "lists why its activations are not gates",
        )


def _is_main() -> bool:
    """Whether this process observes: rank 0, also before the processes are connected."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def _class_numbers(
    labels: Sequence[object] | Tensor | NDArray[Any] | None,
) -> NDArray[np.int64] | None:
    """Return the class of each image as a number from 0."""
    if labels is None:
        return None
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1:
        raise InputError(
            "AS553",
            f"the labels have the shape {array.shape}; give one label per image, such as "
            "labels.argmax(1), or none",
        )
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def _thinned(values: Tensor, gate: Gate) -> Tensor:
    """Leave out every second position along the longest axis while there are too many values.

    Images and branches are kept: the mean per image depends on them.
    """
    first = 2 if "B" in gate.axes else 1
    while values[0].numel() > _MOST_VALUES and values.ndim > first:
        axis = max(range(first, values.ndim), key=lambda axis: values.shape[axis])
        if values.shape[axis] < 2:
            break
        values = values[(slice(None),) * axis + (slice(None, None, 2),)]
    return values


def _start_file(file: Path) -> Path:
    return file.with_suffix(GATE_START_SUFFIX)
