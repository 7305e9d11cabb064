"""Clips as the transformer sees them, computed once: latents, condition, image rows, token ids.

Shards of ``SHARD`` clips in half precision, each from its own seed, so that making them can stop and go on.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, CLIPVisionModel

from wan_local.conditioning import known_mask
from wan_local.encoders.image import ImageEncoder
from wan_local.shapes import Grid
from wan_local.vae import WanVAE

from .draw import draw, random_clips
from .grammar import Clip
from .tokenizer import TEXT_LEN

SHARD = 250
BATCH = 10
SEED = 3_000_000


def shard_clips(grid: Grid, shards: range) -> list[Clip]:
    """The clips of these shards, in order."""
    return [clip for shard in shards for clip in _clips(grid, shard)]


def _clips(grid: Grid, shard: int) -> list[Clip]:
    return random_clips(SEED + 1000 * grid.frames + shard, SHARD)


@torch.inference_mode()
def make_shards(
    folder: Path, vae: WanVAE, image_encoder: CLIPVisionModel, tokenizer: Path, grid: Grid, shards: range
) -> list[Path]:
    """Write the missing shards for clips of one size and return the paths of all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    vae.encoder.compile(dynamic=False)
    words = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    paths = [folder / f"{grid.frames}x{grid.height}-{shard:03d}.safetensors" for shard in shards]
    for shard, path in zip(shards, paths, strict=True):
        if path.exists():
            continue
        clips = _clips(grid, shard)
        parts: dict[str, list[Tensor]] = {"latents": [], "condition": [], "image": []}
        for start in range(0, SHARD, BATCH):
            video = draw(clips[start : start + BATCH], grid.frames, grid.height)
            for name, rows in _encode(vae, image_encoder, video).items():
                parts[name].append(rows.half())
        ids = words([c.caption for c in clips], padding="max_length", truncation=True, max_length=TEXT_LEN)
        tensors = {name: torch.cat(rows).contiguous() for name, rows in parts.items()}
        tensors["ids"] = torch.tensor(ids["input_ids"], dtype=torch.int16)
        save_file(tensors, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
        print(f"made {path.name}", flush=True)
    return paths


def _encode(vae: WanVAE, image_encoder: CLIPVisionModel, video: Tensor) -> dict[str, Tensor]:
    known = torch.zeros_like(video)  # grey between the two given frames, as the sampler will see it
    known[:, :, 0], known[:, :, -1] = video[:, :, 0], video[:, :, -1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mean, _ = vae.encode_moments(torch.cat((video, known)))
    latents, condition = vae.normalise(mean.float()).chunk(2)
    ends = [frame for clip in video for frame in (clip[:, 0], clip[:, -1])]
    image = ImageEncoder(image_encoder).encode(ends)  # [2*B, rows, width], first and last adjacent
    return {"latents": latents, "condition": condition, "image": image.reshape(len(video), -1, image.shape[-1])}


def load_shards(paths: list[Path], grid: Grid) -> dict[str, Tensor]:
    """All clips of ``paths`` in one piece, with the mask in front of the condition."""
    shards = [load_file(path) for path in paths]
    data = {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}
    mask = known_mask(grid).half().expand(len(data["condition"]), -1, -1, -1, -1)
    data["condition"] = torch.cat((mask, data["condition"]), dim=1)
    return data
