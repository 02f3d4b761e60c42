"""Try whether a fold keeps its promise: python analysis/fold_honesty.py; see --help.

Toy networks have gates that are known to do nothing, to matter, or both. The logits of a network
are computed once on a large population of images. Each repetition draws validation images from it,
with replacement, and chooses gates as `attnscope.fold` does. The true loss of the chosen set is its
loss on the population.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from attnscope import edit_gates, find_gates, watch_gates
from attnscope.files import write_json
from attnscope.folding.outcomes import NO_GATES, Names, Outcome, constant_edit, outcome_of
from attnscope.folding.search import choose_gates, first_half, repeat_choice

CLASSES = 10
BASE = 16  # channels without a gate
WIDTH = 4  # channels of a gate, and values from which it is computed
BATCH = 10_000


@dataclass(frozen=True)
class Scenario:
    """A kind of network: for each gate, how much it knows of the class."""

    about: str
    knows: tuple[float, ...]
    """For each gate, the class signal in what it is computed from; 0: it varies for no reason."""
    copies: bool = False
    """Whether each gate of the second half is a copy of one in the first half."""

    @property
    def useless(self) -> list[int]:
        """The gates that do nothing."""
        return [place for place, knows in enumerate(self.knows) if not knows]


SCENARIOS: Mapping[str, Scenario] = {
    "nothing": Scenario("16 gates that do nothing", (0.0,) * 16),
    "matter": Scenario("8 gates that matter", (0.8,) * 8),
    "mixture": Scenario("8 gates that do nothing, 8 that matter", (0.0, 0.8) * 8),
    "range": Scenario(
        "16 gates, 4 of which do nothing and 12 matter little", (0.0, 0.04, 0.08, 0.12) * 4
    ),
    "edge": Scenario("16 gates that all matter a little", (0.06,) * 16),
    "backup": Scenario("8 gates in 4 pairs that know the same", (0.2,) * 8, True),
}


class Blocks(nn.Module):
    """Gates over groups of channels: the features of a gate are multiplied by a sigmoid of others.

    Args:
        scenario: How much each gate knows.
        seed: The random seed.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        super().__init__()
        self.scenario = scenario
        rng = torch.Generator().manual_seed(seed)
        count = len(scenario.knows)
        self.prototypes = torch.randn(CLASSES, BASE, generator=rng)
        self.signals = torch.randn(count, CLASSES, WIDTH, generator=rng)
        if scenario.copies:
            self.signals[count // 2 :] = self.signals[: count // 2]
        self.gates = nn.ModuleList(nn.Sigmoid() for _ in range(count))
        self.head = nn.Linear(BASE + count * WIDTH, CLASSES)

    def draw(self, images: int, seed: int) -> tuple[Tensor, Tensor]:
        """Draw images ``(N, C)``, whose values are alike at all positions, and their classes."""
        rng = torch.Generator().manual_seed(seed)

        def noise(*shape: int) -> Tensor:
            return torch.randn(images, *shape, generator=rng)

        labels = torch.randint(0, CLASSES, (images,), generator=rng)
        count = len(self.scenario.knows)
        base = self.prototypes[labels] + 2.4 * noise(BASE)
        features = 1 + 0.3 * noise(count, WIDTH)
        signal = self.signals[:, labels].permute(1, 0, 2)
        if self.scenario.copies:
            unsure = noise(count // 2, WIDTH).repeat(1, 2, 1)
        else:
            unsure = noise(count, WIDTH)
        source = torch.tensor(self.scenario.knows)[:, None] * signal + unsure
        return torch.cat([base, features.flatten(1), source.flatten(1)], 1), labels

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(N, K)`` of images ``(N, C, H, W)``."""
        logits: Tensor = self.head(self.pooled(x))
        return logits

    def pooled(self, x: Tensor) -> Tensor:
        """Return what the head gets: ungated and gated channels, ``(N, D)``."""
        groups = torch.split(x[:, BASE:], WIDTH, 1)
        count = len(self.gates)
        found = [x[:, :BASE].mean((2, 3))]
        for gate, features, source in zip(self.gates, groups[:count], groups[count:], strict=True):
            values = gate(source.mean((2, 3)))[:, :, None, None]
            found.append((features * values).mean((2, 3)))
        return torch.cat(found, 1)

    def fit(self, images: int, seed: int) -> None:
        """Fit the head by logistic regression on images of its own."""
        x, labels = self.draw(images, seed)
        with torch.no_grad():
            pooled = self.pooled(as_images(x))
        nn.init.zeros_(self.head.weight)
        optimizer = torch.optim.LBFGS(self.head.parameters(), max_iter=100)

        def loss() -> Tensor:
            optimizer.zero_grad()
            found = nn.functional.cross_entropy(self.head(pooled), labels)
            found.backward()  # type: ignore[no-untyped-call]
            return found

        optimizer.step(loss)  # type: ignore[no-untyped-call]


def as_images(x: Tensor) -> Tensor:
    """Return values ``(N, C)`` as images ``(N, C, 2, 2)``."""
    return x[:, :, None, None].expand(-1, -1, 2, 2)


@dataclass
class Population:
    """A network, and its outcomes on many images for any gates that are constant.

    The head is linear, so each gate that becomes constant adds a term of its own to the logits. The
    terms are computed once, by edits of the network, and checked where all gates are constant.
    """

    names: list[str]
    labels: NDArray[np.int64]
    logits: Tensor
    """``(N, K)``, of the network."""
    terms: Mapping[str, Tensor]
    """Name of a gate -> what is added if it is constant, ``(N, K)``."""
    losses: dict[Names, float] = field(default_factory=dict)
    """Losses that were computed."""

    @classmethod
    def make(cls, scenario: Scenario, seed: int, images: int, training: int) -> Population:
        """Make a network, fitted to training images, and a population of images.

        Constants are means over 10,000 other images.
        """
        torch.manual_seed(seed)
        model = Blocks(scenario, seed)
        model.fit(training, 1_000 + seed)
        model.eval()
        x, labels = model.draw(images, 2_000 + seed)
        sample, _ = model.draw(10_000, 3_000 + seed)
        gates = find_gates(model, as_images(sample[:4]))
        with torch.no_grad(), watch_gates(model, gates) as seen:
            model(as_images(sample))
            constants = {name: values.mean(0) for name, values in seen.items()}
        edits = {gate.name: constant_edit(gate, constants[gate.name]) for gate in gates}

        def logits_with(names: Sequence[str], count: int = images) -> Tensor:
            with torch.no_grad(), edit_gates(model, {name: edits[name] for name in names}, gates):
                parts = [model(as_images(part)) for part in x[:count].split(BATCH)]  # type: ignore[no-untyped-call]
            return torch.cat(parts)

        own = logits_with([])
        made = cls(
            list(edits),
            labels.numpy(),
            own,
            {name: logits_with([name]) - own for name in edits},
        )
        expected = logits_with(made.names, BATCH)
        found = made.logits_of(frozenset(edits), slice(0, BATCH))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        return made

    def logits_of(self, names: Names, rows: Any) -> Tensor:
        """Return the logits of some images with some gates constant."""
        logits = self.logits[rows].clone()
        for name in sorted(names):
            logits += self.terms[name][rows]
        return logits

    def loss(self, names: Names) -> float:
        """Return the loss of accuracy on the population, in percentage points."""
        if names not in self.losses:
            labels = torch.from_numpy(self.labels)
            right = [
                (self.logits_of(each, slice(None)).argmax(1) == labels).double().mean().item()
                for each in (NO_GATES, names)
            ]
            self.losses[names] = 100 * (right[0] - right[1])
        return self.losses[names]


class Drawn:
    """The outcomes of some images of a population: what a fold sees."""

    def __init__(self, population: Population, rows: NDArray[np.int64]) -> None:
        self._population, self._rows = population, rows
        self._known: dict[Names, Outcome] = {}
        self.labels = population.labels[rows]

    @property
    def computed(self) -> int:
        """For how many sets of gates a fold would have run the network."""
        return len(self._known)

    def of(self, sets: Sequence[Names]) -> list[Outcome]:
        """Return the outcomes of these images."""
        for each in sets:
            if each not in self._known:
                logits = self._population.logits_of(each, self._rows)
                self._known[each] = outcome_of(logits, torch.from_numpy(self.labels))
        return [self._known[each] for each in sets]


@dataclass(frozen=True)
class Repetition:
    """One fold."""

    loss: float
    """True loss of the chosen set in percentage points; 0 without a gate."""
    gates: int
    """Number of gates that were chosen."""
    useless: float | None
    """Share of the gates that do nothing that were chosen; None if there are none."""
    jaccard: float | None
    """Stability over other halves; None if it was not computed."""


def repeat(
    population: Population,
    scenario: Scenario,
    *,
    images: int,
    tolerance: float,
    times: int,
    seed: int,
    stability: int = 0,
) -> list[Repetition]:
    """Fold a network many times, each time with other validation images.

    Args:
        population: The network.
        scenario: Its kind.
        images: Number of validation images.
        tolerance: Largest accepted loss, in percentage points.
        times: Number of repetitions.
        seed: The random seed.
        stability: In how many repetitions the stability is computed.
    """
    rng = np.random.default_rng(seed)
    useless = {population.names[place] for place in scenario.useless}
    found = []
    for number in range(times):
        rows = rng.integers(0, len(population.labels), images)
        drawn = Drawn(population, rows)
        choice = choose_gates(drawn, population.names, tolerance, first_half(drawn.labels, 0))
        kept = frozenset(choice.kept)
        jaccard = None
        if number < stability:
            jaccard = repeat_choice(drawn, population.names, tolerance, choice, 0).jaccard
        share = len(kept & useless) / len(useless) if useless else None
        loss = population.loss(kept) if kept else 0.0
        found.append(Repetition(loss, len(kept), share, jaccard))
    return found


def row_of(name: str, found: Sequence[Repetition], tolerance: float) -> str:
    """Return a row of the table."""
    within = sum(each.loss <= tolerance for each in found)
    interval = stats.binomtest(within, len(found)).proportion_ci(0.95)
    useless = [each.useless for each in found if each.useless is not None]
    stable = [each.jaccard for each in found if each.jaccard is not None]
    return (
        f"| {SCENARIOS[name].about} | {len(found):,} | {100 * within / len(found):.1f}% "
        f"({100 * interval.low:.1f} to {100 * interval.high:.1f}) | "
        f"{max(each.loss for each in found):.2f} | "
        f"{np.mean([each.gates for each in found]):.1f} of {len(SCENARIOS[name].knows)} | "
        f"{mean_share(useless) if useless else '-'} | "
        f"{f'{np.mean(stable):.2f}' if stable else '-'} |"
    )


def mean_share(shares: Sequence[float]) -> str:
    """Return the mean of shares in percent, with Student's 95% interval over the repetitions."""
    mean = 100 * np.mean(shares)
    half = 0.0
    if len(shares) > 1:
        half = 100 * stats.sem(shares) * stats.t.ppf(0.975, len(shares) - 1)
    return f"{mean:.1f}% ({mean - half:.1f} to {min(mean + half, 100):.1f})"


def main(
    times: int = 100,
    networks: int = 2,
    images: int = 5000,
    population: int = 50_000,
    training: int = 20_000,
    tolerance: float = 1.0,
    stability: int = 10,
    scenarios: tuple[str, ...] = tuple(SCENARIOS),
    out: Path = Path("fold-honesty.json"),
) -> None:
    """Print how often the loss of folded networks stays within the tolerance.

    Args:
        times: repetitions for each network.
        networks: networks of each kind.
        images: validation images of a repetition.
        population: images from which they are drawn.
        training: images to which a network is fitted.
        tolerance: largest accepted loss, in percentage points.
        stability: repetitions for each network in which the stability is computed.
        scenarios: kinds of networks.
        out: JSON file for all repetitions. Kinds that it holds already are not run again.
    """
    kept: dict[str, list[dict[str, Any]]] = {}
    if out.is_file():
        kept = json.loads(out.read_text())
    for name in scenarios:
        if name in kept:
            continue
        found: list[Repetition] = []
        for seed in range(networks):
            made = Population.make(SCENARIOS[name], seed, population, training)
            options = {"images": images, "times": times, "stability": stability}
            found += repeat(made, SCENARIOS[name], tolerance=tolerance, seed=seed, **options)
        kept[name] = [asdict(each) for each in found]
        write_json(out, kept)
    print(
        "| network | repetitions | loss within the tolerance | largest loss | gates folded | "
        "useless gates folded | Jaccard |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for name in scenarios:
        print(row_of(name, [Repetition(**each) for each in kept[name]], tolerance))


if __name__ == "__main__":
    tyro.cli(main)
