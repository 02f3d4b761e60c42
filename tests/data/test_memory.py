"""The memory that decoded images may take, and the processes that decode them."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnscope.data import memory
from attnscope.data.memory import available_memory, image_memory, image_workers
from tests.making import refused

GIB = 2**30


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ATTNSCOPE_IMAGE_MEMORY", "ATTNSCOPE_IMAGE_WORKERS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_images_may_take_half_of_the_available_memory_of_each_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 12 * GIB)
    assert image_memory() == 6 * GIB
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert image_memory() == 1.5 * GIB
    monkeypatch.setenv("ATTNSCOPE_IMAGE_MEMORY", "0.25")
    assert image_memory() == GIB // 4, "a setting is that of each process"
    monkeypatch.setenv("ATTNSCOPE_IMAGE_MEMORY", "0")
    assert image_memory() == 0


def test_available_memory_is_what_the_system_says() -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    assert 0 < available_memory() <= values["MemTotal"]


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_control_group_limits_the_available_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "own")
    (tmp_path / "own").write_text(
        "5:cpu,memory:/a/b\n1:name=x:/c\n" if version == 1 else "0::/a/b\n"
    )
    root = tmp_path / "memory" if version == 1 else tmp_path
    most, used, cache = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if version == 1
        else ("memory.max", "memory.current", "inactive_file")
    )
    free = available_memory()
    (root / "a/b").mkdir(parents=True)
    assert available_memory() == pytest.approx(free, rel=0.3), "no group has a limit"
    (root / "a/b" / most).write_text("max\n")
    (root / "a" / most).write_text(f"{3_000_000}\n")
    for group in ("a", "a/b"):
        (root / group / used).write_text(f"{1_000_000}\n")
    (root / "a" / "memory.stat").write_text(f"anon 5\n{cache} 250000\n")
    assert available_memory() == 2_250_000
    (root / "a" / used).write_text(f"{9_000_000}\n")
    assert available_memory() == 0


@pytest.mark.parametrize("given", ["much", "-1", "nan", "1e400"])
def test_a_memory_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("ATTNSCOPE_IMAGE_MEMORY", given)
    with refused("AS240", names=("ATTNSCOPE_IMAGE_MEMORY", given)):
        image_memory()


def test_there_is_a_process_for_each_cpu_up_to_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, processes, expected in ((1, 1, 1), (6, 1, 6), (64, 1, 16), (8, 4, 2), (2, 4, 1)):
        monkeypatch.setattr(
            memory.os, "sched_getaffinity", lambda _, n=cpus: set(range(n)), raising=False
        )
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert image_workers() == expected
    monkeypatch.setenv("ATTNSCOPE_IMAGE_WORKERS", "0")
    assert image_workers() == 0
    monkeypatch.setenv("ATTNSCOPE_IMAGE_WORKERS", "two")
    with refused("AS241", names=("ATTNSCOPE_IMAGE_WORKERS", "two")):
        image_workers()
