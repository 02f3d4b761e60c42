"""The report of a fold of any network, in numbers, as text and as HTML."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from attnscope.folding.report import PairedAccuracy
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
    constants: str
    """The split over whose images the constants are means."""
    constant_images: int
    """Number of these images."""
    split: str
    """The split on which accuracy was measured: that of the recording."""
    accuracy: PairedAccuracy | None
    """Accuracy before and after; None if the recording has none."""
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

    @property
    def _total(self) -> int:
        return len(self.folded) + len(self.dynamic) + len(self.unused)

    def __repr__(self) -> str:
        before, after = self.parameters
        return (
            f"<GraphFoldReport of {self.recording!r}: {len(self.folded)} of {self._total} gates "
            f"folded, {before:,} -> {after:,} parameters>"
        )

    def _rows(self) -> list[tuple[str, str]]:
        rows = [(name, _FORMS[form]) for name, form in self.folded.items()]
        rows += [(name, _DYNAMIC) for name in self.dynamic]
        return rows + [(name, _FORMS["unused"]) for name in self.unused]

    def _facts(self) -> list[tuple[str, str]]:
        counts = Counter(_FORMS[form] for form in self.folded.values())
        listed = ", ".join(f"{count} {form}" for form, count in counts.items())
        before, after = self.parameters
        adds = self.multiply_adds
        speed = np.array(self.speed)
        ratios = speed[:, 1] / speed[:, 0]
        medians = np.median(speed, axis=0)
        accuracy = "not measured, because the recording has none"
        return [
            ("gates folded", f"{len(self.folded)} of {self._total}: {listed}"),
            ("constants", f"means over {self.constant_images} images of {self.constants}"),
            (f"{self.split} accuracy", accuracy if self.accuracy is None else str(self.accuracy)),
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
        rows = self._rows()
        width = max([len("gate"), *(len(name) for name, _ in rows)])
        lines = [f"{'gate':{width}}  result", *(f"{name:{width}}  {what}" for name, what in rows)]
        return "\n".join([*lines, *(f"{name}: {value}" for name, value in self._facts())])

    def _repr_html_(self) -> str:
        facts = html_properties(self._facts())
        return html_page("Fold", html_table(["Gate", "Result"], self._rows(), left=2), facts)
