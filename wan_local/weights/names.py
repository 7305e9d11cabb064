"""Parameter names: the official ones are canonical, every other layout maps to them and back.

Each row is a whole name with ``{}`` for an index or for ``weight`` and ``bias``; there are no partial replacements, so
a name either matches one row or is unknown. Sources: Wan-Video/Wan2.1 ``wan/modules/{model,vae}.py`` and diffusers'
``WanTransformer3DModel`` and ``AutoencoderKLWan``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "transformer.", "vae.", "first_stage_model.")
"""What single files put in front of every name."""
SIGNS = {
    "transformer": ("patch_embedding.weight",),
    "vae": ("decoder.head.0.gamma", "decoder.norm_out.gamma"),
}
"""Names that every Wan transformer, and every Wan-VAE, has one of."""
ROOTS = {
    "transformer": (
        "patch_embedding", "text_embedding", "time_embedding", "time_projection", "img_emb", "blocks", "head",
    ),
    "vae": ("encoder", "decoder", "conv1", "conv2"),
}  # fmt: skip
"""How the official names of all their parameters begin."""

ATTENTION = (
    ("to_q.{}", "q.{}"),
    ("to_k.{}", "k.{}"),
    ("to_v.{}", "v.{}"),
    ("to_out.0.{}", "o.{}"),
    ("norm_q.{}", "norm_q.{}"),
    ("norm_k.{}", "norm_k.{}"),
)
IMAGE_ATTENTION = (("add_k_proj.{}", "k_img.{}"), ("add_v_proj.{}", "v_img.{}"), ("norm_added_k.{}", "norm_k_img.{}"))
EMBEDDER = "condition_embedder."
TRANSFORMER = (
    ("patch_embedding.{}", "patch_embedding.{}"),
    (EMBEDDER + "text_embedder.linear_1.{}", "text_embedding.0.{}"),
    (EMBEDDER + "text_embedder.linear_2.{}", "text_embedding.2.{}"),
    (EMBEDDER + "time_embedder.linear_1.{}", "time_embedding.0.{}"),
    (EMBEDDER + "time_embedder.linear_2.{}", "time_embedding.2.{}"),
    (EMBEDDER + "time_proj.{}", "time_projection.1.{}"),
    (EMBEDDER + "image_embedder.norm1.{}", "img_emb.proj.0.{}"),
    (EMBEDDER + "image_embedder.ff.net.0.proj.{}", "img_emb.proj.1.{}"),
    (EMBEDDER + "image_embedder.ff.net.2.{}", "img_emb.proj.3.{}"),
    (EMBEDDER + "image_embedder.norm2.{}", "img_emb.proj.4.{}"),
    (EMBEDDER + "image_embedder.pos_embed", "img_emb.emb_pos"),
    # diffusers calls self-attention attn1 and cross-attention attn2, and numbers the norms by their place.
    *((f"blocks.{{}}.attn1.{theirs}", f"blocks.{{}}.self_attn.{ours}") for theirs, ours in ATTENTION),
    *(
        (f"blocks.{{}}.attn2.{theirs}", f"blocks.{{}}.cross_attn.{ours}")
        for theirs, ours in (*ATTENTION, *IMAGE_ATTENTION)
    ),
    ("blocks.{}.norm2.{}", "blocks.{}.norm3.{}"),
    ("blocks.{}.ffn.net.0.proj.{}", "blocks.{}.ffn.0.{}"),
    ("blocks.{}.ffn.net.2.{}", "blocks.{}.ffn.2.{}"),
    ("blocks.{}.scale_shift_table", "blocks.{}.modulation"),
    ("scale_shift_table", "head.modulation"),
    ("proj_out.{}", "head.head.{}"),
)
RESIDUAL = (
    ("norm1.gamma", "residual.0.gamma"),
    ("conv1.{}", "residual.2.{}"),
    ("norm2.gamma", "residual.3.gamma"),
    ("conv2.{}", "residual.6.{}"),
    ("conv_shortcut.{}", "shortcut.{}"),
)
RESAMPLE = (("resample.1.{}", "resample.1.{}"), ("time_conv.{}", "time_conv.{}"))
MIDDLE = (
    *((f"mid_block.resnets.0.{theirs}", f"middle.0.{ours}") for theirs, ours in RESIDUAL),
    ("mid_block.attentions.0.norm.gamma", "middle.1.norm.gamma"),
    ("mid_block.attentions.0.to_qkv.{}", "middle.1.to_qkv.{}"),
    ("mid_block.attentions.0.proj.{}", "middle.1.proj.{}"),
    *((f"mid_block.resnets.1.{theirs}", f"middle.2.{ours}") for theirs, ours in RESIDUAL),
)
SIDE = (("conv_in.{}", "conv1.{}"), ("norm_out.gamma", "head.0.gamma"), ("conv_out.{}", "head.2.{}"), *MIDDLE)
VAE = (
    ("quant_conv.{}", "conv1.{}"),
    ("post_quant_conv.{}", "conv2.{}"),
    *((f"{side}.{theirs}", f"{side}.{ours}") for side in ("encoder", "decoder") for theirs, ours in SIDE),
    *((f"encoder.down_blocks.{{}}.{a}", f"encoder.downsamples.{{}}.{b}") for a, b in (*RESIDUAL, *RESAMPLE)),
)
# The decoder is flat in the official code and a list of levels in diffusers: places are counted, see below.
VAE_LEVEL = tuple((f"decoder.up_blocks.{{}}.resnets.{{}}.{a}", f"decoder.upsamples.{{}}.{b}") for a, b in RESIDUAL)
VAE_LEVEL_END = tuple((f"decoder.up_blocks.{{}}.upsamplers.0.{a}", f"decoder.upsamples.{{}}.{b}") for a, b in RESAMPLE)


def transformer_to_official(name: str) -> str | None:
    """Official name of a diffusers transformer parameter, or None if it has none."""
    return _rename(name, TRANSFORMER, 0)


def transformer_to_diffusers(name: str) -> str | None:
    """Diffusers' name of an official transformer parameter, or None if it has none."""
    return _rename(name, TRANSFORMER, 1)


def vae_to_official(name: str, level: int) -> str | None:
    """Official name of a diffusers VAE parameter, or None; ``level`` is the layers of a decoder level, 4 in Wan."""
    if plain := _rename(name, VAE, 0):
        return plain
    for rows, place in ((VAE_LEVEL, None), (VAE_LEVEL_END, level - 1)):
        for theirs, ours in rows:
            if found := _pattern(theirs).fullmatch(name):
                index, *rest = found.groups()
                layer = place if place is not None else int(rest.pop(0))
                return ours.format(int(index) * level + layer, *rest)
    return None


def vae_to_diffusers(name: str, level: int) -> str | None:
    """Diffusers' name of an official VAE parameter, or None; ``level`` as above."""
    if plain := _rename(name, VAE, 1):
        return plain
    for rows, at_end in ((VAE_LEVEL, False), (VAE_LEVEL_END, True)):
        for theirs, ours in rows:
            if found := _pattern(ours).fullmatch(name):
                place, *rest = found.groups()
                index, layer = divmod(int(place), level)
                if at_end == (layer == level - 1):
                    return theirs.format(index, *([] if at_end else [layer]), *rest)
    return None


def find_prefix(names: Collection[str], part: str = "transformer") -> str:
    """What a single file puts in front of its model's names: what stands before a telling name, else before all.

    Of a file with several models it is the one before those of ``part``.
    """
    others = [sign for other, signs in SIGNS.items() if other != part for sign in signs]
    for sign in (*SIGNS[part], *others):
        for prefix in ("", *PREFIXES):
            if prefix + sign in names:
                return prefix
    for prefix in PREFIXES:
        if names and all(name.startswith(prefix) for name in names):
            return prefix
    return ""


def _rename(name: str, rows: tuple[tuple[str, str], ...], side: int) -> str | None:
    for row in rows:
        if found := _pattern(row[side]).fullmatch(name):
            return row[1 - side].format(*found.groups())
    return None


@cache
def _pattern(template: str) -> re.Pattern[str]:
    """``{}`` stands for an index inside a name and for ``weight`` or ``bias`` at its end."""
    inner = re.escape(template).replace(r"\{\}", "{}")
    if inner.endswith("{}"):
        inner = inner[:-2] + "(weight|bias)"
    return re.compile(inner.replace("{}", r"(\d+)"))
