"""Compare the speed of two networks."""

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
    """Measure how fast two networks run in eval mode.

    The networks run alternately, so that a drift of the machine's speed affects both.

    Args:
        networks: Two networks on one device.
        inputs: Batches as the networks see them, on that device.
        rounds: How often each network runs over all batches, after one batch that is not counted.
            The network that runs first changes with each round.

    Returns:
        Images per second of both networks, one pair for each round.
    """
    count = sum(map(len, inputs))
    speeds = []
    with eval_mode(networks[0]), eval_mode(networks[1]), torch.no_grad():
        for network in networks:
            network(inputs[0])
        for number in range(rounds):
            pair = [0.0, 0.0]
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                _synchronize(inputs[0].device)
                start = time.perf_counter()
                for x in inputs:
                    networks[which](x)
                _synchronize(inputs[0].device)
                pair[which] = count / (time.perf_counter() - start)
            speeds.append((pair[0], pair[1]))
    return speeds


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
