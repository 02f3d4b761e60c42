"""The choice of a fold: gates of any network, on a split of labeled images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from math import ceil

import numpy as np
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from attnscope.capturing.batching import Batch
from attnscope.errors import InputError
from attnscope.folding.channels import thresholds, zeroed
from attnscope.folding.outcomes import EditedOutcomes
from attnscope.folding.report import Chosen
from attnscope.folding.search import choose_gates, first_half, in_points, repeat_choice
from attnscope.kinds import Gate
from attnscope.progress import AS_SHARE, progress_bar
from attnscope.shapes import Array
from attnscope.statistics.inference import LEVEL
from attnscope.statistics.noninferiority import fewest_images

TOLERANCE = 1.0
"""Default of the largest accepted loss of accuracy, in percentage points."""
_SEED = 0
"""The seed of the halves. There is no option for it, since trying seeds would be another choice."""


def halves_of(labels: Int64[Array, " images"]) -> Bool[Array, " images"]:
    """Return the half of the images that orders the gates, as a mask ``(N,)``."""
    return first_half(labels, _SEED)


def choose(
    network: nn.Module,
    gates: Sequence[Gate],
    constants: Mapping[str, Tensor],
    labels: Int64[Array, " images"],
    read: Callable[[], Iterable[Batch]],
    *,
    tolerance: float,
    split: str,
    source: str,
    scores: Callable[[], AbstractContextManager[None]] | None = None,
    removable: Mapping[str, Tensor] | None = None,
    progress: bool = True,
) -> Chosen:
    """Choose gates that can be constant together, and repeat the choice on other halves.

    Args:
        network: As for `EditedOutcomes`.
        gates: All gates of the network.
        constants: The constant values of the gates that may be chosen.
        labels: As for `EditedOutcomes`.
        read: As for `EditedOutcomes`.
        tolerance: Largest accepted loss of accuracy in percentage points, above 0.
        split: Name of the split of the images.
        source: The run or recording that is folded, for messages.
        scores: As for `EditedOutcomes`.
        removable: Name of a gate -> mask of the channels that can be removed. Their constants may
            become 0 in the choice. Default: none.
        progress: Whether to show a progress bar.

    Raises:
        InputError: There are too few images (AS864), or no gate can be folded within the tolerance
            (AS859).
    """
    expect_images(labels, tolerance, split, source)
    names = [gate.name for gate in gates if gate.name in constants]
    first = halves_of(labels)
    # One pass for the network, one for each gate alone, one for each set; as many for repetitions.
    levels = thresholds(constants, removable or {})
    total = 2 * (1 + 2 * len(names) + len(levels))
    with progress_bar(
        total, "pass", description="choose", enabled=progress, bar_format=AS_SHARE
    ) as bar:

        def outcomes_with(values: Mapping[str, Tensor]) -> EditedOutcomes:
            return EditedOutcomes(network, gates, values, labels, read, scores, bar)

        outcomes = outcomes_with(constants)
        pruned = {
            below: outcomes_with(zeroed(constants, removable or {}, below)) for below in levels
        }
        choice = choose_gates(outcomes, names, tolerance, first, pruned)
        if not choice.kept:
            best = choice.trials[0]
            wanted = (
                "the loss that was seen is too large for any number of images"
                if choice.sufficient is None
                else f"about {choice.sufficient} {split} images would show it"
            )
            raise InputError(
                "AS859",
                f"no gate of {source} is shown to lose less than {in_points(tolerance)} of "
                f"accuracy (the first one, {best.gate}, loses {best.joint:.2f} on "
                f"{choice.testing} images, p = {best.p:.3f}; {wanted}); increase --tolerance, or "
                "name gates with --gates",
            )
        stability = repeat_choice(outcomes, names, tolerance, choice, _SEED)
    return Chosen(split, float(tolerance), choice, stability)


def expect_images(
    labels: Int64[Array, " images"], tolerance: float, split: str, source: str
) -> None:
    """Refuse a split on which no test could succeed, before anything is computed.

    Raises:
        InputError: AS864.
    """
    testing = len(labels) - int(np.count_nonzero(halves_of(labels)))
    fewest = fewest_images(tolerance / 100)
    if testing >= fewest:
        return
    # Rounded up, so that this tolerance can be given as it is printed.
    possible = ceil(1e3 * (1 - (LEVEL / 2) ** (1 / max(testing, 1)))) / 10
    raise InputError(
        "AS864",
        f"the {split} split of {source} has {len(labels)} images, but it takes {2 * fewest} to "
        f"show that a loss is below {in_points(tolerance)}; use more images, --tolerance "
        f"{possible:g}, or name gates with --gates",
    )
