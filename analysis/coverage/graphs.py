"""Make the table of exported networks: the gates in the graph, and the network with folded gates.

    python -m analysis.coverage.graphs --only 'timm/se*'

Run it from the root of the repository, as `analysis.coverage`. A stopped run continues where it
was.
"""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from analysis.coverage import networks
from analysis.coverage.check import arguments, first_line, first_size, tensors, vary
from analysis.coverage.graphs_page import render
from analysis.coverage.networks import Network
from analysis.coverage.running import Line, Sources, networks_of, run_all
from attnscope.errors import InputError
from attnscope.gates import (
    GraphNetwork,
    as_factor,
    edit_gates,
    export_gates,
    find_gates,
    watch_gates,
)
from attnscope.gates.inputs import Inputs
from attnscope.kinds import Gate
from attnscope.networks.graph_fold import fold_graph

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "coverage" / "graphs.jsonl"
PAGE = ROOT / "docs" / "reference" / "graphs.md"
EXACT = 1e-5
"""Largest difference of a folded network, as a share of the largest output, in single precision."""


def cases() -> Iterator[Network]:
    """Yield the tiny networks of the tests, whose gates are known."""
    known: dict[str, Any] = importlib.import_module("tests.gates.case_networks").CASES

    def build(name: str) -> nn.Module:
        model = known[name]().eval()
        if model.lazy:
            model(*arguments(model.sample()))
        model.noted.clear()
        made: nn.Module = model
        return made

    def inputs(name: str) -> Any:
        with torch.random.fork_rng(devices=[]):
            return known[name]().sample()

    for name in known:
        yield Network(
            f"cases/{name}",
            lambda name=name: build(name),  # type: ignore[misc]
            lambda size, name=name: inputs(name),  # type: ignore[misc]
            (8,),
        )


def classifiers() -> Iterator[Network]:
    """Yield the classification networks of torchvision."""
    from torchvision import models

    names = {f"torchvision/{name}" for name in models.list_models(models)}
    yield from (each for each in networks.torchvision_networks() if each.name in names)


SOURCES: Sources = {
    "cases": cases,
    "attnscope": networks.own,
    "timm": networks.timm_families,
    "torchvision": classifiers,
}
"""Group -> its networks. A group whose package is not installed is skipped."""


def main(
    out: Path = RESULTS,
    page: Path = PAGE,
    only: str = "*",
    tiny: bool = False,
    again: bool = False,
    seconds: int = 240,
    gigabytes: float = 8.0,
    millions: float = 150.0,
) -> None:
    """Export and fold the networks that have no line yet, and write the page.

    Args:
        out: the file of the results, with one line of JSON per network.
        page: the page that is written from all lines of this file.
        only: a pattern of names, such as ``timm/*`` or ``*/seresnet*``.
        tiny: whether only five small networks run.
        again: whether networks run that have a line already.
        seconds: the limit of processor time of one network. Three times as much may pass.
        gigabytes: the limit of memory of one network.
        millions: the limit of parameters of one network, in millions.
    """
    found: Iterator[Network]
    if tiny:
        found = (each for each in networks.tiny() if fnmatch(each.name, only))
    else:
        found = networks_of(SOURCES, only)
    lines = run_all(
        check,
        found,
        out,
        list(SOURCES),
        again=again,
        seconds=seconds,
        gigabytes=gigabytes,
        millions=millions,
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(lines), encoding="utf-8")
    print(page)


def check(network: Network, millions: float = 150.0) -> Line:
    """Return the line of a network in the table.

    Args:
        network: the network.
        millions: larger networks are skipped: so many million parameters.

    Returns:
        A dict that JSON can hold: the network, the gates in its graph by kind, the seconds of the
        export, the largest differences from the network itself (`difference_of_graph`) and of the
        folded network from the one with edited gates, and sizes before and after. ``refused`` holds
        the error code if there is no graph, and ``skipped`` the reason why the network does not run
        at all.
    """
    torch.manual_seed(0)
    line: Line = {"network": network.name}
    try:
        model = network.build().eval()
    except Exception as error:
        return line | {"skipped": f"cannot be built: {first_line(error)}"}
    with torch.no_grad():
        vary(model)
    line["parameters"] = [parameters_of(model)]
    if line["parameters"][0] > millions * 1e6:
        return line | {"skipped": f"has more than {millions:g} million parameters"}
    try:
        line["size"], inputs, _ = first_size(model, network)
    except Exception as error:
        return line | {"skipped": f"does not run: {first_line(error)}"}
    try:
        gates = find_gates(model, inputs)
        line["gates"] = dict(sorted(Counter(gate.kind for gate in gates).items()))
        start = time.perf_counter()
        graph = export_gates(model, inputs, gates)
    except InputError as error:
        return line | {"refused": error.code, "message": str(error)}
    line["seconds"] = round(time.perf_counter() - start, 2)
    more = Inputs.of(inputs).with_one_more().args
    line["graph"] = difference_of_graph(model, graph, gates, more)
    if not gates:
        return line
    try:
        line |= folded(model, graph, gates, more)
    except InputError as error:
        return line | {"not_folded": error.code, "message": str(error)}
    if line["folded"] > EXACT:
        line["double"] = _in_double(model, inputs)
    return line


def difference_of_graph(
    model: nn.Module, graph: GraphNetwork, gates: Sequence[Gate], inputs: tuple[Any, ...]
) -> float:
    """Return the largest difference of gates and outputs between a network and its graph.

    Both run as they are and with edited gates.

    Returns:
        The difference as a share of the largest value: 0 if all are equal bit for bit, and infinity
        if the graph has other gates.
    """

    def edit(gate: Tensor, features: Tensor) -> Tensor:
        return gate * 0.5 + 0.1

    largest = 0.0
    for edits in ({}, {gate.name: edit for gate in gates}):
        seen = []
        for each in (model, graph):
            with torch.no_grad(), edit_gates(each, edits, gates), watch_gates(each, gates) as read:
                torch.manual_seed(0)
                output = tensors(each(*inputs))
                seen.append((list(read), [*output, *read.values()]))
        (names, expected), (found_names, found) = seen
        if names != found_names or len(expected) != len(found):
            return float("inf")
        largest = max(largest, *(map(difference, found, expected)))
    return largest


def difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest value, and 0 for equal bits."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if torch.allclose(found, expected, rtol=0, atol=0, equal_nan=True):
        return 0.0
    a, b = found.double(), expected.double()
    largest = float((a - b).abs().max()) / (float(b.abs().max()) or 1.0)
    return largest if largest == largest else float("inf")


def folded(
    model: nn.Module, graph: GraphNetwork, gates: Sequence[Gate], inputs: tuple[Any, ...]
) -> Line:
    """Fold all gates to random constants, and compare with the network with edited gates.

    Returns:
        What became of the gates, the largest difference of the outputs as a share of the largest
        one, by how much the constants change the outputs, and parameters and multiply-adds for one
        image before and after.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad(), watch_gates(model, gates) as values:
        plain = tensors(model(*inputs))
        constants = {
            name: (torch.rand(value.shape[1:], generator=generator) + 0.2).to(value.dtype)
            for name, value in values.items()
        }
    fold = fold_graph(graph, constants)
    expected = edited(model, gates, constants, inputs)
    with torch.no_grad():
        found = tensors(fold.network(*inputs))
    counts = [multiply_adds(each, inputs) for each in (model, fold.network)]
    return {
        "forms": dict(sorted(Counter(fold.forms.values()).items())),
        "folded": max(map(difference, found, expected)),
        "changed": max(map(difference, expected, plain)),
        "parameters": [parameters_of(each) for each in (model, fold.network)],
        "multiply_adds": counts,
    }


def edited(
    model: nn.Module,
    gates: Sequence[Gate],
    constants: Mapping[str, Tensor],
    inputs: tuple[Any, ...],
) -> list[Tensor]:
    """Return the outputs of a network whose gates are edited to constants."""
    count = Inputs(inputs, {}).batch_size() or 1

    def constant(gate: Gate) -> Callable[[Tensor, Tensor], Tensor]:
        value = constants[gate.name]
        images = count if gate.per_image else 1
        factor = as_factor(value[None].expand(images, *value.shape), gate)
        return lambda values, features: factor

    edits = {gate.name: constant(gate) for gate in gates if gate.name in constants}
    with torch.no_grad(), edit_gates(model, edits, gates):
        torch.manual_seed(0)
        return tensors(model(*inputs))


def _in_double(model: nn.Module, inputs: Any) -> float | None:
    """Return the difference of the folded network in double precision, None if it has no graph."""

    def double(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) else value

    model = model.double()
    inputs = torch.utils._pytree.tree_map(double, inputs)
    try:
        gates = find_gates(model, inputs)
        graph = export_gates(model, inputs, gates)
        more = Inputs.of(inputs).with_one_more().args
        return float(folded(model, graph, gates, more)["folded"])
    except Exception:  # a network may work in single precision only
        return None


def parameters_of(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Return the multiply-adds for one image, in convolutions and matrix products."""
    count = Inputs(inputs, {}).batch_size() or 1
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(*inputs)
    return round(counter.get_total_flops() / 2 / count)


if __name__ == "__main__":
    tyro.cli(main)
