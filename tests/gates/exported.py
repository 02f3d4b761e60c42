"""A graph compared with the network that it was exported from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnscope import edit_gates, find_gates, watch_gates
from attnscope.gates.graph import export_gates, read_gates, with_gates
from attnscope.gates.graph_network import GraphNetwork
from attnscope.gates.inputs import Inputs


def run(
    model: nn.Module, inputs: object, edited: bool
) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
    """The output, the gates, and the features that an edit receives."""
    seen = []

    def edit(gate: Tensor, features: Tensor) -> Tensor:
        seen.append(features.detach().clone())
        return gate * 0.5 + 0.1

    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    edits = {g.name: edit for g in find_gates(model, inputs)} if edited else {}
    with torch.no_grad(), edit_gates(model, edits), watch_gates(model) as values:
        return model(*arguments), values, seen


def assert_equal(model: nn.Module, sample: object, inputs: object) -> GraphNetwork:
    """Names, values, edits and outputs of the graph are those of the tracer, bit by bit."""
    gates = find_gates(model, sample)
    network = export_gates(model, sample, gates)
    assert find_gates(network, sample) == gates
    assert set(network.sites) == {gate.name for gate in gates}
    for edited in (False, True):
        output, values, features = run(model, inputs, edited)
        found, read, given = run(network, inputs, edited)
        assert torch.equal(found, output)
        assert list(read) == list(values)
        assert all(torch.equal(read[name], value) for name, value in values.items())
        assert len(given) == len(features)
        assert all(map(torch.equal, given, features))
        if not edited:
            arguments = inputs if isinstance(inputs, tuple) else (inputs,)
            with torch.no_grad():
                again, raw = with_gates(network)(*arguments)
            read = read_gates(network, raw, Inputs.of(inputs).batch_size())
            assert torch.equal(again, output)
            assert all(torch.equal(read[name], value) for name, value in values.items())
    return network
