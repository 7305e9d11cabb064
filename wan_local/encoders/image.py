"""Images to the embeddings that the transformer's image branch reads.

The network is transformers' ``CLIPVisionModel``; what is ours is what goes in and which layer comes out. Follows
Wan2.1 ``wan/modules/clip.py``: squash to a square with a bicubic kernel without antialias and without rounding to
8 bit, normalise with CLIP's mean and deviation, take the output of the layer before the last, no final norm.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Radford et al. 2021, the preprocessing of the released CLIP models.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ImageEncoder:
    """CLIP's vision tower as Wan uses it.

    Args:
        model: transformers ``CLIPVisionModel``; sizes come from its config.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def preprocess(self, images: list[Tensor]) -> Tensor:
        """Squash and normalise.

        Args:
            images: each ``[3, H, W]`` in -1..1, of any size.

        Returns:
            ``[N, 3, S, S]`` float32 with S the model's image size.
        """
        side = self.model.config.image_size
        square = [
            F.interpolate(image[None].float(), size=(side, side), mode="bicubic", align_corners=False)
            for image in images
        ]
        pixels = torch.cat(square) * 0.5 + 0.5  # 0..1, may overshoot: the official code does not clamp either
        mean, std = (pixels.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        return (pixels - mean) / std

    @torch.no_grad()
    def encode(self, images: list[Tensor]) -> Tensor:
        """Embeddings: what the layer before the last gives.

        Args:
            images: each ``[3, H, W]`` in -1..1; for first-last give the first image, then the last.

        Returns:
            ``[N, rows, width]``, in the order of ``images``.
        """
        parameter = next(self.model.parameters())
        pixels = self.preprocess([image.to(parameter.device) for image in images]).to(parameter.dtype)
        return self.model(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
