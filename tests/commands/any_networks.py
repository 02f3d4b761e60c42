"""Networks of others as a command gets them: ``tests.commands.any_networks:NAME``.

`NAME` returns the network of `tests.gates.case_networks`, and ``NAME_data`` a data set of its own
inputs. Images are labeled where the network returns a vector for each image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tests.gates.case_networks import CASES, Case

IMAGES = 24


def network(name: str) -> Case:
    """The network of a case, with the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CASES[name]().eval()


class Inputs(Dataset[Any]):
    """The inputs of a case in 0 to 1, one item for each image."""

    def __init__(self, name: str) -> None:
        model = network(name)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(1)
            inputs = model.inputs(IMAGES)
            self.items = [_item(inputs, i) for i in range(IMAGES)]
            output = model.run(model.inputs(2))
        self.labels = None
        if output.ndim == 2:
            self.labels = [i % output.shape[1] for i in range(IMAGES)]

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> object:
        item = self.items[index]
        return item if self.labels is None else (item, self.labels[index])


def _item(inputs: object, index: int) -> Any:
    if isinstance(inputs, tuple):
        return tuple(tensor[index].sigmoid() for tensor in inputs)
    if isinstance(inputs, dict):
        return inputs["image"][index].sigmoid()
    assert isinstance(inputs, Tensor)
    return inputs[index].float().sigmoid()


def __getattr__(name: str) -> Callable[[], nn.Module | Dataset[Any]]:
    case = name.removesuffix("_data")
    if case not in CASES:
        raise AttributeError(name)
    return (lambda: Inputs(case)) if name.endswith("_data") else (lambda: network(case))
