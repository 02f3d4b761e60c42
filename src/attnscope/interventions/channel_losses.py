"""Changes of margin and accuracy under the ablation of channels, and their statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attnscope.statistics.inference import paired_accuracy_change
from attnscope.statistics.resampling import bootstrap_interval, null_band, sequential_p

RANKINGS = ("gate", "gate x norm")
"""Scores by which channels are ranked for each image: the gate of the image, or the gate times the
L2 norm of the channel that it multiplies."""
ORDERS = tuple(f"{end} {ranking}" for ranking in RANKINGS for end in ("top", "bottom"))


class ChannelLosses:
    """Changes of margin and accuracy for one gate and share, by image.

    Args:
        images: Number of images.
        draws: Largest number of random sets of channels.
        exceedances: As for `attnscope.statistics.resampling.sequential_p`.
    """

    def __init__(self, images: int, draws: int, exceedances: int | None) -> None:
        self._shift = {order: np.zeros(images) for order in ORDERS}
        self._right = {order: np.zeros(images, bool) for order in ORDERS}
        self._draws = np.zeros((draws, images))
        self._draws_right = np.zeros(images)
        self._exceedances = exceedances
        self._made = 0
        self.has_stopped = False
        """Whether no order needs more draws."""

    def add(
        self,
        order: str,
        places: slice,
        shift: NDArray[np.float64],
        right: NDArray[np.bool_],
    ) -> None:
        """Add the changes under an order for a batch.

        Args:
            order: One of `ORDERS`.
            places: Places of the batch among the images.
            shift: ``(n,)``, the change of the margin.
            right: ``(n,)``, whether the prediction is right.
        """
        self._shift[order][places] = shift
        self._right[order][places] = right

    def add_draw(
        self, draw: int, places: slice, shift: NDArray[np.float64], right: NDArray[np.bool_]
    ) -> None:
        """Add the changes under a random set of channels for a batch, as `add` does."""
        self._draws[draw, places] = shift
        self._draws_right[places] += right

    def check(self, made: int) -> None:
        """Note that these draws are made for all images, and find out whether they suffice."""
        self._made = made
        self.has_stopped = all(self._test(order)[2] for order in ORDERS)

    def _test(self, order: str) -> tuple[float, int, bool]:
        drawn = self._draws[: self._made].mean(1)
        observed = -float(self._shift[order].mean())
        return sequential_p(-drawn, observed, self._exceedances, len(self._draws))

    def rows(
        self, about: dict[str, object], own: NDArray[np.bool_], resamples: int, seed: int
    ) -> list[dict[str, object]]:
        """Return the rows of the table: one for each order, and one for random channels.

        Args:
            about: Columns that all rows have.
            own: ``(n,)``, whether the unedited network is right.
            resamples: Number of bootstrap resamples.
            seed: Seed of the resamples.
        """
        draws = self._draws[: self._made]
        drawn = draws.mean(1)
        null_low, null_high = null_band(drawn)
        null = {"null": drawn.mean(), "null_low": null_low, "null_high": null_high}
        null["draws"] = self._made
        found: list[dict[str, object]] = []
        for order in ORDERS:
            change, low, high = paired_accuracy_change(own, self._right[order])
            p, used, _ = self._test(order)
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
                    "p": p,
                    "p_draws": used,
                }
            )
        accuracy = self._draws_right / len(draws) - own
        found.append(
            {
                **about,
                "order": "random",
                "images": len(own),
                **_mean_and_interval(accuracy, "", resamples, seed),
                **_mean_and_interval(draws.mean(0), "margin_", resamples, seed),
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
