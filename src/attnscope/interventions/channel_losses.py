"""Changes of log loss and accuracy under the ablation of channels, and their statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnscope.statistics.inference import paired_accuracy_change
from attnscope.statistics.resampling import bootstrap_interval, null_band, sequential_p

RANKINGS = ("gate", "gate x norm")
"""Scores by which channels are ranked for each image: the gate of the image, or the gate times the
L2 norm of the channel that it multiplies."""
ORDERS = tuple(f"{end} {ranking}" for ranking in RANKINGS for end in ("top", "bottom"))


@dataclass(frozen=True)
class Outcome:
    """What a network predicts for each image."""

    log_loss: NDArray[np.float64]
    """``(N,)``, in nats."""
    right: NDArray[np.bool_]
    """``(N,)``, whether the prediction is right."""


class ChannelLosses:
    """Changes of log loss and accuracy for one gate and share, by image.

    Args:
        draws: Largest number of random sets of channels.
        exceedances: As for `attnscope.statistics.resampling.sequential_p`.
    """

    def __init__(self, draws: int, exceedances: int | None) -> None:
        self._most_draws, self._exceedances = draws, exceedances
        self._own = Outcome(np.zeros(0), np.zeros(0, bool))
        self._orders: dict[str, Outcome] = {}
        self._draws: list[Outcome] = []

    def start(self, own: Outcome, orders: Mapping[str, Outcome]) -> None:
        """Add the outcomes of the unedited network, and those under each of `ORDERS`."""
        self._own, self._orders = own, dict(orders)

    def add_draws(self, draws: Sequence[Outcome]) -> None:
        """Add outcomes under random sets of channels."""
        self._draws += draws

    @property
    def has_stopped(self) -> bool:
        """Whether no order needs more draws."""
        drawn = self._drawn()
        return all(self._test(order, drawn)[2] for order in ORDERS)

    def _changes(self, outcome: Outcome) -> NDArray[np.float64]:
        return outcome.log_loss - self._own.log_loss

    def _drawn(self) -> NDArray[np.float64]:
        """Return the mean change of the log loss of each draw."""
        return np.array([self._changes(draw).mean() for draw in self._draws])

    def _test(self, order: str, drawn: NDArray[np.float64]) -> tuple[float, int, bool]:
        observed = float(self._changes(self._orders[order]).mean())
        return sequential_p(drawn, observed, self._exceedances, self._most_draws)

    def rows(
        self, about: Mapping[str, object], resamples: int, seed: int
    ) -> list[dict[str, object]]:
        """Return the rows of the table: one for each order, and one for random channels.

        Args:
            about: Columns that all rows have.
            resamples: Number of bootstrap resamples.
            seed: Seed of the resamples.
        """
        own, drawn = self._own.right, self._drawn()
        null_low, null_high = null_band(drawn)
        null = {"null": drawn.mean(), "null_low": null_low, "null_high": null_high}
        common = {**about, "images": len(own), **null, "draws": len(drawn)}
        found: list[dict[str, object]] = []
        for order, outcome in self._orders.items():
            change, low, high = paired_accuracy_change(own, outcome.right)
            p, used, _ = self._test(order, drawn)
            found.append(
                {
                    **common,
                    "order": order,
                    "change": change,
                    "low": low,
                    "high": high,
                    **_mean_and_interval(self._changes(outcome), "log_loss_", resamples, seed),
                    "p": p,
                    "p_draws": used,
                }
            )
        accuracy = np.mean([draw.right for draw in self._draws], axis=0) - own
        log_loss = np.mean([self._changes(draw) for draw in self._draws], axis=0)
        found.append(
            {
                **common,
                "order": "random",
                **_mean_and_interval(accuracy, "", resamples, seed),
                **_mean_and_interval(log_loss, "log_loss_", resamples, seed),
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
