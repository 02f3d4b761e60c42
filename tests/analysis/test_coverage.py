"""The table of coverage: five networks are checked, and faults are seen."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from analysis.coverage import check as checking
from analysis.coverage.__main__ import PAGE, RESULTS
from analysis.coverage.networks import TINY, Network, images
from analysis.coverage.oracle import Oracle, multipliers
from analysis.coverage.page import render
from analysis.coverage.running import limited, read
from attnscope.gates import Inspection, find_gates, watch_gates

ROOT = Path(__file__).parents[2]
GATES = {
    "timm/seresnet18": {"channel": 8},
    "timm/mobilenetv3_small_050": {"channel": 9},
    "torchvision/resnet18": {},
    "attnscope/resnet18-cbam": {"channel": 8, "spatial": 8},
    "attnscope/cnn-eca": {"channel": 3},
}


class Gated(nn.Module):
    """A channel gate, an unbounded multiplier and a normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.fc = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x * torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))
        x = x * self.fc(x.amax((2, 3), keepdim=True))
        return nn.functional.normalize(x, dim=1)


def network(build: Any = Gated, sizes: tuple[int, ...] = (8,)) -> Network:
    return Network("attnscope/gated", build, images, sizes)


def run(*arguments: str | Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "analysis.coverage", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_five_networks_are_right_and_a_second_run_continues(tmp_path: Path) -> None:
    options = ("--tiny", "--out", tmp_path / "out.jsonl", "--page", tmp_path / "page.md")
    first = run(*options)
    assert {line["network"]: line["gates"] for line in first} == GATES
    assert set(GATES) == set(TINY)
    assert [line["wrong"] for line in first] == [[]] * 5
    assert not run(*options)
    assert set(read(tmp_path / "out.jsonl")) == set(GATES)
    assert (tmp_path / "page.md").read_text(encoding="utf-8").count("| right |\n") == 5


def test_the_page_is_made_of_the_stored_results() -> None:
    lines = list(read(RESULTS).values())
    assert render(lines) == PAGE.read_text(encoding="utf-8")
    assert not [line["network"] for line in lines if line.get("wrong")]


def test_a_right_network_has_nothing_wrong() -> None:
    line = checking.check(network())
    assert line["gates"] == {"channel": 1}
    assert line["listed"] == {"unbounded": 1}
    assert line["wrong"] == []


def test_wrong_values_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def altered(model: nn.Module, gates: Any = None) -> Iterator[dict[str, Tensor]]:
        class Altered(dict[str, Tensor]):
            def __getitem__(self, name: str) -> Tensor:
                return values[name] * (1 + 1e-6)

            def keys(self) -> Any:
                return values.keys()

        with watch_gates(model, gates) as values:
            yield Altered()

    monkeypatch.setattr(checking, "watch_gates", altered)
    model = Gated().eval()
    x = images(8)
    gates = find_gates(model, x)
    assert checking.wrong_values(checking.observe(model, x, gates), gates)


def test_lost_edits_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def lost(model: nn.Module, edits: Any, gates: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(checking, "edit_gates", lost)
    assert [text.split()[0] for text in checking.check(network())["wrong"]] == ["edits"]


def test_rows_that_do_not_follow_the_images_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_swap", lambda inputs: inputs)
    assert checking.check(network())["wrong"] == ["1 rows (sigmoid ...)"]


def test_silent_products_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "inspect_gates", lambda model, x: Inspection([], []))
    assert checking.check(network())["wrong"] == ["2 products silent"]


def test_a_network_that_does_not_run_gives_its_reason() -> None:
    def fail() -> nn.Module:
        raise ValueError("no such weights")

    assert checking.check(network(fail))["skipped"] == "cannot be built: no such weights"
    line = checking.check(network(lambda: nn.Sequential(nn.Linear(3, 3))))
    assert line["skipped"].startswith("does not run")
    assert "skipped" in checking.check(network(), millions=1e-9)


class Endless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while True:
            x = x + 1


class Large(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.ones(1 << 32).sum()


@pytest.mark.parametrize("build", [Endless, Large])
def test_each_network_has_a_limit_of_time_and_memory(build: Any) -> None:
    seconds = 2 if build is Endless else 60
    line = limited(network(build), checking.check, seconds, 1.0, 150.0)
    assert "skipped" in line
    assert "wrong" not in line


class Created(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.new_full((1, 1, 8, 8), 2.0) / x.norm(dim=1, keepdim=True)


def test_the_oracle_knows_tensors_of_shapes_alone_and_normalizations() -> None:
    x = images(8)
    oracle = Oracle([x])
    with torch.no_grad(), oracle.on(model := Created()):
        model(x)
    (product,) = oracle.products.values()
    assert product.gate == (2, 1, 8, 8)
    assert product.normalizes


def test_the_oracle_changes_operands_below_python() -> None:
    model = Gated().eval()
    x = images(8)
    numbers: Sequence[int] = []
    seen: list[tuple[int, ...]] = []

    def meet(number: int, name: str, operands: Sequence[Any]) -> None:
        seen.append(tuple(operands[1].shape))

    with torch.no_grad():
        plain = model(x)
        with Oracle([x], meet).on(model):
            assert torch.equal(model(x), plain)
        numbers = [i for i, shape in enumerate(seen) if shape == (2, 4, 1, 1)]
        with Oracle([x], multipliers({(numbers[0], 1): 0.0}, set())).on(model):
            changed = model(x)
    assert len(numbers) == 2
    assert not changed.any()
