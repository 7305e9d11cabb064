"""The Wan-VAE: 4n+1 video frames to n+1 latent frames and back, a few frames at a time.

Official: ``WanVAE_`` in Wan-Video/Wan2.1 ``wan/modules/vae.py``; parameter names are the official ones. Read it
after ``stream.py``; the layers are in ``blocks.py`` and ``coders.py``, spatial tiles in ``tiling.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..config import WAN_VAE, VAEConfig
from ..errors import InputError
from ..operations import Convolutions
from ..shapes import FIRST_CHUNK, SPATIAL_STRIDE, TEMPORAL_STRIDE, check_frames, video_frames
from ..tf32 import exact_convolutions
from .coders import RGB, Decoder, Encoder
from .layout import channels_last
from .precision import calculating_in
from .stream import Stream


class WanVAE(nn.Module):
    """Causal video autoencoder.

    Args:
        config: sizes; the released model's by default.
        operations: namespace that gives ``Conv2d`` and ``Conv3d``: ``torch.nn``, or a host's offloading classes.
    """

    def __init__(self, config: VAEConfig = WAN_VAE, operations: Convolutions = nn) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, operations)
        self.conv1 = operations.Conv3d(config.z_dim * 2, config.z_dim * 2, 1)
        self.conv2 = operations.Conv3d(config.z_dim, config.z_dim, 1)
        self.decoder = Decoder(config, operations)

    @property
    def output_stride(self) -> int:
        """Pixels that one latent cell decodes to, along each side."""
        return self.config.output_stride

    # -- encode -----------------------------------------------------------------------------------------------

    def encode(self, video: Tensor) -> Tensor:
        """Encode a clip to the mean of its latents, not normalised.

        Args:
            video: ``[B, 3, F, H, W]`` in -1..1; F = 4n+1, H and W multiples of 8. Use float32 weights and input:
                half precision here moves the whole trajectory of the sampler, and so would TF32, which is
                off meanwhile.

        Returns:
            ``[B, z_dim, T, h, w]``.

        Raises:
            InputError: a size the VAE would silently cut, with the nearest ones it takes.
        """
        return torch.cat(list(self.encode_stream(video)), dim=2)

    def encode_stream(self, video: Tensor) -> Iterator[Tensor]:
        """As :meth:`encode`, but yield one latent frame ``[B, z_dim, 1, h, w]`` at a time."""
        _check_video(video)
        stream = Stream()
        starts = [0, *range(FIRST_CHUNK, video.shape[2], TEMPORAL_STRIDE)]
        for start, end in zip(starts, [*starts[1:], video.shape[2]], strict=True):
            chunk = channels_last(video[:, :, start:end])
            yield self._moments(chunk, stream)[0]

    def encode_moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance ``[B, z_dim, T, h, w]`` in one pass over the whole clip, for training."""
        _check_video(video)
        mean, log_variance = self._moments(channels_last(video), None)
        return mean, log_variance

    def _moments(self, video: Tensor, stream: Stream | None) -> tuple[Tensor, ...]:
        with exact_convolutions:
            return self.conv1(self.encoder(video, stream)).chunk(2, dim=1)

    # -- decode -----------------------------------------------------------------------------------------------

    def decode(self, latents: Tensor) -> Tensor:
        """Decode raw latents to a clip.

        Args:
            latents: ``[B, z_dim, T, h, w]``, denormalised.

        Returns:
            ``[B, 3, F, s*h, s*w]`` in -1..1 with F = 4 (T - 1) + 1 and s = :attr:`output_stride`, in the dtype and on
            the device of ``latents``.
        """
        self._check_latents(latents)
        batch, _, frames, height, width = latents.shape
        size = (batch, RGB, video_frames(frames), height * self.output_stride, width * self.output_stride)
        video, at = latents.new_empty(size), 0
        for chunk in self.decode_stream(latents):
            video[:, :, at : at + chunk.shape[2]] = chunk
            at += chunk.shape[2]
        return video

    def decode_stream(self, latents: Tensor, pace: int = 1) -> Iterator[Tensor]:
        """As :meth:`decode`, but yield ``[B, 3, 1, H, W]`` first, then ``[B, 3, 4, H, W]`` chunks.

        It calculates in the dtype of ``latents``; weights kept in another are cast on the way.

        Args:
            latents: as there.
            pace: latent frames that go through the network at once, but for the first, which goes alone. Two take 1.4
                times the memory; the frames are the same up to rounding.
        """
        self._check_latents(latents)
        stream = Stream()
        starts = [0, *range(1, latents.shape[2], pace)]
        for start, end in zip(starts, [*starts[1:], latents.shape[2]], strict=True):
            z = channels_last(latents[:, :, start:end])
            with calculating_in(z.dtype, self.conv2, z.device):
                frames = self.decoder(self.conv2(z), stream).clamp_(-1.0, 1.0)
            yield from frames.split(TEMPORAL_STRIDE, dim=2)

    def decode_whole(self, latents: Tensor) -> Tensor:
        """Decode in one pass, unclamped, for training: memory grows with the length, gradients reach all of it."""
        self._check_latents(latents)
        return self.decoder(self.conv2(channels_last(latents)), None)

    # -- latent statistics ------------------------------------------------------------------------------------

    def normalise(self, latents: Tensor) -> Tensor:
        """Raw latents to model space: ``(latents - mean) / std`` per channel."""
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def denormalise(self, latents: Tensor) -> Tensor:
        """Model space to raw latents: ``latents * std + mean`` per channel."""
        mean, std = self._statistics(latents)
        return latents * std + mean

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, self.config.z_dim, 1, 1, 1)
        mean = torch.tensor(self.config.latents_mean, dtype=like.dtype, device=like.device)
        std = torch.tensor(self.config.latents_std, dtype=like.dtype, device=like.device)
        return mean.view(shape), std.view(shape)

    def _check_latents(self, latents: Tensor) -> None:
        if latents.ndim != 5 or latents.shape[1] != self.config.z_dim:
            raise InputError(
                f"latents have shape {list(latents.shape)}; this VAE decodes [B, {self.config.z_dim}, T, h, w]"
            )


def _check_video(video: Tensor) -> None:
    if video.ndim != 5 or video.shape[1] != RGB:
        raise InputError(f"video has shape {list(video.shape)}; the VAE encodes [B, 3, F, H, W]")
    check_frames(video.shape[2])
    for name, side in (("height", video.shape[3]), ("width", video.shape[4])):
        if side % SPATIAL_STRIDE or side == 0:
            raise InputError(f"{name}={side} is not a multiple of {SPATIAL_STRIDE}; crop or resize the video first")
