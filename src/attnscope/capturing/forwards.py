"""The device's part of a capture: forwards, Grad-CAM, and what is computed from them.

Nothing here waits for the device. What is recorded stays there until `Sender` takes it along, and
checks of values are made where they arrive (`attnscope.capturing.filling`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from attnscope.attribution import HeadGraph, head_graph
from attnscope.capturing.arrays import FORM, gate_values, score_values
from attnscope.capturing.batching import Batch
from attnscope.capturing.explaining import stored_map
from attnscope.capturing.filling import Arrival, gate_check
from attnscope.capturing.graph_way import GraphWay, compiled_gradients
from attnscope.capturing.transfer import Sender
from attnscope.data.label_kinds import CLASS
from attnscope.errors import InputError
from attnscope.gates.hooks import Edit, edit_gates, watch_gates
from attnscope.gates.modes import without_modes
from attnscope.gates.values import Constancy
from attnscope.kinds import Gate
from attnscope.networks.outputs import OutputAdapter
from attnscope.recording.format import targets_of_labels
from attnscope.training.devices import send


@dataclass
class Forwards:
    """Runs a network on batches, and sends what is recorded to the host."""

    model: nn.Module
    device: torch.device
    gates: Sequence[Gate]
    adapter: OutputAdapter
    layers: Sequence[str]
    """Layers of Grad-CAM."""
    classes: int | None
    """The number of classes of the network; None without class scores."""
    label_kind: str = CLASS
    bf16: bool = False
    graph: GraphWay | None = None
    """The network as a graph, which runs in its place."""
    edits: Mapping[str, Edit] = field(default_factory=dict)
    """Edits that change nothing and fill ``inputs``."""
    inputs: dict[str, Tensor] = field(default_factory=dict)
    """The pooled inputs of the gates in the latest forward."""

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Install the hooks that the other methods need.

        One block serves all batches, because installing hooks for each batch takes 5% of the time.
        """
        self._checks: list[Constancy] = []
        self._sender = Sender(self.device)
        if self.graph is not None:
            self._head = self.graph.head
            with compiled_gradients():
                yield
            return
        with (
            head_graph(self.model, self.layers) as self._head,
            watch_gates(self.model, self.gates, checks=self._checks) as self._seen,
            edit_gates(self.model, self.edits, self.gates),
        ):
            yield

    def send(self, batch: Batch) -> Arrival:
        """Run the network on a batch. Call it within `hooks`.

        Raises:
            InputError: A gate is not used, or a label is not a class.
        """
        if self.classes is not None and self.label_kind == CLASS:
            # Before Grad-CAM, which takes the logit of the label. Labels are on the host.
            _expect_labels(batch.labels, self.classes)
        values = self.values(batch)
        with without_modes():
            parcel = self._sender.send(values)
        # The input is not needed any more, and takes memory of the device.
        held = replace(batch, x=torch.empty(0))
        return Arrival(held, parcel, self.adapter, tuple(self._checks))

    def values(self, batch: Batch) -> dict[str, Tensor]:
        """Return all that is recorded of a batch and needs the network, and checks, on the device.

        Raises:
            InputError: A gate is not used.
        """
        self.inputs.clear()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            if self.graph is None:
                returned = self.model(batch.x)
            else:
                returned, self._seen = self.graph(batch.x, self._checks)
        logits, form = None, None
        if self.adapter.has_scores:
            logits, form = self.adapter.unchecked(returned)
        with without_modes():
            values = gate_values(self._seen, self.inputs, logits)
            for number, check in enumerate(self._checks):
                values[gate_check(number)] = check.holds
            if form is not None:
                values[FORM] = form
            if logits is not None:
                labels = send(batch.labels, logits.device)
                predicted = logits.detach().argmax(1)
                values |= self._grad_cams(self._head, logits, predicted, labels)
                values |= score_values(logits.detach(), labels, predicted)
        return values

    def _grad_cams(
        self, head: HeadGraph, logits: Tensor, predicted: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Return Grad-CAM of each layer and target for one batch, in float16."""
        explained = {"predicted": predicted, "true": labels}
        return {
            f"grad_cam/{layer}/{target}": stored_map(
                head.grad_cam(layer, logits, explained[target])
            )
            for layer in self.layers
            for target in targets_of_labels(self.label_kind)
        }


def _expect_labels(labels: Tensor, outputs: int) -> None:
    if not 0 <= labels.min() <= labels.max() < outputs:
        outside = labels[(labels < 0) | (labels >= outputs)]
        raise InputError(
            "AS665",
            f"a label of the data set is {int(outside[0])}; the network has {outputs} classes, so "
            f"labels must be 0 to {outputs - 1}: correct the labels, or use another network",
        )
