"""Channels of a gate set to their mean: do those matter most that are gated most?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from attnscope.errors import InputError
from attnscope.gates.hooks import as_factor
from attnscope.interventions.replay import Tape
from attnscope.interventions.setup import InterventionSetup
from attnscope.kinds import PER_CHANNEL, Gate
from attnscope.statistics.effects import margins
from attnscope.statistics.inference import paired_accuracy_change
from attnscope.statistics.resampling import bootstrap_interval, null_band, permutation_p

RANKINGS = ("gate", "gate x norm")
"""By the image's own gate, and by that times the L2 norm of the channel that it multiplies."""
_ORDERS = tuple(f"{end} {ranking}" for ranking in RANKINGS for end in ("top", "bottom"))
_COLUMNS = [
    "gate",
    "share",
    "channels",
    "order",
    "images",
    "change",
    "low",
    "high",
    "margin_change",
    "margin_low",
    "margin_high",
    "null",
    "null_low",
    "null_high",
    "p",
]


def ablate_channels(
    setup: InterventionSetup,
    *,
    shares: Sequence[float] = (0.1, 0.25, 0.5),
    draws: int = 100,
    images: int = 100,
    resamples: int = 1000,
    progress: bool = True,
) -> pd.DataFrame:
    """Sets the gates of some channels to their mean over other images, and sees what is lost.

    Which channels is said image by image: those with the highest or the lowest gate, those with the
    highest or lowest gate times feature norm, or random ones.

    Args:
        setup: the network and its images.
        shares: of the channels, above 0 and at most 1; rounded, one channel at least.
        draws: how often random channels are drawn, in each draw the same for all images.
        images: how many of the scored images are taken, since each draw runs the network again.
        resamples: of the bootstrap over images.
        progress: whether to show a bar.

    Returns:
        One row a channel gate, share and order (``top gate``, ``bottom gate``, ``top gate x norm``,
        ``bottom gate x norm``, ``random``): gate, share, channels (how many), order, images,
        change, low, high (of accuracy), margin_change, margin_low, margin_high (in units of the
        logits); null, null_low, null_high: mean, 2.5 and 97.5 % over the draws of the mean margin
        change under random channels, and p: the share of draws that lose at least as much as this
        order, itself counted, whose null is that these channels are a random set, the same for all
        images. It is exact for a ranking that is the same for all images. One that differs also
        chooses which way gates are moved: the highest gates of an image are mostly above their mean
        and are lowered by it, the lowest are raised, random ones both; a small p is then no sign
        that a channel is worth more. Not corrected for the number of rows. Of ``random`` the
        changes are means over the draws, with the interval of the mean over images, by bootstrap.

    Gates with one value for all channels are left out: there is nothing to choose.

    Raises:
        InputError: there is no other channel gate, or a number is out of its range.
    """
    units = gates_to_choose_in(setup)
    gates = [gate for gate in setup.gates if gate.name in units]
    if not gates:
        raise InputError(
            f"{setup.recording.folder} holds no channel gate of several values; there is nothing "
            "to choose from"
        )
    if not shares or not all(0 < share <= 1 for share in shares):
        raise InputError(f"shares are {tuple(shares)}; each must be above 0 and at most 1")
    if draws < 1 or images < 1:
        raise InputError(f"{draws} draws of {images} images; take 1 or more of each, usually 100")
    rows = setup.sample(images)
    tape = Tape(setup.model, setup.gates, [(gate.name,) for gate in gates])
    losses = {(gate.name, share): _Losses(len(rows), draws) for gate in gates for share in shares}
    own_right, start = np.zeros(len(rows), bool), 0
    rng = setup.rng("channels")
    with (
        setup.quiet(),
        tqdm(total=len(rows), unit="image", disable=not progress, dynamic_ncols=True) as bar,
    ):
        # One set a draw, the same for all images: a ranking too chooses much the same for all.
        sets = {
            gate.name: np.stack([rng.permutation(units[gate.name]) for _ in range(draws)])
            for gate in gates
        }
        means = {gate.name: torch.from_numpy(setup.mean_gate(gate.name)) for gate in gates}
        for batch in setup.batches(rows):
            places = slice(start, start + len(batch.labels))
            start = places.stop
            labels = batch.labels.numpy()
            own = tape.forward(batch.x).float().cpu().numpy()
            own_margin = margins(own, labels)
            own_right[places] = own_margin > 0
            for gate in gates:
                values = tape.seen[gate.name].cpu()
                score = {"gate": values.float(), "gate x norm": values * _norms(tape, gate)}
                for share in shares:
                    count = max(1, round(share * values.shape[1]))
                    found = losses[gate.name, share]
                    mean = means[gate.name].to(setup.device)
                    for ranking, of_channel in score.items():
                        for end in ("top", "bottom"):
                            mask = _choose(of_channel, count, end == "top", rng)
                            new = _margins_without(tape, gate, mask, mean, labels)
                            found.add(f"{end} {ranking}", places, new - own_margin, new > 0)
                    for draw in range(draws):
                        one = torch.from_numpy(sets[gate.name][draw] < count)
                        mask = one.expand(values.shape)
                        new = _margins_without(tape, gate, mask, mean, labels)
                        found.add_draw(draw, places, new - own_margin, new > 0)
            bar.update(len(labels))
    table = []
    for gate in gates:
        for share in shares:
            count = max(1, round(share * units[gate.name]))
            table += losses[gate.name, share].rows(
                {"gate": gate.name, "share": share, "channels": count},
                own_right,
                resamples,
                setup.seed,
            )
    return pd.DataFrame(table, columns=_COLUMNS)


def gates_to_choose_in(setup: InterventionSetup) -> dict[str, int]:
    """Names of the channel gates of several values, and how many values each has."""
    sizes = {gate.name: setup.recording.gate(gate.name, slice(0, 1)).size for gate in setup.gates}
    return {
        gate.name: sizes[gate.name]
        for gate in setup.gates
        if gate.has(PER_CHANNEL) and sizes[gate.name] > 1
    }


class _Losses:
    """What one number of channels costs, image by image."""

    def __init__(self, images: int, draws: int) -> None:
        self._shift = {order: np.zeros(images) for order in _ORDERS}
        self._right = {order: np.zeros(images, bool) for order in _ORDERS}
        self._draws = np.zeros((draws, images))
        self._draws_right = np.zeros(images)

    def add(
        self,
        order: str,
        places: slice,
        shift: NDArray[np.float64],
        right: NDArray[np.bool_],
    ) -> None:
        self._shift[order][places] = shift
        self._right[order][places] = right

    def add_draw(
        self, draw: int, places: slice, shift: NDArray[np.float64], right: NDArray[np.bool_]
    ) -> None:
        self._draws[draw, places] = shift
        self._draws_right[places] += right

    def rows(
        self, about: dict[str, object], own: NDArray[np.bool_], resamples: int, seed: int
    ) -> list[dict[str, object]]:
        drawn = self._draws.mean(1)
        null_low, null_high = null_band(drawn)
        null = {"null": drawn.mean(), "null_low": null_low, "null_high": null_high}
        found: list[dict[str, object]] = []
        for order in _ORDERS:
            change, low, high = paired_accuracy_change(own, self._right[order])
            found.append(
                {
                    **about,
                    "order": order,
                    "images": len(own),
                    "change": change,
                    "low": low,
                    "high": high,
                    **_mean_and_interval(self._shift[order], "margin_", resamples, seed),
                    **null,
                    "p": float(permutation_p(-drawn, np.asarray(-self._shift[order].mean()))),
                }
            )
        accuracy = self._draws_right / len(self._draws) - own
        found.append(
            {
                **about,
                "order": "random",
                "images": len(own),
                **_mean_and_interval(accuracy, "", resamples, seed),
                **_mean_and_interval(self._draws.mean(0), "margin_", resamples, seed),
                **null,
            }
        )
        return found


def _mean_and_interval(
    values: NDArray[np.float64], prefix: str, resamples: int, seed: int
) -> dict[str, float]:
    low, high = bootstrap_interval(values[:, None], resamples, seed)
    return {
        f"{prefix}change": float(values.mean()),
        f"{prefix}low": float(low[0]),
        f"{prefix}high": float(high[0]),
    }


def _choose(score: Tensor, count: int, highest: bool, rng: np.random.Generator) -> Tensor:
    """Of each image the ``count`` channels with the highest or lowest score: bool, ``(n, C)``.

    Ties, as of saturated gates, are broken at random.
    """
    order = torch.from_numpy(rng.permutation(score.shape[1]))
    where = order[score[:, order].argsort(dim=1, descending=highest, stable=True)[:, :count]]
    return torch.zeros(score.shape, dtype=torch.bool).scatter_(1, where, True)


def _margins_without(
    tape: Tape, gate: Gate, mask: Tensor, mean: Tensor, labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Margins with the gate of the chosen channels set to its mean."""
    chosen = as_factor(mask, gate).to(mean.device)
    instead = as_factor(mean[None], gate)

    def edit(own: Tensor, features: Tensor) -> Tensor:
        return torch.where(chosen, instead.to(own.dtype), own)

    return margins(tape.again({gate.name: edit}).float().cpu().numpy(), labels)


def _norms(tape: Tape, gate: Gate) -> Tensor:
    """L2 norms of the channels that the gate multiplies, ``(n, C)``."""
    found: list[Tensor] = []

    def see(own: Tensor, features: Tensor) -> Tensor:
        if features is own:  # it multiplies another gate, and there are no features to weigh it by
            found.append(torch.ones(1))
            return own
        axes = [axis for axis, letter in enumerate(gate.layout) if letter not in "NC"]
        norms = features.float().square().sum(axes).sqrt()
        order = [letter for letter in gate.layout if letter in "NC"]
        found.append((norms if order == ["N", "C"] else norms.T).cpu())
        return own

    tape.again({gate.name: see})
    return found[0]
