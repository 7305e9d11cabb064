"""What is this file or folder? Read from headers alone, so a 65 GB folder answers at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import nn

from ..errors import ParameterMismatch, WeightsError
from ..model import WanTransformer
from ..vae import WanVAE
from ..words import counted
from . import detect, sizes
from .experts import find_pair
from .fit import check_parameters
from .formats import PARTS
from .load import AnyPath, build, find_source, open_source
from .source import TensorSource, listed

STORED = "as stored"
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
ENCODERS = {
    detect.OTHERS[sign]: part
    for sign, part in {
        "encoder.block.0.layer.0.SelfAttention.q.weight": "text_encoder",
        "token_embedding.weight": "text_encoder",
        "enc.blk.0.attn_q.weight": "text_encoder",
        "embeddings.patch_embedding.weight": "image_encoder",
        "visual.patch_embedding.weight": "image_encoder",
    }.items()
}
EXPERT = "one of Wan2.2's two experts, trained for high or for low noise alone; only the name of its file tells which"
OF_PAIR = {True: "the high-noise expert of this folder's two", False: "the low-noise expert of this folder's two"}
TRANSFORMERS = (*detect.LOADABLE, detect.TEXT_TRANSFORMER)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What one weight file, or each part of a folder, holds.

    Attributes:
        path: what was looked at.
        format: layout it was recognised as.
        kind: model it holds.
        sizes: width, depth and so on, by name.
        parameters: number of values.
        stored: number of values by how they are stored, such as "BF16", "fp8 e4m3fn, scaled" or "GGUF Q4_K".
        missing, misshapen: parameters that do not fit the model, by name.
        unexpected: tensors that belong to no layer of the model, by name; they are not used.
        memory: bytes that the weights take: as stored, and by dtype they could be loaded in.
        notes: what to know before it is used.
        error: what is wrong, for a part that can't be read or a config that contradicts the weights; else empty.
        parts: reports of the parts, for a pipeline folder.
    """

    path: str
    format: str
    kind: str
    sizes: Mapping[str, object] = field(default_factory=dict)
    parameters: int = 0
    stored: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    memory: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str = ""
    parts: tuple[Report, ...] = ()

    def to_dict(self) -> dict[str, object]:
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
            compared = self.sizes or self.missing or self.unexpected
            if compared and not self.error:
                lines.append("  keys        " + self._keys())
        lines += [f"  note        {note}" for note in self.notes]
        if self.error:
            lines.append("  error       " + self.error)
        return "\n".join([*lines, *(line for part in self.parts for line in str(part).split("\n"))])

    def _keys(self) -> str:
        wrong = {"missing": self.missing, "misshapen": self.misshapen}
        counted = [f"{len(names)} {what} ({listed(names)})" for what, names in wrong.items() if names]
        beside = self.unexpected and f", {len(self.unexpected)} unexpected and not used ({listed(self.unexpected)})"
        return (", ".join(counted) or "all present") + (beside or ", none unexpected")


def inspect(path: AnyPath) -> Report:
    """Describe a weight file, a part's folder or a pipeline folder; a broken part of a pipeline is "unreadable".

    Raises:
        WeightsError: nothing readable there.
    """
    found: dict[str, Report] = {}
    failed: dict[str, WeightsError] = {}
    pair = find_pair(path) if Path(path).is_dir() else None
    places = [(Path(path), part) for part in PARTS]
    if pair is not None:
        places[:1] = [(pair.high, PARTS[0]), (pair.low, PARTS[0])]
    for place, part in places[:1] if Path(path).is_file() else places:  # a file is opened once, whatever it holds
        try:
            source = find_source(place, part)
            report = _report(source, EXPERT if pair is None else OF_PAIR[place == pair.high]) if source else None
        except WeightsError as error:
            failed.setdefault(str(error), error)
            report = Report(path=str(place), format="unknown", kind="unreadable", error=str(error))
        if report is not None:
            found.setdefault(report.error if report.kind == "unreadable" else report.path, report)
    reports = list(found.values())
    if len(failed) == len(reports) == 1:
        raise next(iter(failed.values()))
    if not reports:
        return _report(open_source(path, PARTS[0]))  # which says what is wrong
    if len(reports) == 1:
        return reports[0]
    broken = f", {len(failed)} unreadable" if failed else ""
    return Report(
        path=str(Path(path)),
        format=next((report.format for report in reports if report.kind != "unreadable"), "unknown"),
        kind=f"pipeline of {counted(len(reports), 'part')}{broken}",
        parameters=0,
        memory=_memory(
            sum(report.parameters for report in reports), sum(report.memory.get(STORED, 0) for report in reports)
        ),
        parts=tuple(reports),
    )


def _report(source: TensorSource, of_expert: str = EXPERT) -> Report:
    plain = detect.canonical(source)
    kind, count = detect.kind(plain), sum(entry.size for entry in plain.entries.values())
    stored: Counter[str] = Counter()
    for entry in plain.entries.values():
        stored[entry.packing.name if entry.packing else entry.dtype] += entry.size
    described = _Described()
    try:
        _describe(described, plain, kind)
    except ParameterMismatch as error:
        described.mismatch = error
    except WeightsError as error:
        described.error = str(error)
    mismatch = described.mismatch
    return Report(
        path=source.path,
        format=source.format,
        kind=kind,
        sizes=described.sizes,
        parameters=count,
        stored=dict(stored),
        missing=mismatch.missing if mismatch else (),
        unexpected=mismatch.unexpected if mismatch else described.unexpected,
        misshapen=tuple(name for name, _, _ in mismatch.misshapen) if mismatch else (),
        memory=_memory(count, sum(entry.bytes for entry in plain.entries.values())),
        notes=(of_expert,) if kind == detect.PLAIN_TRANSFORMER else (),
        error=described.error,
    )


@dataclass(kw_only=True, slots=True)
class _Described:
    """What could be told of a model before something was wrong with it."""

    sizes: dict[str, object] = field(default_factory=dict)
    unexpected: tuple[str, ...] = ()
    mismatch: ParameterMismatch | None = None
    error: str = ""


def _describe(described: _Described, source: TensorSource, kind: str) -> None:
    if kind in TRANSFORMERS:
        config = sizes.transformer_config(source)
        model: nn.Module = build(source, "Wan transformer", lambda: WanTransformer(config))
        described.sizes = {
            "width": config.dim, "blocks": config.num_layers, "heads": config.num_heads, "ffn": config.ffn_dim,
            "channels in": config.in_dim, "channels out": config.out_dim, "text": config.text_dim,
            "image": config.image_dim or "none", "image rows": config.image_tokens or "any",
        }  # fmt: skip
    elif kind == detect.VAE:
        vae = sizes.vae_config(source)
        model = build(source, "Wan-VAE", lambda: WanVAE(vae))
        described.sizes = {"base width": vae.dim, "levels": len(vae.dim_mult), "latent channels": vae.z_dim}
        if vae.upscale > 1:
            described.sizes["decodes at"] = f"{vae.upscale} times the size"
    elif kind in ENCODERS:
        _describe_encoder(described, source, kind)
        return
    else:
        return
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    described.unexpected = check_parameters(source, expected)


def _describe_encoder(described: _Described, source: TensorSource, kind: str) -> None:
    """transformers' encoders; imported here, since it takes seconds."""
    import transformers

    from . import load_encoders

    if ENCODERS[kind] == "text_encoder":
        config, source = load_encoders.text_parts(source)
        described.sizes = {
            "width": config.d_model, "blocks": config.num_layers, "heads": config.num_heads, "ffn": config.d_ff,
            "words": config.vocab_size,
        }  # fmt: skip
        model: nn.Module = build(source, "umT5 encoder", lambda: transformers.UMT5EncoderModel(config))
        skipped = load_encoders.TIED
    else:
        eyes, source = load_encoders.image_parts(source)
        described.sizes = {
            "width": eyes.hidden_size, "blocks": eyes.num_hidden_layers, "heads": eyes.num_attention_heads,
            "ffn": eyes.intermediate_size, "pixels": eyes.image_size,
        }  # fmt: skip
        model = build(source, "CLIP image encoder", lambda: transformers.CLIPVisionModel(eyes))
        skipped = ""
    expected = {
        name.removeprefix(load_encoders.TOWER): tuple(value.shape)
        for name, value in model.state_dict().items()
        if name != skipped
    }
    described.unexpected = check_parameters(source, expected)


def _memory(values: int, stored: int) -> dict[str, int]:
    return {STORED: stored} | {name: values * size for name, size in BYTES.items()}


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"
