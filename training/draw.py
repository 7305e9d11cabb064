"""Draw clips of the grammar: anti-aliased shapes by signed distance, many clips at a time.

Everything is computed, nothing is downloaded. Frames are ``[B, 3, F, H, W]`` in -1..1.
"""

from __future__ import annotations

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor

from .grammar import COLOURS, Clip, random_clip

EDGE = 2.0  # pixels over which a shape fades into the background, as through a lens


def random_clips(seed: int, count: int) -> list[Clip]:
    """``count`` clips that depend on ``seed`` alone."""
    rng = random.Random(seed)
    return [random_clip(rng) for _ in range(count)]


def draw(clips: list[Clip], frames: int, size: int, device: torch.device | str = "cpu") -> Tensor:
    """Render clips to ``[B, 3, F, size, size]`` in -1..1."""
    video, _ = draw_parts(clips, frames, size, device)
    return video


def draw_parts(clips: list[Clip], frames: int, size: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Render clips and their bare backgrounds: ``[B, 3, F, size, size]`` and ``[B, 3, 1, size, size]``, -1..1.

    Everything but the edge of the shapes, which is so many pixels wide at every size, is in shares of the side.
    """
    backgrounds = torch.stack([background(clip.background_seed, size) for clip in clips]).to(device)  # [B, 3, S, S]
    times = [0.0] if frames == 1 else [i / (frames - 1) for i in range(frames)]
    pose = torch.tensor([[_pose(clip, t) for t in times] for clip in clips], device=device)  # [B, F, 7]
    x0, y0, radius, angle = (pose[:, :, i, None, None] for i in range(4))  # [B, F, 1, 1]
    colour = pose[:, :, 4:7]  # [B, F, 3]

    axis = (torch.arange(size, device=device) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    dx, dy = x - x0, y - y0  # [B, F, S, S]
    cos, sin = torch.cos(angle), torch.sin(angle)
    u, v = (dx * cos + dy * sin) / radius, (dy * cos - dx * sin) / radius  # in units of the radius
    distance = torch.stack([_distance(clip.shape, u[i], v[i]) for i, clip in enumerate(clips)]) * radius
    cover = (0.5 - distance * size / EDGE).clamp(0, 1)[:, None]  # [B, 1, F, S, S]: how much of the pixel is inside
    paint = colour.permute(0, 2, 1)[..., None, None]  # [B, 3, F, 1, 1]
    still = backgrounds[:, :, None]  # [B, 3, 1, S, S]
    return (still + (paint - still) * cover) * 2 - 1, still * 2 - 1


def background(seed: int, size: int) -> Tensor:
    """A soft field of a few colours ``[3, size, size]`` in 0..1, from ``seed`` alone."""
    generator = torch.Generator().manual_seed(seed)
    cells = int(torch.randint(2, 4, (1,), generator=generator))
    base = 0.25 + 0.5 * torch.rand(3, 1, 1, generator=generator)
    field = base + 0.35 * (torch.rand(3, cells, cells, generator=generator) - 0.5)
    field = F.interpolate(field[None], size=(size, size), mode="bicubic", align_corners=True)[0]
    return field.clamp(0.05, 0.95)


def _pose(clip: Clip, t: float) -> tuple[float, ...]:
    x, y = clip.place(t)
    radius = clip.radius + (clip.end_radius - clip.radius) * t
    first, last = COLOURS[clip.colour], COLOURS[clip.end_colour]
    colour = [a + (b - a) * t for a, b in zip(first, last, strict=True)]
    return (x, y, radius, clip.angle + clip.turn * t, *colour)


def _distance(shape: str, u: Tensor, v: Tensor) -> Tensor:
    """Signed distance to a shape of circumradius about 1, negative inside. ``u`` and ``v``: ``[F, S, S]``."""
    if shape == "circle":
        return torch.hypot(u, v) - 0.95
    if shape == "square":
        return _box(u, v, 0.78, 0.78)
    if shape == "bar":
        return _box(u, v, 1.0, 0.45)
    if shape == "triangle":
        # Three half planes: exact inside and at the sides, which is all that anti-aliasing needs.
        sides = [u * math.sin(a) - v * math.cos(a) for a in (math.pi, math.pi / 3, -math.pi / 3)]
        return torch.stack(sides).amax(0) - 0.55
    raise ValueError(f"unknown shape {shape!r}")


def _box(u: Tensor, v: Tensor, half_u: float, half_v: float) -> Tensor:
    over_u, over_v = u.abs() - half_u, v.abs() - half_v
    outside = torch.hypot(over_u.clamp_min(0), over_v.clamp_min(0))
    return outside + torch.maximum(over_u, over_v).clamp_max(0)
