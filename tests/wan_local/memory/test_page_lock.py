"""Host memory is page-locked once, however often a model comes and goes: with a stand-in for the CUDA runtime."""

from __future__ import annotations

import contextlib
import gc

import pytest
import torch

from wan_local.memory import Offload
from wan_local.memory.queues import PageLock
from wan_local.model import WanTransformer

from .conftest import CONFIG, inputs, make

CPU = torch.device("cpu")


class Runtime:
    """Locks memory up to a limit; keeps the addresses in the order in which they came and went."""

    def __init__(self, limit: int = 10**6) -> None:
        self.limit, self.locked, self.came, self.went = limit, set[int](), list[int](), list[int]()

    def cudaHostRegister(self, address: int, size: int, _: int) -> int:  # noqa: N802
        assert address not in self.locked, "locked already"
        if len(self.locked) == self.limit:
            return 2
        self.locked.add(address)
        self.came.append(address)
        return 0

    def cudaHostUnregister(self, address: int) -> None:  # noqa: N802
        self.locked.remove(address)
        self.went.append(address)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    made = Runtime()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: made)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    return made


def locking(model: WanTransformer) -> Offload:
    offload = Offload(model, "cpu", pack=True)
    offload._lock = PageLock(CPU)
    return offload


@torch.no_grad()
def test_memory_is_locked_once_and_as_long_as_it_may_be_used_again(runtime: Runtime) -> None:
    model, given = make(), inputs()
    expected = model(*given)
    offload = locking(model)
    for _ in range(3):
        offload.open(CONFIG.num_layers)
        assert torch.equal(model(*given), expected)
        offload.close()
    assert len(runtime.came) == len(runtime.locked) == CONFIG.num_layers
    assert runtime.went == []
    offload.open(2)  # the others stay on the device
    offload.close()
    assert len(runtime.locked) == 2
    assert len(runtime.came) == CONFIG.num_layers
    del offload
    gc.collect()
    assert runtime.locked == set()


def test_memory_of_a_block_that_was_changed_is_let_go_before_the_new_one_is_packed(runtime: Runtime) -> None:
    model = make()
    offload = locking(model)
    offload.open(CONFIG.num_layers)
    offload.close()
    old = runtime.came[1]
    layer = model.blocks[1].ffn[0]
    layer.weight = torch.nn.Parameter(layer.weight + 1, requires_grad=False)
    offload.open(CONFIG.num_layers)
    offload.close()
    assert runtime.went == [old]
    assert len(runtime.locked) == CONFIG.num_layers
    assert len(runtime.came) == CONFIG.num_layers + 1


def test_what_is_refused_is_left_as_it_is(runtime: Runtime) -> None:
    runtime.limit = 1
    lock = PageLock(CPU)
    tensors = [torch.zeros(4) for _ in range(3)]
    lock.add(tensors)
    assert [tensor is tensors[0] for tensor in lock.tensors] == [True]
    lock.close()
    assert runtime.locked == set()
