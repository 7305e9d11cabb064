"""Clips as the transformers see them, computed once: latents, mask, condition, image embeddings, token ids.

Shards of ``SHARD`` clips in half precision, each from its own seed, so that making them can stop and go on. Their
names begin with a fingerprint of the VAE's encoder: other latents are other shards.
"""

from __future__ import annotations

import hashlib
import random
import time
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
from .known import random_known
from .loop import fast_dtype
from .tokenizer import TEXT_LEN

SHARD = 50
BATCH = 10  # clips that are encoded at a time on a CPU
SEED = 3_000_000


def shard_clips(grid: Grid, shard: int) -> list[Clip]:
    """The clips of a shard."""
    return random_clips(SEED + 1000 * grid.frames + shard, SHARD)


class Shards:
    """The clips of one size for the transformers.

    Args:
        folder: of the files.
        grid: size of the clips.
        vae, image_encoder: on the device that makes them.
        tokenizer: its folder.
    """

    def __init__(self, folder: Path, grid: Grid, vae: WanVAE, image_encoder: CLIPVisionModel, tokenizer: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.grid = folder, grid
        self._vae, self._image_encoder = vae, ImageEncoder(image_encoder)
        self._words = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
        self._name = f"{fingerprint(vae)}-{grid.frames}x{grid.height}"

    def path(self, shard: int) -> Path:
        return self.folder / f"{self._name}-{shard:04d}.safetensors"

    def made(self) -> list[Path]:
        """Those that are there, in order."""
        return sorted(self.folder.glob(f"{self._name}-*.safetensors"))

    def make(self, most: int, seconds: float) -> None:
        """Make the missing ones of the first ``most``, while there is time; at least one is there in the end."""
        until = time.monotonic() + seconds
        for shard in range(most):
            if shard and time.monotonic() > until:
                return
            if not self.path(shard).exists():
                self._make(shard)

    def load(self) -> dict[str, Tensor]:
        """All clips in one piece."""
        shards = [load_file(path) for path in self.made()]
        with torch.autocast("cpu", enabled=False):  # which has no rule for float16 on a CPU
            return {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}

    @torch.inference_mode()
    def _make(self, shard: int) -> None:
        clips, began = shard_clips(self.grid, shard), time.monotonic()
        rng = random.Random(SEED + shard)
        known = [random_known(rng, self.grid.frames) for _ in clips]
        batch = BATCH if next(self._vae.parameters()).device.type == "cpu" else SHARD
        parts: dict[str, list[Tensor]] = {"latents": [], "condition": [], "image": []}
        for start in range(0, SHARD, batch):
            some = slice(start, start + batch)
            for name, rows in self._encode(clips[some], known[some]).items():
                parts[name].append(rows.half().cpu())
        ids = self._words([c.caption for c in clips], padding="max_length", truncation=True, max_length=TEXT_LEN)
        tensors = {name: torch.cat(rows).contiguous() for name, rows in parts.items()}
        tensors["ids"] = torch.tensor(ids["input_ids"], dtype=torch.int16)
        # One value a latent frame and channel: the mask is the same all over a frame.
        tensors["mask"] = torch.cat([known_mask(self.grid, frames)[..., 0, 0] for frames in known]).half()
        tensors["ends"] = torch.tensor([[0 in frames, self.grid.frames - 1 in frames] for frames in known])
        tensors["bare"] = torch.tensor([frames == (0, self.grid.frames - 1) for frames in known])
        path = self.path(shard)
        save_file(tensors, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
        print(f"made {path.name} in {time.monotonic() - began:.0f} s", flush=True)

    def _encode(self, clips: list[Clip], known: list[tuple[int, ...]]) -> dict[str, Tensor]:
        device = next(self._vae.parameters()).device
        video = draw(clips, self.grid.frames, self.grid.height, device)
        given = torch.zeros_like(video)  # grey where nothing is given, as the sampler will see it
        for index, frames in enumerate(known):
            given[index, :, list(frames)] = video[index, :, list(frames)]
        dtype = fast_dtype(device)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            mean, _ = self._vae.encode_moments(torch.cat((video, given)))
        latents, condition = self._vae.normalise(mean.float()).chunk(2)
        ends = [frame for clip in video for frame in (clip[:, 0], clip[:, -1])]
        image = self._image_encoder.encode(ends)  # [2*B, rows, width], first and last adjacent
        return {"latents": latents, "condition": condition, "image": image.reshape(len(video), -1, image.shape[-1])}


def fingerprint(vae: WanVAE) -> str:
    """Eight digits that change with the weights of the encoder."""
    digest = hashlib.sha256()
    for module in (vae.encoder, vae.conv1):
        for parameter in module.parameters():
            digest.update(parameter.detach().half().cpu().numpy().tobytes())
    return digest.hexdigest()[:8]
