"""The search for gates to fold, and the numbers of the report."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attnscope.data.images import LabeledImages
from attnscope.folding.report import FoldReport, PairedAccuracy
from attnscope.folding.search import Trial, choose_gates, right_images
from attnscope.folding.speed import images_per_second
from attnscope.statistics.inference import paired_accuracy_change
from tests.folding.networks import (
    UNIT,
    network,
    toy_images,
)


def test_the_search_is_greedy_and_within_the_tolerance() -> None:
    """Each gate loses some of 1,000 images, and two of them together lose three more."""
    model = network("resnet18", "se", "stage")
    names = [f"layer{i}.attention.channel" for i in (1, 2, 3, 4)]
    means = {n: torch.full((16 * 2**i,), 0.5) for i, n in enumerate(names)}
    losses = dict(zip(names, (3, 0, -1, 50), strict=True))
    networks: list[set[str]] = []

    def right(candidate: nn.Module) -> NDArray[np.bool_]:
        folded = set(candidate.attnscope_config.folded)
        networks.append(folded)
        lost = sum(losses[name] for name in folded) + 3 * ({names[1], names[2]} <= folded)
        return np.arange(1000) < 900 - lost

    trials = choose_gates(model, means, right, 0.2, progress=False)
    assert [trial.gate for trial in trials] == [names[2], names[1], names[0], names[3]]
    assert [trial.alone for trial in trials] == pytest.approx([-0.1, 0, 0.3, 5])
    assert [trial.joint for trial in trials] == pytest.approx([-0.1, 0.2, 0.5, 5.2])
    assert [trial.kept for trial in trials] == [True, True, False, False]
    assert len(networks) == 8
    assert networks[0] == set()
    trials = choose_gates(model, means, right, 0.19, progress=False)
    assert [trial.kept for trial in trials] == [True, False, False, False]
    assert [trial.joint for trial in trials] == pytest.approx([-0.1, 0.2, 0.2, 4.9])


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


def test_right_images_equal_the_correct_predictions() -> None:
    model, images = network("resnet18", "se", "stage"), toy_images(11)
    with torch.no_grad():
        wanted = model(images.images / 255).argmax(1)
    images = LabeledImages(images.images, wanted.clone(), images.paths, images.classes)
    images.labels[3] = (images.labels[3] + 1) % 10
    found = right_images(model, images, UNIT, batch_size=4)
    assert found.tolist() == [i != 3 for i in range(11)]


def make_report(trials: list[Trial], **changes: object) -> FoldReport:
    before, after = np.arange(100) < 90, np.arange(100) < 88
    report = FoldReport(
        run="runs/<b>",
        weights_sha256="0" * 64,
        folded={"layer1.<i>.channel": "norm", "layer1.spatial": "map"},
        dynamic=["layer2.channel"],
        spatial="map",
        tolerance=0.2 if trials else None,
        trials=trials,
        validation=PairedAccuracy.of(before, before),
        test=PairedAccuracy.of(before, after),
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
    Trial("layer1.<i>.channel", -0.5, -0.5, True),
    Trial("layer1.spatial", 0.0, 0.1, True),
    Trial("layer2.channel", 7.25, 7.75, False),
]


def test_the_repr_of_a_report_has_the_counts_and_the_loss_with_its_interval() -> None:
    report = make_report(TRIALS)
    assert "\n" not in repr(report)
    low, high = (f"{end:.2f}".replace("-", "−") for end in (report.test.low, report.test.high))
    for value in ("runs/<b>", "2 of 3", "90.0%", "88.0%", "2.00", f"95% CI {low} to {high}"):
        assert value in repr(report)


def test_the_text_of_a_report_has_one_row_for_each_gate() -> None:
    rows = str(make_report(TRIALS)).splitlines()[1:4]
    assert [row.split()[:3] for row in rows] == [
        ["layer1.<i>.channel", "-0.50", "-0.50"],
        ["layer1.spatial", "0.00", "0.10"],
        ["layer2.channel", "7.25", "7.75"],
    ]
    named = str(make_report([])).splitlines()[1:4]
    assert [row.split()[0] for row in named] == [row.split()[0] for row in rows]


def test_the_html_of_a_report_is_escaped_tables_of_gates_and_splits() -> None:
    for trials, columns in ((TRIALS, 4), ([], 2)):
        report = make_report(trials)
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
        if trials:
            assert gates[1][1:3] == ["−0.50", "−0.50"]
            assert gates[3][1:3] == ["7.25", "7.75"]
        assert [row[0] for row in splits[1:]] == ["validation", "test"]
        assert splits[2][1:4] == ["100", "90.00%", "88.00%"]
        low, high = (f"{end:.2f}".replace("-", "−") for end in (report.test.low, report.test.high))
        assert splits[2][4] == f"2.00 (95% CI {low} to {high})"
