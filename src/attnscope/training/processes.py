"""One work on several devices, as torchrun starts it: who am I, and what have we together."""

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
    """The processes of one work; one that is alone is a process_group too."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes; each gets it."""
        return self._reduce(values, distributed.ReduceOp.SUM)

    def largest(self, values: torch.Tensor) -> torch.Tensor:
        """The elementwise maximum over all processes; each gets it."""
        return self._reduce(values, distributed.ReduceOp.MAX)

    def share(self, count: int) -> range:
        """The indices of this process, of ``count``: all have one owner, and none has two."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def follow_buffers(self, model: nn.Module) -> None:
        """Gives every process the buffers (running statistics of norms) of the first."""
        if self.size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    def wait(self) -> None:
        """Until all processes came here."""
        if self.size > 1:
            distributed.barrier()

    def _reduce(self, values: torch.Tensor, how: distributed.ReduceOp.RedOpType) -> torch.Tensor:
        if self.size > 1:
            values = values.clone()
            distributed.all_reduce(values, how)
        return values


def current_process_group() -> ProcessGroup:
    """The process_group that torch.distributed knows of."""
    if distributed.is_available() and distributed.is_initialized():
        return ProcessGroup(distributed.get_rank(), distributed.get_world_size())
    return ProcessGroup()


def launched_process_group() -> ProcessGroup:
    """The process group of the environment (``RANK``, ``WORLD_SIZE``), without a connection.

    Raises:
        InputError: the two make no process_group.
    """
    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise InputError(
            f"RANK={rank} and WORLD_SIZE={size} name no process of a process_group; "
            "start with torchrun, or number the processes from 0 to WORLD_SIZE - 1"
        )
    return ProcessGroup(int(rank), int(size))


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Joins the processes that torchrun started with this one; alone without torchrun.

    NCCL between GPUs, gloo between CPUs.
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
