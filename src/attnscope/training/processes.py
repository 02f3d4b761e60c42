"""The process group of distributed training: several processes, one per device.

The processes are started by torchrun and connected by torch.distributed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn

from attnscope.errors import InputError
from attnscope.lazy import renamed_names


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that work together. A single process is a group of size 1."""

    rank: int = 0
    """The number of this process, from 0."""
    size: int = 1
    """The number of processes."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints, which is the process of rank 0."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the elementwise sum over all processes, in every process."""
        return self._reduce(values, distributed.ReduceOp.SUM)

    def max(self, values: torch.Tensor) -> torch.Tensor:
        """Return the elementwise maximum over all processes, in every process."""
        return self._reduce(values, distributed.ReduceOp.MAX)

    def share(self, count: int) -> range:
        """Return the indices of this process out of ``count``. The shares are a partition."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Copy the buffers of rank 0 (running statistics of norms) to every process."""
        if self.size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    def barrier(self) -> None:
        """Wait until all processes have reached this call."""
        if self.size > 1:
            distributed.barrier()

    def _reduce(
        self, values: torch.Tensor, operation: distributed.ReduceOp.RedOpType
    ) -> torch.Tensor:
        if self.size > 1:
            values = values.clone()
            distributed.all_reduce(values, operation)
        return values


def current_process_group() -> ProcessGroup:
    """Return the process group of torch.distributed, or a group of size 1."""
    if distributed.is_available() and distributed.is_initialized():
        return ProcessGroup(distributed.get_rank(), distributed.get_world_size())
    return ProcessGroup()


def launched_process_group() -> ProcessGroup:
    """Return the process group that ``RANK`` and ``WORLD_SIZE`` describe, without connecting.

    Raises:
        InputError: AS133, the two are not a rank and a size.
    """
    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise InputError(
            "AS133",
            f"RANK={rank} and WORLD_SIZE={size} contradict each other; RANK must be 0 to "
            "WORLD_SIZE - 1, as torchrun sets it",
        )
    return ProcessGroup(int(rank), int(size))


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Connect to the other processes that torchrun started, by NCCL for GPUs and gloo for CPUs.

    Args:
        device: the device of this process.

    Yields:
        The process group, of size 1 without torchrun.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield current_process_group()
    finally:
        distributed.destroy_process_group()


__getattr__ = renamed_names(
    __name__,
    {
        "Team": "ProcessGroup",
        "launched_team": "launched_process_group",
        "current_team": "current_process_group",
    },
)
