"""Parameter randomization, and the similarity of two gates."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from attnscope import Recording, capture, find_gates
from attnscope.gates.hooks import watch_gates
from attnscope.interventions import (
    InterventionSetup,
    randomization,
    randomize_gates,
)
from attnscope.interventions.randomization import (
    _modules_of,
    _reinitialized,
    _run_up_to,
    expect_seeds,
)
from attnscope.interventions.replay import observe_calls
from attnscope.statistics import compare_gates
from attnscope.statistics.geometry import linear_cka
from tests.interventions.toy import toy_images, toy_setup
from tests.making import refused


def test_randomization_reinitializes_the_gate_and_then_all_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two gates in sequence after a convolution, of which the second is constant."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 1, bias=False)
            self.norm = nn.BatchNorm2d(6)
            self.first = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid())
            self.constant = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid())
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.stem(x))
            x = x * self.first(x.mean((2, 3)))[:, :, None, None]
            x = x * self.constant(x.mean((2, 3)))[:, :, None, None]
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    model, images = Net().eval(), toy_images(60)
    with torch.no_grad():
        model.constant[0].weight.zero_()
        model.constant[0].bias.fill_(0.3)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    setup = InterventionSetup(model, images, recording)
    drawn: list[set[str]] = []

    def noted(setup: InterventionSetup, gate: Any, paths: set[str], *rest: Any) -> nn.Module | None:
        drawn.append(paths)
        return _reinitialized(setup, gate, paths, *rest)

    monkeypatch.setattr(randomization, "_reinitialized", noted)
    torch.manual_seed(5)
    seed = Recording(recording.folder)
    seed.id = "another seed"
    found = randomize_gates(setup, [seed], draws=2, progress=False)
    following = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(following, torch.rand(1))  # the global random stream is unchanged
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert ["stem" in paths for paths in drawn[:4]] == [False, False, True, True]
    assert all("first.0" in paths for paths in drawn[:4])
    table = found.set_index(["gate", "randomized", "draw"])["similarity"]
    assert table["first", "seed", 0] == pytest.approx(1)
    assert (table["first"][["own", "upstream"]] < 0.999).all()
    # First only the gate's own layer is reinitialized, then it and all before it, nothing after it.
    gate = recording.gates[0]
    donors = np.flatnonzero(setup.donors)
    for paths, wanted_names in (
        (_modules_of(model, gate), {"first"}),
        (
            _modules_of(model, gate) | observe_calls(model, images.tensors[0]).modules_before(gate),
            {"first", "stem", "norm"},
        ),
    ):
        other = _reinitialized(setup, gate, paths, donors, 0)
        assert other is not None
        changed = {
            name.split(".")[0]
            for name, value in other.state_dict().items()
            if not torch.equal(value, state[name])
        }
        assert changed == wanted_names
    # Its BatchNorm has the statistics of the new features.
    with torch.no_grad():
        features = other.stem(images.tensors[0][donors])
    wanted = features.mean((0, 2, 3))
    torch.testing.assert_close(other.norm.running_mean, wanted, atol=1e-3, rtol=1e-3)
    assert (
        _reinitialized(setup, gate, {"first.1"}, donors, 0) is None
    )  # a sigmoid has no parameters
    assert table["constant"].isna().all()  # the similarity to a constant gate is undefined
    assert len(found) == 2 * (2 * 2 + 1)


def test_seeds_must_be_other_seeds_of_the_same_network(tmp_path: Path) -> None:
    setup = toy_setup("used", tmp_path)
    with refused("AS820", names=(setup.recording.folder,)):
        randomize_gates(setup, [setup.recording], progress=False)
    other = Recording(setup.recording.folder)
    other.id = "another seed"
    setup.recording.about["model"] = {"width": 16}
    expect_seeds(setup, [other])  # an unknown value is not a difference
    other.about["model"] = {"width": 32}
    with refused("AS821", names=(other.folder,)):
        expect_seeds(setup, [other])
    other.about["model"] = {"width": 16}
    # The same weights captured again, in other batches.
    setup.recording.about["weights_sha256"] = other.about["weights_sha256"] = "abc"
    with refused("AS820", names=(other.folder,)):
        expect_seeds(setup, [other])
    other.about["weights_sha256"] = "def"
    other.gates = []
    with refused("AS822", names=(other.folder, "gate")):
        expect_seeds(setup, [other])


def test_batch_norms_of_pooled_features_are_estimated_on_at_least_two_images(
    tmp_path: Path,
) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Sigmoid())

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.gate(x.mean((2, 3)))[:, :, None, None]).mean((2, 3))

    torch.manual_seed(0)
    model, images = Net().eval(), toy_images(60)
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    setup = InterventionSetup(
        model, images, recording, batch_size=29
    )  # thirty donors: the last batch has one image
    assert setup.donors.sum() == 30
    found = randomize_gates(setup, draws=1, progress=False)
    assert found["similarity"].notna().all()
    one = InterventionSetup(model, images, recording, batch_size=1)
    drawn = _reinitialized(one, one.gates[0], {"gate.1"}, np.flatnonzero(one.donors), 0)
    assert drawn is not None
    assert (drawn.get_submodule("gate.1").running_var < 0.5).all()  # the initial value is 1
    one.donors[:] = False
    with refused("AS819", names=(recording.folder, 0)):
        randomize_gates(one, draws=1, progress=False)


def test_a_partial_forward_gives_the_same_gate_and_ends_there() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid())

        def forward(self, x: Tensor, gated: bool = True) -> Tensor:
            return x * self.gate(x.mean((2, 3)))[:, :, None, None] if gated else x + 1

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.calls = Block(), Block(), 0

        def forward(self, x: Tensor) -> Tensor:
            x = self.second(self.first(self.second(x, gated=False)))
            self.calls += 1
            return x.mean((2, 3))

    torch.manual_seed(0)
    model, x = Net().eval(), torch.rand(2, 3, 4, 4)
    gates = find_gates(model, x)
    with watch_gates(model, gates) as seen:
        model(x)
        wanted = dict(seen)
    for gate in gates:
        model.calls = 0
        with _run_up_to(model, gate) as run:
            for _ in range(2):
                assert torch.equal(run(x), wanted[gate.name])
        assert model.calls == 0
    model(x)
    assert model.calls == 1


def test_cka_equals_a_loop_and_is_invariant() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 8)), rng.normal(size=(30, 5))
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    assert linear_cka(x, 3 * x @ rotation + 1) == pytest.approx(1)
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x))
    assert np.isnan(linear_cka(x, np.full((30, 4), 0.1, np.float32)))
    # The unbiased HSIC as a sum over all quadruples of different images (Song et al. 2012, eq. 3).
    small, other = x[:7], y[:7]
    k, m = (v - v.mean(0) for v in (small, other))
    k, m = k @ k.T, m @ m.T

    def loop(k: np.ndarray, m: np.ndarray) -> float:
        total, count = 0.0, 0
        for i, j, q, r in itertools.permutations(range(7), 4):
            total += k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
            count += 1
        return total / count

    wanted = loop(k, m) / np.sqrt(loop(k, k) * loop(m, m))
    assert linear_cka(small, other) == pytest.approx(wanted)
    # The similarity of unrelated gates is about 0 for any number of channels.
    wide = [linear_cka(rng.normal(size=(40, 500)), rng.normal(size=(40, 500))) for _ in range(20)]
    assert abs(np.mean(wide)) < 0.02


def test_similarity_of_maps_is_the_mean_spearman_correlation(
    write_recording: Callable[..., Recording],
) -> None:
    rng = np.random.default_rng(1)
    maps = rng.random((9, 4, 4)), rng.random((9, 4, 4))
    maps[0][3] = 0.5
    labels = np.arange(9) % 3
    a, b = (
        write_recording(name, labels=labels, gates={"s": values})
        for name, values in zip("ab", maps, strict=True)
    )
    row = compare_gates(a, b).iloc[0]
    wanted = [
        stats.spearmanr(first.ravel(), second.ravel()).statistic
        for i, (first, second) in enumerate(zip(*maps, strict=True))
        if i != 3
    ]
    assert row["images"] == 8
    assert row["similarity"] == pytest.approx(np.mean(wanted))


def test_randomization_refuses_wrong_numbers(tmp_path: Path) -> None:
    setup = toy_setup("used", tmp_path)
    with refused("AS817", names=(0,)):
        randomize_gates(setup, draws=0, progress=False)
    with refused("AS801", names=(-1,)):
        randomize_gates(setup, images=-1, progress=False)
