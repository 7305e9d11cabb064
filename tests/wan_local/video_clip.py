"""A clip for the tests of video files."""

from __future__ import annotations

import torch


def clip(frames: int = 9, height: int = 64, width: int = 96) -> torch.Tensor:
    """Soft coloured waves that move: like an image, unlike noise."""
    y = torch.linspace(0, 6, height).view(1, height, 1)
    x = torch.linspace(0, 9, width).view(1, 1, width)
    t = torch.linspace(0, 1, frames).view(frames, 1, 1)
    waves = [torch.sin(x + 2 * t + k) * torch.cos(y - t + 2 * k) for k in range(3)]
    return torch.stack(waves, dim=-1) * 0.5 + 0.5  # [F, H, W, 3]
