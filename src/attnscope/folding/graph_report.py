"""The report of a fold of any network, in numbers, as text and as HTML."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from attnscope.folding.channels import PrunedChannels
from attnscope.folding.report import (
    ENDS,
    NAMED,
    TRIAL_HEADERS,
    Chosen,
    PairedLosses,
    html_lines,
    text_table,
)
from attnscope.notebook import html_page, html_properties, html_table

_FORMS = {
    "before": "multiplied into the layers before it",
    "after": "multiplied into the layers after it",
    "stored": "stored constant",
    "unused": "removed, acted on folded gates only",
}
_DYNAMIC = "unchanged"


@dataclass(frozen=True, repr=False)
class GraphFoldReport:
    """What `attnscope.fold` did to a network of any origin, for ``fold.json``."""

    recording: str
    """The recording whose network was folded."""
    folded: dict[str, str]
    """Folded gate -> ``before``, ``after``, ``stored`` or ``unused``; see
    `attnscope.networks.graph_fold.GraphFold.forms`."""
    dynamic: list[str]
    """The gates that still depend on the image."""
    unused: list[str]
    """Other gates that acted on folded gates only, and were removed with them."""
    left_out: dict[str, str]
    """Name of a gate that could not be chosen -> the reason. Empty if the gates were named."""
    chosen: Chosen | None
    """How the gates were chosen; None if they were named."""
    constants: str
    """The split over whose images the constants are means."""
    constant_images: int
    """Number of these images."""
    validation: PairedLosses | None
    """Losses on the half of the images that tested the gates; None if they were named."""
    split: str
    """The split of the recording, or another one if its images chose the gates."""
    accuracy: PairedLosses | None
    """Losses on that split, for information; None if the recording has no accuracy, or if there is
    no other split than that which chose the gates."""
    parameters: tuple[int, int]
    """Number of parameters before and after."""
    stored_values: int
    """Number of values of stored constants, which are not parameters."""
    multiply_adds: tuple[int, int]
    """Multiply-adds for one image, in convolutions and matrix products only, before and after."""
    logit_difference: float
    """Largest difference to the output of the network whose gates are edited to the same means, as
    a share of its largest output, on a batch of images."""
    speed: list[tuple[float, float]]
    """Images per second before and after, one pair for each round."""
    speed_images: int
    """Number of images in a round."""
    batch_size: int
    device: str
    threads: int
    """Number of CPU threads."""
    pruning: PrunedChannels | None = None
    """What became of channels whose constants are 0; None if they were not to be removed."""

    @property
    def _total(self) -> int:
        return len(self.folded) + len(self.dynamic) + len(self.unused)

    def __repr__(self) -> str:
        before, after = self.parameters
        return (
            f"<GraphFoldReport of {self.recording!r}: {len(self.folded)} of {self._total} gates "
            f"folded, {before:,} -> {after:,} parameters>"
        )

    def _rows(self) -> list[list[str]]:
        """Return the gates in the order of the choice, or else folded gates first."""
        results = {name: _FORMS[form] for name, form in self.folded.items()}
        results |= dict.fromkeys(self.dynamic, _DYNAMIC)
        results |= dict.fromkeys(self.unused, _FORMS["unused"])
        if self.chosen is None:
            return [[name, result] for name, result in results.items()]
        tried = {trial.gate: self.chosen.cells(trial) for trial in self.chosen.choice.trials}
        nothing = [""] * len(TRIAL_HEADERS)
        order = [*tried, *(name for name in results if name not in tried)]
        rows = []
        for name in order:
            reason = f" ({self.left_out[name]})" if name in self.left_out else ""
            rows.append([name, *tried.get(name, nothing), results.get(name, _DYNAMIC) + reason])
        return rows

    def _headers(self) -> list[str]:
        return [*(TRIAL_HEADERS if self.chosen else []), "result"]

    def _lines(self) -> list[str]:
        return self.chosen.explain() if self.chosen else [NAMED]

    def _facts(self) -> list[tuple[str, str]]:
        counts = Counter(_FORMS[form] for form in self.folded.values())
        listed = ", ".join(f"{count} {form}" for form, count in counts.items())
        before, after = self.parameters
        adds = self.multiply_adds
        speed = np.array(self.speed)
        ratios = speed[:, 1] / speed[:, 0]
        medians = np.median(speed, axis=0)
        losses = []
        if self.chosen is not None:
            losses.append((f"{self.chosen.title} accuracy", str(self.validation)))
        if self.accuracy is not None:
            losses.append((f"{self.split} accuracy", str(self.accuracy)))
        elif self.chosen is None:
            losses.append(
                (f"{self.split} accuracy", "not measured, because the recording has none")
            )
        if any(found is not None for found in (self.validation, self.accuracy)):
            losses.append(("ends", ENDS))
        return [
            ("gates folded", f"{len(self.folded)} of {self._total}: {listed}"),
            ("constants", f"means over {self.constant_images} images of {self.constants}"),
            *losses,
            *([] if self.pruning is None else self.pruning.facts()),
            ("parameters", f"{before:,} -> {after:,}, plus {self.stored_values:,} stored values"),
            ("multiply-adds per image", f"{adds[0]:,} -> {adds[1]:,}"),
            (
                "images per second",
                f"{medians[0]:.1f} -> {medians[1]:.1f}, ratio {np.median(ratios):.3f} "
                f"({ratios.min():.3f} to {ratios.max():.3f}); medians of {len(ratios)} alternating "
                f"rounds, {self.speed_images} images, batch size {self.batch_size}, "
                f"{self.device}, {self.threads} CPU thread{'' if self.threads == 1 else 's'}",
            ),
            (
                "largest relative difference to the network with gates edited to the same means",
                f"{self.logit_difference:.1e}",
            ),
        ]

    def __str__(self) -> str:
        facts = [f"{name}: {value}" for name, value in self._facts()]
        table = text_table([["gate", *self._headers()], *self._rows()])
        return "\n".join([*table, *self._lines(), *facts])

    def _repr_html_(self) -> str:
        headers = ["Gate", *(header.capitalize() for header in self._headers())]
        columns = len(headers) if self.chosen is None else 1
        return html_page(
            "Fold",
            html_table(headers, self._rows(), left=columns),
            html_lines(self._lines()),
            html_properties(self._facts()),
        )
