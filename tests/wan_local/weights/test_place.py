"""Numbers on their way from a file to host memory: the same in every dtype, and memory in huge pages."""

from __future__ import annotations

import gc
import mmap
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wan_local.weights import huge_pages
from wan_local.weights.place import CACHED, place
from wan_local.weights.source import Entry

SPELLING = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
SMAPS = Path("/proc/self/smaps")


def entry(stored: Tensor, released: list[tuple[int, int]]) -> Entry:
    return Entry(
        shape=tuple(stored.shape),
        dtype=SPELLING[stored.dtype],
        read=lambda: stored,
        release=lambda first, last: released.append((first, last)),
    )


@pytest.mark.parametrize("wanted", SPELLING)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_number_becomes_what_torch_makes_of_it(dtype: torch.dtype, wanted: torch.dtype) -> None:
    stored = torch.arange(2**16).to(torch.int16).view(dtype).repeat(30).view(-1, 256)
    assert stored.nbytes > 3 * CACHED  # several pieces, the last one shorter
    released: list[tuple[int, int]] = []
    came: list[int] = []
    found, expected = place(entry(stored, released), wanted, "cpu", came.append), stored.to(wanted)
    assert sum(came) == stored.nbytes
    assert len(came) == max(1, len(released))
    assert found.dtype == wanted
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(0.0), expected.nan_to_num(0.0))
    if wanted == dtype:
        assert found is stored
    else:
        assert [first for first, _ in released] == [0, *(last for _, last in released[:-1])]
        assert released[-1][1] == stored.nbytes


def flags(address: int) -> str:
    """How the system keeps the memory at an address."""
    here = False
    for line in SMAPS.read_text().splitlines():
        start, dash, end = line.split()[0].partition("-")
        if dash and not line.startswith("VmFlags"):
            here = int(start, 16) <= address < int(end, 16)
        elif here and line.startswith("VmFlags"):
            return line
    return ""


@pytest.mark.skipif(not SMAPS.exists() or not hasattr(mmap, "MADV_HUGEPAGE"), reason="Linux says it in /proc")
def test_large_tensors_lie_in_huge_pages_and_stay_there() -> None:
    large = huge_pages.empty((4096, 1024), torch.float32, torch.device("cpu"))
    gc.collect()
    large.fill_(2.0)
    assert " hg" in flags(large.data_ptr())
    assert large.sum() == 2 * large.numel()
    assert huge_pages.empty((3, 5), torch.bfloat16, torch.device("cpu")).shape == (3, 5)
    assert huge_pages.empty((4096, 1024), torch.float32, torch.device("meta")).device.type == "meta"


def test_without_huge_pages_memory_is_as_always(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise OSError

    monkeypatch.setattr(mmap, "mmap", refused)
    assert huge_pages.empty((4096, 1024), torch.float32, torch.device("cpu")).fill_(1.0).sum() == 4096 * 1024
