"""Parameter randomization: how much of a gate depends on learned parameters?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attnscope.errors import InputError
from attnscope.gates.hooks import watch_gates
from attnscope.gates.modes import eval_mode
from attnscope.interventions.replay import observe_calls
from attnscope.interventions.setup import InterventionSetup, expect_draws, expect_images
from attnscope.interventions.work import Work, alone
from attnscope.kinds import Gate
from attnscope.networks.norms import estimating
from attnscope.recording.pieces import Piece
from attnscope.recording.recording import Recording
from attnscope.statistics.comparison import expect_same_images
from attnscope.statistics.geometry import gate_similarity
from attnscope.statistics.reading import gate_rows

CALIBRATION_IMAGES = 256  # donors on which BatchNorm statistics are estimated again


def randomize_gates(
    setup: InterventionSetup,
    seeds: Sequence[Recording] = (),
    *,
    draws: int = 3,
    images: int = 500,
    progress: bool = True,
    work: Work | None = None,
) -> pd.DataFrame:
    """Measure how similar each gate stays when parameters are reinitialized.

    This is the model parameter randomization test of Adebayo et al. (2018, Sanity Checks for
    Saliency Maps, NeurIPS) for gates. First the parameters of the module that makes the gate are
    reinitialized, then these and the parameters of all modules that ran before it. Similarity that
    remains was not learned. The reference is the similarity of the gates of two seeds. The network
    itself is not changed.

    Layers are reinitialized by PyTorch's ``reset_parameters``. Parameters of modules without this
    method are permuted. Parameters held directly by a module that is still running when the gate is
    made are not changed. The running statistics of reinitialized BatchNorms are estimated on
    donors, because with the initial statistics the next layer would see features of another scale.

    Args:
        setup: The network and its images.
        seeds: Recordings of the same configuration with other seeds, on the same images.
        draws: Number of reinitializations.
        images: Number of scored images to use.
        progress: Whether to show a progress bar, if there is no ``work``.
        work: Pieces that are finished already, and where new ones are kept.

    Returns:
        A data frame with one row for each gate, randomization and draw. Columns: gate, kind, depth;
        randomized (``own``: the module that makes the gate, ``upstream``: this and all modules
        before it, ``seed``: another seed instead of a reinitialization); draw; similarity (as in
        `attnscope.statistics.compare_gates`; NaN if there are no parameters to reinitialize);
        images (number of images with a defined similarity).

    Raises:
        InputError: A number is below 1 (AS801, AS817), there are fewer than two donors (AS819), or
            a recording of another seed does not fit (as `expect_seeds`).
    """
    expect_draws(draws)
    expect_images(images)
    expect_seeds(setup, seeds)
    rows = setup.sample(images)
    before = {gate.name: setup.gates_of(gate.name, rows) for gate in setup.gates}
    if setup.donors.sum() < 2:
        raise InputError(
            "AS819",
            f"{setup.recording.folder} has {setup.donors.sum()} donors, but BatchNorm statistics "
            "are estimated on at least 2; score fewer images (--images)",
        )
    donors = np.sort(
        setup.rng("calibration").permutation(np.flatnonzero(setup.donors))[:CALIBRATION_IMAGES]
    )
    with setup.eval_without_gradients():
        order = observe_calls(setup.model, next(setup.batches(rows)).x)
    found = []
    with alone(work, progress, "randomize") as todo:
        todo.start(len(setup.gates) * 2 * draws)
        for depth, gate in enumerate(setup.gates, start=1):
            about = {"gate": gate.name, "kind": gate.kind, "depth": depth}
            makers = _modules_of(setup.model, gate)
            upstream = makers | order.modules_before(gate)
            for randomized, paths in (("own", makers), ("upstream", upstream)):
                for draw in range(draws):
                    piece = todo.piece(
                        f"{gate.name}/{randomized}/{draw}",
                        1,
                        partial(_similarity, setup, gate, paths, donors, draw, rows, before),
                    )
                    row = {**about, "randomized": randomized, "draw": draw}
                    if piece["images"] >= 0:
                        row["similarity"] = float(piece["similarity"])
                        row["images"] = int(piece["images"])
                    found.append(row)
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
        todo.end()
    columns = ["gate", "kind", "depth", "randomized", "draw", "similarity", "images"]
    return pd.DataFrame(found, columns=columns)


def _similarity(
    setup: InterventionSetup,
    gate: Gate,
    paths: Iterable[str],
    donors: NDArray[np.int64],
    draw: int,
    rows: NDArray[np.int64],
    before: Mapping[str, NDArray[np.float32]],
) -> Piece:
    """Return the similarity of a gate to itself after some modules are reinitialized.

    Args:
        setup: As for `_reinitialized`.
        gate: As for `_reinitialized`.
        paths: As for `_reinitialized`.
        donors: As for `_reinitialized`.
        draw: As for `_reinitialized`.
        rows: Rows of the recording that are compared.
        before: Name of a gate -> its recorded values in these rows.

    Returns:
        ``similarity``, and ``images``: the number of images with a defined similarity, or -1 if
        there are no parameters to reinitialize.
    """
    model = _reinitialized(setup, gate, paths, donors, draw)
    if model is None:
        return {"similarity": np.asarray(np.nan), "images": np.asarray(-1)}
    after = _gate_values(setup, model, gate, rows)
    similarity, scored = gate_similarity(before[gate.name], after, gate)
    return {"similarity": np.asarray(similarity, np.float64), "images": np.asarray(scored)}


def expect_seeds(setup: InterventionSetup, seeds: Sequence[Recording]) -> None:
    """Raise an `InputError` unless recordings are of other seeds of the same network and images.

    Raises:
        InputError: A recording is of other images, of the same weights (AS820), of another network
            or other training settings (AS821), or without a gate (AS822).
    """
    for other in seeds:
        expect_same_images(setup.recording, other)
        if _is_same(setup.recording.id, other.id) or _is_same(
            *(recording.about.get("weights_sha256") for recording in (setup.recording, other))
        ):
            raise InputError(
                "AS820",
                f"{other.folder} is of the same weights as {setup.recording.folder}; pass "
                "recordings of its other seeds",
            )
        for key in ("model", "training_sha256"):
            first, second = setup.recording.about.get(key), other.about.get(key)
            if None not in (first, second) and first != second:
                raise InputError(
                    "AS821",
                    f"{other.folder} has another network or other training settings than "
                    f"{setup.recording.folder}; pass recordings that differ only in the seed",
                )
        names = {gate.name for gate in other.gates}
        missing = [gate.name for gate in setup.gates if gate.name not in names]
        if missing:
            raise InputError(
                "AS822",
                f"{other.folder} has no gate '{missing[0]}'; pass recordings that differ from "
                f"{setup.recording.folder} only in the seed",
            )


def _is_same(first: object, second: object) -> bool:
    """Return whether both values are known and equal."""
    return first is not None and first == second


def _modules_of(model: nn.Module, gate: Gate) -> set[str]:
    """Return the paths of the module that makes a gate and of all modules within it."""
    own = gate.name.partition("#")[0]
    # A gate made in the network's own forward has no module of its own. All modules make it.
    inside = f"{own}." if own else ""
    return {
        path
        for path, _ in model.named_modules()
        # The name of a gate does not contain a wrapper such as DataParallel.
        if path.removeprefix("module.") == own or path.removeprefix("module.").startswith(inside)
    }


def _reinitialized(
    setup: InterventionSetup,
    gate: Gate,
    paths: Iterable[str],
    donors: NDArray[np.int64],
    draw: int,
) -> nn.Module | None:
    """Return a copy of the network in which some modules are reinitialized.

    Args:
        setup: The network and its images.
        gate: The gate up to which the copy is run to estimate BatchNorm statistics.
        paths: Paths of the modules to reinitialize.
        donors: Rows of the recording on which BatchNorm statistics are estimated.
        draw: Number of the draw, which selects the random stream.

    Returns:
        The copy, or None if the modules have no parameters.
    """
    model = copy.deepcopy(setup.model).cpu()
    modules = dict(model.named_modules())
    norms, changed = [], False
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        # Seed only the CPU's generator, which is the one that is forked. torch.manual_seed would
        # also seed the generators of all GPUs.
        seed = int(setup.rng("parameters").integers(2**31)) + draw
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        for path in sorted(paths):
            module = modules[path]
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                norms.append(module)
            parameters = list(module.parameters(recurse=False))
            changed = changed or bool(parameters)
            reset = getattr(module, "reset_parameters", None)
            if parameters and callable(reset):
                reset()
                continue
            for parameter in parameters:
                order = torch.randperm(parameter.numel())
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    if not changed:
        return None
    model.to(setup.device)
    if norms:
        with (
            eval_mode(model),
            torch.no_grad(),
            _run_up_to(model, gate) as run,
            estimating(norms),
        ):
            for batch in setup.batches(donors, at_least=2):
                if len(batch.x) > 1:  # after pooling, the variance over one image is undefined
                    run(batch.x)
    return model


def _gate_values(
    setup: InterventionSetup, model: nn.Module, gate: Gate, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return a gate of some images in a changed copy of the network, such as ``(n, C)``."""
    with eval_mode(model), torch.no_grad(), _run_up_to(model, gate) as run:
        found = [run(batch.x).float().cpu().numpy() for batch in setup.batches(rows)]
    return np.concatenate(found)


class _GateApplied(Exception):
    """End a forward early: the gate has been applied."""


@contextmanager
def _run_up_to(model: nn.Module, gate: Gate) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield a function that runs the network up to a gate and returns the gate.

    The forward ends with the module in which the gate is applied.
    """
    modules = {path.removeprefix("module."): module for path, module in model.named_modules()}

    def end(*_: object) -> None:
        if gate.name in seen:  # a shared module may run before the gate, too
            raise _GateApplied

    with watch_gates(model, [gate]) as seen:
        handle = modules.get(gate.applied_in, model).register_forward_hook(end)

        def run(x: Tensor) -> Tensor:
            with suppress(_GateApplied):
                model(x)
            return seen[gate.name]

        try:
            yield run
        finally:
            handle.remove()
