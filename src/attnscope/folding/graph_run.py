"""Fold gates of the network of a recording, whatever network it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attnscope.errors import InputError, first_line
from attnscope.folding.algebra import expect_known
from attnscope.folding.channels import PrunedChannels, masks_of, zeroed
from attnscope.folding.choosing import choose, expect_images, halves_of
from attnscope.folding.graph_report import GraphFoldReport
from attnscope.folding.outcomes import constant_edit, outcomes_of
from attnscope.folding.recorded_images import RecordedImages
from attnscope.folding.report import PairedLosses
from attnscope.folding.speed import images_per_second
from attnscope.gates.graph import read_gates, with_gates
from attnscope.gates.graph_network import GraphNetwork
from attnscope.gates.hooks import edit_gates
from attnscope.gates.inputs import Inputs
from attnscope.kinds import Gate, searched_kinds
from attnscope.networks.folded import FoldedSource, save_folded, shapes_of
from attnscope.networks.graph_fold import CONSTANTS, fold_graph, removable_channels
from attnscope.networks.outputs import OutputAdapter, adapted
from attnscope.networks.weights import hash_weights
from attnscope.recording.recording import Recording

ALL = "all"
"""In place of the names of gates: all of them."""
_TOLERANCE = {"cpu": 1e-4}
"""Largest accepted difference, as a share of the largest output. Rounding is about 1e-6."""
_TOLERANCE_ELSEWHERE = 1e-2  # TF32 rounds to about 1e-3


def fold_recording(
    recording: Recording,
    model: nn.Module,
    folder: Path,
    *,
    gates: Sequence[str],
    tolerance: float,
    data: str | None,
    data_root: Path | None,
    batch_size: int,
    device: torch.device,
    prune: bool = False,
    prune_below: float = 0.0,
    progress: bool = True,
) -> GraphFoldReport:
    """Fold gates of the network of a recording, and write it to a folder.

    Args:
        recording: The recording. Its network and its images are opened again.
        model: Its network.
        folder: The new folder.
        gates: Names of the gates, or ``all``; empty if they are to be chosen.
        tolerance: Largest accepted loss of accuracy of a choice, in percentage points.
        data: As for `attnscope.fold`.
        data_root: As for `attnscope.fold`.
        batch_size: Batch size.
        device: The device.
        prune: Whether to remove channels whose constants are 0.
        prune_below: If gates are named: the size up to which constants become 0.
        progress: Whether to show a progress bar.

    Raises:
        InputError: There is no such gate (AS852) or none at all (AS858), the network has no graph
            (AS416, AS417) or lacks a gate of the recording (AS863), a named gate cannot be constant
            (AS372), gates cannot be chosen (AS859, AS862, AS864, AS865), or the folded network
            fails a check (AS860).
    """
    known = [gate.name for gate in recording.gates]
    names = _named(recording, known, gates)
    images = RecordedImages(recording, data, data_root, batch_size, device)
    weights = hash_weights(model)
    model = model.to(device)
    labels = None
    if not gates:
        images.expect_choosing(recording.folder)
        labels = images.labels(model, images.choosing, images.choosing_split)
        expect_images(labels, tolerance, images.choosing_split, str(recording.folder))
    sample = next(iter(images.batches(model, images.recorded, range(1)))).x
    kinds = tuple(dict.fromkeys([*searched_kinds(), *(gate.kind for gate in recording.gates)]))
    source = FoldedSource(images.source.network.pinned(), weights, shapes_of([sample]), kinds)
    network = source.export(model)
    by_name = {gate.name: gate for gate in network.gates}
    missing = [name for name in names if name not in by_name]
    if missing and gates:
        raise InputError(
            "AS863",
            f"the gate {missing[0]} of {recording.folder} is not found in the network on noise of "
            "the same size; leave it out",
        )
    rows = images.mean_rows(labels)
    constants = _means(network, images, [name for name in names if name in by_name], rows)
    adapter = OutputAdapter.from_dict(recording.output)
    left_out = dict.fromkeys(missing, "not found on noise of the same size")
    chosen, below, found, removable = None, prune_below, {}, {}
    if labels is not None:
        left_out |= _not_constant(network, constants)
        constants = {name: value for name, value in constants.items() if name not in left_out}
        if not constants:
            name, reason = next(iter(left_out.items()))
            raise InputError(
                "AS858",
                f"the network of {recording.folder} has no gates that can be constant ({name}: "
                f"{reason}); fold a network with other gates",
            )
    if prune:
        found = removable_channels(network, constants)
        removable = masks_of(found, constants)
    if labels is not None:
        chosen = choose(
            model,
            recording.gates,
            constants,
            labels,
            lambda: images.batches(model, images.choosing),
            tolerance=tolerance,
            split=images.choosing_split,
            source=str(recording.folder),
            scores=partial(adapted, model, adapter),
            removable=removable,
            progress=progress,
        )
        constants, below = (
            {name: constants[name] for name in chosen.choice.kept},
            chosen.choice.below,
        )
    constants = zeroed(constants, removable, below)
    fold = fold_graph(network, constants, prune=prune)
    pruning = None
    if prune:
        pruning = PrunedChannels.of(below, chosen is not None, fold.pruned, found, constants)
    first = range(min(2 * batch_size, len(images.recorded)))
    inputs = [batch.x for batch in images.batches(model, images.recorded, first)]
    edited = [by_name[name] for name in constants]
    difference = _difference(network, fold.network, edited, constants, inputs[0])
    allowed = _TOLERANCE.get(device.type, _TOLERANCE_ELSEWHERE)
    if not difference <= allowed:  # a NaN must be refused, too
        raise InputError(
            "AS860",
            f"the output of the folded network differs by {difference:.1e} of its largest value "
            f"from that of the network with edited gates; it must be at most {allowed:g}, fold "
            "with --device cpu",
        )

    def losses(found: Any, rows: NDArray[np.bool_] | None = None) -> PairedLosses:
        pair = []
        for each in (network, fold.network):
            scores = partial(adapted, each, adapter)
            outcome = outcomes_of(each, images.batches(each, found), scores)
            pair.append(outcome if rows is None else outcome.rows(rows))
        return PairedLosses.between(*pair)

    validation = accuracy = None
    if labels is not None:
        validation = losses(images.choosing, ~halves_of(labels))
    informing, split = images.recorded, images.source.split
    if chosen is not None:
        informing, split = images.other, images.other_split
    if recording.has_accuracy and (chosen is None or informing is not images.choosing):
        accuracy = losses(informing)
    remaining = [gate.name for gate in fold.network.gates]
    report = GraphFoldReport(
        str(recording.folder),
        fold.forms,
        remaining,
        fold.unused,
        left_out,
        chosen,
        images.constants,
        len(rows),
        validation,
        split,
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
        pruning,
    )
    save_folded(folder, source, fold, constants, {"report": asdict(report)}, prune=prune)
    return report


def expect_no_form(spatial: str) -> None:
    """Refuse an option that applies to networks of `attnscope.build_model` only.

    Raises:
        InputError: AS850.
    """
    if spatial != "map":
        raise InputError(
            "AS850", "--spatial applies to networks of attnscope.build_model only; leave it out"
        )


def _named(recording: Recording, known: Sequence[str], gates: Sequence[str]) -> list[str]:
    """Return the gates that are named, or all gates, from which some are chosen."""
    if not gates and not recording.has_accuracy:
        raise InputError(
            "AS862",
            f"{recording.folder} has no accuracy by which gates could be chosen; name them with "
            "--gates, or fold all with --gates all",
        )
    names = list(gates) if gates and list(gates) != [ALL] else list(known)
    for name in names:
        expect_known(name, known)
    if not names:
        raise InputError(
            "AS858", f"the network of {recording.folder} has no gates; fold a network with gates"
        )
    return names


def _not_constant(network: GraphNetwork, constants: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the gates that cannot be constant in the graph, each with the reason."""
    try:
        fold_graph(network, constants)
    except InputError:
        refused = {}
        for name, value in constants.items():
            try:
                fold_graph(network, {name: value})
            except InputError as error:
                refused[name] = first_line(error)
        return refused
    return {}


def _means(
    network: GraphNetwork, images: RecordedImages, names: Sequence[str], rows: Sequence[int]
) -> dict[str, Tensor]:
    """Return the mean of each gate over training images, in float64, then in float32."""
    reading = with_gates(network, names)
    sums: dict[str, Tensor] = {}
    with torch.no_grad():
        for batch in images.batches(network, images.training, rows):
            count = len(batch.x)
            _, raw = reading(batch.x)
            for name, values in read_gates(network, raw, count).items():
                batch_sum = values.sum(0, dtype=torch.float64).cpu()
                if len(values) == 1 and count > 1:  # it has one value for all images
                    batch_sum = batch_sum * count
                sums[name] = sums[name] + batch_sum if name in sums else batch_sum
    return {name: (sums[name] / len(rows)).float() for name in names}


def _difference(
    network: GraphNetwork,
    folded: GraphNetwork,
    gates: Sequence[Gate],
    constants: dict[str, Tensor],
    x: Tensor,
) -> float:
    """Return the largest difference to the network with edited gates, relative to its output."""
    edits = {gate.name: constant_edit(gate, constants[gate.name]) for gate in gates}
    with torch.no_grad():
        with edit_gates(network, edits, network.gates):
            expected = Inputs((network(x),), {}).tensors
        found = Inputs((folded(x),), {}).tensors
    largest = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        if theirs.is_floating_point() and theirs.numel():
            scale = float(theirs.abs().max()) or 1.0
            difference = float((ours - theirs).abs().max()) / scale
            largest = max(largest, difference) if difference == difference else difference
    return largest


def _multiply_adds(model: nn.Module, x: Tensor) -> int:
    """Return the multiply-adds for one image."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(x)
    return round(counter.get_total_flops() / 2 / len(x))


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
