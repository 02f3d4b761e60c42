"""Experiments that are interrupted at any piece and continued: the same outcomes, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from attnscope import Recording, capture
from attnscope.files import locked
from attnscope.interventions import (
    InterventionSetup,
    ablate_channels,
    erase,
    randomize_gates,
    run_experiments_in,
    study,
)
from attnscope.interventions.work import Work
from attnscope.recording.outcomes import read_outcomes
from attnscope.recording.pieces import Pieces, partial_folder
from tests.interventions.toy import toy_images
from tests.making import refused


class TwoGates(nn.Module):
    """A channel gate, a spatial gate and a BatchNorm, with weights of a fixed seed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.channel = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid())
        self.spatial = nn.Sequential(nn.Conv2d(6, 1, 1), nn.Sigmoid())
        self.head = nn.Linear(6, 3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.norm(self.stem(x)).relu()
        y = y * self.channel(y.mean((2, 3)))[:, :, None, None]
        y = y * self.spatial(y)
        return self.head(y.mean((2, 3)))


@pytest.fixture
def setup(tmp_path: Path) -> InterventionSetup:
    model, images = TwoGates().eval(), toy_images(60)
    recording = capture(model, images, tmp_path / "r", classes=list("abc"), progress=False)
    assert isinstance(recording, Recording)
    return InterventionSetup(model, images, recording, images=20, batch_size=7, seed=1)


@contextmanager
def stopped_after(pieces: int) -> Iterator[list[str]]:
    """Raise a KeyboardInterrupt when so many pieces are finished; yields their names."""
    names: list[str] = []
    whole = Pieces.keep

    def keep(self: Pieces, name: str, piece: Any) -> None:
        if len(names) == pieces:
            raise KeyboardInterrupt
        whole(self, name, piece)
        names.append(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pieces, "keep", keep)
        yield names


EXPERIMENTS: dict[str, Callable[..., Any]] = {
    "replace": study.replace_and_keep,
    "ablate": lambda setup, work: ablate_channels(
        setup, shares=(0.5,), draws=45, exceedances=10, images=20, work=work
    ),
    "erase": lambda setup, work: erase(setup, steps=3, images=20, work=work),
    "randomize": lambda setup, work: randomize_gates(setup, draws=2, images=20, work=work),
}


def tables(found: Any) -> list[Any]:
    if isinstance(found, pd.DataFrame):
        return [found]
    return list(vars(found).values())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_stopped_at_any_piece_continues_bit_for_bit(
    setup: InterventionSetup, tmp_path: Path, name: str
) -> None:
    run = EXPERIMENTS[name]
    with stopped_after(10**6) as every:
        whole = tables(run(setup, work=Work()))
    assert len(every) == len(set(every))
    assert len(every) > 6
    for number, stop in enumerate((1, len(every) // 2, len(every) - 1)):
        folder = tmp_path / str(number)
        with (
            stopped_after(stop) as first,
            pytest.raises(KeyboardInterrupt),
            Pieces(folder) as pieces,
        ):
            run(setup, work=Work(pieces=pieces))
        with stopped_after(10**6) as second, Pieces(folder) as pieces:
            found = tables(run(setup, work=Work(pieces=pieces)))
        assert sorted(first + second) == sorted(every)  # nothing is repeated
        for one, other in zip(found, whole, strict=True):
            if isinstance(one, pd.DataFrame):
                pd.testing.assert_frame_equal(one, other, check_exact=True)
            else:
                np.testing.assert_array_equal(one, other)


def test_finished_batches_need_no_forward(setup: InterventionSetup, tmp_path: Path) -> None:
    model = setup.model
    assert isinstance(model, TwoGates)
    for name in ("replace", "ablate", "erase"):
        with Pieces(tmp_path / name) as pieces:
            EXPERIMENTS[name](setup, work=Work(pieces=pieces))
        model.calls = 0
        with Pieces(tmp_path / name) as pieces:
            EXPERIMENTS[name](setup, work=Work(pieces=pieces))
        assert model.calls == 0, name


def test_the_folder_of_a_continued_call_equals_that_of_an_uninterrupted_one(
    setup: InterventionSetup, tmp_path: Path
) -> None:
    wanted = {"experiments": ["replace", "erase"], "edits": ["mean", "swap_any"], "progress": False}
    run_experiments_in(tmp_path / "whole", setup, **wanted)
    out = tmp_path / "deep" / "out"
    for stop in (3, 2, 15):
        with stopped_after(stop), pytest.raises(KeyboardInterrupt) as caught:
            run_experiments_in(out, setup, **wanted)
        assert str(partial_folder(out)) in str(caught.value)
    assert partial_folder(out).is_dir()
    assert read_outcomes(out).experiments == ["replace"]
    run_experiments_in(out, setup, **wanted)
    files = {file.name: file.read_bytes() for file in out.iterdir()}
    assert files == {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_call_that_finished_nothing_leaves_nothing(
    setup: InterventionSetup, tmp_path: Path
) -> None:
    with stopped_after(0), pytest.raises(KeyboardInterrupt) as caught:
        run_experiments_in(tmp_path / "new" / "out", setup, experiments=["replace"], progress=False)
    assert not caught.value.args
    assert not (tmp_path / "new").exists()


def test_other_settings_and_a_second_process_are_refused(
    setup: InterventionSetup, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    some = {"experiments": ["replace"], "progress": False}
    with stopped_after(3), pytest.raises(KeyboardInterrupt):
        run_experiments_in(out, setup, edits=["mean"], **some)
    place = partial_folder(out)
    with refused("AS634", names=(place / "replace", "edits")):
        run_experiments_in(out, setup, edits=["neutral"], **some)
    with locked(tmp_path / ".out.lock"), refused("AS827", names=(out,)):
        run_experiments_in(out, setup, edits=["mean"], **some)
    assert run_experiments_in(out, setup, edits=["mean"], **some).about["edits"] == ["mean"]
