"""How large is the model? Told from the shapes of its weights; a config that contradicts them is an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeGuard

from ..config import WAN_LATENTS_MEAN, WAN_LATENTS_STD, LatentRGB, TransformerConfig, VAEConfig
from ..errors import ParameterMismatch, WrongModel
from .detect import count_layers
from .source import TensorSource, reason, shown

TEXT_LEN = 512  # text embeddings of every released Wan model
HEAD_DIM = 128  # of every released Wan model; nothing in the weights' shapes tells it
EPS = 1e-6  # likewise
FRAMES = 81  # that every released Wan model was trained on
TRAINED_FRAMES = "_trained_frames"  # of ours; diffusers passes over names that begin so
RGB = 3


def transformer_config(source: TensorSource) -> TransformerConfig:
    """Sizes of a Wan transformer from the shapes of its weights, its head width from the config if there is one.

    Raises:
        ParameterMismatch: a tensor that tells a size is missing.
        WrongModel: the shapes make no Wan transformer, or the config contradicts them.
    """
    shape = {name: entry.shape for name, entry in source.entries.items()}
    try:
        dim, in_dim, t, h, w = shape["patch_embedding.weight"]
        layers = count_layers(source.entries, "blocks.")
        for key, value in (("dim", dim), ("num_layers", layers)):
            if whole(source, key) not in (None, value):
                raise contradiction(source, key, f"the weights have {value}")
        has_images = "img_emb.proj.0.weight" in shape
        return TransformerConfig(
            dim=dim,
            ffn_dim=shape["blocks.0.ffn.0.weight"][0],
            num_heads=_heads(source, dim),
            num_layers=layers,
            in_dim=in_dim,
            out_dim=shape["head.head.weight"][0] // (t * h * w),
            text_dim=shape["text_embedding.0.weight"][1],
            freq_dim=shape["time_embedding.0.weight"][1],
            image_dim=shape["img_emb.proj.0.weight"][0] if has_images else 0,
            image_tokens=shape["img_emb.emb_pos"][1] if "img_emb.emb_pos" in shape else 0,
            text_len=whole(source, "text_len") or TEXT_LEN,
            patch_size=(t, h, w),
            eps=_positive(source, "eps", EPS),
            trained_frames=whole(source, TRAINED_FRAMES) or FRAMES,
        )
    except KeyError as error:
        raise lacks(source, str(error.args[0])) from error
    except (ValueError, IndexError, TypeError, ArithmeticError) as error:
        raise impossible(source, "Wan transformer", error) from error


def vae_config(source: TensorSource) -> VAEConfig:
    """Sizes of a Wan-VAE from the shapes of its weights, its latent statistics from the config if there is one.

    Raises:
        ParameterMismatch, WrongModel: as above, and for latent statistics that are neither given nor known.
    """
    shape = {name: entry.shape for name, entry in source.entries.items()}
    try:
        dim = shape["encoder.conv1.weight"][0]
        widths = _encoder_widths(shape)
        z_dim = shape["conv2.weight"][0]
        if whole(source, "z_dim") not in (None, z_dim):
            raise contradiction(source, "z_dim", f"the weights have {z_dim}")
        mean, std = (
            _statistics(source, key, known, z_dim)
            for key, known in (("latents_mean", WAN_LATENTS_MEAN), ("latents_std", WAN_LATENTS_STD))
        )
        if min(std) <= 0:
            raise contradiction(source, "latents_std", "a deviation is above 0")
        return VAEConfig(
            dim=dim,
            z_dim=z_dim,
            dim_mult=tuple(width // dim for width, _, _ in widths),
            num_res_blocks=widths[0][1],
            temporal_downsample=tuple(temporal for _, _, temporal in widths[:-1]),
            latents_mean=mean,
            latents_std=std,
            upscale=_upscale(shape["decoder.head.2.weight"][0]),
            latent_rgb=_latent_rgb(source, z_dim),
        )
    except KeyError as error:
        raise lacks(source, str(error.args[0])) from error
    except (ValueError, IndexError, TypeError, ArithmeticError) as error:
        raise impossible(source, "Wan-VAE", error) from error


def lacks(source: TensorSource, name: str) -> ParameterMismatch:
    """The error for a tensor without which nothing can be told."""
    return ParameterMismatch(
        f"{source.path} lacks {name}, without which its size can't be told; download the file again", missing=(name,)
    )


def impossible(source: TensorSource, what: str, error: BaseException) -> WrongModel:
    """The error for sizes that no such model has."""
    return WrongModel(f"{source.path} has sizes that make no {what} ({reason(error)}); download it again")


def contradiction(source: TensorSource, key: str, truth: str) -> WrongModel:
    """The error for a config value that can't be; ``truth`` says what can."""
    return WrongModel(
        f"{source.path} has {key}={shown(source.config.get(key))} in its config, but {truth}; "
        "use the config.json that belongs to these weights"
    )


def whole(source: TensorSource, key: str) -> int | None:
    """A count in the config, or None if it says nothing."""
    value = source.config.get(key)
    if value is None:
        return None
    if type(value) is not int or value < 1:  # True, 2.0 and Infinity are none
        raise contradiction(source, key, "it is a whole number from 1")
    return value


def _heads(source: TensorSource, dim: int) -> int:
    """Number of attention heads; every statement about it in the config must hold."""
    key = "attention_head_dim"
    width = whole(source, key)
    if width is not None and (dim % width or width % 2):
        raise contradiction(source, key, f"the weights are {dim} wide, which an even head width must divide")
    heads = dim // width if width is not None else None
    for key in ("num_attention_heads", "num_heads"):
        said = whole(source, key)
        if said is None:
            continue
        if heads is not None and said != heads and width is not None:
            raise contradiction(source, key, f"attention_head_dim={width} in a width of {dim} makes {heads}")
        if dim % said or dim // said % 2:
            raise contradiction(source, key, f"the weights are {dim} wide, which makes no even head width")
        heads = said
    if heads is not None:
        return heads
    if dim % HEAD_DIM:
        raise WrongModel(
            f"{source.path} has no config, and its width {dim} is no multiple of the head width {HEAD_DIM} of the "
            "released models; give the folder with its config.json, or a file with attention_head_dim in its metadata"
        )
    return dim // HEAD_DIM


def _positive(source: TensorSource, key: str, default: float) -> float:
    value = source.config.get(key)
    if value is None:
        return default
    if not _is_number(value) or value <= 0:
        raise contradiction(source, key, "it is a number above 0")
    return float(value)


def _statistics(source: TensorSource, key: str, known: tuple[float, ...], z_dim: int) -> tuple[float, ...]:
    """One value a latent channel."""
    values = source.config.get(key)
    if values is None and z_dim == len(known):
        return known
    if values is None:
        raise WrongModel(
            f"{source.path} has z_dim={z_dim} latent channels and no {key}, which is known for {len(known)} channels "
            "only; give the folder with its config.json"
        )
    if not isinstance(values, list) or len(values) != z_dim or not all(map(_is_number, values)):
        raise contradiction(source, key, f"it is a list of {z_dim} numbers")
    return tuple(map(float, values))


def _latent_rgb(source: TensorSource, z_dim: int) -> LatentRGB:
    """Rows of three numbers, one a latent channel and one more; none where the config has none."""
    key = "_latent_rgb"  # of ours; diffusers passes over names that begin so
    rows = source.config.get(key)
    if rows is None:
        return ()
    if (
        not isinstance(rows, list)
        or len(rows) != z_dim + 1
        or not all(isinstance(row, list) and len(row) == RGB and all(map(_is_number, row)) for row in rows)
    ):
        raise contradiction(source, key, f"it is {z_dim + 1} lists of {RGB} numbers")
    return tuple(tuple(map(float, row)) for row in rows)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _upscale(channels: int) -> int:
    """Pixels a side that the decoder's last layer gives for one: its channels are their colours."""
    sides = math.isqrt(channels // 3)
    if not sides or channels != 3 * sides**2:
        raise ValueError(f"its decoder gives {channels} channels, which are no colours of a square of pixels")
    return sides


def _encoder_widths(shape: Mapping[str, tuple[int, ...]]) -> list[tuple[int, int, bool]]:
    """(width, residual blocks, halves time) of every level of the encoder, finest first."""
    levels, blocks, width = [], 0, 0
    for index in range(count_layers(shape, "encoder.downsamples.")):
        stem = f"encoder.downsamples.{index}."
        if stem + "resample.1.weight" in shape:
            levels.append((shape[stem + "resample.1.weight"][0], blocks, stem + "time_conv.weight" in shape))
            blocks = 0
        else:
            width, blocks = shape[stem + "residual.2.weight"][0], blocks + 1
    return [*levels, (width, blocks, False)]
