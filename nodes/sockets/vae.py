"""VAE: our Wan-VAE as core VAEDecode, VAEEncode and their tiled twins call it, and whatever is connected as the
library's :class:`wan_local.vae.Autoencoder`.

Core has no class to inherit from here (its VAE builds itself from weights), so ours has the methods and attributes that
core's nodes use. LATENT carries raw VAE latents, not normalised, as with core's own Wan-VAE.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...wan_local.config import WAN_VAE, VAEConfig
from ...wan_local.errors import InputError
from ...wan_local.frames import collect, frames_of
from ...wan_local.memory import DeviceMemory, FittingVAE
from ...wan_local.memory.activations import RESERVE
from ...wan_local.memory.tiles import AUTO, Tiles
from ...wan_local.progress import OnProgress, Progress, ignore
from ...wan_local.shapes import SPATIAL_STRIDE, TEMPORAL_STRIDE, latent_frames, video_frames
from ...wan_local.vae import Autoencoder, Tiling, WanVAE
from .. import host, kept_latents
from ..progress import Reporter
from . import image

VIDEO = 3  # axes of a video's latents, as core counts them
SMALLEST_TILE, DEFAULT_TILE = 4, 32  # latent cells


def autoencoder(vae: Any, tiling: Tiles | Tiling = AUTO) -> Autoencoder:
    """What is connected to a VAE socket, ours or core's, as what the library encodes and decodes with.

    Raises:
        InputError: core's, of another family.
    """
    if isinstance(vae, HostedVAE):
        return FittingVAE(vae.first_stage_model, tiling, vae.vae_dtype, HostMemory(vae.patcher))
    channels, axes = getattr(vae, "latent_channels", WAN_VAE.z_dim), getattr(vae, "latent_dim", VIDEO)
    if (channels, axes) != (WAN_VAE.z_dim, VIDEO):
        kind = "videos" if axes == VIDEO else "images"
        raise InputError(
            f"this VAE is for {kind} of {channels} latent channels, and this model takes the Wan2.1 VAE with its "
            f"{WAN_VAE.z_dim}, Wan2.2's experts too; load wan_2.1_vae.safetensors"
        )
    return CoreVAE(vae, tiling)


class HostMemory(DeviceMemory):
    """Memory that the host manages. No patcher: core's own VAE, which makes room for itself and brings what it is given
    to its device."""

    def __init__(self, patcher: Any = None) -> None:
        self._patcher = patcher

    @property
    def device(self) -> torch.device | None:
        return None if self._patcher is None else self._patcher.load_device

    def free(self) -> int | None:
        return None if self._patcher is None else host.room_beside(self._patcher)

    def ready(self, work: int) -> None:
        host.stop_if_asked()
        if self._patcher is not None:
            host.load(self._patcher, work + RESERVE, whole=True)

    def release(self) -> None:
        host.free_everything()

    def ran_out(self, error: Exception) -> bool:
        return host.is_out_of_memory(error) or super().ran_out(error)


class CoreVAE(FittingVAE):
    """Core's own VAE, which gives all frames at once."""

    def __init__(self, vae: Any, tiling: Tiles | Tiling) -> None:
        super().__init__(vae, tiling, memory=HostMemory())

    @property
    def config(self) -> VAEConfig:
        return WAN_VAE

    def encode(self, clip: Tensor, on_progress: OnProgress = ignore) -> Tensor:
        return self.vae.encode(image.from_clips(clip)[0])

    def decode_once(self, latents: Tensor, way: Tiling | None, on_progress: OnProgress) -> Iterator[Tensor]:
        if way is None:
            images = self.vae.decode(latents)
        else:
            images = self.vae.decode_tiled(latents, tile_x=way.tile, tile_y=way.tile, overlap=way.overlap)
        yield image.to_clips(image.whole_pixels(images).float())
        on_progress(Progress(stage="decode", done=latents.shape[2], total=latents.shape[2]))

    def normalise(self, latents: Tensor) -> Tensor:
        return host.normalise_latents(latents)

    def denormalise(self, latents: Tensor) -> Tensor:
        return host.denormalise_latents(latents)


class HostedVAE:
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
        self.output_channels = image.RGB
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
        return host.is_dynamic(self.patcher)

    # -- inside ------------------------------------------------------------------------------------------

    def _encode(self, pixel_samples: Tensor, tiling: Tiles | Tiling) -> Tensor:
        clip = image.to_clips(image.whole_chunks(pixel_samples, SPATIAL_STRIDE, TEMPORAL_STRIDE))
        report = Reporter({"encode images": 1.0}, self.device)
        return autoencoder(self, tiling).encode(clip, report).to(self.output_device)

    def _decode(self, samples: Tensor, tiling: Tiles | Tiling) -> Tensor:
        latents = samples if samples.ndim == 5 else samples.unsqueeze(2)
        return decode_images(autoencoder(self, tiling), latents, Reporter({"decode": 1.0}, self.device))


def square(width: int | None, height: int | None, overlap: int | None) -> Tiling:
    """Square tiles, as large as the smaller side allows; cells."""
    tile = max(SMALLEST_TILE, min(width or DEFAULT_TILE, height or DEFAULT_TILE))
    return Tiling(tile=tile, overlap=min(tile // 4 if overlap is None else overlap, tile // 2))


def decode_images(vae: Autoencoder, latents: Tensor, on_progress: OnProgress, fps: float | None = None) -> Tensor:
    """Raw latents ``[B, z, T, h, w]`` -> IMAGE a clip, ``[B, F, H, W, 3]`` in 0..1 on the result device.

    Raises:
        DecodeError: it failed; the latents are kept in a file, and the message says where.
    """
    with kept_latents.on_failure(vae.normalise, latents, fps=fps):
        clips = [collect(frames_of(vae, clip, on_progress), video_frames(clip.shape[2])) for clip in latents.split(1)]
    return torch.stack(clips).to(host.result_device())
