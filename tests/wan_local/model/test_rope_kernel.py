"""The rotation by somebody else's kernel: the same turn, probed for, and not believed unseen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from wan_local import kitchen
from wan_local.model import rope_kernel
from wan_local.model.rope import apply_rope, rope_table

CPU = torch.device("cpu")


AGREES = rope_kernel.agrees  # as it is, whatever a test puts in its place


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    AGREES.cache_clear()
    yield
    AGREES.cache_clear()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_comfy_kitchen_turns_as_we_do_and_in_place(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("comfy_kitchen")
    if not hasattr(package, rope_kernel.NAME):
        pytest.skip("this comfy-kitchen has no rotation in place")
    monkeypatch.setattr(kitchen, "function", lambda name: getattr(package, name))  # its slow form runs on a CPU
    table = rope_table((3, 4, 5), 128, CPU)
    x = torch.randn(2, 60, 3, 128).to(dtype)
    expected = apply_rope(x, table).to(dtype)
    turned = rope_kernel.turn(x, table)
    assert turned.data_ptr() == x.data_ptr()
    off = (turned.float() - expected.float()).norm() / expected.float().norm()
    assert off < 1e-4  # a sum in another order now and then falls to the other side of a rounding
    assert rope_kernel.agrees(CPU, dtype, 128)


def lying(x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    return x.mul_(1.05)


def failing(x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no capable backend")


@pytest.mark.parametrize("kernel", [None, lying, failing])
def test_a_kernel_that_lies_or_fails_is_not_used(kernel: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kitchen, "function", lambda name: kernel)
    assert not rope_kernel.agrees(CPU, torch.bfloat16, 64)


def test_torch_turns_what_no_kernel_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rope_kernel, "agrees", lambda *about: True)
    with torch.no_grad():
        assert rope_kernel.rope_kernel(torch.zeros(1, 2, 3, 64, dtype=torch.bfloat16)) is None  # on a CPU
        on_gpu = torch.zeros(1, 2, 3, 64, dtype=torch.bfloat16, device="meta")
        monkeypatch.setattr(type(on_gpu), "device", torch.device("cuda"), raising=False)
        assert rope_kernel.rope_kernel(on_gpu) is rope_kernel.turn
        assert rope_kernel.rope_kernel(on_gpu.float()) is None
    assert rope_kernel.rope_kernel(on_gpu) is None  # gradients are wanted
