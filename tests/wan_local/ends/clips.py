"""Clips of known truth, drawn anew: scenes, and what decoders and models do to them.

A case is the true clip, the clip as a model would have decoded it, and the two images that were given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.draw import draw, random_clips
from wan_local.images import resize, to_tensor

PHOTOS = [Path(__file__).parents[3] / "demo" / f"real_{name}.png" for name in ("first", "last")]
HEIGHT, WIDTH, FRAMES = 96, 128, 25


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Clips ``[F, H, W, 3]`` 0..1 and images ``[3, H, W]``."""

    kind: str
    scene: str
    truth: Tensor
    decoded: Tensor
    first: Tensor
    last: Tensor
    flash: tuple[int, ...] = field(default=())


def _path(pixels: Tensor, places: Tensor, scale: Tensor, turn: Tensor) -> Tensor:
    """A camera over one photo ``[3, h, w]``: centres ``[F, 2]`` and half widths in -1..1, turns in radians."""
    cos, sin = torch.cos(turn) * scale, torch.sin(turn) * scale
    aspect = HEIGHT / WIDTH
    rows = torch.stack(
        [torch.stack([cos, -sin * aspect, places[:, 0]], 1), torch.stack([sin, cos * aspect, places[:, 1]], 1)], 1
    )
    grid = F.affine_grid(rows, [len(places), 3, HEIGHT, WIDTH], align_corners=False)
    made = F.grid_sample(
        pixels[None].expand(len(places), -1, -1, -1), grid, mode="bicubic", padding_mode="reflection",
        align_corners=False,
    )  # fmt: skip
    return made.clamp(0, 1)  # [F, 3, H, W]


def _texture(seed: int) -> Tensor:
    """Noise of every size, ``[3, 256, 256]`` in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, 3, 256, 256)
    for cells in (4, 8, 16, 32, 64, 128):
        layer = torch.rand(1, 3, cells, cells, generator=generator) - 0.5
        total += F.interpolate(layer, size=(256, 256), mode="bicubic") * (4 / cells) ** 0.45
    return (total[0] * 0.75 + 0.5).clamp(0.03, 0.97)


def scenes(frames: int = FRAMES) -> dict[str, Tensor]:
    """Name to true clip ``[F, H, W, 3]``."""
    t = torch.linspace(0, 1, frames)
    zero, one = torch.zeros(frames), torch.ones(frames)
    photos = [resize(to_tensor(path, "photo"), 96, 96) for path in PHOTOS]  # soft, as a large frame is
    across = torch.stack([t * 0.3 - 0.15, zero], 1)
    made = {
        "slow pan": _path(photos[0], across, 0.6 * one, zero),
        "zoom": _path(photos[1], torch.zeros(frames, 2), 0.75 - 0.3 * t, zero),
        "turn": _path(photos[0], torch.zeros(frames, 2), 0.6 * one, 0.5 * t),
        "fast pan": _path(_texture(1), torch.stack([t * 0.9 - 0.45, 0.2 * t], 1), 0.5 * one, zero),
    }
    seeds = random_clips(77, 2)
    shapes = draw(seeds, frames, WIDTH).mul(0.5).add(0.5)[:, :, :, 16 : 16 + HEIGHT]  # [2, 3, F, H, W]
    made["shape"] = shapes[0].movedim(1, 0)
    made["shape over photo"] = torch.where(
        (shapes[1] - shapes[1][:, :1]).abs().sum(0, keepdim=True) > 0.3, shapes[1], made["zoom"][0][:, None]
    ).movedim(1, 0)
    near = _path(_texture(2), torch.stack([t * 0.5 - 0.25, zero], 1), 0.5 * one, zero)
    mask = (torch.arange(HEIGHT)[:, None] > HEIGHT * 0.6).float().expand(HEIGHT, WIDTH)
    made["two layers"] = made["slow pan"] * (1 - mask) + near * mask
    made["sunset"] = _path(photos[1], across * 0.3, 0.7 * one, zero) * torch.stack(
        [1 - 0.25 * t, 1 - 0.4 * t, 1 - 0.5 * t], 1
    ).view(frames, 3, 1, 1)
    return {name: clip.movedim(1, -1).clamp(0, 1) for name, clip in made.items()}


def through_a_vae(clip: Tensor, seed: int) -> Tensor:
    """Softer, and with the noise of about 34 dB. ``[F, H, W, 3]``"""
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.exp(-torch.arange(-3, 4).float().square() / (2 * 0.7**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    flat = clip.movedim(-1, 1).flatten(0, 1)[:, None]  # [3F, 1, H, W]
    flat = F.conv2d(F.pad(flat, (3, 3, 0, 0), mode="reflect"), kernel)
    flat = F.conv2d(F.pad(flat, (0, 0, 3, 3), mode="reflect"), kernel.transpose(2, 3))
    soft = flat.view(len(clip), 3, *clip.shape[1:3]).movedim(1, -1)
    return (soft + 0.014 * torch.randn(soft.shape, generator=generator)).clamp(0, 1)


def drifted(clip: Tensor, seed: int) -> Tensor:
    """Another gamma, brightness and saturation at each end, and what lies between them in between."""
    generator = torch.Generator().manual_seed(seed)

    def ramp(low: float, high: float, side: float) -> Tensor:
        first, last = (low + (high - low) * float(torch.rand(1, generator=generator)) for _ in range(2))
        return torch.linspace(side * first, -side * last, len(clip)).view(-1, 1, 1, 1)

    side = 1.0 if seed % 2 else -1.0
    gamma, light, colour = ramp(0.08, 0.15, -side), ramp(0.02, 0.04, side), ramp(0.1, 0.2, side)
    out = clip.clamp(1e-4, 1) ** torch.exp(gamma) + light
    grey = out.mean(-1, keepdim=True)
    return (grey + (out - grey) * (1 + colour)).clamp(0, 1)


def moved(image: Tensor, dx: int, dy: int) -> Tensor:
    """``[3, H, W]`` by whole pixels, the edge repeated."""
    pad = max(abs(dx), abs(dy))
    wide = F.pad(image[None], (pad,) * 4, mode="replicate")[0]
    return wide[:, pad - dy : pad - dy + image.shape[1], pad - dx : pad - dx + image.shape[2]]


NAMES = ("slow pan", "zoom", "turn", "fast pan", "shape", "shape over photo", "two layers", "sunset")


def _scenes(names: Iterable[str]) -> Iterator[tuple[int, str, Tensor]]:
    drawn = scenes()
    for name in names:
        yield NAMES.index(name), name, drawn[name]


def _case(kind: str, scene: str, truth: Tensor, decoded: Tensor, last: Tensor | None = None, **more: Any) -> Case:
    end = truth[-1].movedim(-1, 0) if last is None else last
    return Case(kind=kind, scene=scene, truth=truth, decoded=decoded, first=truth[0].movedim(-1, 0), last=end, **more)


def clean(names: Iterable[str] = NAMES) -> list[Case]:
    return [_case("clean", name, clip, through_a_vae(clip, i)) for i, name, clip in _scenes(names)]


def drift(names: Iterable[str] = NAMES) -> list[Case]:
    return [_case("drift", name, clip, through_a_vae(drifted(clip, 20 + i), i)) for i, name, clip in _scenes(names)]


def misplaced(names: Iterable[str] = NAMES) -> list[Case]:
    """The last frame landed three pixels beside the last image: as the clip is, or drifted too."""
    made = []
    for i, name, clip in _scenes(names):
        last = moved(clip[-1].movedim(-1, 0), *((3, 0), (0, 3), (-3, 0), (2, -2))[i % 4])
        made.append(_case("misplaced", name, clip, through_a_vae(clip, i), last))
        made.append(_case("misplaced, drift", name, clip, through_a_vae(drifted(clip, 40 + i), i), last))
    return made


def brightened(clip: Tensor, at: tuple[int, ...], by: float) -> Tensor:
    clip = clip.clone()
    for index in at:
        clip[index] = (clip[index] * by + 0.02).clamp(0, 1)
    return clip


def lightning(names: Iterable[str] = NAMES) -> list[Case]:
    """True flashes near an end, or over it: the given image then shows them."""
    made, length = [], FRAMES
    for i, name, clip in _scenes(names):
        at = ((length - 5, length - 4), (length - 2, length - 1), (2, 3), (0, 1))[i % 4]
        truth = brightened(clip, at, 1.45)
        made.append(_case("lightning", name, truth, through_a_vae(truth, i), flash=at))
        made.append(_case("lightning, drift", name, truth, through_a_vae(drifted(truth, 60 + i), i), flash=at))
    return made


def flash(names: Iterable[str] = NAMES) -> list[Case]:
    """Flashes of the decoder near an end, or over it: the given image shows none."""
    made, length = [], FRAMES
    for i, name, clip in _scenes(names):
        at = ((length - 3, length - 2, length - 1), (length - 5, length - 4), (0, 1, 2), (2, 3))[i % 4]
        worn = brightened(drifted(clip, 80 + i), at, (1.25, 0.8)[i % 2])
        made.append(_case("flash", name, clip, through_a_vae(worn, i), flash=at))
    return made


def psnr(a: Tensor, b: Tensor) -> float:
    """Of a whole clip, all frames in one mean; at most 100 dB."""
    return -10 * math.log10(max((a - b).square().mean().item(), 1e-10))


def by_frame(a: Tensor, b: Tensor) -> Tensor:
    """``[F]`` dB."""
    return -10 * torch.log10((a - b).square().flatten(1).mean(1).clamp_min(1e-10))
