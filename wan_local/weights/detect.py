"""Which model do these tensors belong to? Told from names and shapes alone; ``sizes.py`` tells how large it is."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..config import WAN_LATENTS_MEAN
from ..errors import WrongModel
from ..shapes import TEMPORAL_STRIDE
from ..words import counted
from . import names
from .source import Entry, TensorSource, listed

TRANSFORMER = "FLF2V transformer"
IMAGE_TRANSFORMER = "I2V transformer"
TEXT_TRANSFORMER = "T2V transformer"
PLAIN_TRANSFORMER = "transformer with image latents but no image branch (as Wan2.2 I2V)"
OTHER_TRANSFORMER = "Wan transformer of another kind"
LARGE_CHANNELS = 48
CONTROL_CHANNELS = 48  # noise, control video and first image, without a mask
LOADABLE = (TRANSFORMER, IMAGE_TRANSFORMER, PLAIN_TRANSFORMER)
CONTROL_TRANSFORMER = "a Wan Fun-Control transformer"
LARGE_TRANSFORMER = "the Wan2.2 TI2V-5B transformer (48 latent channels)"
VAE = "Wan-VAE"
LARGE_VAE = "the Wan2.2 VAE of TI2V-5B (48 latent channels)"
LORA = "a LoRA, which changes a model and is none"
UNKNOWN = "unknown model"

# A telling parameter name of models people mix up with this one, and what it is.
OTHERS = {
    "double_blocks.0.img_attn_qkv.weight": "a HunyuanVideo transformer",
    "txt_in.individual_token_refiner.blocks.0.norm1.weight": "a HunyuanVideo transformer",
    "double_blocks.0.img_attn.qkv.weight": "a Flux or HunyuanVideo transformer",
    "model.diffusion_model.input_blocks.0.0.weight": "a Stable Diffusion checkpoint",
    "input_blocks.0.0.weight": "a Stable Diffusion U-Net",
    "transformer_blocks.0.attn.add_k_proj.weight": "a Qwen-Image or Flux transformer",
    "transformer_blocks.0.attn1.to_q.weight": "an LTX-Video or PixArt transformer",
    "model.layers.0.self_attn.q_proj.weight": "a language model",
    "joint_blocks.0.context_block.attn.qkv.weight": "a Stable Diffusion 3 transformer",
    "t5_yproj.weight": "a Mochi transformer",
    "encoder.block.0.layer.0.SelfAttention.q.weight": "a T5 text encoder in transformers' layout",
    "visual.patch_embedding.weight": "the image encoder of the official release",
    "token_embedding.weight": "the umT5 text encoder of the official release",
    "enc.blk.0.attn_q.weight": "a T5 text encoder in llama.cpp's layout",
    "visual.conv1.weight": "a CLIP model in open_clip's layout",
    "embeddings.patch_embedding.weight": "a CLIP image encoder in transformers' layout",
    "text_model.encoder.layers.0.self_attn.q_proj.weight": "a CLIP text encoder",
    "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": "a Stable Diffusion checkpoint",
    "decoder.conv_in.conv.weight": "the VAE of HunyuanVideo or LTX-Video",
    "decoder.conv_in.weight": "an image VAE",
}
# What variants of Wan have beside its own parameters: how the first of those names begins, and whose it is.
VARIANTS = {
    "vace_blocks.": "a Wan VACE transformer",
    "vace_patch_embedding.": "a Wan VACE transformer",
    "control_adapter.": "a Wan Fun-Camera transformer",
    "ref_conv.": "a Wan Fun-Control transformer",
    "casual_audio_encoder.": "a Wan2.2 S2V transformer (speech to video)",
    "audio_injector.": "a Wan2.2 S2V transformer (speech to video)",
    "face_adapter.": "a Wan2.2 Animate transformer",
    "pose_patch_embedding.": "a Wan2.2 Animate transformer",
    "audio_proj.": "a Wan transformer driven by sound (MultiTalk, InfiniteTalk, HuMo or FantasyTalking)",
    "blocks.0.audio_cross_attn": "a Wan transformer driven by sound (MultiTalk, InfiniteTalk or HuMo)",
    "blocks.0.cross_attn.processor.": "a Wan transformer driven by sound (FantasyTalking)",
    "blocks.0.cam_encoder.": "a ReCamMaster transformer",
    "patch_embedding_pose.": "a Wan SCAIL transformer",
    "patch_embedding_mask.": "a Wan SCAIL transformer",
    "patch_embedding_global.": "a WanDancer transformer",
    "fps_embedding.": "a SkyReels-V2 diffusion-forcing transformer",
    "LQ_proj_in.": "a FlashVSR transformer",
}
LORA_PARTS = (
    "lora_A", "lora_B", "lora_down", "lora_up", "lora_mid", "diff", "diff_b", "hada_w1_a", "hada_w1_b", "lokr_w1",
    "lokr_w1_a", "lokr_w2", "lokr_w2_a", "dora_scale",
)  # fmt: skip


def canonical(source: TensorSource, part: str = "transformer") -> TensorSource:
    """The source under official names: prefixes dropped, diffusers' names mapped; unknown names stay as they are.

    What can be no parameter of a transformer or VAE that is in it goes to ``extra``. Of a whole checkpoint, ``part``
    says which of the two is wanted.

    Raises:
        ParameterMismatch: two names of the file are the same parameter.
    """
    prefix = names.find_prefix(source.entries.keys(), part)
    plain = [
        (name, bare := name.removeprefix(prefix), _with_leading_side(bare, entry))
        for name, entry in source.entries.items()
    ]
    found = {name for _, name, _ in plain}
    if any(name.startswith("condition_embedder.") for name in found):
        plain = [(old, names.transformer_to_official(name) or name, entry) for old, name, entry in plain]
    elif any(name.startswith("decoder.up_blocks.") for name in found):
        level = _diffusers_level(found)
        plain = [(old, names.vae_to_official(name, level) or name, entry) for old, name, entry in plain]
    renamed = source.rebuilt(plain)
    model = "transformer" if _is_transformer(renamed) else "vae" if _is_vae(renamed) else ""
    roots = names.ROOTS.get(model)
    return renamed.only(lambda name: name.split(".", 1)[0] in roots) if roots else renamed


def kind(source: TensorSource) -> str:
    """What a source under official names is: "FLF2V transformer", "Wan-VAE" and so on, or "unknown model"."""
    entries = source.entries
    if _is_transformer(source):
        return _transformer_kind(source)
    if _is_large_vae(source):
        return LARGE_VAE
    if _is_vae(source):
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
        found = f"not a model known here (it has {counted(len(source.entries), 'tensor')}: {some})"
    elif found in (TEXT_TRANSFORMER, OTHER_TRANSFORMER):
        found = (
            f"a {found}: {side(source, 'patch_embedding.weight', 1)} input channels; "
            f"a first/last-frame model has {2 * out_channels(source) + TEMPORAL_STRIDE}"
        )
    elif found in LOADABLE:
        found = f"{'a' if found == PLAIN_TRANSFORMER else 'an'} {found}"
    return WrongModel(f"{source.path} is {found}; {needed}", found=known)


def count_layers(entries: Mapping[str, object], stem: str) -> int:
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


def _is_transformer(source: TensorSource) -> bool:
    entries = source.entries
    return "patch_embedding.weight" in entries and any(name.startswith("blocks.0.self_attn.") for name in entries)


def _is_vae(source: TensorSource) -> bool:
    signs = ("decoder.upsamples.0.residual.0.gamma", "encoder.downsamples.0.residual.0.gamma")
    return all(sign in source.entries for sign in signs)


def _is_large_vae(source: TensorSource) -> bool:
    """Wan2.2's own VAE: every level is a list of layers with a way around it, and 48 channels come out."""
    entry = source.entries.get("conv2.weight")
    return entry is not None and entry.shape[:2] == (LARGE_CHANNELS, LARGE_CHANNELS) and len(entry.shape) == 5


def _transformer_kind(source: TensorSource) -> str:
    names = (*source.entries, *source.extra)
    for sign, what in VARIANTS.items():
        if any(name.startswith(sign) for name in names):
            return what
    channels, out = side(source, "patch_embedding.weight", 1), out_channels(source)
    if channels == out == LARGE_CHANNELS:
        return LARGE_TRANSFORMER
    if out == len(WAN_LATENTS_MEAN) and channels == CONTROL_CHANNELS:
        return CONTROL_TRANSFORMER
    if channels != 2 * out + TEMPORAL_STRIDE:
        return TEXT_TRANSFORMER if channels == out else OTHER_TRANSFORMER
    if not any(name.startswith("img_emb.") for name in source.entries):
        return PLAIN_TRANSFORMER
    return TRANSFORMER if "img_emb.emb_pos" in source.entries else IMAGE_TRANSFORMER


def _diffusers_level(found: set[str]) -> int:
    """Layers of a decoder level in diffusers' naming: its residual blocks and the resampling behind them."""
    return sum(f"decoder.up_blocks.0.resnets.{i}.conv1.weight" in found for i in range(16)) + 1
