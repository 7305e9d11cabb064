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
from ..wan_local.denoiser import Denoiser
from ..wan_local.generate import Pipeline
from ..wan_local.memory import FittingVAE
from ..wan_local.memory.tiles import AUTO, Tiles
from ..wan_local.progress import OnProgress, Progress, ignore
from ..wan_local.shapes import Grid
from ..wan_local.vae import Tiling
from . import convert, host
from .sockets import WanModel
from .vae import HostedVAE, PipelineVAE


def pipeline(model: Any, clip: Any, clip_vision: Any, vae: Any, grid: Grid) -> Pipeline:
    """A library pipeline for one run of a clip of ``grid``, over the values of four sockets."""
    transformer = wired(model, grid)
    vision = WiredImageEncoder(clip_vision) if transformer.config.has_image_branch else None
    return Pipeline(
        [Denoiser(transformer=transformer)], wired_vae(vae), WiredTextEncoder(clip), vision, device=model.device
    )


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


def wired_vae(vae: Any, tiling: Tiles = AUTO, on_progress: OnProgress = ignore) -> FittingVAE:
    """What encodes and decodes with the value of a VAE socket, ours or core's.

    Args:
        vae: the socket's value.
        tiling: as :func:`wan_local.memory.tiles.ways` takes it.
        on_progress: told of every latent frame that is encoded.
    """
    return vae.coder(tiling, on_progress) if isinstance(vae, PipelineVAE) else CoreVAE(vae, tiling, on_progress)


class CoreVAE(HostedVAE):
    """Core's own VAE, which makes room for itself and gives all frames at once."""

    @property
    def config(self) -> VAEConfig:
        return WAN_VAE

    def parameters(self) -> Iterator[Tensor]:
        """None to look at: dtype and place are core's affair."""
        return iter(())

    def encode(self, clip: Tensor) -> Tensor:
        return self.vae.encode(convert.to_images(clip)[0])

    def decode_once(self, latents: Tensor, way: Tiling | None, on_progress: OnProgress) -> Iterator[Tensor]:
        if way is None:
            images = self.vae.decode(latents)
        else:
            images = self.vae.decode_tiled(latents, tile_x=way.tile, tile_y=way.tile, overlap=way.overlap)
        yield convert.to_video(convert.whole_pixels(images).float())
        on_progress(Progress(stage="decode", done=latents.shape[2], total=latents.shape[2]))

    def free(self, device: torch.device) -> int | None:
        return None

    def ready(self, work: int) -> None:
        host.stop_if_asked()

    def normalise(self, latents: Tensor) -> Tensor:
        return host.normalise_latents(latents)

    def denormalise(self, latents: Tensor) -> Tensor:
        return host.denormalise_latents(latents)
