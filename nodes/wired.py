"""Whatever is on the wires, ours or core's, as the parts that the library's ``Pipeline`` is made of.

Each part brings its model to the device just before it works: the host's memory holds one at a time if it
must.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..wan_local.config import WAN_VAE, TransformerConfig, VAEConfig
from ..wan_local.generate import Pipeline
from ..wan_local.progress import OnProgress, Progress, ignore
from ..wan_local.shapes import Grid, latent_frames
from . import convert, host
from .sockets import WanModel
from .vae import DEFAULT_TILE, PipelineVAE


def pipeline(model: Any, clip: Any, clip_vision: Any, vae: Any, grid: Grid) -> Pipeline:
    """A library pipeline for one run of a clip of ``grid``, over the values of four sockets."""
    transformer = wired(model, grid)
    vision = WiredImageEncoder(clip_vision) if transformer.config.has_image_branch else None
    return Pipeline(transformer, WiredVAE(vae), WiredTextEncoder(clip), vision, device=model.device)


def wired(model: Any, grid: Grid, batch: int = 1) -> Any:
    """What samplers ask for a velocity: a transformer in the host's care, or one on several cards."""
    return WiredTransformer(model, grid, batch) if isinstance(model, WanModel) else model.load(grid, batch)


class WiredTransformer:
    """A ``WAN_FLF2V_MODEL``, loaded at its first step."""

    def __init__(self, model: WanModel, grid: Grid, batch: int = 1) -> None:
        self._model, self._grid, self._batch, self._loaded = model, grid, batch, False

    @property
    def config(self) -> TransformerConfig:
        return self._model.transformer.config

    def __call__(self, *inputs: Any) -> Tensor:
        if not self._loaded:
            self._model.load(self._grid, self._batch)
            self._loaded = True
        return self._model.transformer(*inputs)


class WiredTextEncoder:
    """A CLIP socket."""

    def __init__(self, clip: Any) -> None:
        self._clip = clip

    def encode(self, prompts: list[str]) -> Tensor:
        """``[B, S, D]``. Core's own encoder does not cut long prompts; the shorter ones get zero rows."""
        rows = []
        for prompt in prompts:
            host.stop_if_asked()
            rows.append(self._clip.encode_from_tokens_scheduled(self._clip.tokenize(prompt))[0][0])
        longest = max(row.shape[1] for row in rows)
        return torch.cat([F.pad(row, (0, 0, 0, longest - row.shape[1])) for row in rows])


class WiredImageEncoder:
    """A CLIP_VISION socket."""

    def __init__(self, clip_vision: Any) -> None:
        self._clip_vision = clip_vision

    def encode(self, images: list[Tensor]) -> Tensor:
        """Pictures ``[3, H, W]`` in -1..1 -> ``[N, rows, D]``; each is seen whole, squashed to a square."""
        seen = [self._clip_vision.encode_image(convert.to_image(image), crop=False) for image in images]
        return torch.cat([output["penultimate_hidden_states"] for output in seen])


class WiredVAE:
    """A VAE socket.

    Args:
        vae: the socket's value, ours or core's.
        on_progress: told of every latent frame that is encoded or decoded.
    """

    def __init__(self, vae: Any, on_progress: OnProgress = ignore) -> None:
        self._vae = vae
        self._ours = isinstance(vae, PipelineVAE)
        self._on_progress = on_progress

    @property
    def config(self) -> VAEConfig:
        return self._vae.config if self._ours else WAN_VAE

    def parameters(self) -> Iterator[Tensor]:
        """None to look at: dtype and place are the affair of whoever made the socket's value."""
        return iter(())

    def encode(self, clip: Tensor) -> Tensor:
        """``[1, 3, F, H, W]`` in -1..1 -> raw latents ``[1, z, T, h, w]``."""
        if not self._ours:
            return self._vae.encode(convert.to_images(clip)[0])
        total = latent_frames(clip.shape[2])
        return torch.cat(list(self._counted("encode images", self._vae.encode_chunks(clip), total)), dim=2)

    def decode_stream(self, latents: Tensor) -> Iterator[Tensor]:
        """Raw latents -> ``[1, 3, n, H, W]`` in -1..1; core's own VAE gives all frames at once."""
        if self._ours:
            yield from self._vae.decode_chunks(latents)
            return
        yield convert.to_video(convert.whole_pixels(self._vae.decode(latents)))

    def decode_images(self, latents: Tensor, tile: int | None = 0) -> Tensor:
        """Raw latents ``[B, z, T, h, w]`` -> IMAGE a clip, ``[B, F, H, W, 3]`` in 0..1 on the result device.

        Args:
            latents: raw.
            tile: side of square tiles in latent cells; 0 for none, None for tiles only if a frame does not fit.
        """
        if tile is None:
            return self._decode_somehow(latents)
        if tile:
            if self._ours:
                return self._vae.decode_tiled(latents, tile, tile, on_progress=self._on_progress)
            tiled = self._vae.decode_tiled(latents, tile_x=tile, tile_y=tile, overlap=tile // 4)
            return convert.whole_pixels(with_batch(tiled))
        if not self._ours:
            return convert.whole_pixels(with_batch(self._vae.decode(latents)))
        chunks = self._counted("decode", self._vae.decode_chunks(latents), latents.shape[2])
        return convert.to_images(torch.cat(list(chunks), dim=2))

    def normalise(self, latents: Tensor) -> Tensor:
        return self._vae.normalise(latents) if self._ours else host.normalise_latents(latents)

    def denormalise(self, latents: Tensor) -> Tensor:
        return self._vae.denormalise(latents) if self._ours else host.denormalise_latents(latents)

    def _decode_somehow(self, latents: Tensor) -> Tensor:
        """Whole frames if they fit, else tiles: hours of sampling must not be lost to a full card.

        Core's own VAE does the same by itself.
        """
        if self._ours and not self._vae.fits(latents):
            return self.decode_images(latents, DEFAULT_TILE)
        try:
            return self.decode_images(latents, 0)
        except Exception as error:
            if not (self._ours and host.is_out_of_memory(error)):
                raise
            host.log.warning("out of memory while decoding whole frames; decoding again in tiles")
        host.release_cache()
        return self.decode_images(latents, DEFAULT_TILE)

    def _counted(self, stage: str, chunks: Iterator[Tensor], total: int) -> Iterator[Tensor]:
        for done, chunk in enumerate(chunks, start=1):
            self._on_progress(Progress(stage=stage, done=done, total=total))
            yield chunk


def with_batch(images: Tensor) -> Tensor:
    """``[B, F, H, W, 3]``; some versions of core's VAE give one clip without its batch."""
    return images if images.ndim == 5 else images.unsqueeze(0)
