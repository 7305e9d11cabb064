"""How much arithmetic a forward is: floating-point operations, two for each multiply-add.

Matrix products and convolutions only; softmax, norms, rotary embedding and gating are left out, as is usual.
"""

from __future__ import annotations

from .config import TransformerConfig
from .shapes import Grid


def transformer_forward(config: TransformerConfig, grid: Grid) -> int:
    """One forward of batch 1."""
    cells = config.patch_size[0] * config.patch_size[1] * config.patch_size[2]
    ends = 2 * grid.tokens * config.dim * cells * (config.in_dim + config.out_dim)
    return config.num_layers * (block_attention(config, grid) + block_products(config, grid)) + ends


def block_attention(config: TransformerConfig, grid: Grid) -> int:
    """The attention kernels of one block: of the tokens among themselves, to the text and to the images."""
    rows = grid.tokens + config.text_len + config.image_tokens
    return 2 * 2 * grid.tokens * rows * config.dim


def block_products(config: TransformerConfig, grid: Grid) -> int:
    """The linear layers of one block."""
    tokens, dim, read = grid.tokens, config.dim, config.text_len + config.image_tokens
    return 2 * (6 * tokens * dim**2 + 2 * read * dim**2 + 2 * tokens * dim * config.ffn_dim)
