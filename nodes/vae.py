"""The Wan-VAE as core's VAE socket: what core VAEDecode, VAEEncode and their tiled twins call.

Core has no class to inherit from here (its VAE builds itself from weights), so this one has the methods and
attributes that core's nodes use. LATENT carries raw VAE latents, not normalised, as with core's own Wan-VAE.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..wan_local.config import VAEConfig
from ..wan_local.progress import OnProgress, Progress, ignore
from ..wan_local.shapes import SPATIAL_STRIDE, TEMPORAL_STRIDE, latent_frames, video_frames
from ..wan_local.vae import WanVAE
from ..wan_local.vae.tiling import Tiling, decode_tiled, encode_tiled
from . import convert, host

ALIVE = 8  # activations of the base width at full size that one streamed chunk keeps, at most
SMALLEST_TILE, DEFAULT_TILE = 4, 32  # latent cells


class PipelineVAE:
    """A :class:`WanVAE` in the host's care.

    Encodes in float32 (half precision would move the sampler's whole trajectory) and decodes in what the host
    decodes in. Weights are float32; the host's layers cast them on the way.
    """

    def __init__(self, vae: WanVAE, dtype: torch.dtype | None = None) -> None:
        """``dtype`` is what it decodes in; None leaves that to the host."""
        self.device, offload = host.vae_devices()
        host.stop_between_layers(vae)
        self.patcher = host.hold(vae, self.device, offload)
        self.output_device = host.result_device()
        self.vae_dtype = dtype or host.decode_dtype(self.device)
        self.latent_channels = vae.config.z_dim
        self.latent_dim = 3
        self.output_channels = convert.RGB
        self.upscale_ratio = (video_frames, vae.output_stride, vae.output_stride)
        self.downscale_ratio = (latent_frames, SPATIAL_STRIDE, SPATIAL_STRIDE)

    @property
    def first_stage_model(self) -> WanVAE:
        return self.patcher.model

    @property
    def config(self) -> VAEConfig:
        return self.first_stage_model.config

    def get_models(self) -> list[Any]:
        return [self.patcher]

    # -- what this pack calls ----------------------------------------------------------------------------

    def encode_chunks(self, clip: Tensor) -> Iterator[Tensor]:
        """``[B, 3, F, H, W]`` in -1..1 -> raw latents ``[B, z, 1, h, w]``, float32, result device."""
        vae = self._load(clip.shape[-2], clip.shape[-1], torch.float32)
        yield from self._collect(vae.encode_stream(clip.to(self.device, torch.float32)))

    def decode_chunks(self, latents: Tensor) -> Iterator[Tensor]:
        """Raw latents ``[B, z, T, h, w]`` -> ``[B, 3, 1 or 4, H, W]`` in -1..1, float32, result device."""
        height, width = latents.shape[-2] * SPATIAL_STRIDE, latents.shape[-1] * SPATIAL_STRIDE
        vae = self._load(height, width, self.vae_dtype)
        yield from self._collect(vae.decode_stream(latents.to(self.device, self.vae_dtype)))

    def normalise(self, latents: Tensor) -> Tensor:
        return self.first_stage_model.normalise(latents)

    def denormalise(self, latents: Tensor) -> Tensor:
        return self.first_stage_model.denormalise(latents)

    # -- what core's nodes call --------------------------------------------------------------------------

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """IMAGE ``[F, H, W, 3]`` (one clip) or ``[B, F, H, W, 3]`` -> ``[B, z, T, h, w]``."""
        pixels = convert.whole_chunks(pixel_samples, SPATIAL_STRIDE, TEMPORAL_STRIDE)
        return torch.cat(list(self.encode_chunks(convert.to_video(pixels))), dim=2)

    def decode(self, samples_in: Tensor, vae_options: Any = None) -> Tensor:
        """``[B, z, T, h, w]`` (or ``[B, z, h, w]``, one latent frame) -> ``[B, F, H, W, 3]`` in 0..1."""
        latents = samples_in if samples_in.ndim == 5 else samples_in.unsqueeze(2)
        return convert.to_images(torch.cat(list(self.decode_chunks(latents)), dim=2))

    def encode_tiled(
        self,
        pixel_samples: Tensor,
        tile_x: int | None = None,
        tile_y: int | None = None,
        overlap: int | None = None,
        tile_t: int | None = None,
        overlap_t: int | None = None,
    ) -> Tensor:
        """As :meth:`encode`, in spatial tiles (sides in pixels). Time is streamed, never tiled."""
        pixels = convert.whole_chunks(pixel_samples, SPATIAL_STRIDE, TEMPORAL_STRIDE)
        sides = [None if side is None else side // SPATIAL_STRIDE for side in (tile_x, tile_y, overlap)]
        tiling = self._tiling(*sides)
        vae = self._load(tiling.tile * SPATIAL_STRIDE, tiling.tile * SPATIAL_STRIDE, torch.float32)
        clip = convert.to_video(pixels).to(self.device, torch.float32)
        return encode_tiled(vae, clip, tiling).to(self.output_device)

    def decode_tiled(
        self,
        samples: Tensor,
        tile_x: int | None = None,
        tile_y: int | None = None,
        overlap: int | None = None,
        tile_t: int | None = None,
        overlap_t: int | None = None,
        on_progress: OnProgress = ignore,
    ) -> Tensor:
        """As :meth:`decode`, in spatial tiles (sides in latent cells). Time is streamed, never tiled."""
        tiling = self._tiling(tile_x, tile_y, overlap)
        vae = self._load(tiling.tile * SPATIAL_STRIDE, tiling.tile * SPATIAL_STRIDE, self.vae_dtype)

        def told(progress: Progress) -> None:
            host.stop_if_asked()
            on_progress(progress)

        video = decode_tiled(vae, samples.to(self.device, self.vae_dtype), tiling, told)
        return convert.to_images(video.to(self.output_device, torch.float32))

    def spacial_compression_decode(self) -> int:
        return self.config.output_stride

    def spacial_compression_encode(self) -> int:
        return SPATIAL_STRIDE

    def temporal_compression_decode(self) -> int:
        return TEMPORAL_STRIDE

    def get_sd(self) -> dict[str, Tensor]:
        return self.first_stage_model.state_dict()

    def throw_exception_if_invalid(self) -> None:
        """Core asks this of a VAE that may have been built from nothing; this one never is."""

    def model_size(self) -> int:
        return self.patcher.model_size()

    def is_dynamic(self) -> bool:
        return getattr(self.patcher, "is_dynamic", lambda: False)()

    # -- inside ------------------------------------------------------------------------------------------

    def fits(self, latents: Tensor) -> bool:
        """Whether whole frames can be decoded on this device, by an estimate on the safe side."""
        batch, _, _, height, width = latents.shape
        working = self._working(batch * height * SPATIAL_STRIDE, width * SPATIAL_STRIDE, self.vae_dtype)
        return self.model_size() + working <= host.room(self.device)

    def _working(self, height: int, width: int, dtype: torch.dtype) -> int:
        """Bytes that one streamed chunk of four frames takes."""
        return ALIVE * self.config.dim * TEMPORAL_STRIDE * height * width * dtype.itemsize

    def _load(self, height: int, width: int, dtype: torch.dtype) -> WanVAE:
        host.load(self.patcher, self._working(height, width, dtype), whole=True)
        return self.first_stage_model

    def _collect(self, chunks: Iterator[Tensor]) -> Iterator[Tensor]:
        """Each chunk on the result device as it comes, so the working device holds one; may be stopped."""
        for chunk in chunks:
            host.stop_if_asked()
            yield chunk.to(self.output_device, torch.float32)

    @staticmethod
    def _tiling(width: int | None, height: int | None, overlap: int | None) -> Tiling:
        """Square tiles, as large as the smaller side allows."""
        tile = max(SMALLEST_TILE, min(width or DEFAULT_TILE, height or DEFAULT_TILE))
        return Tiling(tile=tile, overlap=min(tile // 4 if overlap is None else overlap, tile // 2))
