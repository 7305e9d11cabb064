"""Train the nano model's transformer and text encoder together, by flow matching on latents made beforehand.

The transformer is told ``x = (1 - sigma) * x0 + sigma * noise`` and the timestep ``1000 * sigma``, and learns the
velocity ``noise - x0`` (Lipman et al. 2022, "Flow Matching for Generative Modeling", the straight path).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from wan_local.config import TransformerConfig
from wan_local.model import WanTransformer
from wan_local.model.initial import initialise

from .loop import Recipe, Stage, train
from .tokenizer import TEXT_LEN
from .train_image_encoder import CONFIG as IMAGE_CONFIG

IMAGE_ROWS = 2 * ((IMAGE_CONFIG.image_size // IMAGE_CONFIG.patch_size) ** 2 + 1)
TEXT_CONFIG = UMT5Config(
    vocab_size=424, d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4, is_encoder_decoder=False,
    use_cache=False, dropout_rate=0.0, feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1,
)  # fmt: skip
CONFIG = TransformerConfig(
    dim=256, ffn_dim=768, num_heads=4, num_layers=6, text_dim=128, freq_dim=256, text_len=TEXT_LEN,
    image_dim=IMAGE_CONFIG.hidden_size, image_tokens=IMAGE_ROWS,
)  # fmt: skip
SHIFT = 3.0  # how much of the training happens at high noise
BATCH = 32
RECIPES = {
    "first": Recipe(learning_rate=1e-3, weight_decay=0.01, warmup=500, average=0.9995),
    "again": Recipe(learning_rate=8e-4, weight_decay=0.01, warmup=100, average=0.999),
}
NO_PROMPT = 0.1  # share of clips trained without their caption, for classifier-free guidance


class TextToVelocity(nn.Module):
    """Both networks that learn from the velocity: text encoder and transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = UMT5EncoderModel(TEXT_CONFIG)
        self.transformer = initialise(WanTransformer(CONFIG, attend=_attend))

    def forward(self, latents: Tensor, timestep: Tensor, ids: Tensor, image: Tensor) -> Tensor:
        mask = (ids != TEXT_CONFIG.pad_token_id).long()
        text = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.transformer(latents, timestep, text * mask[..., None], image)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by two matrix products: for a hundred rows its backward is five times faster than the fused one."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [B, N, L, K]
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2)


def train_transformer(
    run: Path, curves: list[tuple[int, dict[str, Tensor]]], tokenizer: Path, negative_prompt: str
) -> TextToVelocity:
    """Train and return both networks with averaged weights.

    Args:
        run: folder for checkpoints and logs.
        curves: steps and clips of each learning-rate curve, one after the other.
        tokenizer: its folder.
        negative_prompt: what some clips without a caption get in its place.
    """
    torch.manual_seed(2)
    model = TextToVelocity()
    words = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    blank = words(["", negative_prompt], padding="max_length", truncation=True, max_length=TEXT_LEN)
    no_prompts = torch.tensor(blank["input_ids"])
    for block in model.transformer.blocks:
        block.compile(dynamic=False)
    for (steps, data), (name, recipe) in zip(curves, RECIPES.items(), strict=True):
        stage = Stage(name=name, steps=steps, loss=lambda step, data=data: _loss(model, data, no_prompts))
        train(model, [stage], recipe, run / name)
    return model


def _loss(model: TextToVelocity, data: dict[str, Tensor], no_prompts: Tensor) -> tuple[Tensor, dict[str, float]]:
    picked = torch.randint(len(data["latents"]), (BATCH,))
    x0, condition, image = (data[name][picked].float() for name in ("latents", "condition", "image"))
    ids = data["ids"][picked].long()
    dropped = torch.rand(BATCH) < NO_PROMPT
    ids[dropped] = no_prompts[torch.randint(len(no_prompts), (BATCH,))][dropped]

    uniform = (torch.arange(BATCH) + torch.rand(BATCH)) / BATCH  # stratified: every batch sees all noise levels
    sigma = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
    noise = torch.randn_like(x0)
    level = sigma.view(-1, 1, 1, 1, 1)
    noisy = (1 - level) * x0 + level * noise
    velocity = model(torch.cat((noisy, condition), dim=1), 1000 * sigma, ids, image)
    errors = F.mse_loss(velocity.float(), noise - x0, reduction="none").mean((1, 2, 3, 4))
    return errors.mean(), {"high": errors[sigma > 0.8].mean().item(), "low": errors[sigma < 0.3].mean().item()}
