"""Parameters drawn anew: how much of a gate did the training put into them?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from attnscope.errors import InputError
from attnscope.gates.hooks import watch_gates
from attnscope.gates.modes import eval_mode
from attnscope.interventions.replay import plan_of
from attnscope.interventions.setup import InterventionSetup
from attnscope.kinds import Gate
from attnscope.recording.recording import Recording
from attnscope.statistics.comparison import expect_same_images
from attnscope.statistics.geometry import gate_similarity
from attnscope.statistics.reading import gate_rows

_CALIBRATION = 256  # images on which BatchNorm is estimated again


def randomize_gates(
    setup: InterventionSetup,
    seeds: Sequence[Recording] = (),
    *,
    draws: int = 3,
    images: int = 500,
    progress: bool = True,
) -> pd.DataFrame:
    """How alike a gate is to itself after parameters were drawn anew (Adebayo et al. 2018).

    First those of the module that makes the gate, then these and all that had run before it. What
    is not changed by that was not learnt. The yardstick is how alike the gates of two trainings
    are. The network itself is not touched.

    Layers are drawn as PyTorch draws them; parameters of modules that cannot draw their own change
    places among themselves. Parameters that a module holds beside its layers, while it still runs
    when the gate is made, stay as they are. BatchNorms that were drawn anew get their means and
    variances from images that are not scored: with those of a new layer the next one would see
    other scales.

    Args:
        setup: the network and its images.
        seeds: recordings of other trainings of the same network, on the same images.
        draws: how often parameters are drawn.
        images: how many of the scored images are taken.
        progress: whether to show a bar.

    Returns:
        One row a gate, what was drawn and draw: gate, kind, depth, randomized (``own``,
        ``upstream``: own and upstream, or ``seed``: nothing, another training), draw, similarity
        (of `attnscope.statistics.compare_gates`; NaN where there is no parameter to draw), images
        (that could be scored).

    Raises:
        InputError: a number is below 1, a recording is of other images or has not these gates, or
            fewer than two images are not scored.
    """
    if draws < 1 or images < 1:
        raise InputError(f"{draws} draws of {images} images; take 1 or more of each")
    expect_seeds(setup, seeds)
    rows = setup.sample(images)
    before = {gate.name: setup.gates_of(gate.name, rows) for gate in setup.gates}
    if setup.others.sum() < 2:
        raise InputError(
            f"{setup.recording.folder} has {setup.others.sum()} images that are not scored, and "
            "BatchNorms are estimated on two or more; take fewer with --images"
        )
    lenders = np.sort(
        setup.rng("calibration").permutation(np.flatnonzero(setup.others))[:_CALIBRATION]
    )
    with setup.quiet():
        plan = plan_of(setup.model, next(setup.batches(rows)).x)
    found = []
    total = len(setup.gates) * 2 * draws
    with tqdm(total=total, unit="network", disable=not progress, dynamic_ncols=True) as bar:
        for depth, gate in enumerate(setup.gates, start=1):
            about = {"gate": gate.name, "kind": gate.kind, "depth": depth}
            makers = _modules_of(setup.model, gate)
            upstream = makers | plan.ran_before(gate)
            for randomized, paths in (("own", makers), ("upstream", upstream)):
                for draw in range(draws):
                    model = _drawn_anew(setup, gate, paths, lenders, draw)
                    if model is None:  # nothing in them could be drawn
                        found.append({**about, "randomized": randomized, "draw": draw})
                        continue
                    after = _values(setup, model, gate, rows)
                    similarity, scored = gate_similarity(before[gate.name], after, gate)
                    found.append(
                        {
                            **about,
                            "randomized": randomized,
                            "draw": draw,
                            "similarity": similarity,
                            "images": scored,
                        }
                    )
                    bar.update()
            for number, other in enumerate(seeds):
                values = gate_rows(other, gate.name, rows)
                similarity, scored = gate_similarity(before[gate.name], values, gate)
                found.append(
                    {
                        **about,
                        "randomized": "seed",
                        "draw": number,
                        "similarity": similarity,
                        "images": scored,
                    }
                )
    columns = ["gate", "kind", "depth", "randomized", "draw", "similarity", "images"]
    return pd.DataFrame(found, columns=columns)


def expect_seeds(setup: InterventionSetup, seeds: Sequence[Recording]) -> None:
    """Refuses recordings that are no other trainings of the same network on the same images.

    Raises:
        InputError: one of them is not.
    """
    for other in seeds:
        expect_same_images(setup.recording, other)
        if _is_same(setup.recording.id, other.id) or _is_same(
            *(recording.about.get("weights_sha256") for recording in (setup.recording, other))
        ):
            raise InputError(f"{other.folder} is the network itself; give its other seeds alone")
        kinds = [
            [recording.about.get(key) for key in ("model", "training_sha256")]
            for recording in (setup.recording, other)
        ]
        for mine, its in zip(*kinds, strict=True):
            if None not in (mine, its) and mine != its:
                raise InputError(
                    f"{other.folder} is of another network or training than "
                    f"{setup.recording.folder}; seeds differ in nothing but the seed"
                )
        names = {gate.name for gate in other.gates}
        missing = [gate.name for gate in setup.gates if gate.name not in names]
        if missing:
            raise InputError(f"{other.folder} has no gate {missing[0]}; take another seed of it")


def _is_same(mine: object, its: object) -> bool:
    """Whether both are known and the same."""
    return mine is not None and mine == its


def _modules_of(model: nn.Module, gate: Gate) -> set[str]:
    """Paths of the module after which a gate is called, and of all within it."""
    own = gate.name.partition("#")[0]
    # A gate that the network's own forward makes has no module of its own: all of them make it.
    inside = f"{own}." if own else ""
    return {
        path
        for path, _ in model.named_modules()
        # A wrapper such as DataParallel is no part of a gate's name.
        if path.removeprefix("module.") == own or path.removeprefix("module.").startswith(inside)
    }


def _drawn_anew(
    setup: InterventionSetup,
    gate: Gate,
    paths: Iterable[str],
    lenders: NDArray[np.int64],
    draw: int,
) -> nn.Module | None:
    """A copy of the network with the parameters of some modules drawn anew; None if none can be."""
    model = copy.deepcopy(setup.model).cpu()
    modules = dict(model.named_modules())
    norms, drawn = [], False
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        # Of the CPU's generator alone, which is the one that is forked; manual_seed is of all.
        seed = int(setup.rng("parameters").integers(2**31)) + draw
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        for path in sorted(paths):
            module = modules[path]
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                norms.append(module)
            parameters = list(module.parameters(recurse=False))
            drawn = drawn or bool(parameters)
            reset = getattr(module, "reset_parameters", None)
            if parameters and callable(reset):
                reset()
                continue
            for parameter in parameters:
                order = torch.randperm(parameter.numel())
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    if not drawn:
        return None
    model.to(setup.device)
    if norms:
        with eval_mode(model), torch.no_grad(), _up_to(model, gate) as run:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain mean over the batches
                norm.train()
            for batch in setup.batches(lenders, at_least=2):
                if len(batch.x) > 1:  # of one image a BatchNorm after pooling has no variance
                    run(batch.x)
    return model


def _values(
    setup: InterventionSetup, model: nn.Module, gate: Gate, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    with eval_mode(model), torch.no_grad(), _up_to(model, gate) as run:
        found = [run(batch.x).float().cpu().numpy() for batch in setup.batches(rows)]
    return np.concatenate(found)


class _Acted(Exception):
    """Ends a forward: the gate has multiplied, and what follows it is not looked at."""


@contextmanager
def _up_to(model: nn.Module, gate: Gate) -> Iterator[Callable[[Tensor], Tensor]]:
    """A forward as far as the module in which the gate acts, which returns the gate."""
    places = {path.removeprefix("module."): module for path, module in model.named_modules()}

    def end(*_: object) -> None:
        if gate.name in seen:  # a shared module runs before, too
            raise _Acted

    with watch_gates(model, [gate]) as seen:
        handle = places.get(gate.applied_in, model).register_forward_hook(end)

        def run(x: Tensor) -> Tensor:
            with suppress(_Acted):
                model(x)
            return seen[gate.name]

        try:
            yield run
        finally:
            handle.remove()
