"""The reports of folds: losses with their ends, text and HTML; and the measured speed."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnscope.folding.outcomes import Outcome
from attnscope.folding.report import Chosen, FoldReport, PairedAccuracy, PairedLosses
from attnscope.folding.search import Choice, Stability, Trial
from attnscope.folding.speed import images_per_second
from attnscope.statistics.inference import paired_accuracy_change
from attnscope.statistics.noninferiority import (
    mean_at_most,
    paired_loss_at_most,
    share_at_least,
)


def test_speed_is_measured_in_alternating_rounds() -> None:
    calls: list[str] = []

    class Named(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            calls.append(self.name * len(x))
            return x

    found = images_per_second((Named("a"), Named("b")), [torch.zeros(2, 1), torch.zeros(1, 1)], 3)
    assert "".join(calls) == "aabb" + "aaabbb" + "bbbaaa" + "aaabbb"
    assert len(found) == 3
    assert all(first > 0 and second > 0 for first, second in found)


def test_a_loss_is_the_negative_change() -> None:
    before, after = np.array([True] * 8 + [False] * 2), np.array([True] * 5 + [False] * 5)
    found = PairedAccuracy.of(before, after)
    change, low, high = paired_accuracy_change(before, after)
    assert (found.before, found.after, found.images) == (0.8, 0.5, 10)
    assert found.loss == pytest.approx(30)
    assert (found.loss, found.low, found.high) == pytest.approx(
        (-100 * change, -100 * high, -100 * low)
    )
    for value in ("80.00%", "50.00%", "10 images", "10.00", "30.00", f"{found.low:.2f}"):
        assert value in str(found)
    assert "-0.00" not in str(PairedAccuracy.of(before, before)).split("CI")[0]


def losses(after: int = 100) -> PairedLosses:
    """100 images, of which the first 90 are right before and those from ``100 - after`` after."""
    before = Outcome(np.arange(100) % 7, np.arange(100) < 90, np.linspace(0, 1, 100))
    right = (np.arange(100) < 90) & (np.arange(100) >= 100 - after)
    changed = Outcome(np.where(right, before.predictions, -1), right, before.log_loss**0.5)
    return PairedLosses.between(before, changed)


def test_losses_are_those_of_accuracy_agreement_and_log_loss_with_one_sided_ends() -> None:
    found = losses(96)
    assert (found.images, found.before, found.after) == (100, 0.9, 0.86)
    assert found.loss == pytest.approx(4)
    assert found.at_most == pytest.approx(100 * paired_loss_at_most(4, 0, 100))
    assert found.agreement == pytest.approx(0.86)
    assert found.agreement_at_least == pytest.approx(share_at_least(86, 100))
    rise = np.linspace(0, 1, 100) ** 0.5 - np.linspace(0, 1, 100)
    assert found.log_loss == pytest.approx(rise.mean())
    assert found.log_loss_at_most == pytest.approx(mean_at_most(rise))
    for value in ("90.00%", "86.00%", "4.00", f"{found.at_most:.2f}", "100 images"):
        assert value in str(found)
    one = Outcome(np.array([1]), np.array([True]), np.array([0.5]))
    assert PairedLosses.between(one, one).log_loss_at_most is None


def make_report(chosen: Chosen | None, **changes: object) -> FoldReport:
    report = FoldReport(
        run="runs/<b>",
        weights_sha256="0" * 64,
        folded={"layer1.<i>.channel": "norm", "layer1.spatial": "map"},
        dynamic=["layer2.channel"],
        spatial="map",
        chosen=chosen,
        validation=losses(),
        test=losses(98),
        parameters=(12345, 12000),
        stored_values=64,
        logit_difference=2e-6,
        speed=[(100.0, 110.0), (100.0, 120.0)],
        speed_images=80,
        batch_size=16,
        device="cpu",
        threads=1,
    )
    return replace(report, **changes)


TRIALS = [
    Trial("layer1.<i>.channel", -0.5, -0.5, 0.0125, True),
    Trial("layer1.spatial", 0.0, 0.1, 0.02, True),
    Trial("layer2.channel", 7.25, None, None, False),
]
CHOSEN = Chosen(
    "validation",
    1.5,
    Choice(TRIALS, 50, 51, 4321),
    Stability(
        3, 0.625, {trial.gate: share for trial, share in zip(TRIALS, (1, 0.75, 0.25), strict=True)}
    ),
)


def test_the_repr_of_a_report_has_the_counts_and_the_loss_with_its_end() -> None:
    report = make_report(CHOSEN)
    assert (report.trials, report.tolerance) == (TRIALS, 1.5)
    assert (make_report(None).trials, make_report(None).tolerance) == ([], None)
    assert "\n" not in repr(report)
    for value in ("runs/<b>", "2 of 3", "90.0%", "88.0%", "2.00", f"{report.test.at_most:.2f}"):
        assert value in repr(report)


def test_the_text_of_a_report_has_one_row_for_each_gate_and_what_was_shown() -> None:
    text = str(make_report(CHOSEN))
    rows = text.splitlines()[1:4]
    assert [row.split()[:5] for row in rows] == [
        ["layer1.<i>.channel", "−0.50", "−0.50", "0.0125", "100%"],
        ["layer1.spatial", "0.00", "0.10", "0.0200", "75%"],
        ["layer2.channel", "7.25", "25%", "unchanged"],
    ]
    for value in ("1.5", "50 images", "51 images", "0.62", "4321", "4 pairs"):
        assert value in text
    named = str(make_report(None))
    assert [row.split()[0] for row in named.splitlines()[1:4]] == [row.split()[0] for row in rows]
    assert "named" in named
    assert "4321" not in named


def test_the_html_of_a_report_is_escaped_tables_of_gates_and_splits() -> None:
    for chosen, columns in ((CHOSEN, 6), (None, 2)):
        report = make_report(chosen)
        html = report._repr_html_()
        assert "<b>" not in html
        assert "<i>" not in html
        root = ElementTree.fromstring(f"<div>{html}</div>")
        gates, splits = (
            [[cell.text for cell in row] for row in table.iter("tr")]
            for table in root.iter("table")
        )
        assert {len(row) for row in gates} == {columns}
        assert [row[0] for row in gates[1:]] == [
            "layer1.<i>.channel",
            "layer1.spatial",
            "layer2.channel",
        ]
        if chosen:
            assert gates[1][1:5] == ["−0.50", "−0.50", "0.0125", "100%"]
            assert gates[3][1:4] == ["7.25", None, None]
        assert [(row[0] or "").split(",")[0] for row in splits[1:]] == ["validation", "test"]
        assert splits[2][1:4] == ["100", "90.00%", "88.00%"]
        assert splits[2][4] == f"2.00 (at most {report.test.at_most:.2f})"
