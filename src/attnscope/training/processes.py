"""The process group of distributed training: several processes, one per device.

The processes are started by torchrun and connected by torch.distributed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed, nn

from attnscope.errors import InputError, LostProcess
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

    Raises:
        LostProcess: another process of the group has ended.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        others = _other_processes(device)
        try:
            yield current_process_group()
        except (RuntimeError, KeyboardInterrupt) as error:
            if error.args if isinstance(error, KeyboardInterrupt) else not _is_broken(error):
                raise  # a training that was stopped in good order, or another error
            raise LostProcess(_describe_lost(others)) from error
    finally:
        distributed.destroy_process_group()


_BROKEN = re.compile(r"gloo|nccl|connection (closed|reset)|broken pipe|TCPStore", re.IGNORECASE)
_END_SECONDS = 2.0
"""Time after a broken connection within which a process that broke it has ended."""


def _is_broken(error: RuntimeError) -> bool:
    """Return whether an error comes from the connection to the other processes."""
    return isinstance(error, distributed.DistError) or _BROKEN.search(str(error)) is not None


def _other_processes(device: torch.device) -> dict[int, int]:
    """Return rank -> process number, for the other processes on this machine."""
    node = hashlib.blake2b(platform.node().encode(), digest_size=7).digest()
    own = torch.tensor([os.getpid(), int.from_bytes(node, "big")], device=device)
    gathered = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, own)
    found = {rank: values.tolist() for rank, values in enumerate(gathered)}
    rank, here = distributed.get_rank(), int(own[1])
    return {r: pid for r, (pid, where) in found.items() if where == here and r != rank}


def _describe_lost(others: Mapping[int, int]) -> str:
    """Return in words which processes have ended, and how to go on."""
    end = time.monotonic() + _END_SECONDS
    lost = [rank for rank, pid in others.items() if _has_ended(pid)]
    while not lost and others and time.monotonic() < end:
        time.sleep(0.05)
        lost = [rank for rank, pid in others.items() if _has_ended(pid)]
    named = ", ".join(f"rank {rank} (process {others[rank]})" for rank in lost)
    return (
        f"{named or 'another process of the training'} has ended, and the training with it; look "
        "for the reason in what it printed, and continue with the same command and --resume"
    )


def _has_ended(pid: int) -> bool:
    """Return whether a process has ended, even if the one that started it does not know yet."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return True
    except (OSError, IndexError):  # it belongs to someone else, or there is no /proc
        return False
    return state in "ZX"


__getattr__ = renamed_names(
    __name__,
    {
        "Team": "ProcessGroup",
        "launched_team": "launched_process_group",
        "current_team": "current_process_group",
    },
)
