"""How much memory is free, on the device and in the host."""

from __future__ import annotations

from pathlib import Path

import torch

HOST_RESERVE = 4_000_000_000  # bytes of host memory that packing blocks leaves to everything else


def free_device_bytes(device: torch.device) -> int | None:
    """Bytes a computation may still take on a device; None where nobody knows, such as on a CPU."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def free_host_bytes() -> int | None:
    """Bytes of host memory to be had without swapping; None where the system does not say it this way."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def host_has_room(size: int) -> bool:
    """Whether so many bytes more leave the reserve; taken as yes where nobody knows."""
    free = free_host_bytes()
    return free is None or free - size >= HOST_RESERVE
