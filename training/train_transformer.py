"""Train the nano model's transformer by flow matching on latents made beforehand.

The transformer is told ``x = (1 - sigma) * x0 + sigma * noise`` and the timestep ``1000 * sigma``, and learns the
velocity ``noise - x0`` (Lipman et al. 2022, "Flow Matching for Generative Modeling", the straight path). The text
encoder learns along only where both begin from nothing: the pair of experts reads the same one.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from wan_local.config import TransformerConfig
from wan_local.model import WanTransformer
from wan_local.model.initial import initialise

from .batches import Batches
from .loop import Curve, Recipe, train
from .tokenizer import TEXT_LEN
from .train_image_encoder import CONFIG as IMAGE_CONFIG

IMAGE_ROWS = 2 * ((IMAGE_CONFIG.image_size // IMAGE_CONFIG.patch_size) ** 2 + 1)
TEXT_CONFIG = UMT5Config(
    vocab_size=424, d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4, is_encoder_decoder=False,
    use_cache=False, dropout_rate=0.0, feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1,
)  # fmt: skip
CONFIG = TransformerConfig(
    dim=256, ffn_dim=768, num_heads=4, num_layers=6, text_dim=128, freq_dim=256, text_len=TEXT_LEN,
    image_dim=IMAGE_CONFIG.hidden_size, image_tokens=IMAGE_ROWS, trained_frames=1,
)  # fmt: skip
SHIFT = 3.0  # how much of the training happens at high noise
RECIPES = {
    "new": Recipe(learning_rate=1e-3, warmup=500, weight_decay=0.01, average=0.9995),
    "warm": Recipe(learning_rate=4e-4, warmup=50, weight_decay=0.01, average=0.998),
}


def new_transformer() -> WanTransformer:
    """One that has learnt nothing."""
    torch.manual_seed(2)
    return initialise(WanTransformer(CONFIG, attend=attend))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by two matrix products on a CPU, whose backward is five times faster for a hundred rows."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [B, N, L, K]
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2)


def velocity_networks(text_encoder: UMT5EncoderModel, transformer: WanTransformer) -> nn.ModuleDict:
    """Both networks that may learn from the velocity, as the checkpoints name them."""
    return nn.ModuleDict({"text_encoder": text_encoder, "transformer": transformer})


def train_transformer(run: Path, networks: nn.ModuleDict, batches: Batches, curve: Curve, device: torch.device) -> None:
    """Train the transformer in place, and the text encoder with it if that asks for gradients.

    Args:
        run: folder for checkpoints and logs.
        networks: of :func:`velocity_networks`, on ``device``.
        batches: of clips, with the text of that text encoder.
        curve: how long.
        device: of all of it.
    """
    transformer = networks["transformer"]
    learns = any(parameter.requires_grad for parameter in networks["text_encoder"].parameters())

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        batch = batches.draw(step, alike=True)
        sigma = batch.levels(SHIFT)
        noise = torch.randn_like(batch.latents)
        seen = batch.seen(noise, sigma)
        velocity = transformer(seen, 1000 * sigma, batch.text, batch.image, image_row=batch.image_row)
        errors = (velocity.float() - (noise - batch.latents)).square().mean((1, 2, 3, 4))
        return errors.mean(), {
            "high": errors[sigma > 0.8].mean().item(),
            "low": errors[sigma < 0.3].mean().item(),
            "bare": errors[batch.bare].mean().item(),
        }

    train(networks, loss, RECIPES["new" if learns else "warm"], run, curve, device)
