"""What interventions cost, beforehand: against counted forwards, and a clock that is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnscope import Recording, capture
from attnscope.interventions import (
    InterventionSetup,
    ablate_channels,
    erase,
    plan,
    plan_experiments,
    replace_gates,
)
from attnscope.interventions.plan import Cost, Plan, Timing, images_within, time_network
from attnscope.interventions.replay import PrefixCache
from tests.interventions.toy import Toy, toy_images


class Clock:
    """A clock that only networks move."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Timed(nn.Module):
    """A gate after a part that takes 0.2 seconds for each image; what follows takes 0.1 seconds."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.stem, self.head = Takes(clock, 0.2), Takes(clock, 0.1)
        self.gate = Toy("used").gate

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return 5 * self.head(x * self.gate(x.mean((2, 3)))[:, :, None, None]).mean((2, 3))


class Takes(nn.Module):
    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += self.seconds * len(x)
        return x


def make_setup(model: nn.Module, folder: Path, count: int = 90) -> InterventionSetup:
    images = toy_images(count)
    recording = capture(
        model.eval(), images, folder, classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    return InterventionSetup(model, images, recording, images=30, batch_size=8)


@contextmanager
def counted() -> Iterator[list[int]]:
    """Count the images of complete forwards and of reruns."""
    seen: list[int] = []
    forward, rerun = PrefixCache.forward, PrefixCache._run

    def counted_forward(self: PrefixCache, x: Tensor) -> Tensor:
        seen.append(len(x))
        return forward(self, x)

    def counted_rerun(self: PrefixCache, *args: object) -> Tensor:
        seen.append(len(self._x))
        return rerun(self, *args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrefixCache, "forward", counted_forward)
        patch.setattr(PrefixCache, "_run", counted_rerun)
        yield seen


TIMING = Timing(1.0, 1.0, {"gate": 0.75})


def test_the_planned_forwards_are_those_that_are_run(tmp_path: Path) -> None:
    setup = make_setup(Toy("used"), tmp_path / "r")
    edits = ("neutral", "mean", "swap_other")
    replace, ablate = plan_experiments(
        setup, ["replace", "ablate"], edits=edits, timing=TIMING
    ).costs
    with counted() as seen:
        replace_gates(setup, edits=edits, progress=False)
    assert replace.forwards == sum(seen) == 30 * 4 + 8
    assert replace.whole == 30 * (1 + 3 / 4) + 8 / 4
    assert replace.seconds == replace.whole
    with counted() as seen:
        ablate_channels(setup, images=50, exceedances=None, progress=False)
    assert ablate.images == 30
    assert ablate.forwards == sum(seen)
    assert ablate.at_most
    ignored = make_setup(Toy("ignored"), tmp_path / "ignored")
    with counted() as seen:
        found = ablate_channels(ignored, images=50, progress=False)
    assert set(found["draws"]) == {20}  # no order has an effect, and draws stop early
    assert ablate.forwards > 3 * sum(seen)


def test_the_planned_forwards_of_erasing_are_those_that_are_run(tmp_path: Path) -> None:
    class Counted(Toy):
        images = 0

        def forward(self, x: Tensor) -> Tensor:
            self.images += len(x)
            return super().forward(x)

    model = Counted("used")
    setup = make_setup(model, tmp_path / "r")
    (cost,) = plan_experiments(setup, ["erase"], timing=TIMING).costs
    model.images = 0
    erase(setup, images=100, progress=False)
    assert cost.forwards == model.images


def test_a_network_is_timed_module_by_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(plan, "time", clock)
    setup = make_setup(Timed(clock), tmp_path / "r")
    timing = time_network(setup)
    assert timing.whole == pytest.approx(0.3)
    assert timing.edited == pytest.approx(0.3)
    assert timing.before == {"gate": pytest.approx(2 / 3)}
    assert timing.after(["gate"]) == pytest.approx(1 / 3)
    assert not setup.model.stem._forward_hooks  # type: ignore[union-attr]
    (cost,) = plan_experiments(setup, ["replace"], edits=["mean", "swap_any"]).costs
    began = clock.now
    replace_gates(setup, edits=["mean", "swap_any"], progress=False)
    # The run observes the order of the calls once; the plan leaves that out.
    assert clock.now - began == pytest.approx(cost.seconds + 8 * 0.3)


def test_time_is_linear_between_the_shortest_and_the_complete_forward() -> None:
    timing = Timing(1.0, 2.0, {"first": 0.0, "middle": 0.5, "last": 0.8}, shortest=1.2)
    assert timing.seconds_after(["first"]) == 2
    assert timing.seconds_after(["last"]) == pytest.approx(1.2)
    # The middle gate leaves half: (0.5 - 0.2) / (1 - 0.2) of the way.
    assert timing.seconds_after(["middle"]) == pytest.approx(1.2 + 0.8 * 3 / 8)
    assert timing.seconds_after(["last", "first"]) == 2
    assert Timing(1.0, 2.0, {"only": 0.0}, shortest=1.2).seconds_after(["only"]) == 2


def test_images_are_as_many_as_the_time_holds(tmp_path: Path) -> None:
    setup = make_setup(Toy("used"), tmp_path / "r")
    # Each image takes 1 + 4 / 4 seconds, and the verification 8 / 4 seconds.
    edits = ("mean", "swap_any", "swap_same", "swap_other")
    assert images_within(setup, TIMING, edits, 62) == 30
    assert images_within(setup, TIMING, edits, 61) == 29
    assert images_within(setup, TIMING, edits, 22.1) == 10
    assert images_within(setup, TIMING, edits, 0.1) == 1


def test_a_plan_is_printed_with_one_line_for_each_experiment(tmp_path: Path) -> None:
    setup = make_setup(Toy("used"), tmp_path / "r")
    found = plan_experiments(
        setup, ["decode", "replace", "ablate", "erase", "randomize"], timing=TIMING, notes=["why"]
    )
    lines = str(found).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "decode", "replace", "ablate", "erase", "randomize", "together", "why",
    ]  # fmt: skip
    assert f"{found.costs[1].forwards:,}" in lines[1]
    assert "at most" in lines[2]
    assert found.seconds == sum(cost.seconds for cost in found.costs)
    assert "<table" in found._repr_html_()
    assert str(Plan((), 5, "cpu")) == "every experiment is finished"
    many = Cost("replace", 1000, 18_250, 9310.4, 630)
    assert "18,250" in str(many)
    assert "9,310" in str(many)
    assert "10.5 minutes" in str(many)


def test_randomization_counts_the_donors_of_batch_norms(tmp_path: Path) -> None:
    class WithNorm(Toy):
        def __init__(self) -> None:
            super().__init__("used")
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.norm(x))

    torch.manual_seed(0)
    counts = {
        name: plan_experiments(setup, ["randomize"], timing=TIMING).costs[0].forwards
        for name, setup in (
            ("plain", make_setup(Toy("used"), tmp_path / "a")),
            ("norm", make_setup(WithNorm(), tmp_path / "b")),
        )
    }
    assert counts == {"plain": 2 * 3 * 30, "norm": 2 * 3 * (30 + 60)}
