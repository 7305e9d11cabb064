"""What a model's files will take once they are loaded, from their headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ..config import WAN_FLF2V_14B, WAN_VAE, TransformerConfig, VAEConfig
from ..weights import detect, sizes
from ..weights.experts import Pair
from ..weights.load import AnyPath, find_source
from ..weights.source import TensorSource
from .plan import Weights

BLOCKS = "blocks."
PARTS = ("text_encoder", "image_encoder", "vae")
# Values in the released encoders (umT5-xxl, CLIP ViT-H/14) and the released VAE, for a transformer's file by itself.
RELEASED_TEXT_ENCODER, RELEASED_IMAGE_ENCODER, RELEASED_VAE = 5_680_910_336, 630_766_080, 126_892_531


def read(
    path: AnyPath | Pair, dtype: torch.dtype, *, unpack: bool = False, parts: Mapping[str, AnyPath | None] | None = None
) -> tuple[TransformerConfig, Weights, VAEConfig] | None:
    """Sizes and bytes of a model as it will be loaded; None where there is no transformer.

    Parts that a transformer's file does not hold are taken as the released ones.

    Args:
        path: a pipeline folder, a transformer folder or a file; or where the two experts of a model are, the rest
            beside them.
        dtype: of the transformer and the encoders; packed weights, and what else is in their file, stay as stored.
        unpack: whether plain weights are made of packed ones.
        parts: files and folders of parts that are loaded in the place of the model's own, by ``"text_encoder"``,
            ``"image_encoder"`` and ``"vae"``.

    Raises:
        WeightsError: a part is broken, or of another model.
    """
    transformers = [
        _transformer(each, dtype, unpack) for each in ((path.high, path.low) if isinstance(path, Pair) else (path,))
    ]
    found = [each for each in transformers if each is not None]
    if len(found) < len(transformers):
        return None
    (config, first, own), *others = found
    beside = {part: _beside(path, own, part, (parts or {}).get(part)) for part in PARTS}
    text, text_converted = _part(beside["text_encoder"], dtype, RELEASED_TEXT_ENCODER)
    image, image_converted = _part(beside["image_encoder"], dtype, RELEASED_IMAGE_ENCODER)
    vae_bytes, vae_converted = _part(beside["vae"], torch.float32, RELEASED_VAE)
    weights = replace(
        first,
        text_encoder=text,
        image_encoder=image if config.has_image_branch else 0,
        vae=vae_bytes,
        converted=first.converted + text_converted + image_converted + vae_converted,
        waiting=tuple(other for _, other, _ in others),
    )
    return config, weights, _vae_config(beside["vae"])


def converted(path: AnyPath, dtype: torch.dtype, *, unpack: bool = False) -> int:
    """Bytes that a transformer alone takes in host memory once it is loaded there; what is mapped takes none."""
    found = _transformer(path, dtype, unpack)
    return 0 if found is None else found[1].converted + found[1].converted_blocks


def _transformer(
    path: AnyPath, dtype: torch.dtype, unpack: bool
) -> tuple[TransformerConfig, Weights, TensorSource] | None:
    """Sizes, bytes and tensors of a transformer; None where there is none."""
    found = find_source(path, "transformer")
    if found is None:
        return None
    source = detect.canonical(found)
    if detect.kind(source) not in detect.LOADABLE:
        return None
    config = sizes.transformer_config(source)
    blocks = [0] * config.num_layers
    converted = converted_blocks = dequantized = rest = 0
    kept = source.packed and not unpack
    for name, entry in source.entries.items():
        size, changed = (entry.bytes, False) if kept else entry.loaded(dtype)
        if kept and entry.packing is not None:
            dequantized = max(dequantized, entry.size * dtype.itemsize)
        number = name.removeprefix(BLOCKS).split(".")[0] if name.startswith(BLOCKS) else ""
        if number.isdecimal() and int(number) < len(blocks):
            blocks[int(number)] += size
            converted_blocks += size * changed
        else:
            rest += size
            converted += size * changed
    weights = Weights(
        blocks=tuple(blocks),
        rest=rest,
        itemsize=dtype.itemsize,
        dequantized=dequantized,
        converted_blocks=converted_blocks,
        converted=converted,
    )
    return config, weights, source


def released(
    dtype: torch.dtype, itemsize: int, config: TransformerConfig = WAN_FLF2V_14B
) -> tuple[TransformerConfig, Weights]:
    """A released 14B model with the weights of its blocks in ``itemsize`` bytes, calculating in ``dtype``; of
    Wan2.2's experts both."""
    from ..model import WanTransformer

    with torch.device("meta"):
        model = WanTransformer(config)
    values = [sum(p.numel() for p in block.parameters()) for block in model.blocks]
    rest = sum(p.numel() for p in model.parameters()) - sum(values)
    transformer = Weights(
        blocks=tuple(count * itemsize for count in values),
        rest=rest * dtype.itemsize,
        itemsize=dtype.itemsize,
        dequantized=config.dim * config.ffn_dim * dtype.itemsize if itemsize < dtype.itemsize else 0,
    )
    return config, replace(
        transformer,
        text_encoder=RELEASED_TEXT_ENCODER * dtype.itemsize,
        image_encoder=RELEASED_IMAGE_ENCODER * dtype.itemsize if config.has_image_branch else 0,
        vae=RELEASED_VAE * 4,
        waiting=(transformer,) if config.is_expert else (),
    )


def _part(source: TensorSource | None, dtype: torch.dtype, otherwise: int) -> tuple[int, int]:
    """Bytes of one part once loaded, and how many of them are converted."""
    if source is None:
        return otherwise * dtype.itemsize, 0
    keep = source.packed
    rows = [(entry.bytes, False) if keep else entry.loaded(dtype) for entry in source.entries.values()]
    return sum(size for size, _ in rows), sum(size for size, changed in rows if changed)


def _beside(path: AnyPath | Pair, transformer: TensorSource, part: str, given: AnyPath | None) -> TensorSource | None:
    """Another part than the transformer; a file that holds one is not opened again."""
    if given is not None:
        return find_source(given, part)
    folder = path.folder if isinstance(path, Pair) else Path(path)
    source = None if folder is None or folder.is_file() else find_source(folder, part)
    return None if source is None or source.path == transformer.path else source


def _vae_config(source: TensorSource | None) -> VAEConfig:
    if source is None:
        return WAN_VAE
    return sizes.vae_config(detect.canonical(source))
