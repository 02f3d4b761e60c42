"""What a network predicts for the same images with different gates constant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.capturing.batching import Batch
from attnscope.gates.graph_network import GraphNetwork
from attnscope.gates.hooks import Edit, edit_gates
from attnscope.gates.modes import eval_mode
from attnscope.gates.values import as_factor
from attnscope.interventions.replay import PrefixCache
from attnscope.kinds import Gate
from attnscope.progress import Bar
from attnscope.shapes import Array

Names = frozenset[str]
"""Names of gates that are constant together."""
NO_GATES: Names = frozenset()
_HELD = 2**30
"""Bytes of the outputs that are held at a time."""


@dataclass(frozen=True)
class Outcome:
    """What a network predicts for each image."""

    predictions: Int64[Array, " images"]
    """The class with the largest score."""
    right: Bool[Array, " images"]
    """Whether that is the label."""
    log_loss: Float64[Array, " images"]
    """The negative logarithm of the label's probability, in nats."""

    def rows(self, chosen: Bool[Array, " images"] | Int64[Array, " rows"]) -> Outcome:
        """Return the outcome of some of the images."""
        return Outcome(self.predictions[chosen], self.right[chosen], self.log_loss[chosen])


class Outcomes(Protocol):
    """Outcomes of one network on the same images, for any gates that are constant."""

    @property
    def labels(self) -> Int64[Array, " images"]:
        """The class of each image."""
        ...

    @property
    def computed(self) -> int:
        """For how many sets of gates outcomes were computed, and not only looked up."""
        ...

    def of(self, sets: Sequence[Names]) -> list[Outcome]:
        """Return the outcomes with the gates of each set constant, in the order of ``sets``."""
        ...


class EditedOutcomes:
    """Outcomes of a network whose gates are edited to constants.

    Each set of gates is run once, and its outcome is kept. The sets that are asked for in one call
    share one pass over the images, and for each of them only what comes after its first gate is
    computed (`attnscope.interventions.replay`).

    Args:
        model: The network, on its device. It is left unchanged.
        gates: All gates of the network.
        constants: Name of a gate -> its constant value without the axis of images, as
            `attnscope.watch_gates` reads it, or ``()``, one number.
        labels: ``(N,)``, the class of each image.
        read: Function that yields the images in batches, always in the same order.
        scores: Function that returns a context within which the network returns logits ``(N, K)``.
            Default: it does so anyway.
        bar: A progress bar, which counts sets of gates.
    """

    def __init__(
        self,
        model: nn.Module,
        gates: Sequence[Gate],
        constants: Mapping[str, Tensor],
        labels: Int64[Array, " images"],
        read: Callable[[], Iterable[Batch]],
        scores: Callable[[], AbstractContextManager[None]] | None = None,
        bar: Bar | None = None,
    ) -> None:
        self._model, self._gates = model, list(gates)
        self._edits = {
            gate.name: constant_edit(gate, constants[gate.name])
            for gate in gates
            if gate.name in constants
        }
        self._labels, self._read, self._scores, self._bar = labels, read, scores, bar
        self._known: dict[Names, Outcome] = {}

    @property
    def labels(self) -> Int64[Array, " images"]:
        """The class of each image, ``(N,)``."""
        return self._labels

    @property
    def computed(self) -> int:
        """For how many sets of gates the network was run."""
        return len(self._known)

    def of(self, sets: Sequence[Names]) -> list[Outcome]:
        """Return the outcomes with the gates of each set constant, in the order of ``sets``."""
        missing = [each for each in dict.fromkeys(sets) if each not in self._known]
        if missing:
            # The unedited network runs anyway.
            if NO_GATES not in missing and NO_GATES not in self._known:
                missing.append(NO_GATES)
            self._known.update(self._run(missing))
        return [self._known[each] for each in sets]

    def _run(self, sets: Sequence[Names]) -> dict[Names, Outcome]:
        edited = [each for each in sets if each]
        found: dict[Names, list[Outcome]] = {each: [] for each in sets}
        run = self._run_graph if isinstance(self._model, GraphNetwork) else self._runner(edited)
        with ExitStack() as stack:
            stack.enter_context(eval_mode(self._model))
            stack.enter_context(torch.no_grad())
            if self._scores is not None:
                stack.enter_context(self._scores())
            for batch in self._read():
                for each, logits in run(batch.x, sets):
                    found[each].append(outcome_of(logits, batch.labels))
                    if self._bar is not None:
                        self._bar.update(len(batch.x) / len(self._labels))
        return {each: joined(parts) for each, parts in found.items()}

    def _runner(
        self, edited: Sequence[Names]
    ) -> Callable[[Tensor, Sequence[Names]], Iterable[tuple[Names, Tensor]]]:
        cache = PrefixCache(self._model, self._gates, edited)  # type: ignore[arg-type]
        together = 0  # images whose outputs are held at a time

        def run(x: Tensor, sets: Sequence[Names]) -> Iterable[tuple[Names, Tensor]]:
            nonlocal together
            if not together:
                cache.forward(x[:1])
                together = max(_HELD // max(cache.held_bytes, 1), 1)
            found: dict[Names, list[Tensor]] = {each: [] for each in sets}
            for start in range(0, len(x), together):
                own = cache.forward(x[start : start + together])
                for each in sets:
                    found[each].append(cache.rerun(self._edits_of(each)) if each else own)
            for each, logits in found.items():
                yield each, torch.cat(logits)

        return run

    def _run_graph(self, x: Tensor, sets: Sequence[Names]) -> Iterable[tuple[Names, Tensor]]:
        """Run a graph in full for each set: a cache of modules does not know its nodes."""
        for each in sets:
            with edit_gates(self._model, self._edits_of(each), self._gates):
                yield each, self._model(x)

    def _edits_of(self, names: Names) -> dict[str, Edit]:
        return {name: edit for name, edit in self._edits.items() if name in names}


def constant_edit(gate: Gate, value: Tensor) -> Edit:
    """Return the edit that replaces a gate by a constant for every image.

    Args:
        gate: The gate.
        value: Its constant value without the axis of images, or ``()``, one number.
    """
    factor = as_factor(value[None], gate) if value.ndim else value
    return lambda values, features: factor.to(values)


def outcomes_of(
    model: nn.Module,
    batches: Iterable[Batch],
    scores: Callable[[], AbstractContextManager[None]] | None = None,
) -> Outcome:
    """Return what a network predicts for some images, in eval mode.

    Args:
        model: The network.
        batches: The images.
        scores: As for `EditedOutcomes`.
    """
    with ExitStack() as stack:
        stack.enter_context(eval_mode(model))
        stack.enter_context(torch.no_grad())
        if scores is not None:
            stack.enter_context(scores())
        return joined([outcome_of(model(batch.x), batch.labels) for batch in batches])


def outcome_of(logits: Tensor, labels: Tensor) -> Outcome:
    """Return the outcome of one batch.

    Args:
        logits: ``(n, K)``.
        labels: ``(n,)``, classes.
    """
    logits, labels = logits.detach().float().cpu(), labels.cpu()
    predictions = logits.argmax(1)
    log_loss = F.cross_entropy(logits, labels, reduction="none").double()
    return Outcome(predictions.numpy(), (predictions == labels).numpy(), log_loss.numpy())


def joined(parts: Sequence[Outcome]) -> Outcome:
    """Return the outcome of all batches."""
    return Outcome(
        np.concatenate([part.predictions for part in parts]),
        np.concatenate([part.right for part in parts]),
        np.concatenate([part.log_loss for part in parts]),
    )
