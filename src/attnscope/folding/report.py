"""The report of a fold, in numbers, as text and as HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from attnscope.folding.search import Trial
from attnscope.notebook import html_table
from attnscope.statistics.inference import paired_accuracy_change

_FORMS = {
    "norm": "folded into BatchNorm",
    "constant": "stored constant",
    "map": "stored map",
}
_DYNAMIC = "unchanged"


@dataclass(frozen=True)
class PairedAccuracy:
    """Accuracy on the same images before and after a fold."""

    images: int
    before: float
    """Accuracy before, 0 to 1."""
    after: float
    """Accuracy after, 0 to 1."""
    loss: float
    """Loss of accuracy in percentage points."""
    low: float
    """Lower end of the 95% CI of the loss, in percentage points."""
    high: float
    """Upper end of the 95% CI of the loss, in percentage points."""

    @classmethod
    def of(cls, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> PairedAccuracy:
        """Compare which images were classified correctly.

        The interval is that of `attnscope.statistics.inference.paired_accuracy_change`.

        Args:
            before: ``(N,)``, whether an image was classified correctly before the fold.
            after: ``(N,)``, the same for the same images after the fold.
        """
        change, low, high = (100 * value for value in paired_accuracy_change(before, after))
        # 0 - x instead of -x, since -0.0 would be printed as such.
        losses = 0 - change, 0 - high, 0 - low
        return cls(len(before), float(before.mean()), float(after.mean()), *map(float, losses))

    def __str__(self) -> str:
        return (
            f"{self.before:.2%} -> {self.after:.2%}, loss {self.loss:.2f} percentage points "
            f"(95% CI {self.low:.2f} to {self.high:.2f}; {self.images} images, one image is "
            f"{100 / self.images:.2f} points)"
        )


@dataclass(frozen=True, repr=False)
class FoldReport:
    """What `attnscope.fold` did. It is written to ``fold.json`` in the new run folder."""

    run: str
    """The run or recording that was folded."""
    weights_sha256: str
    """SHA-256 of the weights before the fold."""
    folded: dict[str, str]
    """Folded gate -> ``norm``, ``constant`` or ``map``."""
    dynamic: list[str]
    """The gates that still depend on the image."""
    spatial: str
    """The form of folded spatial gates, ``map`` or ``number``."""
    tolerance: float | None
    """Largest accepted loss in percentage points; None if the gates were named."""
    trials: list[Trial]
    """The trials of the search; empty if the gates were named."""
    validation: PairedAccuracy
    """Accuracy on the validation split, which chose the gates."""
    test: PairedAccuracy
    """Accuracy on the test split, which chose nothing."""
    parameters: tuple[int, int]
    """Number of parameters before and after."""
    stored_values: int
    """Number of values of stored constants and maps, which are not parameters."""
    logit_difference: float
    """Largest logit difference to the network whose gates are edited to the same means, on a batch
    of validation images."""
    speed: list[tuple[float, float]]
    """Images per second before and after, one pair for each round."""
    speed_images: int
    """Number of test images in a round."""
    batch_size: int
    device: str
    threads: int
    """Number of CPU threads."""

    def __repr__(self) -> str:
        return (
            f"<FoldReport of {self.run!r}: {len(self.folded)} of {self._gate_count} gates folded, "
            f"test accuracy {self.test.before:.1%} before and {self.test.after:.1%} after, loss "
            f"{_signed(self.test.loss)} percentage points "
            f"(95% CI {_signed(self.test.low)} to {_signed(self.test.high)})>"
        )

    def __str__(self) -> str:
        width = max(map(len, ["gate", *self.folded, *self.dynamic]))
        losses = f"  {'alone':>6}  {'joint':>6}" if self.trials else ""
        lines = [f"{'gate':{width}}{losses}  result"]
        for name, trial in self._rows():
            if trial is not None:
                losses = f"  {trial.alone:6.2f}  {trial.joint:6.2f}"
            lines.append(f"{name:{width}}{losses}  {self._result_of(name)}")
        if self.trials:
            lines.append(
                "alone, joint: loss on the validation split in percentage points if the gate is "
                "folded alone, or with the gates folded before it"
            )
        before, after = self.parameters
        (speed_before, speed_after), ratios = self._speeds()
        return "\n".join(
            [
                *lines,
                f"{len(self.folded)} of {self._gate_count} gates folded: {self._count_forms()}",
                f"validation accuracy: {self.validation}",
                f"test accuracy: {self.test}",
                f"parameters: {before:,} -> {after:,}, plus {self.stored_values:,} stored values",
                f"images per second: {speed_before:.1f} -> {speed_after:.1f}, ratio "
                f"{np.median(ratios):.3f} ({ratios.min():.3f} to {ratios.max():.3f}); medians of "
                f"{len(ratios)} alternating rounds, {self.speed_images} images, batch size "
                f"{self.batch_size}, {self.device}, {self.threads} CPU thread"
                f"{'' if self.threads == 1 else 's'}",
                "largest logit difference to the network with gates edited to the same means: "
                f"{self.logit_difference:.1e}",
            ]
        )

    def _repr_html_(self) -> str:
        headers = ["Gate", *(["Loss alone", "Loss joint"] if self.trials else []), "Result"]
        gates = [
            [
                name,
                *([] if trial is None else [_signed(trial.alone), _signed(trial.joint)]),
                self._result_of(name),
            ]
            for name, trial in self._rows()
        ]
        splits = [
            [
                split,
                f"{found.images}",
                f"{found.before:.2%}",
                f"{found.after:.2%}",
                f"{_signed(found.loss)} (95% CI {_signed(found.low)} to {_signed(found.high)})",
            ]
            for split, found in (("validation", self.validation), ("test", self.test))
        ]
        before, after = self.parameters
        (speed_before, speed_after), _ = self._speeds()
        return (
            f"<p>Fold of {escape(self.run)}: {len(self.folded)} of {self._gate_count} gates "
            f"folded. Losses are in percentage points of accuracy.</p>"
            + html_table(headers, gates)
            + html_table(["Split", "Images", "Accuracy before", "Accuracy after", "Loss"], splits)
            + f"<p>{before:,} parameters before, {after:,} after, plus {self.stored_values:,} "
            f"stored values. {speed_before:.1f} images per second before, {speed_after:.1f} after "
            f"({escape(self.device)}).</p>"
        )

    @property
    def _gate_count(self) -> int:
        return len(self.folded) + len(self.dynamic)

    def _rows(self) -> list[tuple[str, Trial | None]]:
        """Return the gates in the order of the search, or else folded gates first."""
        if self.trials:
            return [(trial.gate, trial) for trial in self.trials]
        return [(name, None) for name in (*self.folded, *self.dynamic)]

    def _result_of(self, name: str) -> str:
        return _FORMS[self.folded[name]] if name in self.folded else _DYNAMIC

    def _count_forms(self) -> str:
        forms = list(self.folded.values())
        words = {"norm": "into BatchNorms", "constant": "as constants", "map": "as maps"}
        return ", ".join(f"{forms.count(f)} {text}" for f, text in words.items() if f in forms)

    def _speeds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the median images per second before and after, and the ratio of each round."""
        rounds = np.array(self.speed)
        return np.median(rounds, axis=0), rounds[:, 1] / rounds[:, 0]


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
