"""Mean ablation of single channels of a gate: do the most strongly gated channels matter most?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from attnscope.errors import InputError
from attnscope.gates.axes import parse_layout
from attnscope.gates.hooks import as_factor
from attnscope.interventions.channel_losses import ORDERS, ChannelLosses, Outcome
from attnscope.interventions.replay import PrefixCache
from attnscope.interventions.setup import InterventionSetup, expect_draws, expect_images
from attnscope.interventions.work import Work, alone, batches_of
from attnscope.kinds import PER_CHANNEL, Gate
from attnscope.recording.pieces import Piece
from attnscope.shapes import Array
from attnscope.statistics.effects import calibrated_log_losses
from attnscope.statistics.resampling import sequential_p

_COLUMNS = [
    "gate",
    "share",
    "channels",
    "order",
    "images",
    "change",
    "low",
    "high",
    "log_loss_change",
    "log_loss_low",
    "log_loss_high",
    "null",
    "null_low",
    "null_high",
    "p",
    "p_draws",
    "draws",
]
SHARES = (0.1, 0.25, 0.5)
"""Shares of the channels that are ablated by default."""
DRAWS = 100
"""Largest number of random sets of channels by default."""
ROUND = 20
"""Number of random sets that are drawn before it is asked whether more are needed."""


def ablate_channels(
    setup: InterventionSetup,
    *,
    shares: Sequence[float] = SHARES,
    draws: int = DRAWS,
    exceedances: int | None = 10,
    images: int = 100,
    resamples: int = 1000,
    progress: bool = True,
    work: Work | None = None,
) -> pd.DataFrame:
    """Measure the effect of mean ablation of some channels of each channel gate.

    The gates of the chosen channels are set to their mean over the donors. Channels are chosen for
    each image: those with the highest or lowest gate, those with the highest or lowest product of
    gate and feature norm, or random channels. Gates that have one value for all channels are left
    out.

    The null hypothesis of ``p`` is that the chosen channels are a random set, the same for all
    images. The test is a permutation test over random sets, which include the observed set. It is
    exact for a ranking that is the same for all images. A ranking that differs between images also
    determines in which direction the gates change: the highest gates of an image are mostly above
    their mean and are decreased by the ablation, the lowest are increased, and random gates are
    both. For such a ranking, a small p does not show that a channel is more important. p-values are
    not corrected for the number of rows.

    Random sets are drawn until ``exceedances`` of them raise the log loss at least as much as each
    of the four orders, or ``draws`` are drawn (`attnscope.statistics.resampling.sequential_p`,
    Besag and Clifford 1991). So draws are saved where no order is special. A p below
    ``exceedances / draws`` rests on all draws and is that of the full test.

    Args:
        setup: The network and its images.
        shares: Shares of the channels to ablate, above 0 and at most 1. The number of channels is
            rounded and at least one.
        draws: Largest number of random sets of channels. A set is the same for all images.
        exceedances: Number of random sets with at least the observed effect after which no more are
            drawn. None draws all sets.
        images: Number of scored images to use. The network is rerun for each draw.
        resamples: Number of bootstrap resamples over images.
        progress: Whether to show a progress bar, if there is no ``work``.
        work: Pieces that are finished already, and where new ones are kept.

    Returns:
        A data frame with one row for each gate, share and order (``top gate``, ``bottom gate``,
        ``top gate x norm``, ``bottom gate x norm``, ``random``). Columns:

        - gate, share, channels (number of ablated channels), order, images;
        - change, low, high: change in accuracy (-1 to 1) with its 95% CI (Bonett and Price 2012);
        - log_loss_change, log_loss_low, log_loss_high: mean change of the log loss
          (`attnscope.statistics.effects.calibrated_log_losses`) in nats with its 95% bootstrap CI;
        - null, null_low, null_high: mean and 2.5th and 97.5th percentile over the draws of the
          mean change of the log loss under random channels;
        - p: sequential p value; small if the log loss rises more than under random channels;
        - p_draws: number of draws on which p rests;
        - draws: number of draws that were made for this gate and share, on which the null and the
          row ``random`` rest.

        In rows ``random``, changes are means over the draws with the 95% bootstrap CI over images,
        and p and p_draws are NaN.

    Raises:
        InputError: There is no channel gate with several values (AS815), or a number is out of
            range (AS801, AS816, AS817, AS716).
    """
    units = ablatable_gates(setup)
    gates = [gate for gate in setup.gates if gate.name in units]
    if not gates:
        raise InputError(
            "AS815",
            f"{setup.recording.folder} has no channel gate with several values; leave out the "
            "experiment ablate",
        )
    wrong = [share for share in shares if not 0 < share <= 1]
    if wrong or not shares:
        given = f"the share {wrong[0]} is out of range" if wrong else "there are no shares"
        raise InputError("AS816", f"{given}; pass shares of the channels above 0 and at most 1")
    expect_draws(draws)
    expect_images(images)
    sequential_p(np.zeros(0), 0.0, exceedances, draws)  # refuses a wrong number now
    rows = setup.sample(images)
    run = _Run(setup, gates, units, shares, draws, rows)
    table = []
    with alone(work, progress, "ablate") as todo, setup.eval_without_gradients():
        todo.start(len(rows) * len(gates) * run.reruns_of_gate)
        for gate in gates:
            losses = {share: ChannelLosses(draws, exceedances) for share in shares}
            run.orders(todo, gate, losses)
            for first in range(0, draws, ROUND):
                active = [share for share in shares if not losses[share].has_stopped]
                if active:
                    run.draw(todo, gate, range(first, min(first + ROUND, draws)), active, losses)
            for share in shares:
                about = {"gate": gate.name, "share": share, "channels": run.count(gate, share)}
                table += losses[share].rows(about, resamples, setup.seed)
        todo.end()
    return pd.DataFrame(table, columns=_COLUMNS)


class _Run:
    """The reruns of the network, gate by gate and batch by batch."""

    def __init__(
        self,
        setup: InterventionSetup,
        gates: Sequence[Gate],
        units: Mapping[str, int],
        shares: Sequence[float],
        draws: int,
        rows: NDArray[np.int64],
    ) -> None:
        self._setup, self._shares = setup, shares
        self._rows, self._units = rows, units
        self._labels = setup.recording.labels[rows]
        self._cache = PrefixCache(setup.model, setup.gates, [(gate.name,) for gate in gates])
        self.reruns_of_gate = 1 + len(shares) * (len(ORDERS) + draws)
        """The largest number of reruns of the network for each gate and image."""
        rng = setup.rng("channels")
        # A random set is the same for all images, because a ranking, too, chooses largely the
        # same channels for all images.
        self._sets = {
            gate.name: np.stack([rng.permutation(units[gate.name]) for _ in range(draws)])
            for gate in gates
        }
        self._ties = {}
        for number in range(-(-len(rows) // setup.batch_size)):
            for gate in gates:
                # The state of the stream, so that each piece can be computed without the others.
                self._ties[number, gate.name] = rng.bit_generator.state
                for _ in range(len(shares) * len(ORDERS)):
                    rng.permutation(units[gate.name])
        self._means = {
            gate.name: torch.from_numpy(setup.mean_gate(gate.name)).to(setup.device)
            for gate in gates
        }

    def count(self, gate: Gate, share: float) -> int:
        """Return the number of channels that are a share of a gate's channels."""
        return max(1, round(share * self._units[gate.name]))

    def orders(self, work: Work, gate: Gate, losses: Mapping[float, ChannelLosses]) -> None:
        """Ablate the channels that the four orders choose, and add the outcomes to the losses."""
        reruns = 1 + len(self._shares) * len(ORDERS)
        own, *edited = self._outcomes(work, gate, "orders", reruns, self._orders)
        for place, share in enumerate(self._shares):
            of_share = edited[place * len(ORDERS) : (place + 1) * len(ORDERS)]
            losses[share].start(own, dict(zip(ORDERS, of_share, strict=True)))

    def draw(
        self,
        work: Work,
        gate: Gate,
        draws: range,
        shares: Sequence[float],
        losses: Mapping[float, ChannelLosses],
    ) -> None:
        """Ablate random channels, and add the outcomes to the losses of the shares."""
        reruns = len(shares) * len(draws)
        compute = partial(self._random, shares=shares, draws=draws)
        found = self._outcomes(work, gate, f"draws {draws.start}", reruns, compute)
        for place, share in enumerate(shares):
            losses[share].add_draws(found[place * len(draws) : (place + 1) * len(draws)])

    def _outcomes(
        self,
        work: Work,
        gate: Gate,
        what: str,
        reruns: int,
        compute: Callable[[Gate, int], list[Tensor]],
    ) -> list[Outcome]:
        """Return the outcomes of some reruns of all images.

        Only log losses stay: the logits of all draws would fill the memory with many classes. A
        log loss needs the logits of all images, because the temperature is fitted to them.

        Args:
            work: The pieces.
            gate: The gate.
            what: The name of the reruns, for the pieces.
            reruns: The number of reruns for each image.
            compute: The logits of each rerun of a batch, from the gate and the batch's number.
        """
        size = self._setup.batch_size
        starts = range(0, len(self._rows), size)
        names = [f"{gate.name}/{what}/{number}" for number in range(len(starts))]
        joined = f"{gate.name}/{what}"
        is_done = joined in work.pieces
        needed = [not is_done and name not in work.pieces for name in names]
        batches = batches_of(self._setup, self._rows, needed)
        pieces = []
        for number, start in enumerate(starts):
            if needed[number]:
                self._cache.forward(next(batches)[1].x)
            if not is_done:
                units = (min(start + size, len(self._rows)) - start) * reruns
                run = partial(_logits, compute, gate, number)
                pieces.append(work.piece(names[number], units, run)["logits"])
        units = len(self._rows) * reruns if is_done else 0
        found = work.piece(joined, units, partial(_outcomes_of, pieces, self._labels))
        work.pieces.forget(names)
        return [Outcome(*each) for each in zip(found["log_loss"], found["right"], strict=True)]

    def _orders(self, gate: Gate, batch: int) -> list[Tensor]:
        """Return the logits of the unedited network, and those of each share and order."""
        rng = self._setup.rng("channels")
        rng.bit_generator.state = self._ties[batch, gate.name]
        values = self._cache.gate_values[gate.name].cpu()
        score = {"gate": values.float(), "gate x norm": values * _norms(self._cache, gate)}
        found = [self._cache.logits]
        for share in self._shares:
            for order in ORDERS:
                end, _, ranking = order.partition(" ")
                mask = _choose(score[ranking], self.count(gate, share), end == "top", rng)
                found.append(self._ablated(gate, mask))
        return found

    def _random(
        self, gate: Gate, batch: int, *, shares: Sequence[float], draws: range
    ) -> list[Tensor]:
        """Return the logits of each share and draw."""
        shape = self._cache.gate_values[gate.name].shape
        found = []
        for share in shares:
            for draw in draws:
                one = torch.from_numpy(self._sets[gate.name][draw] < self.count(gate, share))
                found.append(self._ablated(gate, one.expand(shape)))
        return found

    def _ablated(self, gate: Gate, mask: Tensor) -> Tensor:
        """Return the logits with the gates of the chosen channels set to their mean."""
        mean = self._means[gate.name]
        chosen = as_factor(mask, gate).to(mean.device)
        ablated = as_factor(mean[None], gate)

        def edit(own: Tensor, features: Tensor) -> Tensor:
            return torch.where(chosen, ablated.to(own.dtype), own)

        return self._cache.rerun({gate.name: edit})


def _logits(compute: Callable[[Gate, int], list[Tensor]], gate: Gate, number: int) -> Piece:
    """Return ``logits`` ``(E, n, K)`` of the reruns of a batch."""
    return {"logits": np.stack([z.float().cpu().numpy() for z in compute(gate, number)])}


def _outcomes_of(
    pieces: Sequence[Float32[Array, "reruns batch classes"]], labels: NDArray[np.int64]
) -> Piece:
    """Return ``log_loss`` and ``right``, both ``(E, N)``, from the logits of the batches."""
    logits = np.concatenate(pieces, axis=1)
    return {
        "log_loss": np.stack([calibrated_log_losses(each, labels) for each in logits]),
        "right": logits.argmax(2) == labels,
    }


def ablatable_gates(setup: InterventionSetup) -> dict[str, int]:
    """Return the channel gates with several values: name -> number of values."""
    sizes = {gate.name: setup.recording.gate(gate.name, slice(0, 1)).size for gate in setup.gates}
    return {
        gate.name: sizes[gate.name]
        for gate in setup.gates
        if gate.has(PER_CHANNEL) and sizes[gate.name] > 1
    }


def _choose(score: Tensor, count: int, highest: bool, rng: np.random.Generator) -> Tensor:
    """Return a mask of the ``count`` channels with the highest or lowest score of each image.

    Ties, for example of saturated gates, are broken at random.

    Args:
        score: ``(n, C)``.
        count: Number of channels to choose.
        highest: Whether to choose the highest or the lowest scores.
        rng: Random generator for ties.

    Returns:
        bool, ``(n, C)``.
    """
    order = torch.from_numpy(rng.permutation(score.shape[1]))
    chosen = order[score[:, order].argsort(dim=1, descending=highest, stable=True)[:, :count]]
    return torch.zeros(score.shape, dtype=torch.bool).scatter_(1, chosen, True)


def _norms(cache: PrefixCache, gate: Gate) -> Tensor:
    """Return the L2 norms of the channels that a gate multiplies, ``(n, C)``."""
    found: list[Tensor] = []

    def measure(own: Tensor, features: Tensor) -> Tensor:
        if features is own:  # the gate multiplies another gate, so that it has no features
            found.append(torch.ones(1))
            return own
        layout = parse_layout(gate.layout)  # flattened positions are one axis
        axes = [axis for axis, token in enumerate(layout) if token not in ("N", "C")]
        norms = features.float().square().sum(axes).sqrt()
        order = [token for token in layout if token in ("N", "C")]
        found.append((norms if order == ["N", "C"] else norms.T).cpu())
        return own

    cache.rerun({gate.name: measure})
    return found[0]
