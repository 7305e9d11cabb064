"""What enters beside the video: the timestep, the text embeddings and the image embeddings.

Follows Wan2.1 ``wan/modules/model.py`` (sinusoidal_embedding_1d, MLPProj). Both kinds of embeddings
stay apart for good; nothing is concatenated and cut apart again by a number that happens to fit one model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import TransformerConfig
from ..operations import Operations
from .norms import float64_device, layer_norm_float32, linear_float32, without_autocast

IMAGE_NORM_EPS = 1e-5  # torch's default, which the official img_emb uses; all other norms take config.eps


def sinusoid(timestep: Tensor, dim: int) -> Tensor:
    """Cosines then sines of ``timestep * 10000 ** (-j / (dim / 2))``.

    Args:
        timestep: ``[B]``, 0..1000.
        dim: width of the result, even.

    Returns:
        ``[B, dim]`` fp32, computed in float64: at 1000 a float32 angle is off by 3e-5.
    """
    half, device = dim // 2, float64_device(timestep.device)
    exponent = torch.arange(half, dtype=torch.float64, device=device) / half
    angles = torch.outer(timestep.to(device, torch.float64), 10000.0**-exponent)
    return torch.cat((angles.cos(), angles.sin()), dim=1).float().to(timestep.device)


def embed_time(sinusoids: Tensor, embedding: nn.Sequential, projection: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Run the two time networks in float32, whatever the weights are stored in and whatever autocast wants.

    Args:
        sinusoids: ``[B, freq_dim]`` fp32.
        embedding: Linear, SiLU, Linear.
        projection: SiLU, Linear.

    Returns:
        ``[B, D]`` fp32 for the head and ``[B, 6, D]`` fp32 for the blocks.
    """
    with without_autocast(sinusoids.device):
        hidden = embedding[1](linear_float32(embedding[0], sinusoids))
        time = linear_float32(embedding[2], hidden)  # [B, D]
        block_time = linear_float32(projection[1], projection[0](time))  # [B, 6 D]
    return time, block_time.unflatten(1, (6, -1))


def embed_text(text: Tensor, embedding: nn.Sequential, dtype: torch.dtype) -> Tensor:
    """Two layers with tanh GELU; ``[B, S, text_dim]`` -> ``[B, S, D]`` in ``dtype``.

    Zeros behind a short prompt do not stay zero (the layers have biases), and they are attended to, as in
    training.
    """
    return embedding(text.to(dtype))


class ImageEmbedding(nn.Module):
    """Image embeddings to what the blocks read: LayerNorm, two layers with exact GELU, LayerNorm.

    With ``config.image_tokens`` a learned position is added to every embedding of the two images *before* the first
    norm; it is what tells the first image from the last.
    """

    def __init__(self, config: TransformerConfig, operations: Operations) -> None:
        super().__init__()
        width = config.image_dim
        self.proj = nn.Sequential(
            operations.LayerNorm(width, eps=IMAGE_NORM_EPS),
            operations.Linear(width, width),
            nn.GELU(),
            operations.Linear(width, config.dim),
            operations.LayerNorm(config.dim, eps=IMAGE_NORM_EPS),
        )
        if config.image_tokens:
            self.emb_pos = nn.Parameter(torch.zeros(1, config.image_tokens, width))
        else:
            self.register_parameter("emb_pos", None)

    def forward(self, image: Tensor, dtype: torch.dtype, first_row: int = 0) -> Tensor:
        """``[B, rows, image_dim]`` -> ``[B, rows, D]`` in ``dtype``, which the linears run in.

        ``first_row`` is the position of the first of them: the last image alone has the second half of the positions.
        """
        image = image.float()
        if self.emb_pos is not None:
            image = image + self.emb_pos[:, first_row : first_row + image.shape[1]].to(image)
        hidden = layer_norm_float32(self.proj[0], image).to(dtype)
        hidden = self.proj[3](self.proj[2](self.proj[1](hidden)))
        return layer_norm_float32(self.proj[4], hidden).to(dtype)
