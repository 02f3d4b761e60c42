"""Fold gates of the network of a recording, whatever network it is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attnscope.capturing.batching import batches
from attnscope.capturing.number_types import as_inputs
from attnscope.capturing.pictures import IN_UNIT_RANGE
from attnscope.errors import InputError
from attnscope.folding.graph_report import GraphFoldReport
from attnscope.folding.report import PairedAccuracy
from attnscope.folding.speed import images_per_second
from attnscope.gates.graph import read_gates, with_gates
from attnscope.gates.graph_network import GraphNetwork
from attnscope.gates.hooks import Edit, edit_gates
from attnscope.gates.inputs import Inputs
from attnscope.gates.modes import eval_mode
from attnscope.gates.values import as_factor
from attnscope.kinds import Gate, searched_kinds
from attnscope.networks.folded import FoldedSource, save_folded, shapes_of
from attnscope.networks.graph_fold import CONSTANTS, fold_graph
from attnscope.networks.outputs import OutputAdapter, adapted
from attnscope.networks.weights import hash_weights
from attnscope.recording.recording import Recording

ALL = "all"
"""In place of the names of gates: all of them."""
_TOLERANCE = {"cpu": 1e-4}
"""Largest accepted difference, as a share of the largest output. Rounding is about 1e-6."""
_TOLERANCE_ELSEWHERE = 1e-2  # TF32 rounds to about 1e-3


class _Images:
    """The images of a recording and of the split over which means are taken."""

    def __init__(
        self, recording: Recording, data_root: Path | None, batch_size: int, device: torch.device
    ) -> None:
        self.source = recording.source(data_root)
        self.recorded: Any = recording.images(data_root)
        self.constants = "train"
        try:
            self.training: Any = replace(self.source, split="train").open_images()
        except InputError:
            if not self.source.data.is_data_set:  # one of a user may have this split only
                raise
            self.training, self.constants = self.recorded, self.source.split
        self._label_kind = recording.label_kind
        self._normalization = self.source.network.normalization or IN_UNIT_RANGE
        self._batch_size = batch_size
        self._device = device

    def batches(self, model: nn.Module, images: Any, count: int | None = None) -> Any:
        """Yield the first images, or all of them, in batches as the network sees them."""
        rows = range(len(images) if count is None else min(count, len(images)))
        found = batches(
            images, rows, self._batch_size, self._normalization, self._device, self._label_kind
        )
        return as_inputs(found, model)


def fold_recording(
    recording: Recording,
    model: nn.Module,
    folder: Path,
    *,
    gates: Sequence[str],
    data_root: Path | None,
    batch_size: int,
    device: torch.device,
) -> GraphFoldReport:
    """Fold gates of the network of a recording, and write it to a folder.

    Args:
        recording: The recording. Its network and its images are opened again.
        model: Its network.
        folder: The new folder.
        gates: Names of the gates, or ``all``.
        data_root: As for `attnscope.fold`.
        batch_size: Batch size.
        device: The device.

    Raises:
        InputError: No gates are named (AS862) or there is no such gate (AS852), the network has no
            graph (AS416, AS417) or lacks a gate of the recording (AS863), a gate cannot be constant
            (AS372), or the folded network fails a check (AS860).
    """
    known = [gate.name for gate in recording.gates]
    names = _chosen(recording, known, gates)
    images = _Images(recording, data_root, batch_size, device)
    weights = hash_weights(model)
    model = model.to(device)
    sample = next(iter(images.batches(model, images.recorded, 2))).x
    kinds = tuple(dict.fromkeys([*searched_kinds(), *(gate.kind for gate in recording.gates)]))
    source = FoldedSource(images.source.network.pinned(), weights, shapes_of([sample]), kinds)
    network = source.export(model)
    by_name = {gate.name: gate for gate in network.gates}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise InputError(
            "AS863",
            f"the gate {missing[0]} of {recording.folder} is not found in the network on noise of "
            "the same size; leave it out",
        )
    constants = _means(network, images, names)
    fold = fold_graph(network, constants)
    inputs = [batch.x for batch in images.batches(model, images.recorded, 2 * batch_size)]
    edited = [by_name[name] for name in names]
    difference = _difference(network, fold.network, edited, constants, inputs[0])
    allowed = _TOLERANCE.get(device.type, _TOLERANCE_ELSEWHERE)
    if not difference <= allowed:  # a NaN must be refused, too
        raise InputError(
            "AS860",
            f"the output of the folded network differs by {difference:.1e} of its largest value "
            f"from that of the network with edited gates; it must be at most {allowed:g}, fold "
            "with --device cpu",
        )
    adapter = OutputAdapter.from_dict(recording.output)
    accuracy = None
    if recording.has_accuracy:
        right = [_right(each, images, adapter) for each in (network, fold.network)]
        accuracy = PairedAccuracy.of(right[0], right[1])
    remaining = [gate.name for gate in fold.network.gates]
    report = GraphFoldReport(
        str(recording.folder),
        fold.forms,
        remaining,
        fold.unused,
        images.constants,
        len(images.training),
        images.source.split,
        accuracy,
        (_parameters(model), _parameters(fold.network)),
        sum(v.numel() for k, v in fold.network.named_buffers() if k.startswith(f"{CONSTANTS}.")),
        (_multiply_adds(network, inputs[0]), _multiply_adds(fold.network, inputs[0])),
        difference,
        images_per_second((model, fold.network), inputs),
        sum(map(len, inputs)),
        batch_size,
        str(device),
        torch.get_num_threads(),
    )
    save_folded(folder, source, fold, constants, {"report": asdict(report)})
    return report


def expect_plain(tolerance: float | None, spatial: str) -> None:
    """Refuse options that apply to networks of `attnscope.build_model` only.

    Raises:
        InputError: AS850.
    """
    given = "--spatial" if spatial != "map" else "" if tolerance is None else "--tolerance"
    if given:
        raise InputError(
            "AS850", f"{given} applies to networks of attnscope.build_model only; leave it out"
        )


def _chosen(recording: Recording, known: Sequence[str], gates: Sequence[str]) -> list[str]:
    if not gates:
        raise InputError(
            "AS862",
            f"the network of {recording.folder} was not built by attnscope.build_model, so its "
            "gates must be named; add --gates all, or --gates with names",
        )
    names = list(known) if list(gates) == [ALL] else list(gates)
    for name in names:
        if name not in known:
            raise InputError(
                "AS852", f"there is no gate '{name}'; choose from {', '.join(known) or 'none'}"
            )
    if not names:
        raise InputError(
            "AS858", f"the network of {recording.folder} has no gates; fold a network with gates"
        )
    return names


def _means(network: GraphNetwork, images: _Images, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the mean of each gate over the training images, in float64, then in float32."""
    reading = with_gates(network, names)
    sums: dict[str, Tensor] = {}
    with torch.no_grad():
        for batch in images.batches(network, images.training):
            count = len(batch.x)
            _, raw = reading(batch.x)
            for name, values in read_gates(network, raw, count).items():
                batch_sum = values.sum(0, dtype=torch.float64).cpu()
                if len(values) == 1 and count > 1:  # it has one value for all images
                    batch_sum = batch_sum * count
                sums[name] = sums[name] + batch_sum if name in sums else batch_sum
    return {name: (sums[name] / len(images.training)).float() for name in names}


def _difference(
    network: GraphNetwork,
    folded: GraphNetwork,
    gates: Sequence[Gate],
    constants: dict[str, Tensor],
    x: Tensor,
) -> float:
    """Return the largest difference to the network with edited gates, relative to its output."""
    count = len(x)

    def constant(gate: Gate) -> Edit:
        value = constants[gate.name].to(x.device)
        images = count if gate.per_image else 1
        factor = as_factor(value[None].expand(images, *value.shape), gate)
        return lambda values, features: factor.to(values)

    with torch.no_grad():
        with edit_gates(network, {gate.name: constant(gate) for gate in gates}, network.gates):
            expected = Inputs((network(x),), {}).tensors
        found = Inputs((folded(x),), {}).tensors
    largest = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        if theirs.is_floating_point() and theirs.numel():
            scale = float(theirs.abs().max()) or 1.0
            difference = float((ours - theirs).abs().max()) / scale
            largest = max(largest, difference) if difference == difference else difference
    return largest


def _right(model: nn.Module, images: _Images, adapter: OutputAdapter) -> NDArray[np.bool_]:
    """Return which of the recorded images a network classifies correctly."""
    found = []
    with ExitStack() as stack:
        stack.enter_context(eval_mode(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(adapted(model, adapter))
        for batch in images.batches(model, images.recorded):
            found.append(model(batch.x).argmax(1).cpu() == batch.labels)
    right: NDArray[np.bool_] = torch.cat(found).numpy()
    return right


def _multiply_adds(model: nn.Module, x: Tensor) -> int:
    """Return the multiply-adds for one image."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(x)
    return round(counter.get_total_flops() / 2 / len(x))


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
