"""What is this file or folder? Read from headers alone, so a 65 GB folder answers at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ParameterMismatch, UnreadableWeights, WanError
from ..model import WanTransformer
from ..vae import WanVAE
from . import detect
from .formats import PARTS
from .load import AnyPath, check_parameters, open_source
from .source import TensorSource

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
TRANSFORMERS = ("FLF2V transformer", "I2V transformer", "T2V transformer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What one weight file, or each part of a folder, holds.

    Attributes:
        path: what was looked at.
        format: layout it was recognised as.
        kind: model it holds.
        sizes: width, depth and so on, by name.
        parameters: number of values.
        stored: number of values by stored dtype.
        missing, unexpected, misshapen: parameters that do not fit the model, by name.
        memory: bytes that the weights take, by dtype they could be loaded in.
        parts: reports of the parts, for a pipeline folder.
    """

    path: str
    format: str
    kind: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0
    stored: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    memory: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[Report, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.kind} ({self.format})"]
        if self.sizes:
            lines.append("  sizes       " + ", ".join(f"{name} {value}" for name, value in self.sizes.items()))
        if self.parameters:
            stored = ", ".join(f"{count:,} {dtype}" for dtype, count in self.stored.items())
            lines.append(f"  parameters  {self.parameters:,} ({stored})")
            lines.append(
                "  memory      " + ", ".join(f"{name} {_gigabytes(size)}" for name, size in self.memory.items())
            )
            lines.append("  keys        " + self._keys())
        return "\n".join([*lines, *(line for part in self.parts for line in str(part).split("\n"))])

    def _keys(self) -> str:
        rows = {"missing": self.missing, "unexpected": self.unexpected, "misshapen": self.misshapen}
        counted = [f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in rows.items() if names]
        return ", ".join(counted) or "all present, none unexpected"


def inspect(path: AnyPath) -> Report:
    """Describe a weight file, a part's folder or a pipeline folder.

    Raises:
        UnreadableWeights: nothing readable there.
    """
    found = []
    for part in PARTS:
        try:
            found.append(_report(open_source(path, part)))
        except UnreadableWeights as error:
            reason = error
    distinct = list({report.path: report for report in found}.values())
    if not distinct:
        raise reason
    if len(distinct) == 1:
        return distinct[0]
    total = sum(report.parameters for report in distinct)
    return Report(
        path=str(Path(path)),
        format=distinct[0].format,
        kind=f"pipeline of {len(distinct)} parts",
        parameters=0,
        memory=_memory(total),
        parts=tuple(distinct),
    )


def _report(source: TensorSource) -> Report:
    plain = detect.canonical(source)
    kind, count = detect.kind(plain), sum(entry.size for entry in plain.entries.values())
    stored: Counter[str] = Counter()
    for entry in plain.entries.values():
        stored[entry.dtype] += entry.size
    sizes, mismatch = _sizes(plain, kind)
    return Report(
        path=source.path,
        format=source.format,
        kind=kind,
        sizes=sizes,
        parameters=count,
        stored=dict(stored),
        missing=mismatch.missing if mismatch else (),
        unexpected=mismatch.unexpected if mismatch else (),
        misshapen=tuple(name for name, _, _ in mismatch.misshapen) if mismatch else (),
        memory=_memory(count),
    )


def _sizes(source: TensorSource, kind: str) -> tuple[dict[str, Any], ParameterMismatch | None]:
    try:
        if kind in TRANSFORMERS:
            config = detect.transformer_config(source)
            with torch.device("meta"):
                model: nn.Module = WanTransformer(config)
            sizes = {
                "width": config.dim, "blocks": config.num_layers, "heads": config.num_heads, "ffn": config.ffn_dim,
                "channels in": config.in_dim, "channels out": config.out_dim, "text": config.text_dim,
                "image": config.image_dim or "none", "image rows": config.image_tokens or "any",
            }  # fmt: skip
        elif kind == "Wan-VAE":
            vae = detect.vae_config(source)
            with torch.device("meta"):
                model = WanVAE(vae)
            sizes = {"base width": vae.dim, "levels": len(vae.dim_mult), "latent channels": vae.z_dim}
        else:
            return {}, None
    except ParameterMismatch as error:
        return {}, error
    except WanError:
        return {}, None
    try:
        check_parameters(source, {name: tuple(value.shape) for name, value in model.state_dict().items()})
    except ParameterMismatch as error:
        return sizes, error
    return sizes, None


def _memory(values: int) -> dict[str, int]:
    return {name: values * size for name, size in BYTES.items()}


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
