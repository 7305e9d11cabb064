"""Small transformers whose blocks hold what real ones may hold: other dtypes, packed bytes, odd strides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wan_local.config import TransformerConfig
from wan_local.model import WanTransformer

CONFIG = TransformerConfig(
    dim=32, ffn_dim=48, num_heads=2, num_layers=7, text_dim=12, freq_dim=16, image_dim=16, image_tokens=6, text_len=5
)


class PackedLinear(nn.Module):
    """Keeps its weight as bytes beside a scale, as quantised layers do; even and odd ones in different dtypes."""

    made = 0

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        PackedLinear.made += 1
        weight = torch.randn(width_out, width_in) * 0.2
        if PackedLinear.made % 2:
            self.weight = nn.Parameter((weight * 100).round().to(torch.int8).view(torch.uint8), requires_grad=False)
            self.register_buffer("scale", torch.tensor(0.01))
        else:
            self.weight = nn.Parameter(weight.to(torch.float8_e4m3fn), requires_grad=False)
            self.register_buffer("scale", torch.rand(width_out, 1) + 0.5, persistent=False)
        self.register_buffer("absent", None)
        self.bias = nn.Parameter(torch.randn(width_out).bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        packed = self.weight.view(torch.int8) if self.weight.dtype == torch.uint8 else self.weight
        return nn.functional.linear(x, packed.to(x.dtype) * self.scale, self.bias.to(x.dtype))


def make(kind: str = "plain", config: TransformerConfig = CONFIG) -> WanTransformer:
    """``plain``: float32; ``packed``: PackedLinear in the blocks; ``strided``: weights that lie column by column."""
    torch.manual_seed(0)
    PackedLinear.made = 0
    layers: Any = nn if kind != "packed" else SimpleNamespace(
        Linear=PackedLinear, LayerNorm=nn.LayerNorm, RMSNorm=nn.RMSNorm, Conv3d=nn.Conv3d
    )  # fmt: skip
    model = WanTransformer(config, operations=layers, compute_dtype=torch.float32 if kind == "packed" else None)
    for parameter in model.parameters():
        if parameter.dtype == torch.float32:
            nn.init.normal_(parameter, std=0.3)
    if kind == "strided":
        for block in model.blocks:
            block.ffn[0].weight.data = block.ffn[0].weight.data.t().contiguous().t()
            block.ffn[2].bias.data = torch.ones(1).expand(config.dim)  # one value in memory
    return model.requires_grad_(False).eval()


def inputs(seed: int = 1, device: str = "cpu") -> tuple[Tensor, ...]:
    """A clip of 2 x 4 x 4 tokens."""
    torch.manual_seed(seed)
    made = (torch.randn(1, 36, 2, 8, 8), torch.tensor([500.0]), torch.randn(1, 5, 12), torch.randn(1, 6, 16))
    return tuple(value.to(device) for value in made)


@pytest.fixture(params=["plain", "packed", "strided"])
def model(request: pytest.FixtureRequest) -> WanTransformer:
    return make(request.param)
