"""Which tensors of a file are packed, told from what stands beside them.

Three markings of fp8 are in use. ComfyUI's older one and Kijai's: an empty tensor ``scaled_fp8`` and
``LAYER.scale_weight`` beside every fp8 weight. ComfyUI's newer one: ``LAYER.comfy_quant`` (JSON that names the format)
and ``LAYER.weight_scale``, or the same JSON in the metadata. And none at all: fp8 numbers that stand for themselves.
The newer one marks other formats too, which ``comfy_layouts.py`` reads.

A mark ``scaled_fp8`` of two elements, or ``full_precision_matrix_mult`` in the JSON, asks that nothing be multiplied in
fp8: whoever made the file found that it needs the exact inputs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import UnreadableWeights
from ..quantised import Float8
from . import comfy_layouts
from .source import DTYPES, Entry, TensorSource, listed, reason, shown

MARK = "scaled_fp8"  # without a layer; it is about what has the same prefix, of a whole checkpoint one part
SCALES = ("scale_weight", "weight_scale")
IGNORED = ("scale_input", "input_scale")  # of a calibrated input; inputs are measured when they come
LAYER_MARK = "comfy_quant"
METADATA = "_quantization_metadata"
FLOAT8 = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
WIDE = "full_precision_matrix_mult"
WIDE_MARK = 2  # elements of MARK
FORMATS = ("float8_e4m3fn", "float8_e5m2")
MAX_JSON = 4096  # bytes of one layer's mark


def combine(source: TensorSource) -> TensorSource:
    """The same source with every scale put to the tensor it belongs to, and the marks gone.

    Raises:
        UnreadableWeights: a format that is not known here, or scales that fit nothing.
    """
    if not _is_marked(source) and not any(entry.dtype in FLOAT8 for entry in source.entries.values()):
        return source
    layers, others = _layers(source)
    scales = {
        name: entry
        for name, entry in source.entries.items()
        if _last(name) in SCALES and name.rpartition(".")[0] + ".weight" not in others
    }
    plain: dict[str, Entry] = {
        name: entry
        for name, entry in source.entries.items()
        if _last(name) not in (*SCALES, comfy_layouts.SECOND, *IGNORED, LAYER_MARK, MARK)
    }
    plain.update(others)
    marks = {name.removesuffix(MARK): entry for name, entry in source.entries.items() if _last(name) == MARK}
    marked, wide = tuple(marks), tuple(prefix for prefix, entry in marks.items() if entry.size == WIDE_MARK)
    for name, scale in scales.items():
        owner = name.rpartition(".")[0] + ".weight"
        if owner not in plain:
            raise UnreadableWeights(f"{source.path} has {shown(name)} and no {shown(owner)}; download it again")
        plain[owner] = _scaled(source, owner, plain[owner], scale)
    for layer in layers:
        if (weight := plain.get(f"{layer}.weight")) is not None and weight.packing is None:
            raise UnreadableWeights(
                f"{source.path} marks {shown(layer)} as fp8, and has no scale for it; download it again"
            )
    unscaled = [n for n, e in plain.items() if e.dtype in FLOAT8 and e.packing is None]
    if bare := [name for name in unscaled if name.startswith(marked) and len(plain[name].shape) > 1]:
        raise UnreadableWeights(
            f"{source.path} is marked as scaled fp8, and {len(bare)} fp8 tensors have no scale ({listed(bare)}); "
            "use the fp16, bf16 or plain fp8 file of this model"
        )
    for name in unscaled:
        plain[name] = replace(plain[name], packing=Float8(shape=plain[name].shape, dtype=FLOAT8[plain[name].dtype]))
    for name, entry in plain.items():
        if isinstance(entry.packing, Float8) and (name.startswith(wide) or layers.get(name.removesuffix(".weight"))):
            plain[name] = replace(entry, packing=replace(entry.packing, wide_products=True))
    return replace(source, entries=plain)


def _is_marked(source: TensorSource) -> bool:
    marks = (*SCALES, LAYER_MARK, MARK)
    return METADATA in source.metadata or any(_last(name) in marks for name in source.entries)


def _scaled(source: TensorSource, name: str, entry: Entry, scale: Entry) -> Entry:
    """A weight with its scale, which is one number or one a row."""
    told = f"{source.path} has a scale for {shown(name)}"
    if entry.dtype not in FLOAT8:
        raise UnreadableWeights(f"{told}, which is {shown(entry.dtype)} and not fp8; use the fp16 or bf16 file")
    rows = entry.shape[0] if entry.shape else 1
    if scale.size not in (1, rows) or any(side not in (1, rows) for side in scale.shape) or len(scale.shape) > 2:
        raise UnreadableWeights(
            f"{told} of shape {[*scale.shape]}, which is neither one number nor one a row ({rows}); "
            "use the fp16, bf16 or plain fp8 file"
        )
    if DTYPES.get(scale.dtype) not in (torch.float32, torch.float16, torch.bfloat16):
        raise UnreadableWeights(f"{told} that is {shown(scale.dtype)}; use the fp16, bf16 or plain fp8 file")
    return replace(
        entry,
        packing=Float8(shape=entry.shape, dtype=FLOAT8[entry.dtype], scaled=True),
        scale=_checked(f"{told} that is", scale),
    )


def _checked(told: str, scale: Entry) -> Callable[[], Tensor]:
    def read() -> Tensor:
        values = scale.read().float().reshape(-1, 1)
        if not torch.isfinite(values).all() or not (values > 0).all():
            wrong = float(values[~(torch.isfinite(values) & (values > 0))][0])
            raise UnreadableWeights(f"{told} {wrong:g}; download it again")
        return values

    return read


def _layers(source: TensorSource) -> tuple[Mapping[str, bool], Mapping[str, Entry]]:
    """Every layer that the file marks: those in fp8 and whether they ask for wide products; the weights of others."""
    found: dict[str, bool] = {}
    others: dict[str, Entry] = {}
    for layer, said in _marks(source):
        said = said if isinstance(said, dict) else {}
        kind = said.get("format")
        if (weight := _other(source, layer, said)) is not None:
            others[f"{layer}.weight"] = weight
            continue
        if kind not in FORMATS:
            raise UnreadableWeights(
                f"{source.path} is quantised as {shown(kind)} (in {shown(layer)}), which can't be read here; use the "
                "fp8, GGUF, bf16 or fp16 file of this model"
            )
        found[layer] = said.get(WIDE) is True
    return found, others


def _other(source: TensorSource, layer: str, said: Mapping[str, object]) -> Entry | None:
    if not isinstance(said.get("format"), str):
        return None
    parts = ("weight", comfy_layouts.SCALE, comfy_layouts.SECOND, comfy_layouts.SMOOTHING)
    entries = {part: source.entries[f"{layer}.{part}"] for part in parts if f"{layer}.{part}" in source.entries}
    return comfy_layouts.packed(comfy_layouts.Layer(path=source.path, name=layer, said=said, entries=entries))


def _marks(source: TensorSource) -> Iterable[tuple[str, object]]:
    if METADATA in source.metadata:
        table = _parse(source, METADATA, str(source.metadata[METADATA]))
        layers = table.get("layers") if isinstance(table, dict) else None
        if not isinstance(layers, dict):
            raise UnreadableWeights(f"{source.path} has {METADATA} without layers; download it again")
        yield from layers.items()
    for name, entry in source.entries.items():
        if _last(name) == LAYER_MARK:
            if entry.dtype != "U8" or math.prod(entry.shape) > MAX_JSON:
                raise UnreadableWeights(f"{source.path} has {shown(name)} as {entry.dtype}; download it again")
            yield name.rpartition(".")[0], _parse(source, name, bytes(entry.read().flatten().tolist()))


def _parse(source: TensorSource, name: str, text: str | bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise UnreadableWeights(
            f"{source.path} says in {shown(name)} how it is quantised, which is no JSON ({reason(error)}); "
            "download it again"
        ) from error


def _last(name: str) -> str:
    return name.rpartition(".")[2]
