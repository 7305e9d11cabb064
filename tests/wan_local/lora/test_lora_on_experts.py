"""LoRAs that people put on Wan2.2's experts: the four-step ones with their alpha, and those made for Wan2.1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from wan_local.config import TransformerConfig
from wan_local.lora import Use, apply, read
from wan_local.model import WanTransformer
from wan_local.quantised import parameter_shapes

EXPERT = TransformerConfig(dim=32, ffn_dim=48, num_heads=2, num_layers=2, freq_dim=32, text_dim=16, image_dim=0)
RANK, STEM = 8, "diffusion_model.blocks.1.cross_attn"


@pytest.fixture
def model() -> WanTransformer:
    torch.manual_seed(0)
    return WanTransformer(EXPERT).requires_grad_(False).eval()


def change(name: str, kind: str = "lora_{}.weight") -> dict[str, Tensor]:
    torch.manual_seed(len(name))
    return {
        f"{STEM}.{name}.{kind.format('down' if 'down' in kind else 'A')}": torch.randn(RANK, 32),
        f"{STEM}.{name}.{kind.format('up' if 'down' in kind else 'B')}": torch.randn(32, RANK),
    }


def test_the_alpha_of_the_four_step_files_counts(model: WanTransformer, tmp_path: Path) -> None:
    """Alpha 8 at rank 64 and the like: a loader that leaves it out gives a mosaic."""
    tensors = change("q")
    down, up = tensors.values()
    save_file({**tensors, f"{STEM}.q.alpha": torch.tensor(RANK * 0.125)}, tmp_path / "four.safetensors")
    before = model.blocks[1].cross_attn.q.weight.clone()
    lora = read(tmp_path / "four.safetensors", parameter_shapes(model))
    apply(model, [Use(lora=lora)])
    torch.testing.assert_close(model.blocks[1].cross_attn.q.weight, before + 0.125 * up @ down, rtol=1e-5, atol=1e-5)


def test_what_is_for_an_image_branch_is_left_out_and_told(model: WanTransformer, tmp_path: Path) -> None:
    """Files made for Wan2.1, and some for Wan2.2, change layers that an expert has not."""
    more = change("k_img") | change("v_img") | {f"{STEM}.norm_k_img.diff": torch.randn(32)}
    save_file(change("q") | more, tmp_path / "of_wan21.safetensors")
    lora = read(tmp_path / "of_wan21.safetensors", parameter_shapes(model))
    assert list(lora.deltas) == ["blocks.1.cross_attn.q.weight"]
    assert "5 not used" in lora.report()
    assert "k_img" in lora.report()
