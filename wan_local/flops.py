"""How much arithmetic a forward and a decode are: floating-point operations, two for each multiply-add.

Matrix products and convolutions only; softmax, norms, rotary embedding and gating are left out, as is usual.
"""

from __future__ import annotations

from .config import TransformerConfig, VAEConfig
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


def vae_decode(config: VAEConfig, grid: Grid) -> int:
    """Decoding one clip. A convolution's kernel counts whole, also where it meets the zeros before the clip."""
    widths = [config.dim * mult for mult in reversed(config.dim_mult)]
    temporal = config.temporal_downsample[::-1]
    frames, height, width = grid.latent_shape
    cells = frames * height * width
    macs = cells * 27 * config.z_dim * widths[0]
    macs += (
        cells * 2 * _residual(widths[0], widths[0])
        + cells * 4 * widths[0] ** 2
        + 2 * frames * (height * width) ** 2 * widths[0]
    )
    in_dim = widths[0]
    for level, out_dim in enumerate(widths):
        for _ in range(config.num_res_blocks + 1):
            macs += cells * _residual(in_dim, out_dim)
            in_dim = out_dim
        if level < len(widths) - 1:
            if temporal[level]:
                macs += cells * 3 * in_dim * 2 * in_dim
                cells, frames = cells // frames * (2 * frames - 1), 2 * frames - 1
            cells *= 4
            macs += cells * 9 * in_dim * (in_dim // 2)
            in_dim //= 2
    macs += cells * 27 * in_dim * 3
    return 2 * macs


def _residual(in_dim: int, out_dim: int) -> int:
    shortcut = in_dim * out_dim if in_dim != out_dim else 0
    return 27 * in_dim * out_dim + 27 * out_dim**2 + shortcut
