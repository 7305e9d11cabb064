"""Which model do these tensors belong to? Told from names and shapes alone; ``sizes.py`` tells how large it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..config import WAN_LATENTS_MEAN
from ..errors import WrongModel
from ..shapes import TEMPORAL_STRIDE
from . import names
from .source import Entry, TensorSource, listed

TRANSFORMER = "FLF2V transformer"
IMAGE_TRANSFORMER = "I2V transformer"
TEXT_TRANSFORMER = "T2V transformer"
PLAIN_TRANSFORMER = "transformer with image latents but no image branch (as Wan2.2 I2V)"
OTHER_TRANSFORMER = "Wan transformer of another kind"
LOADABLE = (TRANSFORMER, IMAGE_TRANSFORMER, PLAIN_TRANSFORMER)
VAE = "Wan-VAE"
LORA = "a LoRA, which changes a model and is none"
UNKNOWN = "unknown model"

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
    "visual.patch_embedding.weight": "the image encoder of the official release",
    "token_embedding.weight": "the umT5 text encoder of the official release",
    "enc.blk.0.attn_q.weight": "a T5 text encoder in llama.cpp's layout",
    "embeddings.patch_embedding.weight": "a CLIP image encoder in transformers' layout",
    "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": "a Stable Diffusion checkpoint",
    "decoder.conv_in.weight": "an image VAE",
}
WITHIN_WAN = ("blocks.0.audio_cross_attn.q.weight", "vace_blocks.0.after_proj.weight")
LORA_PARTS = ("lora_A", "lora_B", "lora_down", "lora_up", "diff", "diff_b")


def canonical(source: TensorSource) -> TensorSource:
    """The source under official names: prefixes dropped, diffusers' names mapped; unknown names stay as they are.

    Raises:
        ParameterMismatch: two names of the file are the same parameter.
    """
    prefix = names.find_prefix(source.entries.keys())
    plain = [
        (name, bare := name.removeprefix(prefix), _with_leading_side(bare, entry))
        for name, entry in source.entries.items()
    ]
    found = {name for _, name, _ in plain}
    if any(name.startswith("condition_embedder.") for name in found):
        return source.rebuilt((old, names.transformer_to_official(name) or name, entry) for old, name, entry in plain)
    if any(name.startswith("decoder.up_blocks.") for name in found):
        level = _diffusers_level(found)
        return source.rebuilt((old, names.vae_to_official(name, level) or name, entry) for old, name, entry in plain)
    return source.rebuilt(plain)


def kind(source: TensorSource) -> str:
    """What a source under official names is: "FLF2V transformer", "Wan-VAE" and so on, or "unknown model"."""
    entries = source.entries
    if "patch_embedding.weight" in entries and any(name.startswith("blocks.0.self_attn.") for name in entries):
        return _transformer_kind(source)
    if "decoder.upsamples.0.residual.0.gamma" in entries and "encoder.downsamples.0.residual.0.gamma" in entries:
        return VAE
    if any(part in LORA_PARTS for name in entries for part in name.split(".")[-2:]):
        return LORA
    for sign, what in OTHERS.items():
        if sign in entries:
            return what
    for sign, what in OTHERS.items():  # behind a prefix not known here
        if any(name.endswith("." + sign) for name in entries):
            return what
    return UNKNOWN


def wrong(source: TensorSource, found: str, needed: str) -> WrongModel:
    """The error for a sound file of another model; ``needed`` says what to give instead."""
    known = found
    if found == UNKNOWN:
        some = listed(source.entries) or "nothing"
        found = f"not a model known here (it has {len(source.entries)} tensors: {some})"
    elif found in (TEXT_TRANSFORMER, OTHER_TRANSFORMER):
        found = (
            f"a {found}: {side(source, 'patch_embedding.weight', 1)} input channels; "
            f"a first/last-frame model has {2 * out_channels(source) + TEMPORAL_STRIDE}"
        )
    elif found in LOADABLE:
        found = f"{'a' if found == PLAIN_TRANSFORMER else 'an'} {found}"
    return WrongModel(f"{source.path} is {found}; {needed}", found=known)


def count_layers(entries: Mapping[str, Any], stem: str) -> int:
    """How many layers are numbered one after another from 0 behind ``stem``; a stray high number counts for nothing."""
    numbers = {name[len(stem) :].split(".", 1)[0] for name in entries if name.startswith(stem)}
    return next(count for count in range(len(numbers) + 1) if str(count) not in numbers)


def out_channels(source: TensorSource) -> int:
    """Latent channels that come out of a transformer, from the rows of its head; the released 16 if it has none."""
    head, patch = (source.entries.get(name) for name in ("head.head.weight", "patch_embedding.weight"))
    if head is None or patch is None or not head.shape or len(patch.shape) != 5:
        return len(WAN_LATENTS_MEAN)
    return head.shape[0] // max(1, math.prod(patch.shape[2:]))


def side(source: TensorSource, name: str, axis: int) -> int:
    """One side of a tensor, or 0 if it has none there."""
    shape = source.entries[name].shape
    return shape[axis] if len(shape) > axis else 0


def _with_leading_side(name: str, entry: Entry) -> Entry:
    """Some GGUF files drop a leading side of 1; only these parameters have one."""
    if len(entry.shape) != 2 or name.rpartition(".")[2] not in ("modulation", "emb_pos"):
        return entry
    return entry.viewed((1, *entry.shape), lambda tensor: tensor[None])


def _transformer_kind(source: TensorSource) -> str:
    for sign in WITHIN_WAN:
        if sign in source.entries:
            return OTHERS[sign]
    channels, out = side(source, "patch_embedding.weight", 1), out_channels(source)
    if channels != 2 * out + TEMPORAL_STRIDE:
        return TEXT_TRANSFORMER if channels == out else OTHER_TRANSFORMER
    if not any(name.startswith("img_emb.") for name in source.entries):
        return PLAIN_TRANSFORMER
    return TRANSFORMER if "img_emb.emb_pos" in source.entries else IMAGE_TRANSFORMER


def _diffusers_level(found: set[str]) -> int:
    """Layers of a decoder level in diffusers' naming: its residual blocks and the resampling behind them."""
    return sum(f"decoder.up_blocks.0.resnets.{i}.conv1.weight" in found for i in range(16)) + 1
