"""How much memory a run will take, stage by stage, for every way of offloading: computed, before anything is loaded.

Bytes of tensors. What is not a tensor comes on top: the driver's own part of a GPU, and what kernels take while they
work (:data:`.activations.RESERVE` stands for it where a setting is chosen).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..config import WAN_VAE, TransformerConfig, VAEConfig
from ..shapes import Grid
from .activations import (
    IMAGE_WORK,
    RESERVE,
    TEXT_WORK,
    clip_bytes,
    transformer_work,
    vae_decode_work,
    vae_encode_work,
)
from .offload import BUFFERS, offloaded_blocks

NONE = "none"
AUTO = "auto"
Offloading = str | int
"""``"none"``: everything stays on the device. A number: the parts take turns there, so many blocks offloaded."""

USUAL = (Grid(frames=81, height=480, width=832), Grid(frames=81, height=720, width=1280))
LARGEST = USUAL[-1]
LONG = Grid(frames=161, height=480, width=832)  # the longest clip, in the smaller size


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Bytes of a model's parts as they are loaded.

    Attributes:
        blocks: each transformer block.
        rest: the transformer without its blocks.
        text_encoder, image_encoder, vae: the other parts; 0 for one that isn't there.
        itemsize: bytes of the dtype that the networks calculate in.
        dequantized: bytes of the largest weight that is dequantized for a call; 0 for plain weights.
        compiled: whether the transformer's blocks are compiled.
        converted_blocks: bytes of the blocks if they are converted while they are loaded, else 0. What is converted
            takes host memory; the rest is mapped, and read from its file again if the system needs the room.
        converted: the same for everything but the blocks.
        waiting: the transformers that wait while this one works, one by one: Wan2.2's other expert.
    """

    blocks: tuple[int, ...]
    rest: int
    text_encoder: int = 0
    image_encoder: int = 0
    vae: int = 0
    itemsize: int = 2
    dequantized: int = 0
    compiled: bool = False
    converted_blocks: int = 0
    converted: int = 0
    waiting: tuple[Weights, ...] = ()

    @property
    def transformer(self) -> int:
        return sum(self.blocks) + self.rest

    @property
    def models(self) -> tuple[Weights, ...]:
        """This transformer's, and those of the ones that wait."""
        return self, *self.waiting

    @property
    def transformers(self) -> int:
        """Bytes of all transformers."""
        return sum(each.transformer for each in self.models)

    @property
    def all(self) -> int:
        return self.transformers + self.text_encoder + self.image_encoder + self.vae


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Peak bytes of one stage of a run, on the device and in host memory."""

    name: str
    device: int
    host: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A run under one way of offloading."""

    offload: Offloading
    stages: tuple[Stage, ...]

    @property
    def device(self) -> int:
        """Peak bytes on the device over all stages."""
        return max(stage.device for stage in self.stages)

    @property
    def host(self) -> int:
        """Peak bytes of host memory over all stages."""
        return max(stage.host for stage in self.stages)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All settings for one size of clip.

    Attributes:
        forward: the most video frames that one forward of the transformer sees, for a clip in windows; None is all.
    """

    width: int
    height: int
    frames: int
    settings: tuple[Setting, ...]
    forward: int | None = None


def plan(
    config: TransformerConfig,
    weights: Weights,
    *,
    vae: VAEConfig = WAN_VAE,
    grids: Iterable[Grid] = USUAL,
    settings: Iterable[Offloading] | None = None,
) -> tuple[Plan, ...]:
    """Memory of every size of clip under every setting.

    Args:
        config: of the transformer.
        weights: bytes of the parts.
        vae: sizes of the VAE.
        grids: sizes of clips.
        settings: ways of offloading; None is ``"none"`` and five steps from 0 to all blocks.
    """
    chosen = usual_settings(config.num_layers) if settings is None else tuple(settings)
    return tuple(
        Plan(
            width=grid.width,
            height=grid.height,
            frames=grid.frames,
            forward=grid.forward,
            settings=tuple(Setting(offload=way, stages=_stages(config, weights, vae, grid, way)) for way in chosen),
        )
        for grid in grids
    )


def usual_settings(blocks: int) -> tuple[Offloading, ...]:
    """``"none"``, 0, then quarters of the blocks: 10, 20, 30 and 40 of 40."""
    return (NONE, *dict.fromkeys(blocks * quarter // 4 for quarter in range(5)))


def choose_offloaded(config: TransformerConfig, weights: Weights, grid: Grid, free: int) -> int:
    """The fewest blocks offloaded with which sampling fits into ``free`` bytes; all of them if nothing does."""
    blocks = config.num_layers
    work = sampling_work(config, weights, grid)
    fits = (offloaded for offloaded in range(blocks + 1) if resident_bytes(weights, offloaded) + work + RESERVE <= free)
    return next(fits, blocks)


def everything_fits(config: TransformerConfig, weights: Weights, vae: VAEConfig, grid: Grid, free: int) -> bool:
    """Whether all parts can stay on the device for good."""
    return max(stage.device for stage in _stages(config, weights, vae, grid, NONE)) + RESERVE <= free


def _stages(
    config: TransformerConfig, weights: Weights, vae: VAEConfig, grid: Grid, way: Offloading
) -> tuple[Stage, ...]:
    stays, offloaded = way == NONE, 0 if isinstance(way, str) else way
    shape, clip = grid.latent_shape, clip_bytes(grid.latent_shape)
    c = 4 if weights.itemsize >= 4 else 2
    rows = (  # stage, weights on the device if the parts take turns, work there, work in the host
        ("text encode", weights.text_encoder, TEXT_WORK[c] if weights.text_encoder else 0, 0),
        ("image encode", weights.image_encoder, IMAGE_WORK[c] if weights.image_encoder else 0, 0),
        ("VAE encode", weights.vae, vae_encode_work(vae, shape), clip),
        ("sampling", *_sampling(config, weights, grid, offloaded, stays), 0),
        ("VAE decode", weights.vae, vae_decode_work(vae, shape, c), clip * vae.upscale**2),
    )
    host = 0 if stays else sum(_host_bytes(each, offloaded) for each in weights.models)
    return tuple(
        Stage(name=name, device=(weights.all if stays else turn) + work, host=host + beside)
        for name, turn, work, beside in rows
    )


def _sampling(config: TransformerConfig, weights: Weights, grid: Grid, offloaded: int, stays: bool) -> tuple[int, int]:
    """Weights on the device and work there, of the transformer of a run that takes the most."""
    works = [(resident_bytes(each, offloaded), sampling_work(config, each, grid)) for each in weights.models]
    return max(works, key=lambda pair: pair[1] if stays else sum(pair))


def _host_bytes(weights: Weights, offloaded: int) -> int:
    """Host memory that a transformer takes: what was converted, and its blocks that were packed to be copied."""
    packed = sum(weights.blocks[index] for index in offloaded_blocks(len(weights.blocks), offloaded))
    return weights.converted + max(weights.converted_blocks, packed)


def sampling_work(config: TransformerConfig, weights: Weights, grid: Grid) -> int:
    """Peak bytes of sampling beside the weights."""
    return transformer_work(config, grid, weights.itemsize, weights.dequantized, compiled=weights.compiled)


def resident_bytes(weights: Weights, offloaded: int) -> int:
    """Bytes of the transformer on the device: what stays, and the buffers for what comes in turn."""
    gone = [weights.blocks[index] for index in offloaded_blocks(len(weights.blocks), offloaded)]
    return weights.transformer - sum(gone) + min(offloaded, BUFFERS) * max(gone, default=0)
