"""The report of a fold, in numbers, as text and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from attnscope.folding.channels import PrunedChannels
from attnscope.folding.outcomes import Outcome
from attnscope.folding.search import Choice, Stability, Trial, in_points
from attnscope.notebook import html_table
from attnscope.statistics.inference import paired_accuracy_change
from attnscope.statistics.noninferiority import (
    mean_at_most,
    paired_loss_at_most,
    share_at_least,
)

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


@dataclass(frozen=True)
class PairedLosses(PairedAccuracy):
    """What changed on the same images: accuracy, predictions and log loss.

    Ends are those of one-sided 95% intervals.
    """

    at_most: float
    """Upper end of the loss of accuracy, in percentage points
    (`attnscope.statistics.noninferiority.paired_loss_at_most`)."""
    agreement: float
    """Share of the images whose prediction is the same, 0 to 1."""
    agreement_at_least: float
    """Lower end of that share (Clopper and Pearson)."""
    log_loss: float
    """How much the mean log loss rises, in nats."""
    log_loss_at_most: float | None
    """Upper end of that rise (Student); None with fewer than two images."""

    @classmethod
    def between(cls, before: Outcome, after: Outcome) -> PairedLosses:
        """Compare the outcomes of two networks for the same images."""
        paired = PairedAccuracy.of(before.right, after.right)
        lost, gained = before.right & ~after.right, after.right & ~before.right
        most = paired_loss_at_most(int(lost.sum()), int(gained.sum()), paired.images)
        same = before.predictions == after.predictions
        rise = after.log_loss - before.log_loss
        return cls(
            **vars(paired),
            at_most=100 * most,
            agreement=float(same.mean()),
            agreement_at_least=share_at_least(int(same.sum()), len(same)),
            log_loss=float(rise.mean()),
            log_loss_at_most=mean_at_most(rise) if len(rise) > 1 else None,
        )

    def __str__(self) -> str:
        return (
            f"{self.before:.2%} -> {self.after:.2%}, loss {self.loss:.2f} percentage points (at "
            f"most {self.at_most:.2f}); {self.agreement:.2%} of the predictions stay (at least "
            f"{self.agreement_at_least:.2%}); log loss {_with_sign(self.log_loss)} "
            f"(at most {self._log_loss_end}); {self.images} images, one image is "
            f"{100 / self.images:.2f} points"
        )

    def row(self) -> list[str]:
        """Return the cells of `LOSS_HEADERS`."""
        return [
            f"{self.images}",
            f"{self.before:.2%}",
            f"{self.after:.2%}",
            f"{_signed(self.loss)} (at most {_signed(self.at_most)})",
            f"{self.agreement:.2%} (at least {self.agreement_at_least:.2%})",
            f"{_with_sign(self.log_loss)} (at most {self._log_loss_end})",
        ]

    @property
    def _log_loss_end(self) -> str:
        end = self.log_loss_at_most
        return "any" if end is None else _with_sign(end)


LOSS_HEADERS = ["Images", "Accuracy before", "Accuracy after", "Loss", "Agreement", "Log loss"]
ENDS = "at most, at least: ends of one-sided 95% intervals"


@dataclass(frozen=True)
class Chosen:
    """How the gates were chosen, and what the choice is worth."""

    split: str
    """The split whose halves ordered and tested the gates."""
    tolerance: float
    """Largest accepted loss of accuracy, in percentage points."""
    choice: Choice
    stability: Stability

    @property
    def title(self) -> str:
        """The name of the images that tested the gates."""
        return f"{self.split}, second half"

    def cells(self, trial: Trial) -> list[str]:
        """Return the cells of `TRIAL_HEADERS` for a gate."""
        return [
            "" if trial.alone is None else _signed(trial.alone),
            "" if trial.joint is None else _signed(trial.joint),
            "" if trial.p is None else f"{trial.p:.4f}",
            f"{self.stability.shares[trial.gate]:.0%}",
        ]

    def explain(self) -> list[str]:
        """Return what the columns are, what was shown, and how stable it is, line by line."""
        choice = self.choice
        lines = [
            f"alone: loss in percentage points on the first half of the {self.split} split "
            f"({choice.ordering} images) if this gate alone is folded",
            f"joint, p: loss on the second half ({choice.testing} images) if the gates above are "
            "folded, too, and p of the null hypothesis that it is at least "
            f"{in_points(self.tolerance)}",
            f"halves: share of the choices on {self.stability.halves + 1} pairs of halves that "
            "contain the gate",
            "shown with 95% confidence: all chosen gates together lose less than "
            f"{in_points(self.tolerance)} of accuracy",
            f"stability: the sets chosen on {self.stability.halves + 1} pairs of halves have a "
            f"mean Jaccard similarity of {self.stability.jaccard:.2f}",
        ]
        tested = [step for step in choice.pruning if step.p is not None]
        if tested:
            steps = ", ".join(
                f"{step.below:.3g}: {_signed(step.joint or 0)} (p {step.p:.4f})" for step in tested
            )
            gates = f"{tested[0].after} gate{'' if tested[0].after == 1 else 's'}"
            lines.append(
                f"zeros: joint loss on the second half if constants of the first {gates} up to a "
                f"size become 0: {steps}; gates below them are tested with these zeros"
            )
        if choice.sufficient is not None:
            stopped = next((step for step in tested if not step.kept), None)
            if stopped is None:
                failed = next(trial for trial in choice.trials if not trial.kept)
                what, can = failed.gate, "it can be folded, too"
            else:
                what, can = f"constants up to {stopped.below:.3g}", "they can be 0, too"
            lines.append(
                f"too few images for {what}: about {choice.sufficient} {self.split} images would "
                f"show that {can}, if the changes stay as they are"
            )
        return lines


TRIAL_HEADERS = ["alone", "joint", "p", "halves"]
NAMED = (
    "the gates were named, so that no test says how much accuracy is lost at most on other images"
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
    chosen: Chosen | None
    """How the gates were chosen; None if they were named."""
    validation: PairedLosses
    """Losses on the second half of the validation split, which tested the gates; on the whole split
    if the gates were named."""
    test: PairedLosses
    """Losses on the test split, which chose nothing: for information."""
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
    pruning: PrunedChannels | None = None
    """What became of channels whose constants are 0; None if they were not to be removed."""

    def __repr__(self) -> str:
        return (
            f"<FoldReport of {self.run!r}: {len(self.folded)} of {self._gate_count} gates folded, "
            f"test accuracy {self.test.before:.1%} before and {self.test.after:.1%} after, loss "
            f"{_signed(self.test.loss)} percentage points (at most {_signed(self.test.at_most)})>"
        )

    def __str__(self) -> str:
        rows = [["gate", *(TRIAL_HEADERS if self.chosen else []), "result"], *self._rows()]
        before, after = self.parameters
        (speed_before, speed_after), ratios = self._speeds()
        return "\n".join(
            [
                *text_table(rows),
                *(self.chosen.explain() if self.chosen else [NAMED]),
                f"{len(self.folded)} of {self._gate_count} gates folded: {self._count_forms()}",
                f"{self._validation} accuracy: {self.validation}",
                f"test accuracy: {self.test}",
                ENDS,
                *(f"{name}: {value}" for name, value in self._pruned),
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
        headers = [*(TRIAL_HEADERS if self.chosen else []), "result"]
        splits = [(self._validation, self.validation), ("test", self.test)]
        before, after = self.parameters
        (speed_before, speed_after), _ = self._speeds()
        return (
            f"<p>Fold of {escape(self.run)}: {len(self.folded)} of {self._gate_count} gates "
            f"folded. Losses are in percentage points of accuracy.</p>"
            + html_table(["Gate", *(header.capitalize() for header in headers)], self._rows())
            + html_lines(self.chosen.explain() if self.chosen else [NAMED])
            + html_table(["Split", *LOSS_HEADERS], [[name, *found.row()] for name, found in splits])
            + html_lines([ENDS, *(f"{name}: {value}" for name, value in self._pruned)])
            + f"<p>{before:,} parameters before, {after:,} after, plus {self.stored_values:,} "
            f"stored values. {speed_before:.1f} images per second before, {speed_after:.1f} after "
            f"({escape(self.device)}).</p>"
        )

    @property
    def trials(self) -> list[Trial]:
        """The gates in the order of the choice; empty if they were named."""
        return self.chosen.choice.trials if self.chosen else []

    @property
    def tolerance(self) -> float | None:
        """Largest accepted loss in percentage points; None if the gates were named."""
        return self.chosen.tolerance if self.chosen else None

    @property
    def _pruned(self) -> list[tuple[str, str]]:
        return [] if self.pruning is None else self.pruning.facts()

    @property
    def _validation(self) -> str:
        return self.chosen.title if self.chosen else "validation"

    @property
    def _gate_count(self) -> int:
        return len(self.folded) + len(self.dynamic)

    def _rows(self) -> list[list[str]]:
        """Return the gates in the order of the choice, or else folded gates first."""
        chosen = self.chosen
        if chosen is None:
            return [[name, self._result_of(name)] for name in (*self.folded, *self.dynamic)]
        return [
            [trial.gate, *chosen.cells(trial), self._result_of(trial.gate)]
            for trial in chosen.choice.trials
        ]

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


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column at the left, the last one as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row[:-1], widths, strict=False))
        )
        + f"  {row[-1]}"
        for row in rows
    ]


def html_lines(lines: Sequence[str]) -> str:
    """Return a paragraph, line by line."""
    return f"<p>{'<br/>'.join(map(escape, lines))}</p>"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _with_sign(value: float) -> str:
    rounded = round(value, 4) + 0.0  # -0.0 would be printed as such
    return f"{rounded:+.4f}".replace("-", "\N{MINUS SIGN}")
