"""Mean ablation of single channels of a gate: do the most strongly gated channels matter most?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnscope.errors import InputError
from attnscope.gates.hooks import as_factor
from attnscope.interventions.replay import PrefixCache
from attnscope.interventions.setup import InterventionSetup, expect_draws, expect_images
from attnscope.kinds import PER_CHANNEL, Gate
from attnscope.progress import progress_bar
from attnscope.statistics.effects import margins
from attnscope.statistics.inference import paired_accuracy_change
from attnscope.statistics.resampling import bootstrap_interval, null_band, permutation_p

RANKINGS = ("gate", "gate x norm")
"""Scores by which channels are ranked for each image: the gate of the image, or the gate times the
L2 norm of the channel that it multiplies."""
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
    """Measure the effect of mean ablation of some channels of each channel gate.

    The gates of the chosen channels are set to their mean over the donors. Channels are chosen for
    each image: those with the highest or lowest gate, those with the highest or lowest product of
    gate and feature norm, or random channels. Gates that have one value for all channels are left
    out.

    The null hypothesis of ``p`` is that the chosen channels are a random set, the same for all
    images. The test is a permutation test over ``draws`` random sets, which include the observed
    set. It is exact for a ranking that is the same for all images. A ranking that differs between
    images also determines in which direction the gates change: the highest gates of an image are
    mostly above their mean and are decreased by the ablation, the lowest are increased, and random
    gates are both. For such a ranking, a small p does not show that a channel is more important.
    p-values are not corrected for the number of rows.

    Args:
        setup: The network and its images.
        shares: Shares of the channels to ablate, above 0 and at most 1. The number of channels is
            rounded and at least one.
        draws: Number of random sets of channels. A set is the same for all images.
        images: Number of scored images to use. The network is rerun for each draw.
        resamples: Number of bootstrap resamples over images.
        progress: Whether to show a progress bar.

    Returns:
        A data frame with one row for each gate, share and order (``top gate``, ``bottom gate``,
        ``top gate x norm``, ``bottom gate x norm``, ``random``). Columns:

        - gate, share, channels (number of ablated channels), order, images;
        - change, low, high: change in accuracy (-1 to 1) with its 95% CI (Bonett and Price 2012);
        - margin_change, margin_low, margin_high: mean change of the margin in units of the logits
          with its 95% bootstrap CI;
        - null, null_low, null_high: mean and 2.5th and 97.5th percentile over the draws of the
          mean margin change under random channels;
        - p: share of draws, including the observed set, that decrease the margin at least as much.

        In rows ``random``, changes are means over the draws with the 95% bootstrap CI over images,
        and p is NaN.

    Raises:
        InputError: There is no channel gate with several values (AS815), or a number is out of
            range (AS801, AS816, AS817).
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
    rows = setup.sample(images)
    cache = PrefixCache(setup.model, setup.gates, [(gate.name,) for gate in gates])
    losses = {(gate.name, share): _Losses(len(rows), draws) for gate in gates for share in shares}
    own_right, start = np.zeros(len(rows), bool), 0
    rng = setup.rng("channels")
    with (
        setup.eval_without_gradients(),
        progress_bar(len(rows), "image", description="ablate", enabled=progress) as bar,
    ):
        # A random set is the same for all images, because a ranking, too, chooses largely the
        # same channels for all images.
        sets = {
            gate.name: np.stack([rng.permutation(units[gate.name]) for _ in range(draws)])
            for gate in gates
        }
        means = {gate.name: torch.from_numpy(setup.mean_gate(gate.name)) for gate in gates}
        for batch in setup.batches(rows):
            places = slice(start, start + len(batch.labels))
            start = places.stop
            labels = batch.labels.numpy()
            own = cache.forward(batch.x).float().cpu().numpy()
            own_margin = margins(own, labels)
            own_right[places] = own_margin > 0
            for gate in gates:
                values = cache.gate_values[gate.name].cpu()
                score = {"gate": values.float(), "gate x norm": values * _norms(cache, gate)}
                for share in shares:
                    count = max(1, round(share * values.shape[1]))
                    loss = losses[gate.name, share]
                    mean = means[gate.name].to(setup.device)
                    for ranking, of_channel in score.items():
                        for end in ("top", "bottom"):
                            mask = _choose(of_channel, count, end == "top", rng)
                            new = _ablated_margins(cache, gate, mask, mean, labels)
                            loss.add(f"{end} {ranking}", places, new - own_margin, new > 0)
                    for draw in range(draws):
                        one = torch.from_numpy(sets[gate.name][draw] < count)
                        mask = one.expand(values.shape)
                        new = _ablated_margins(cache, gate, mask, mean, labels)
                        loss.add_draw(draw, places, new - own_margin, new > 0)
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


def ablatable_gates(setup: InterventionSetup) -> dict[str, int]:
    """Return the channel gates with several values: name -> number of values."""
    sizes = {gate.name: setup.recording.gate(gate.name, slice(0, 1)).size for gate in setup.gates}
    return {
        gate.name: sizes[gate.name]
        for gate in setup.gates
        if gate.has(PER_CHANNEL) and sizes[gate.name] > 1
    }


class _Losses:
    """Changes of margin and accuracy for one gate and share, by image."""

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


def _ablated_margins(
    cache: PrefixCache, gate: Gate, mask: Tensor, mean: Tensor, labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the margins ``(n,)`` with the gates of the chosen channels set to their mean."""
    chosen = as_factor(mask, gate).to(mean.device)
    ablated = as_factor(mean[None], gate)

    def edit(own: Tensor, features: Tensor) -> Tensor:
        return torch.where(chosen, ablated.to(own.dtype), own)

    return margins(cache.rerun({gate.name: edit}).float().cpu().numpy(), labels)


def _norms(cache: PrefixCache, gate: Gate) -> Tensor:
    """Return the L2 norms of the channels that a gate multiplies, ``(n, C)``."""
    found: list[Tensor] = []

    def measure(own: Tensor, features: Tensor) -> Tensor:
        if features is own:  # the gate multiplies another gate, so that it has no features
            found.append(torch.ones(1))
            return own
        axes = [axis for axis, letter in enumerate(gate.layout) if letter not in "NC"]
        norms = features.float().square().sum(axes).sqrt()
        order = [letter for letter in gate.layout if letter in "NC"]
        found.append((norms if order == ["N", "C"] else norms.T).cpu())
        return own

    cache.rerun({gate.name: measure})
    return found[0]
