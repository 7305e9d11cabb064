"""ComfyUI's own layouts of packed layers beyond fp8: which tensors of a layer mean what.

Written by ComfyUI's mixed precision layers (``comfy/ops.py``) and comfy-kitchen's ``state_dict_tensors``:
``LAYER.weight`` with the numbers, ``LAYER.weight_scale`` with a scale for all, for a row or for a block, and
``LAYER.weight_scale_2`` with a second one for all. Dequantizing them needs neither of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import UnreadableWeights
from ..quantised import MXFP8, NVFP4, Int8
from ..quantised.block_scaled import COLUMNS, ROWS, in_rows, tiles
from ..quantised.int8 import can_turn
from .source import DTYPES, Entry, shown

SCALE, SECOND, SMOOTHING = "weight_scale", "weight_scale_2", "pre_quant_scale"
TURNED = 256  # values that are turned together, where the mark does not say how many
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """What a file has of one packed layer.

    Attributes:
        path: of the file, for messages.
        name: of the layer.
        said: its mark, as JSON gave it.
        entries: the tensors of the layer by the last part of their names.
    """

    path: str
    name: str
    said: Mapping[str, object]
    entries: Mapping[str, Entry]

    def wrong(self, told: str) -> UnreadableWeights:
        kind = shown(self.said.get("format"))
        return UnreadableWeights(
            f"{self.path} marks {shown(self.name)} as {kind}, and {told}; download it again, or use the fp8, GGUF, "
            "bf16 or fp16 file of this model"
        )

    def matrix(self, *dtypes: str) -> Entry:
        """The packed numbers: two sides, stored as one of these."""
        entry = self.entries.get("weight")
        if entry is None:
            raise self.wrong("has no weight for it")
        if entry.dtype not in dtypes or len(entry.shape) != 2:
            raise self.wrong(f"its weight is {shown(entry.dtype)} of shape {[*entry.shape]}")
        return entry

    def scale(self, name: str = SCALE) -> Entry:
        found = self.entries.get(name)
        if found is None:
            raise self.wrong(f"has no {name} for it")
        return found


def packed(layer: Layer) -> Entry | None:
    """The layer's weight with its packing and scales; None for a format that is not one of these.

    Raises:
        UnreadableWeights: tensors that are missing or do not fit the format.
    """
    read = LAYOUTS.get(layer.said.get("format", ""))
    if read is None:
        return None
    if SMOOTHING in layer.entries:
        raise layer.wrong(f"has a {SMOOTHING} for its input, which can't be read here")
    return read(layer)


def _int8(layer: Layer) -> Entry:
    weight, scale = layer.matrix("I8"), layer.scale()
    rows, columns = weight.shape
    if scale.size not in (1, rows) or DTYPES.get(scale.dtype) not in FLOATS:
        raise layer.wrong(f"its {SCALE} is {shown(scale.dtype)} of shape {[*scale.shape]}")
    options = layer.said.get("params")  # an older place of the two below
    options = {**(options if isinstance(options, dict) else {}), **layer.said}
    turned = 0
    if options.get("convrot"):
        said = options.get("convrot_groupsize", TURNED)
        turned = said if type(said) is int else 0
        if not can_turn(turned) or columns % turned:
            raise layer.wrong(f"says that its rows of {columns} are turned in groups of {shown(said)}")
    return replace(
        weight,
        packing=Int8(shape=weight.shape, scales=scale.size, turned=turned),
        scale=lambda: _finite(layer, SCALE, scale.read().float().reshape(-1, 1)),
    )


def _mxfp8(layer: Layer) -> Entry:
    weight = layer.matrix("F8_E4M3")
    scale = _blocks(layer, weight.shape, MXFP8.BLOCK, "F8_E8M0")
    return replace(weight, packing=MXFP8(shape=weight.shape), scale=scale)


def _nvfp4(layer: Layer) -> Entry:
    weight, second = layer.matrix("U8"), layer.scale(SECOND)
    if second.size != 1 or DTYPES.get(second.dtype) not in FLOATS:
        raise layer.wrong(f"its {SECOND} is {shown(second.dtype)} of shape {[*second.shape]}")
    shape = (weight.shape[0], 2 * weight.shape[1])  # two numbers a byte
    factor = float(_finite(layer, SECOND, second.read().float()))
    scale = _blocks(layer, shape, NVFP4.BLOCK, "F8_E4M3")
    return replace(weight, shape=shape, packing=NVFP4(shape=shape, factor=factor), scale=scale)


LAYOUTS: Mapping[object, Callable[[Layer], Entry]] = {"int8_tensorwise": _int8, "mxfp8": _mxfp8, "nvfp4": _nvfp4}
"""By the name that marks have."""


def _blocks(layer: Layer, shape: tuple[int, ...], block: int, dtype: str) -> Callable[[], Tensor]:
    """The scales of blocks, uint8 ``[out, in / block]``; in older files they are stored as bytes."""
    rows, columns = shape
    scale = layer.scale()
    down, across = tiles(rows, columns // block)
    if columns % block or scale.dtype not in ("U8", dtype) or scale.size != down * ROWS * across * COLUMNS:
        raise layer.wrong(
            f"its {SCALE} is {shown(scale.dtype)} of shape {[*scale.shape]}, which does not fit {rows} rows of "
            f"{columns}"
        )
    return lambda: in_rows(scale.read().view(torch.uint8), rows, columns // block)


def _finite(layer: Layer, name: str, values: Tensor) -> Tensor:
    if not torch.isfinite(values).all():
        raise layer.wrong(f"its {name} is not finite")
    return values
