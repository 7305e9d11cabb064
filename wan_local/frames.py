"""Latents to frames, by any VAE there is: as they come, or all in one tensor."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .errors import NumericError
from .progress import OnProgress, ignore
from .vae import Autoencoder


@torch.no_grad()
def frames_of(vae: Autoencoder, latents: Tensor, on_progress: OnProgress = ignore) -> Iterator[Tensor]:
    """Latents to frames ``[1 or 4, H, W, 3]`` float32 0..1, as they come and where they are made.

    Every decode there is goes through here.

    Args:
        vae: what decodes them.
        latents: ``[1, 16, T, h, w]``, raw.
        on_progress: as :meth:`wan_local.vae.Autoencoder.decode_stream` takes it.

    Raises:
        NumericError: the VAE gave NaN or infinity.
        OutOfMemory: there is no room, even for small tiles.
    """
    done = 0
    for chunk in vae.decode_stream(latents, on_progress):
        frames = chunk[0].permute(1, 2, 3, 0) * 0.5 + 0.5  # [n, H, W, 3]
        if not torch.isfinite(frames).all():
            at = done + int((~torch.isfinite(frames)).flatten(1).any(1).nonzero()[0])
            raise NumericError(
                f"the VAE decoded frame {at} to NaN or infinity; decode in fp32, or download its weights again"
            )
        done += len(frames)
        yield frames.clamp_(0.0, 1.0)


def collect(chunks: Iterator[Tensor], total: int) -> Tensor:
    """``total`` frames in one tensor on the CPU, each put there as it comes."""
    collected = Collected(total)
    for _ in collected.passing(chunks):
        pass
    return collected.frames


class Collected:
    """``total`` frames that are put in one tensor on the CPU while they pass by."""

    def __init__(self, total: int) -> None:
        self.frames, self._total = torch.empty(0), total

    def passing(self, chunks: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same chunks ``[n, H, W, 3]``."""
        at = 0
        for chunk in chunks:
            if at == 0:
                self.frames = torch.empty((self._total, *chunk.shape[1:]), dtype=chunk.dtype)
            self.frames[at : at + len(chunk)] = chunk
            at += len(chunk)
            yield chunk
