"""Blocks that come and go: the same numbers as without, everything back in its place, whatever happens between."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wan_local.errors import InputError
from wan_local.lora.merge import merge
from wan_local.memory import Offload, Weights, attach
from wan_local.memory.offload import offloaded_blocks
from wan_local.memory.plan import resident_bytes
from wan_local.memory.storage import HostBlock, layout, size_of, tensors_of
from wan_local.model import WanTransformer

from .conftest import CONFIG, inputs, make

LAYERS = CONFIG.num_layers


def resting(model: WanTransformer) -> dict[str, tuple[int, torch.Tensor]]:
    """Where every tensor lies, and a copy of it."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in named}


def raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).contiguous().view(torch.uint8)


def same(before: dict[str, tuple[int, torch.Tensor]], after: dict[str, tuple[int, torch.Tensor]]) -> bool:
    return before.keys() == after.keys() and all(
        before[name][0] == after[name][0] and torch.equal(raw(before[name][1]), raw(after[name][1])) for name in before
    )


@pytest.mark.parametrize("offloaded", range(LAYERS + 1))
@pytest.mark.parametrize("buffers", [1, 2, 3])
@torch.no_grad()
def test_offloaded_is_resident_bit_for_bit(model: WanTransformer, offloaded: int, buffers: int) -> None:
    given, others = inputs(1), inputs(2)
    expected = model(*given), model(*others)
    before = resting(model)
    with attach(model, "cpu", offloaded, buffers=buffers):
        assert torch.equal(model(*given), expected[0])
        assert torch.equal(model(*others), expected[1])  # begins where the first one ended
        assert torch.equal(model(*given), expected[0])
        assert same(before, resting(model))  # between forwards everything is at rest
    assert same(before, resting(model))
    assert torch.equal(model(*given), expected[0])
    assert not any("forward" in vars(block) for block in model.blocks)


@pytest.mark.parametrize("offloaded", [1, 4, LAYERS])
@torch.no_grad()
def test_packed_host_memory_gives_the_same(model: WanTransformer, offloaded: int) -> None:
    given = inputs()
    expected = model(*given)
    values = resting(model)
    offload = attach(model, "cpu", offloaded, pack=True)
    assert torch.equal(model(*given), expected)
    assert torch.equal(model(*given), expected)
    packed = resting(model)
    offload.close()
    assert same(packed, resting(model))  # the packed copy is where they rest from now on
    for name, (_, tensor) in values.items():
        assert torch.equal(packed[name][1].float(), tensor.float()), name
    assert torch.equal(model(*given), expected)
    offload.open(offloaded)  # used again, not packed again
    assert same(packed, resting(model))
    assert torch.equal(model(*given), expected)


@pytest.mark.parametrize("buffers", [1, 2, 3])
@pytest.mark.parametrize("offloaded", range(LAYERS + 1))
@torch.no_grad()
def test_as_many_blocks_are_away_as_were_asked_for(offloaded: int, buffers: int) -> None:
    """On the meta device every tensor says where it is, and nothing needs memory."""
    model = make()
    seen: list[set[int]] = []
    model.attend = lambda q, k, v: torch.empty_like(q)

    def look(*_: object) -> None:
        storages = {id(t.untyped_storage()): t for t in tensors_of(model) if t.device.type == "meta"}
        stay = {id(t.untyped_storage()) for name, t in model.named_parameters() if not name.startswith("blocks.")}
        assert stay <= storages.keys()  # embeddings and head never leave
        seen.append({i for i, block in enumerate(model.blocks) if next(block.parameters()).device.type == "meta"})

    hooks = [block.self_attn.q.register_forward_pre_hook(look) for block in model.blocks]
    with attach(model, "meta", offloaded, buffers=buffers) as offload:
        model(*inputs(device="meta"))
        resident = {i for i, block in enumerate(model.blocks) if next(block.parameters()).device.type == "meta"}
        assert len(resident) == LAYERS - offloaded
        held = [buffer.flat for buffer in offload.buffers()]
    for hook in hooks:
        hook.remove()
    assert len(seen) == LAYERS
    for index, there in enumerate(seen):
        assert there == resident | {index}  # those that stay, and the one that calculates
    assert len(held) == min(offloaded, buffers)
    assert all(tensor.device.type == "cpu" for tensor in tensors_of(model))
    if buffers == 2:
        sizes = [layout(tensors_of(block)).size for block in model.blocks]
        rest = size_of(tensors_of(model)) - sum(size_of(tensors_of(block)) for block in model.blocks)
        stays = sum(sizes[index] for index in resident) + rest
        counted = stays + sum(flat.numel() for flat in held)
        assert counted == resident_bytes(Weights(blocks=tuple(sizes), rest=rest), offloaded)


def test_away_blocks_are_spread() -> None:
    assert offloaded_blocks(40, 20) == list(range(1, 40, 2))
    assert offloaded_blocks(7, 3) == [2, 4, 6]
    for blocks in (1, 7, 40):
        for offloaded in range(blocks + 1):
            chosen = offloaded_blocks(blocks, offloaded)
            assert len(chosen) == len(set(chosen)) == offloaded
            if offloaded:
                gaps = [b - a for a, b in zip(chosen, [*chosen[1:], chosen[0] + blocks], strict=True)]
                assert max(gaps) - min(gaps) <= 1


# -- what may happen in between ---------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("at", range(LAYERS))
@torch.no_grad()
def test_a_run_that_ends_in_the_middle_leaves_everything_sound(at: int, error: type[BaseException]) -> None:
    model, given = make(), inputs()
    expected, before = model(*given), resting(model)

    def stop(*_: object) -> None:
        raise error("stopped")

    with attach(model, "cpu", 5):
        hook = model.blocks[at].ffn[2].register_forward_hook(stop)
        with pytest.raises(error):
            model(*given)
        hook.remove()
        assert same(before, resting(model))
        assert torch.equal(model(*given), expected)
        assert torch.equal(model(*given), expected)
    assert same(before, resting(model))


@torch.no_grad()
def test_a_buffer_that_a_stop_left_in_use_is_taken_back() -> None:
    model, given = make(), inputs()
    expected = model(*given)
    with attach(model, "cpu", LAYERS) as offload:
        assert offload.ring is not None
        offload.ring.take(3)  # and never given back
        assert torch.equal(model(*given), expected)


@torch.no_grad()
def test_no_room_on_the_device_leaves_nothing_there(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = make(), inputs()
    expected, before = model(*given), resting(model)
    real = torch.empty

    def empty(*args: object, **options: object) -> torch.Tensor:
        if options.get("dtype") == torch.uint8:
            raise torch.OutOfMemoryError("out of memory")
        return real(*args, **options)

    monkeypatch.setattr(torch, "empty", empty)
    with pytest.raises(torch.OutOfMemoryError):
        attach(model, "meta", 3)
    monkeypatch.undo()
    assert same(before, resting(model))
    assert torch.equal(model(*given), expected)


@torch.no_grad()
def test_another_number_of_blocks_and_other_weights_the_next_time() -> None:
    model, given = make(), inputs()
    offload = Offload(model, "cpu", pack=True)
    expected = model(*given)
    for offloaded in (5, 2, 7, 0, 7):
        offload.open(offloaded)
        assert torch.equal(model(*given), expected)
    offload.close()
    offload.close()
    # what merging a LoRA does: another tensor in the place of the old one
    model.blocks[3].ffn[0].weight = torch.nn.Parameter(model.blocks[3].ffn[0].weight * 1.5, requires_grad=False)
    expected = model(*given)
    offload.open(7)
    assert torch.equal(model(*given), expected)
    offload.close()
    merge(model, [])


@torch.no_grad()
def test_mapped_weights_are_only_read(tmp_path: Path) -> None:
    from wan_local.weights.formats import safetensors_file

    model, given = make(), inputs()
    expected = model(*given)
    file = tmp_path / "weights.safetensors"
    save_file({name: value.clone() for name, value in model.state_dict().items()}, file)
    content = file.read_bytes()
    entries, _ = safetensors_file.read_header(file)
    model.load_state_dict({name: entry.read() for name, entry in entries.items()}, assign=True)
    before = resting(model)
    with attach(model, "cpu", 6):
        assert torch.equal(model(*given), expected)
    assert same(before, resting(model))  # not copied either
    assert file.read_bytes() == content


def test_inference_mode_and_autocast() -> None:
    model, given = make(), inputs()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = model(*given)
        with attach(model, "cpu", 5):
            assert torch.equal(model(*given), expected)
            assert torch.equal(model(*given), expected)
    with torch.no_grad():
        expected = model(*given)
        with attach(model, "cpu", 5):
            assert torch.equal(model(*given), expected)


def test_gradients_are_refused() -> None:
    model, given = make(), inputs()
    with attach(model, "cpu", 3):
        model(*given)  # nothing asks for gradients: nothing to refuse
        with pytest.raises(InputError, match=r"give no gradients; run under torch.no_grad\(\)"):
            model(given[0].requires_grad_(), *given[1:])
        model.requires_grad_(True)
        with pytest.raises(InputError, match="give no gradients"):
            model(given[0].detach(), *given[1:])


def test_somebody_elses_forward_is_kept() -> None:
    model = make()
    theirs = model.blocks[1].forward
    model.blocks[1].forward = theirs
    attach(model, "cpu", LAYERS).close()
    assert vars(model.blocks[1])["forward"] == theirs
    assert "forward" not in vars(model.blocks[0])


@pytest.mark.parametrize("offloaded", [-1, LAYERS + 1])
def test_more_blocks_than_there_are(offloaded: int) -> None:
    with pytest.raises(InputError, match=rf"offload={offloaded} can't be used: the model has 7 blocks; use 0 to 7"):
        attach(make(), "cpu", offloaded)


def test_wrong_uses() -> None:
    with pytest.raises(InputError, match="buffers=0 can't be used; use 1 or more"):
        attach(make(), "cpu", 2, buffers=0)
    with pytest.raises(InputError, match="the transformer is on meta already; load it with device='cpu'"):
        attach(make().to("meta"), "meta", 2)


def test_every_tensor_begins_where_its_own_memory_might() -> None:
    """Kernels choose by alignment, and a view of wider items needs it."""
    given = [torch.zeros(3, dtype=torch.uint8), torch.zeros((), dtype=torch.float64), torch.zeros(0), torch.zeros(5, 7)]
    planned = layout(given)
    assert [place.start for place in planned.places] == [0, 256, 512, 512]
    assert planned.size == 768
    flat = torch.zeros(planned.size, dtype=torch.uint8)
    for tensor, place in zip(given, planned.places, strict=True):
        assert place.view(flat).shape == tensor.shape
        assert place.view(flat).dtype == tensor.dtype


def test_packing_frees_what_held_the_weights_before() -> None:
    block = make("strided").blocks[0]
    old = block.ffn[0].weight.data_ptr()
    strides = {name: tensor.stride() for name, tensor in block.named_parameters()}
    host = HostBlock(block)
    flat = host.pack()
    assert host.pack() is flat
    low, high = flat.data_ptr(), flat.data_ptr() + flat.numel()
    for name, tensor in block.named_parameters():
        assert low <= tensor.data_ptr() < high, name
        assert tensor.data_ptr() % tensor.element_size() == 0
        assert tensor.stride() == strides[name] or 0 in strides[name]
    assert not low <= old < high
