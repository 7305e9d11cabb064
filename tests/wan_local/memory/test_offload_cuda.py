"""Offload on a real GPU: the same numbers as resident there, its memory bounded, copies beside calculations."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch

from wan_local.memory import Memory, attach
from wan_local.memory.queues import PageLock
from wan_local.memory.storage import size_of, tensor_places, tensors_of
from wan_local.shapes import Grid

from .conftest import CONFIG, inputs, make

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
HEAVY = replace(CONFIG, dim=512, ffn_dim=2048, num_heads=4, num_layers=10)


@pytest.mark.parametrize("kind", ["plain", "packed", "strided"])
@pytest.mark.parametrize("offloaded", [0, 1, 4, 7])
@pytest.mark.parametrize("pack", [False, True])
@torch.no_grad()
def test_offloaded_is_resident_bit_for_bit_on_a_gpu(kind: str, offloaded: int, pack: bool) -> None:
    given = inputs(device="cuda")
    expected = make(kind).to("cuda")(*given)
    model = make(kind)
    for _ in range(2):
        with attach(model, "cuda", offloaded, pack=pack):
            for _ in range(5):
                assert torch.equal(model(*given), expected)
        assert {tensor.device.type for tensor in tensors_of(model)} == {"cpu"}


@torch.no_grad()
def test_many_forwards_without_a_pause_stay_right() -> None:
    """Small calculations and large copies: whoever does not wait for the other is seen."""
    given = inputs(device="cuda")
    expected = make(config=HEAVY).to("cuda")(*given)
    model = make(config=HEAVY)
    with attach(model, "cuda", 10):
        results = [model(*given) for _ in range(30)]
    assert all(torch.equal(result, expected) for result in results)


@torch.no_grad()
def test_large_calculations_and_small_copies_stay_right() -> None:
    torch.manual_seed(0)
    given = (torch.randn(1, 36, 5, 64, 64, device="cuda"), *inputs(device="cuda")[1:])
    expected = make().to("cuda")(*given)
    model = make()
    with attach(model, "cuda", 7):
        results = [model(*given) for _ in range(10)]
    assert all(torch.equal(result, expected) for result in results)


@torch.no_grad()
def test_memory_on_the_gpu_is_bounded_and_given_back() -> None:
    model = make(config=HEAVY)
    block = size_of(tensors_of(model.blocks[0]))
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    offload = attach(model, "cuda", 10)
    rest = size_of(tensors_of(model)) - 10 * block
    held = torch.cuda.memory_allocated() - before
    assert 2 * block <= held <= 2 * block + rest + (1 << 20)
    offload.close()
    assert torch.cuda.memory_allocated() == before


@torch.no_grad()
def test_host_buffers_are_locked_as_long_as_somebody_may_open_it_again() -> None:
    model = make(config=HEAVY)
    offload = attach(model, "cuda", 10)
    weight = model.blocks[5].ffn[0].weight
    assert weight.is_pinned()
    offload.close()
    assert weight.is_pinned()
    assert model.blocks[5].ffn[0].weight is weight
    del offload
    gc.collect()
    assert not weight.is_pinned()


@torch.no_grad()
def test_a_lock_that_is_refused_is_no_error() -> None:
    nothing = torch.empty(0, dtype=torch.uint8)  # no address to lock
    lock = PageLock(torch.device("cuda"))
    lock.add([nothing])
    assert torch.ones(3, device="cuda").sum().item() == 3
    lock.close()


@torch.no_grad()
def test_a_stop_on_a_gpu_leaves_everything_sound() -> None:
    given = inputs(device="cuda")
    expected = make().to("cuda")(*given)
    model = make()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with attach(model, "cuda", 7):
        hook = model.blocks[3].norm3.register_forward_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            model(*given)
        hook.remove()
        assert torch.equal(model(*given), expected)


@torch.no_grad()
def test_parts_visit_and_auto_offload_on_a_gpu() -> None:
    given = inputs(device="cuda")
    expected = make().to("cuda")(*given)
    model, memory = make(), Memory("cuda", "auto")
    with memory.on_device(model):
        assert torch.equal(model(*given), expected)
    with memory.sampling(model, Grid(frames=5, height=64, width=64)):
        assert torch.equal(model(*given), expected)
    assert {held.rest.device.type for held in tensor_places(model)} == {"cpu"}
