"""What one block takes and moves at the real size, counted on the meta device, and that pieces change no number."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from wan_local.attention import sdpa
from wan_local.config import WAN_FLF2V_14B, TransformerConfig
from wan_local.memory.live import LiveBytes
from wan_local.model import blocks, norms, pieces
from wan_local.model.blocks import Block, Context
from wan_local.model.rope import rope_table
from wan_local.shapes import Grid

SMALL = TransformerConfig(dim=256, ffn_dim=704, num_heads=2, num_layers=1, text_dim=64, image_dim=64, image_tokens=20)
LARGE = Grid(frames=81, height=720, width=1280)


class MovedBytes(TorchDispatchMode):
    """Counts the bytes that operations read and write, but for products and attention; views move none."""

    ELSEWHERE = ("mm", "view", "empty", "slice", "unsqueeze", "transpose", "aten.t.", "unbind", "alias")

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not any(part in str(function) for part in self.ELSEWHERE):
            read = args[1:] if "copy_" in str(function) else args
            written = result if isinstance(result, tuple) else (result,)
            self.moved += sum(tensor.nbytes for tensor in (*read, *written) if isinstance(tensor, torch.Tensor))
        return result


class OneKernel(TorchFunctionMode):
    """RMSNorm as the one kernel that it is on a GPU, which reads its input and writes its output."""

    def __init__(self, count: MovedBytes) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.rms_norm:
            self.count.moved += 2 * args[0].nbytes
            return torch.empty_like(args[0])
        return function(*args, **(kwargs or {}))


def context_for(config: TransformerConfig, grid: tuple[int, int, int], dtype: torch.dtype, device: str) -> Context:
    return Context(
        time=torch.randn(1, 6, config.dim, device=device),
        text=torch.randn(1, 512, config.dim, device=device, dtype=dtype),
        image=torch.randn(1, 514, config.dim, device=device, dtype=dtype),
        rope=rope_table(grid, config.head_dim, torch.device(device)),
        dtype=dtype,
        attend=sdpa.attend if device != "meta" else lambda q, k, v: torch.empty_like(q),
    )


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pieces_change_no_bit(dtype: torch.dtype, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    block = Block(SMALL, torch.nn).to(dtype).requires_grad_(False)
    context = context_for(SMALL, (4, 6, 8), dtype, "cpu")
    x = torch.randn(batch, 4 * 6 * 8, SMALL.dim)
    with torch.enable_grad():  # whole, and nothing overwritten
        expected = block(x, context)
    for most in (8192, 100, 64):  # torch 2.5 rounds a few rows in another order than many
        monkeypatch.setattr(pieces, "MOST", most)
        with torch.no_grad():
            assert torch.equal(block(x.clone(), context), expected), f"pieces of {most}"


def test_a_block_overwrites_its_tokens_only_outside_training() -> None:
    block = Block(SMALL, torch.nn).requires_grad_(False)
    context = context_for(SMALL, (2, 4, 4), torch.float32, "cpu")
    x = torch.randn(1, 32, SMALL.dim)
    before = x.clone()
    with torch.enable_grad():
        block(x, context)
    assert torch.equal(x, before)
    with torch.no_grad():
        assert block(x, context).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("length", [1, 15, 16, 17, 100, 8192, 8193, 75600])
def test_pieces_cover_every_token_once(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MOST", 16)
    rows = torch.zeros(length)
    with torch.no_grad():
        for piece in pieces.pieces(length):
            assert len(rows[piece]) <= 16
            rows[piece] += 1
    assert torch.equal(rows, torch.ones(length))


@pytest.fixture
def large() -> tuple[Block, Context, torch.Tensor]:
    """A block of the released model with the tokens of 81 frames at 1280x720, on the meta device."""
    grid = (LARGE.latent_frames, LARGE.latent_height // 2, LARGE.latent_width // 2)
    with torch.device("meta"):
        block = Block(WAN_FLF2V_14B, torch.nn).to(torch.bfloat16).requires_grad_(False)
        context = context_for(WAN_FLF2V_14B, grid, torch.bfloat16, "meta")
        return block, context, torch.empty(1, LARGE.tokens, WAN_FLF2V_14B.dim)


@pytest.mark.parametrize("fused", [True, False])
def test_the_peak_of_a_block_at_720p(large: Any, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens in float32 and never more than four tensors of them in bfloat16; it was 9.3 GB."""
    monkeypatch.setattr(blocks, "has_rms_norm", lambda device: fused)
    monkeypatch.setattr(norms, "is_of_several_kernels", lambda x: not fused)
    block, context, x = large
    with torch.no_grad(), OneKernel(MovedBytes()) if fused else contextlib.nullcontext(), LiveBytes() as count:
        block(x, context)
    peak = (count.peak + x.nbytes) / 1e9
    print(f"a block of the 14B model at 720p, fused norm {fused}: peak {peak:.2f} GB at {count.at}")
    assert peak <= 4.7


@pytest.mark.parametrize(("kernel", "most"), [(False, 54.7), (True, 42.3)], ids=["torch alone", "rotation in a kernel"])
def test_what_a_block_moves_at_720p(large: Any, kernel: bool, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    block, context, x = large
    count = MovedBytes()

    def turn(heads: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        count.moved += 2 * heads.nbytes + table.nbytes
        return heads

    monkeypatch.setattr(blocks, "has_rms_norm", lambda device: True)
    monkeypatch.setattr(norms, "is_of_several_kernels", lambda x: False)
    monkeypatch.setattr(blocks, "rope_kernel", lambda heads: turn if kernel else None)
    with torch.no_grad(), OneKernel(count), count:
        block(x, context)
    print(f"a block of the 14B model at 720p moves {count.moved / 1e9:.1f} GB beside products and attention")
    assert count.moved <= most * 1e9
