"""Which model do these tensors belong to, and how large is it? Told from names and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import WAN_LATENTS_MEAN, WAN_LATENTS_STD, TransformerConfig, VAEConfig
from ..errors import ParameterMismatch, WrongModel
from ..shapes import TEMPORAL_STRIDE
from . import names
from .source import TensorSource

TEXT_LEN = 512  # rows of every released Wan model
HEAD_DIM = 128  # of every released Wan model; nothing in the weights' shapes tells it

# A telling parameter name of models people mix up with this one, and what it is.
OTHERS = {
    "double_blocks.0.img_attn.qkv.weight": "a Flux or HunyuanVideo transformer",
    "model.diffusion_model.input_blocks.0.0.weight": "a Stable Diffusion checkpoint",
    "input_blocks.0.0.weight": "a Stable Diffusion U-Net",
    "transformer_blocks.0.attn1.to_q.weight": "an LTX-Video or PixArt transformer",
    "model.layers.0.self_attn.q_proj.weight": "a language model",
    "joint_blocks.0.context_block.attn.qkv.weight": "a Stable Diffusion 3 transformer",
    "blocks.0.audio_cross_attn.q.weight": "a Wan model with audio",
    "vace_blocks.0.after_proj.weight": "a Wan VACE transformer",
    "encoder.block.0.layer.0.SelfAttention.q.weight": "a T5 text encoder in transformers' layout",
    "token_embedding.weight": "the umT5 text encoder of the official release",
    "embeddings.patch_embedding.weight": "a CLIP image encoder in transformers' layout",
    "visual.patch_embedding.weight": "the image encoder of the official release",
    "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": "a Stable Diffusion checkpoint",
    "decoder.conv_in.weight": "an image VAE",
}


def canonical(source: TensorSource) -> TensorSource:
    """The source under official names: prefixes dropped, diffusers' names mapped; unknown names stay as they are."""
    prefix = names.strip_prefix(list(source.entries))
    plain = source.renamed(lambda name: name[len(prefix) :])
    if any(name.startswith("condition_embedder.") for name in plain.entries):
        return plain.renamed(lambda name: names.transformer_to_official(name) or name)
    if any(name.startswith("decoder.up_blocks.") for name in plain.entries):
        level = diffusers_level(plain)
        return plain.renamed(lambda name: names.vae_to_official(name, level) or name)
    return plain


def diffusers_level(source: TensorSource) -> int:
    """Layers of a decoder level in diffusers' naming: its residual blocks and the resampling behind them."""
    return sum(f"decoder.up_blocks.0.resnets.{i}.conv1.weight" in source.entries for i in range(16)) + 1


def kind(source: TensorSource) -> str:
    """What a source under official names is: "FLF2V transformer", "Wan-VAE" and so on, or "unknown model"."""
    entries = source.entries
    if "patch_embedding.weight" in entries and "blocks.0.self_attn.q.weight" in entries:
        channels = _first_side(source, "patch_embedding.weight", 1)
        for sign in ("blocks.0.audio_cross_attn.q.weight", "vace_blocks.0.after_proj.weight"):
            if sign in entries:
                return OTHERS[sign]
        if channels == 2 * _out_dim(source) + TEMPORAL_STRIDE:
            return "FLF2V transformer" if "img_emb.emb_pos" in entries else "I2V transformer"
        return "T2V transformer" if channels == _out_dim(source) else "Wan transformer of another kind"
    if "decoder.upsamples.0.residual.0.gamma" in entries and "encoder.downsamples.0.residual.0.gamma" in entries:
        return "Wan-VAE"
    for sign, what in OTHERS.items():
        if sign in entries or any(name.endswith("." + sign) for name in entries):
            return what
    return "unknown model"


def wrong(source: TensorSource, found: str, needed: str) -> WrongModel:
    """The error for a sound file of another model; ``needed`` says what to give instead."""
    if found == "unknown model":
        shown = ", ".join(list(source.entries)[:3]) or "nothing"
        found = f"not a model known here (it has {len(source.entries)} tensors: {shown} ...)"
    return WrongModel(f"{source.path} is {found}; {needed}")


def transformer_config(source: TensorSource) -> TransformerConfig:
    """Sizes of a Wan transformer from the shapes of its weights, its head width from the config if there is one."""
    entries = source.entries
    shape = {name: entry.shape for name, entry in entries.items()}
    try:
        dim, in_dim, *patch = shape["patch_embedding.weight"]
        given = source.config
        head_dim = int(
            given.get("attention_head_dim") or (dim // int(given["num_heads"]) if "num_heads" in given else HEAD_DIM)
        )
        has_images = "img_emb.proj.0.weight" in shape
        return TransformerConfig(
            dim=dim,
            ffn_dim=shape["blocks.0.ffn.0.weight"][0],
            num_heads=max(1, dim // head_dim),
            num_layers=count_layers(entries, "blocks."),
            in_dim=in_dim,
            out_dim=_out_dim(source),
            text_dim=shape["text_embedding.0.weight"][1],
            freq_dim=shape["time_embedding.0.weight"][1],
            image_dim=shape["img_emb.proj.0.weight"][0] if has_images else 0,
            image_tokens=shape["img_emb.emb_pos"][1] if "img_emb.emb_pos" in shape else 0,
            text_len=int(given.get("text_len") or TEXT_LEN),
            patch_size=(patch[0], patch[1], patch[2]),
            eps=float(given.get("eps") or 1e-6),
        )
    except KeyError as error:
        raise lacks(source, str(error.args[0])) from error
    except (ValueError, IndexError, TypeError) as error:
        raise WrongModel(
            f"{source.path} has sizes that make no Wan transformer ({error}); download it again"
        ) from error


def vae_config(source: TensorSource) -> VAEConfig:
    """Sizes of a Wan-VAE from the shapes of its weights, its latent statistics from ``config.json`` if there is one."""
    shape = {name: entry.shape for name, entry in source.entries.items()}
    given: Mapping[str, Any] = source.config
    try:
        dim = shape["encoder.conv1.weight"][0]
        widths = _encoder_widths(shape)
        z_dim = shape["conv2.weight"][0]
        default = z_dim == len(WAN_LATENTS_MEAN)
        return VAEConfig(
            dim=dim,
            z_dim=z_dim,
            dim_mult=tuple(width // dim for width, _, _ in widths),
            num_res_blocks=widths[0][1],
            temporal_downsample=tuple(temporal for _, _, temporal in widths[:-1]),
            latents_mean=tuple(given.get("latents_mean") or (WAN_LATENTS_MEAN if default else (0.0,) * z_dim)),
            latents_std=tuple(given.get("latents_std") or (WAN_LATENTS_STD if default else (1.0,) * z_dim)),
        )
    except KeyError as error:
        raise lacks(source, str(error.args[0])) from error
    except (ValueError, IndexError, TypeError) as error:
        raise WrongModel(f"{source.path} has sizes that make no Wan-VAE ({error}); download it again") from error


def lacks(source: TensorSource, name: str) -> ParameterMismatch:
    return ParameterMismatch(
        f"{source.path} lacks {name}, without which its size can't be told; download the file again", missing=(name,)
    )


def count_layers(entries: Mapping[str, Any], stem: str) -> int:
    """How many numbered layers start with ``stem``: one more than the highest number."""
    numbers = {name[len(stem) :].split(".", 1)[0] for name in entries if name.startswith(stem)}
    return max((int(number) for number in numbers if number.isdigit()), default=-1) + 1


def _encoder_widths(shape: Mapping[str, tuple[int, ...]]) -> list[tuple[int, int, bool]]:
    """(width, residual blocks, halves time) of every level of the encoder, finest first."""
    levels, blocks = [], 0
    for index in range(count_layers(shape, "encoder.downsamples.")):
        stem = f"encoder.downsamples.{index}."
        if stem + "resample.1.weight" in shape:
            levels.append((shape[stem + "resample.1.weight"][0], blocks, stem + "time_conv.weight" in shape))
            blocks = 0
        else:
            width, blocks = shape[stem + "residual.2.weight"][0], blocks + 1
    return [*levels, (width, blocks, False)]


def _out_dim(source: TensorSource) -> int:
    patch = source.entries["patch_embedding.weight"].shape[2:]
    cells = patch[0] * patch[1] * patch[2] if len(patch) == 3 else 0
    head = source.entries.get("head.head.weight")
    if head is None:
        raise lacks(source, "head.head.weight")
    return head.shape[0] // max(cells, 1)


def _first_side(source: TensorSource, name: str, axis: int) -> int:
    shape = source.entries[name].shape
    return shape[axis] if len(shape) > axis else 0
