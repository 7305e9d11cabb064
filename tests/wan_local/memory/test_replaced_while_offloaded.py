"""Tensors that are put in the place of others while a transformer is offloaded: LoRAs that count in some steps only."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from wan_local.lora import Difference, Lora, LowRank, Use, apply
from wan_local.memory import Offload
from wan_local.memory.storage import DeviceCopies, tensor_places
from wan_local.model import WanTransformer

from .conftest import CONFIG, inputs, make

LAYERS, STEPS = CONFIG.num_layers, 4
SMALL = ("modulation", "norm3.weight", "norm3.bias", "ffn.0.bias", "norm_q.weight", "emb_pos", "patch_embedding.bias")
RANGES = {"@1-1": (1, 1), "@2-": (2, None), "@2-3": (2, 3), "all": (1, None)}


def small_changes(seed: int = 3) -> Lora:
    """A pair, and every kind of thing that is put in place changed: modulation, norms, the patch kernel, the head."""
    torch.manual_seed(seed)
    model, deltas = make(), {}
    for name, value in model.named_parameters():
        if name.endswith(SMALL):
            deltas[name] = Difference(tensor=torch.randn(value.shape))
        elif name.endswith("ffn.0.weight"):
            up, down = torch.randn(value.shape[0], 2), torch.randn(2, value.shape[1])
            deltas[name] = LowRank(up=up, down=down, scale=0.5)
    return Lora(path="x", deltas=deltas, matched=len(deltas), unmatched=())


def run(model: WanTransformer, before_step: Callable[[int], None]) -> list[Tensor]:
    seen = []
    for step in range(STEPS):
        before_step(step)
        seen.append(model(*inputs(step)))
    return seen


@pytest.mark.parametrize("steps", RANGES)
@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("offloaded", [1, 4, LAYERS])
@torch.no_grad()
def test_a_lora_of_some_steps_is_the_same_offloaded(steps: str, pack: bool, offloaded: int) -> None:
    first, last = RANGES[steps]
    uses = [Use(lora=small_changes(), first_step=first, last_step=last), Use(lora=small_changes(4), last_step=3)]
    resident = make()
    expected = run(resident, apply(resident, uses).before_step)
    assert not torch.equal(expected[0], make()(*inputs(0)))
    model = make()
    applied, offload = apply(model, uses), Offload(model, "cpu", pack=pack)
    for _ in range(3):  # begins again where it ended, packed memory used again
        offload.open(offloaded)
        assert all(map(torch.equal, run(model, applied.before_step), expected))
        offload.close()


@torch.no_grad()
def test_what_was_changed_stays_when_the_offload_ends() -> None:
    resident, model = make(), make()
    uses = [Use(lora=small_changes(), first_step=2)]
    theirs, ours = apply(resident, uses), apply(model, uses)
    offload = Offload(model, "cpu", pack=True)
    offload.open(LAYERS)
    model(*inputs())
    ours.before_step(2)  # and no forward with it
    offload.close()
    theirs.before_step(2)
    assert torch.equal(model(*inputs()), resident(*inputs()))
    with torch.no_grad():
        offload.open(3)
        assert torch.equal(model(*inputs()), resident(*inputs()))
        offload.close()


@torch.no_grad()
def test_packed_memory_is_kept_when_small_tensors_change() -> None:
    model = make()
    applied, offload = apply(model, [Use(lora=small_changes(), last_step=1)]), Offload(model, "cpu", pack=True)
    offload.open(LAYERS)
    run(model, applied.before_step)
    where = [block.self_attn.v.weight.data_ptr() for block in model.blocks]
    offload.close()
    offload.open(LAYERS)
    assert [block.self_attn.v.weight.data_ptr() for block in model.blocks] == where
    offload.close()


@torch.no_grad()
def test_a_tensor_of_another_dtype_and_packing_later() -> None:
    model = make()
    block = model.blocks[2]
    offload = Offload(model, "cpu", pack=False)
    offload.open(LAYERS)
    block.modulation = nn.Parameter(block.modulation.double() * (1 + 2**-40), requires_grad=False)
    wide = block.modulation.clone()
    model(*inputs())
    offload.close()
    offload._pack = True
    offload.open(LAYERS)
    model(*inputs())
    assert torch.equal(block.modulation, wide)
    offload.close()
    assert torch.equal(block.modulation, wide)


def test_a_guest_that_was_replaced_stays_replaced() -> None:
    layer = nn.Linear(3, 3)
    bias, new = layer.bias, nn.Parameter(torch.ones(3, 3))
    copies = DeviceCopies(tensor_places(layer), torch.device("meta"))
    assert layer.weight.device.type == layer.bias.device.type == "meta"
    layer.weight = new
    copies.put_back()
    assert layer.bias is bias
    assert torch.equal(layer.weight, torch.ones(3, 3))
    assert isinstance(layer.weight, nn.Parameter)
