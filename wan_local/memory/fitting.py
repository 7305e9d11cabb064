"""A VAE that works within the memory there is. Every encode and decode goes this way, in the library and in the nodes.

Whole frames where they fit, else the largest tiles that do; where memory runs out all the same, again in smaller ones:
hours of sampling must not be lost to a full GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ..config import VAEConfig
from ..errors import OutOfMemory
from ..free_memory import free_device_bytes, is_out_of_memory
from ..progress import OnProgress, Progress, ignore
from ..shapes import SPATIAL_STRIDE, latent_frames
from ..vae import Tiling, WanVAE, decode_tiled, encode_tiled, in_float32
from .activations import LONGEST, Shape, clip_bytes, vae_decode_work, vae_encode_work
from .tiles import AUTO, OFF, Tiles, cut, told, ways


class DeviceMemory:
    """The memory that a VAE works in: that of the device its weights are on.

    A host with a memory management of its own gives another.
    """

    def __init__(self, vae: WanVAE) -> None:
        self._vae = vae

    @property
    def device(self) -> torch.device | None:
        """Where the work is done; None where the VAE sees to it itself."""
        return next(self._vae.parameters()).device

    def free(self) -> int | None:
        """Bytes that work may take; None where nobody knows."""
        return None if self.device is None else free_device_bytes(self.device)

    def ready(self, work: int) -> None:
        """Called before each try with the bytes it takes; here the VAE is there already."""

    def release(self) -> None:
        """Called after a try that ran out of memory."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def ran_out(self, error: Exception) -> bool:
        """Whether this error says that memory ran out."""
        return is_out_of_memory(error)


class FittingVAE:
    """An :class:`wan_local.vae.Autoencoder` that takes as many tries as it needs.

    Args:
        vae: :class:`wan_local.vae.WanVAE`; or what a subclass knows how to run.
        tiling: into which tiles frames are cut, see :func:`wan_local.memory.tiles.ways`.
        decode_dtype: what it decodes in; None for that of the latents. It encodes in float32.
        memory: where it works; None for where the weights of ``vae`` are.
    """

    def __init__(
        self,
        vae: Any,
        tiling: Tiles | Tiling = AUTO,
        decode_dtype: torch.dtype | None = None,
        memory: DeviceMemory | None = None,
    ) -> None:
        self.vae, self.tiling, self.decode_dtype = vae, tiling, decode_dtype
        self.memory = memory or DeviceMemory(vae)

    @property
    def config(self) -> VAEConfig:
        return self.vae.config

    @torch.no_grad()
    def encode(self, clip: Tensor, on_progress: OnProgress = ignore) -> Tensor:
        clip = clip.to(self.memory.device, torch.float32)
        # Not cut in pieces over time: a second try must not go on from what the first one made.
        (latents,) = self._tries(clip, lambda way: iter([self.encode_once(clip, way, on_progress)]), on_progress, True)
        return latents

    @torch.no_grad()
    def decode_stream(self, latents: Tensor, on_progress: OnProgress = ignore) -> Iterator[Tensor]:
        """The first chunks wait until decoding takes no more memory than it did so far, so that a clip is rarely begun
        in whole frames and ended in tiles."""
        latents = latents.to(self.memory.device, self.decode_dtype)
        on_progress(Progress(stage="decode", done=0, total=latents.shape[2]))
        yield from self._tries(
            latents, lambda way: _held(self.decode_once(latents, way, on_progress)), on_progress, False
        )

    def normalise(self, latents: Tensor) -> Tensor:
        return self.vae.normalise(latents)

    def denormalise(self, latents: Tensor) -> Tensor:
        return self.vae.denormalise(latents)

    # -- one try ----------------------------------------------------------------------------------------------

    def encode_once(self, clip: Tensor, way: Tiling | None, on_progress: OnProgress) -> Tensor:
        """Encode in one way, or run out of memory."""
        vae = in_float32(self.vae)
        if way is not None:
            return encode_tiled(vae, clip, way, on_progress)
        latents = vae.encode_stream(clip)
        return torch.cat(list(_counted("encode images", latents, latent_frames(clip.shape[2]), on_progress)), 2)

    def decode_once(self, latents: Tensor, way: Tiling | None, on_progress: OnProgress) -> Iterator[Tensor]:
        """Decode in one way, or run out of memory."""
        if way is not None:
            yield from decode_tiled(self.vae, latents, way, on_progress)
            return
        chunks = (chunk.float() for chunk in self.vae.decode_stream(latents))
        yield from _counted("decode", chunks, latents.shape[2], on_progress)

    # -- inside -----------------------------------------------------------------------------------------------

    def _tries(
        self, given: Tensor, run: Callable[[Tiling | None], Iterator[Tensor]], on_progress: OnProgress, encode: bool
    ) -> Iterator[Tensor]:
        stage = "encode images" if encode else "decode"
        work = self._work(given, encode)
        shape = _latent_shape(given, encode)
        plan = ways(self.tiling, shape, self.memory.free(), work)
        had = 0  # frames that have been given offloaded
        for way, smaller in zip(plan, [*plan[1:], None], strict=True):
            try:
                self.memory.ready(work(cut(shape, way)))
                for chunk in _from(had, run(way)):
                    yield chunk
                    had += chunk.shape[2]
                return
            except Exception as error:
                if not self.memory.ran_out(error):
                    raise
                if smaller is None:
                    raise OutOfMemory(_remedy(stage, way, self.tiling)) from error
            # Here, behind the handler: the error holds on to every tensor that was alive when it was raised.
            self.memory.release()
            note = f"out of memory with {told(way)}; beginning again in {told(smaller)}"
            on_progress(Progress(stage=stage, done=0, total=shape[0], note=note))

    def _work(self, given: Tensor, encode: bool) -> Callable[[Shape], int]:
        """Bytes of coding a frame of some shape, for a whole batch."""
        batch, itemsize = given.shape[0], given.dtype.itemsize
        if not encode:
            return lambda shape: batch * vae_decode_work(self.config, shape, itemsize)
        whole = clip_bytes(_latent_shape(given, encode))  # the clip stays on the device while its tiles are encoded
        return lambda shape: batch * (vae_encode_work(self.config, shape) - clip_bytes(shape) + whole)


def _latent_shape(given: Tensor, encode: bool) -> Shape:
    frames, height, width = given.shape[2:]
    if encode:
        return latent_frames(frames), height // SPATIAL_STRIDE, width // SPATIAL_STRIDE
    return frames, height, width


def _counted(stage: str, chunks: Iterator[Tensor], total: int, on_progress: OnProgress) -> Iterator[Tensor]:
    for done, chunk in enumerate(chunks, start=1):
        on_progress(Progress(stage=stage, done=done, total=total))
        yield chunk


def _held(chunks: Iterator[Tensor]) -> Iterator[Tensor]:
    """The same chunks, the first ones only when the memory of a whole stream has been had."""
    yield from list(islice(chunks, LONGEST))
    yield from chunks


def _from(start: int, chunks: Iterator[Tensor]) -> Iterator[Tensor]:
    """The chunks without the first ``start`` frames; every try cuts time at the same places."""
    at = 0
    for chunk in chunks:
        if at >= start:
            yield chunk
        at += chunk.shape[2]


def _remedy(stage: str, way: Tiling | None, tiling: Tiles | Tiling) -> str:
    doing = "encoding the images" if stage != "decode" else "decoding"
    if tiling == OFF:
        return f"{doing} whole frames ran out of memory and tiling is off; set tiling to auto"
    where = "" if way is None else f" even in {told(way)}"
    return f"{doing} ran out of memory{where}; close what else uses the GPU, or use a smaller size"
