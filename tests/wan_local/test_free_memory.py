"""Host memory as a container sees it: what the machine has, and what the container may take of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from wan_local import free_memory

GB = 10**9


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 64 GB free of 100."""
    monkeypatch.setattr(free_memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(free_memory, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=100 * GB, available=64 * GB))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def version_2(folder: Path, limit: object, used: int, cached: int = 0) -> None:
    write(folder / "memory.max", f"{limit}\n")
    write(folder / "memory.current", f"{used}\n")
    write(folder / "memory.stat", f"anon 5\nactive_file {cached // 4}\ninactive_file {cached - cached // 4}\n")


def test_the_machine_alone(system: Path) -> None:
    assert free_memory.free_host_bytes() == 64 * GB
    write(system / "proc/self/cgroup", "0::/user.slice\n")
    assert free_memory.free_host_bytes() == 64 * GB
    version_2(system / "groups/user.slice", "max", 9 * GB)
    assert free_memory.free_host_bytes() == 64 * GB


def test_a_container_of_its_own_root(system: Path) -> None:
    write(system / "proc/self/cgroup", "0::/\n")
    version_2(system / "groups", 16 * GB, 10 * GB, cached=8 * GB)
    assert free_memory.free_host_bytes() == 14 * GB  # mapped weights are no loss
    assert free_memory.host_has_room(10 * GB)
    assert not free_memory.host_has_room(10 * GB + 1)
    version_2(system / "groups", 16 * GB, 17 * GB)
    assert free_memory.free_host_bytes() == 0
    version_2(system / "groups", 900 * GB, 0)
    assert free_memory.free_host_bytes() == 64 * GB


def test_a_path_of_the_host_in_a_container(system: Path) -> None:
    write(system / "proc/self/cgroup", "0::/docker/0123\n")
    version_2(system / "groups", 20 * GB, 10 * GB)
    assert free_memory.free_host_bytes() == 10 * GB


def test_the_tightest_of_nested_groups(system: Path) -> None:
    write(system / "proc/self/cgroup", "0::/a/b\n")
    version_2(system / "groups/a", 12 * GB, 5 * GB)
    version_2(system / "groups/a/b", 30 * GB, 5 * GB)
    assert free_memory.free_host_bytes() == 7 * GB


def test_the_older_kind_of_groups(system: Path) -> None:
    write(system / "proc/self/cgroup", "11:cpu,cpuacct:/x\n4:memory:/docker/0123\n0::/x\n")
    folder = system / "groups/memory/docker/0123"
    write(folder / "memory.limit_in_bytes", f"{8 * GB}")
    write(folder / "memory.usage_in_bytes", f"{6 * GB}")
    write(folder / "memory.stat", f"cache 7\ntotal_active_file {GB}\ntotal_inactive_file {GB}\ninactive_file 5\n")
    assert free_memory.free_host_bytes() == 4 * GB
    write(folder / "memory.limit_in_bytes", "9223372036854771712")  # none
    assert free_memory.free_host_bytes() == 64 * GB


def test_groups_that_say_nothing_take_nothing_away(system: Path) -> None:
    for text in ("", "memory\n", "::::\n\n", "0::/a\n"):
        write(system / "proc/self/cgroup", text)
        version_2(system / "groups/a", "much", 9 * GB)
        assert free_memory.free_host_bytes() == 64 * GB
