"""How much memory is free, on the device and in the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from .errors import OutOfMemory

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
V2 = ("memory.max", "memory.current", "")  # limit, use, and what names in memory.stat start with
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
NO_MEMORY = (  # how cudart, torch's CPU allocator, cuDNN and cuBLAS say it
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cudnn_status_alloc_failed",
    "cublas_status_alloc_failed",
)
HOST_RESERVE = 4_000_000_000  # bytes of host memory that packing blocks leaves to everything else


def free_device_bytes(device: torch.device) -> int | None:
    """Bytes a computation may still take on a device; None where nobody knows, such as on a CPU."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def give_back(device: torch.device) -> None:
    """Return to the driver what torch keeps of freed memory: pieces of the sizes of one stage are none for the next."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a calculation failed for want of memory, on the device or in the host, torch's own or a library's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in NO_MEMORY)


def free_host_bytes() -> int:
    """Bytes of host memory to be had without swapping, within what a container or a service may take of it."""
    found = [free for free in _free_in_groups() if free is not None]
    return min([psutil.virtual_memory().available, *found])


def _free_in_groups() -> Iterator[int | None]:
    """What each control group that this process is in leaves, the inner ones and those around them; Linux only."""
    for line in _read(PROC / "self" / "cgroup").splitlines():
        _, kinds, path = [*line.split(":", 2), "", ""][:3]
        if kinds and "memory" not in kinds.split(","):
            continue
        root, files = (GROUPS, V2) if not kinds else (GROUPS / "memory", V1)
        place = root / path.strip("/")
        # In a container the path is often that of the host, and its own group is what it sees as the root.
        for folder in (place, *(parent for parent in place.parents if parent.is_relative_to(root))):
            yield _left(folder, *files)


def _left(folder: Path, limit_file: str, used_file: str, prefix: str) -> int | None:
    limit, used = _read(folder / limit_file).strip(), _read(folder / used_file).strip()
    if not limit.isdecimal() or not used.isdecimal():  # "max", or no such group
        return None
    parts = _table(folder / "memory.stat")
    cached = sum(parts.get(prefix + kind, 0) for kind in ("active_file", "inactive_file"))  # is given back when needed
    return max(0, int(limit) - max(0, int(used) - cached))


def _table(path: Path) -> dict[str, int]:
    rows = (line.split() for line in _read(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def check_host_room(size: int, what: str, dtype: torch.dtype | None) -> None:
    """Refuse what host memory can't hold, before hours of swapping.

    Args:
        size: bytes of weights that are converted. What is stored as it is used is mapped, and needs none.
        what: takes them, for the message.
        dtype: that they are converted to.

    Raises:
        OutOfMemory: more than there is.
    """
    free = free_host_bytes()
    if size > free:
        name = str(dtype or torch.float32).removeprefix("torch.")
        raise OutOfMemory(
            f"{what} would take {size / 1e9:.1f} GB of host memory once converted to {name}, and {free / 1e9:.1f} GB "
            f"are free; use files stored as {name}, which are read where they lie, or the dtype that they are stored in"
        )


def host_has_room(size: int) -> bool:
    """Whether so many bytes more leave the reserve."""
    return free_host_bytes() - size >= HOST_RESERVE
