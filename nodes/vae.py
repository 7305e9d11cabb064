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
from ..wan_local.generate import collect, frames_of
from ..wan_local.memory import FittingVAE
from ..wan_local.memory.activations import RESERVE
from ..wan_local.memory.tiles import AUTO, Tiles
from ..wan_local.progress import OnProgress, ignore
from ..wan_local.shapes import SPATIAL_STRIDE, TEMPORAL_STRIDE, latent_frames, video_frames
from ..wan_local.vae import Tiling, WanVAE
from . import convert, host, keep
from .report import Reporter

SMALLEST_TILE, DEFAULT_TILE = 4, 32  # latent cells


class HostedVAE(FittingVAE):
    """One encode or decode with the VAE of a socket: the host makes room for it and says when memory ran out."""

    def release(self) -> None:
        host.free_everything()

    def ran_out(self, error: Exception) -> bool:
        return host.is_out_of_memory(error) or super().ran_out(error)


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

    def coder(self, tiling: Tiles | Tiling = AUTO, on_progress: OnProgress = ignore) -> FittingVAE:
        """What encodes and decodes clips, told how to cut and whom to tell."""
        return PipelineCoder(self, tiling, on_progress)

    # -- what core's nodes call --------------------------------------------------------------------------

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """IMAGE ``[F, H, W, 3]`` (one clip) or ``[B, F, H, W, 3]`` -> ``[B, z, T, h, w]``."""
        return self._encode(pixel_samples, AUTO)

    def decode(self, samples_in: Tensor, vae_options: Any = None) -> Tensor:
        """``[B, z, T, h, w]`` (or ``[B, z, h, w]``, one latent frame) -> ``[B, F, H, W, 3]`` in 0..1."""
        return self._decode(samples_in, AUTO)

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
        sides = [None if side is None else side // SPATIAL_STRIDE for side in (tile_x, tile_y, overlap)]
        return self._encode(pixel_samples, square(*sides))

    def decode_tiled(
        self,
        samples: Tensor,
        tile_x: int | None = None,
        tile_y: int | None = None,
        overlap: int | None = None,
        tile_t: int | None = None,
        overlap_t: int | None = None,
    ) -> Tensor:
        """As :meth:`decode`, in spatial tiles (sides in latent cells). Time is streamed, never tiled."""
        return self._decode(samples, square(tile_x, tile_y, overlap))

    def spacial_compression_decode(self) -> int:
        return self.first_stage_model.output_stride

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

    def _encode(self, pixel_samples: Tensor, tiling: Tiles | Tiling) -> Tensor:
        pixels = convert.whole_chunks(pixel_samples, SPATIAL_STRIDE, TEMPORAL_STRIDE)
        report = Reporter({"encode images": 1.0}, self.device)
        return self.coder(tiling, report).encode(convert.to_video(pixels))

    def _decode(self, samples: Tensor, tiling: Tiles | Tiling) -> Tensor:
        latents = samples if samples.ndim == 5 else samples.unsqueeze(2)
        return decode_images(self.coder(tiling), latents, Reporter({"decode": 1.0}, self.device))


class PipelineCoder(HostedVAE):
    """The network of a :class:`PipelineVAE`, brought to its device for each try."""

    def __init__(self, socket: PipelineVAE, tiling: Tiles | Tiling, on_progress: OnProgress) -> None:
        super().__init__(socket.first_stage_model, tiling, on_progress)
        self._socket = socket

    def parameters(self) -> Iterator[Tensor]:
        """None to look at: dtype and place are the affair of this class."""
        return iter(())

    def encode(self, clip: Tensor) -> Tensor:
        return super().encode(clip.to(self._socket.device, torch.float32)).to(self._socket.output_device)

    def decode_stream(self, latents: Tensor, on_progress: OnProgress = ignore) -> Iterator[Tensor]:
        return super().decode_stream(latents.to(self._socket.device, self._socket.vae_dtype), on_progress)

    def free(self, device: torch.device) -> int | None:
        return host.room_beside(self._socket.patcher)

    def ready(self, work: int) -> None:
        host.load(self._socket.patcher, work + RESERVE, whole=True)


def square(width: int | None, height: int | None, overlap: int | None) -> Tiling:
    """Square tiles, as large as the smaller side allows; cells."""
    tile = max(SMALLEST_TILE, min(width or DEFAULT_TILE, height or DEFAULT_TILE))
    return Tiling(tile=tile, overlap=min(tile // 4 if overlap is None else overlap, tile // 2))


def decode_images(coder: FittingVAE, latents: Tensor, on_progress: OnProgress, fps: float | None = None) -> Tensor:
    """Raw latents ``[B, z, T, h, w]`` -> IMAGE a clip, ``[B, F, H, W, 3]`` in 0..1 on the result device.

    Raises:
        DecodeError: it failed; the latents are kept in a file, and the message says where.
    """
    with keep.on_failure(coder.normalise, latents, fps=fps):
        clips = [collect(frames_of(coder, clip, on_progress), video_frames(clip.shape[2])) for clip in latents.split(1)]
    return torch.stack(clips).to(host.result_device())
