"""How fast two networks run, in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attnscope.gates.modes import eval_mode

_SPEED_ROUNDS = 5


def images_per_second(
    networks: tuple[nn.Module, nn.Module], inputs: Sequence[Tensor], rounds: int = _SPEED_ROUNDS
) -> list[tuple[float, float]]:
    """How fast two networks run in eval mode, in turns, so that a drift of the machine is shared.

    Args:
        networks: on one device.
        inputs: batches as they get them, on that device.
        rounds: how often each runs over all batches, after one batch that is not counted. They take
            turns in being first.

    Returns:
        One pair a round, in the order of the networks.
    """
    count = sum(map(len, inputs))
    found = []
    with eval_mode(networks[0]), eval_mode(networks[1]), torch.no_grad():
        for network in networks:
            network(inputs[0])
        for number in range(rounds):
            pair = [0.0, 0.0]
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                _wait_for(inputs[0].device)
                start = time.perf_counter()
                for x in inputs:
                    networks[which](x)
                _wait_for(inputs[0].device)
                pair[which] = count / (time.perf_counter() - start)
            found.append((pair[0], pair[1]))
    return found


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
