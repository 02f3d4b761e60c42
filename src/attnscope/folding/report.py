"""What a fold changed, in numbers and as text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnscope.folding.search import Trial
from attnscope.statistics.inference import paired_accuracy_change


@dataclass(frozen=True)
class PairedAccuracy:
    """Accuracy on a part of the data before and after a fold."""

    images: int
    before: float
    """0 to 1, as ``after``."""
    after: float
    loss: float
    """In points of accuracy (100 is all of it), as its 95 % interval ``low`` to ``high``."""
    low: float
    high: float

    @classmethod
    def of(cls, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> PairedAccuracy:
        """Of the same images, with `attnscope.statistics.inference.paired_accuracy_change`."""
        change, low, high = (100 * value for value in paired_accuracy_change(before, after))
        # 0 - x, since -0.0 would be printed as such.
        losses = 0 - change, 0 - high, 0 - low
        return cls(len(before), float(before.mean()), float(after.mean()), *map(float, losses))

    def __str__(self) -> str:
        return (
            f"{self.before:.2%} -> {self.after:.2%} of {self.images} images (one is "
            f"{100 / self.images:.2f} points), loss {self.loss:.2f} points "
            f"(95 % interval {self.low:.2f} to {self.high:.2f})"
        )


@dataclass(frozen=True)
class FoldReport:
    """What `fold_run` did; written to the new run folder as ``fold.json``."""

    run: str
    weights_sha256: str
    """Of the network before."""
    folded: dict[str, str]
    """Gate -> ``norm``, ``constant`` or ``map``."""
    dynamic: list[str]
    """The gates that are left."""
    spatial: str
    tolerance: float | None
    """In points of accuracy; None where the gates were named."""
    trials: list[Trial]
    """Of the search; empty where the gates were named."""
    validation: PairedAccuracy
    test: PairedAccuracy
    parameters: tuple[int, int]
    """Before and after."""
    stored_values: int
    """Of constants and maps; they are no parameters."""
    logit_difference: float
    """The largest, on a batch of validation images, to the network edited to the same means."""
    speed: list[tuple[float, float]]
    """Images per second before and after, one pair a round."""
    speed_images: int
    """Test images a round."""
    batch_size: int
    device: str
    threads: int

    def __str__(self) -> str:
        forms = list(self.folded.values())
        trials = {trial.gate: trial for trial in self.trials}
        width = max(map(len, [*self.folded, *self.dynamic]))
        losses = "  alone  joint" if trials else ""
        lines = [f"{'gate':{width}}{losses}  becomes"]
        for name in trials or [*self.folded, *self.dynamic]:
            if trials:
                losses = f"  {trials[name].alone:5.2f}  {trials[name].joint:5.2f}"
            lines.append(f"{name:{width}}{losses}  {self.folded.get(name, 'stays as it is')}")
        kinds = {"norm": "in BatchNorms", "constant": "stored constants", "map": "stored maps"}
        told = ", ".join(f"{forms.count(f)} {kind}" for f, kind in kinds.items() if f in forms)
        before, after = self.parameters
        pairs = np.array(self.speed)
        speeds = np.median(pairs, axis=0)
        ratios = pairs[:, 1] / pairs[:, 0]
        return "\n".join(
            [
                *lines,
                f"{len(forms)} of {len(forms) + len(self.dynamic)} gates are static: {told}",
                f"validation: {self.validation}",
                f"test: {self.test}",
                f"parameters: {before:,} -> {after:,}, and {self.stored_values:,} stored values",
                f"images per second: {speeds[0]:.1f} -> {speeds[1]:.1f}, ratio "
                f"{np.median(ratios):.3f} ({ratios.min():.3f} to {ratios.max():.3f}); medians of "
                f"{len(pairs)} rounds in turns, {self.speed_images} images in batches of up to "
                f"{self.batch_size}, {self.device}, {self.threads} threads",
                "largest difference of a logit to the network edited to the same means: "
                f"{self.logit_difference:.1e}",
            ]
        )
