"""How much memory decoded images may take, and how many processes decode them.

Does not import torch.
"""

from __future__ import annotations

import os
from pathlib import Path

from attnscope.errors import InputError

MEMORY_VARIABLE = "ATTNSCOPE_IMAGE_MEMORY"
"""Environment variable: GiB of decoded images that are held in memory; 0 holds none."""
WORKERS_VARIABLE = "ATTNSCOPE_IMAGE_WORKERS"
"""Environment variable: number of processes that decode images; 0 decodes in this process."""
_SHARE = 0.5  # of the available memory; selecting and cropping images makes a second copy
_UNKNOWN = 8 * 2**30  # bytes that are assumed to be available where a system does not say it
_MOST_WORKERS = 16
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def image_memory() -> int:
    """Return how many bytes of decoded images this process may hold.

    It is `MEMORY_VARIABLE`, or else `share_of_memory`.

    Raises:
        InputError: The environment variable is not a number of GiB.
    """
    given = os.environ.get(MEMORY_VARIABLE, "").strip()
    if given:
        try:
            gib = float(given)
        except ValueError:
            gib = -1.0
        if not 0 <= gib < 2**30:  # also refuses NaN
            raise InputError(
                "AS240",
                f"the environment variable {MEMORY_VARIABLE} is '{given}'; it must be a number of "
                "GiB, 0 or more: correct or unset it",
            )
        return int(gib * 2**30)
    return share_of_memory()


def share_of_memory() -> int:
    """Return half of the bytes that are available now.

    They are divided by the number of processes that torchrun started on this machine.
    """
    return int(available_memory() * _SHARE) // _local_processes()


def image_workers() -> int:
    """Return how many processes decode images for this process.

    It is `WORKERS_VARIABLE`, or else the number of CPUs that this process may use, at most 16,
    divided by the number of processes that torchrun started on this machine.

    Raises:
        InputError: The environment variable is not a number of processes.
    """
    given = os.environ.get(WORKERS_VARIABLE, "").strip()
    if given:
        if not given.isdecimal():
            raise InputError(
                "AS241",
                f"the environment variable {WORKERS_VARIABLE} is '{given}'; it must be a number of "
                "processes, 0 or more: correct or unset it",
            )
        return int(given)
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cpus, _MOST_WORKERS) // _local_processes())


def available_memory() -> int:
    """Return how many bytes can be allocated without swapping: of the machine and of the cgroup."""
    limits = [_UNKNOWN]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (line,) = (line for line in lines if line.startswith("MemAvailable:"))
        limits = [int(line.split()[1]) * 1024]
    except (OSError, ValueError):
        names = getattr(os, "sysconf_names", {})
        if "SC_PHYS_PAGES" in names:  # macOS does not say what is available
            limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2]
    return max(0, min(limits + _left_in_cgroups()))


def _left_in_cgroups() -> list[int]:
    """Return the bytes that are left in each control group that limits this process."""
    found = []
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        if controllers:  # version 1
            root, most, used = _CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            root, most, used = _CGROUPS, "memory.max", "memory.current"
        folder = root / place.lstrip("/")
        # In a container, the path can be that of the host, and only the root is visible.
        for group in {folder, *(p for p in folder.parents if p.is_relative_to(root)), root}:
            limit, now = _number(group / most), _number(group / used)
            if limit is not None and now is not None:
                found.append(limit - now + _reclaimable(group / "memory.stat"))
    return found


def _number(file: Path) -> int | None:
    """Return the number in a file; None if there is none, as where nothing is limited."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _reclaimable(file: Path) -> int:
    """Return the bytes of cached files, which a control group gives back when they are needed."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    values = dict(line.split(maxsplit=1) for line in lines)
    return int(values.get("total_inactive_file", values.get("inactive_file", "0")))


def _local_processes() -> int:
    """Return the number of processes that torchrun started on this machine."""
    given = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, int(given)) if given.isdecimal() else 1


def as_gib(size: int) -> str:
    """Return a number of bytes in GiB, for messages."""
    gib = size / 2**30
    return f"{gib:.1f} GiB" if gib >= 0.1 or not gib else f"{gib:.2g} GiB"
