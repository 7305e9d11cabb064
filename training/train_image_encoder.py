"""Train the nano model's image encoder to say what a frame shows.

It is a transformers ``CLIPVisionModel``. What the transformer reads is the output of the layer before the last, as in
the released model: there every patch must tell its own colours, coarsely. After the last layer the class token must
tell which shape the frame shows, where, how large and in what colour.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from wan_local.encoders.image import ImageEncoder

from .draw import draw, random_clips
from .grammar import COLOURS, SHAPES, Clip
from .loop import Curve, Recipe, train

CONFIG = CLIPVisionConfig(
    hidden_size=96, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4, image_size=224,
    patch_size=32, hidden_act="gelu", projection_dim=96,
)  # fmt: skip
SIZE = 64
SEED = 2_000_000
CELLS = 3
NUMBERS = 6  # x, y, radius, red, green, blue


class Examinee(nn.Module):
    """The image encoder with the two heads that are thrown away after training."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = CLIPVisionModel(CONFIG)
        self.from_patches = nn.Linear(CONFIG.hidden_size, 3 * CELLS**2)
        self.from_class = nn.Linear(CONFIG.hidden_size, NUMBERS + len(SHAPES))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        out = self.encoder(pixel_values=pixels, output_hidden_states=True)
        return self.from_patches(out.hidden_states[-2][:, 1:]), self.from_class(out.pooler_output)


def train_image_encoder(run: Path, curve: Curve, device: torch.device) -> CLIPVisionModel:
    """Train and return the encoder with averaged weights."""
    torch.manual_seed(1)
    examinee = Examinee().to(device)
    recipe = Recipe(learning_rate=1e-3, warmup=200, weight_decay=0.01)
    train(examinee, lambda step: _loss(examinee, step, device), recipe, run, curve, device)
    return examinee.encoder


def _loss(examinee: Examinee, step: int, device: torch.device) -> tuple[Tensor, dict[str, float]]:
    clips = random_clips(SEED + step, 48)
    rng = random.Random(step)
    ends = [rng.random() < 0.5 for _ in clips]  # the first or the last frame of each clip
    video = draw(clips, 2, SIZE, device)
    images = torch.stack([video[i, :, int(end)] for i, end in enumerate(ends)])  # [B, 3, S, S]
    pixels = ImageEncoder(examinee.encoder).preprocess(list(images))
    numbers = torch.tensor([_numbers(clip, end) for clip, end in zip(clips, ends, strict=True)], device=device)
    shapes = torch.tensor([SHAPES.index(clip.shape) for clip in clips], device=device)
    patches, answer = (part.float() for part in examinee(pixels))
    colours = F.mse_loss(patches, _colours(images))
    loss = 10 * colours + 5 * F.smooth_l1_loss(answer[:, :NUMBERS], numbers, beta=0.1)
    loss = loss + 0.2 * F.cross_entropy(answer[:, NUMBERS:], shapes)
    error = (answer[:, :2] - numbers[:, :2]).abs().mean().item()
    right = (answer[:, NUMBERS:].argmax(1) == shapes).float().mean().item()
    return loss, {"colours": colours.item(), "place": error, "shape": right}


def _colours(images: Tensor) -> Tensor:
    """What the patches must tell: mean colours of ``CELLS x CELLS`` parts of each, ``[B, patches, 3 * CELLS**2]``."""
    side = CONFIG.image_size // CONFIG.patch_size
    cells = F.interpolate(images, size=(side * CELLS, side * CELLS), mode="area")
    return rearrange(cells, "b c (h p) (w q) -> b (h w) (c p q)", p=CELLS, q=CELLS)


def _numbers(clip: Clip, end: bool) -> tuple[float, ...]:
    radius, colour = (clip.end_radius, clip.end_colour) if end else (clip.radius, clip.colour)
    return (*clip.place(float(end)), radius, *COLOURS[colour])
