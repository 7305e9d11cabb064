"""Ways of packing weights that are not read here, told by the names that only they write."""

from __future__ import annotations

from ..errors import UnreadableWeights
from .source import TensorSource, shown

INSTEAD = "use its fp8, GGUF, bf16 or fp16 file, such as those of Kijai/WanVideo_comfy or city96 on huggingface.co"
LEAVES = {  # how a name ends, behind its layer and "weight": who writes that
    "_data": "quanto (as Wan2GP's files)",
    "absmax": "bitsandbytes",
    "SCB": "bitsandbytes (int8)",
    "smooth_factor": "Nunchaku (SVDQuant)",
    "wscales": "Nunchaku (SVDQuant)",
    "qzeros": "GPTQ or AWQ",
}
SCALE = "weight_scale"
MARKS = ("comfy_quant", "_quantization_metadata")
WHOLE_BYTES = {"I8": "LightX2V (int8)", "U8": "LightX2V (4 or 6 bits)"}


def check(source: TensorSource) -> None:
    """Raise :class:`UnreadableWeights` for weights packed in a way that is known and not read here."""
    for name in source.entries:
        if who := LEAVES.get(name.rpartition(".")[2]):
            raise _refusal(source, who, name)
    marked = MARKS[1] in source.metadata or any(name.endswith(MARKS[0]) for name in source.entries)
    for name in () if marked else source.entries:
        layer, _, leaf = name.rpartition(".")
        weight = source.entries.get(f"{layer}.weight")
        if leaf == SCALE and weight is not None and (who := WHOLE_BYTES.get(weight.dtype)):
            raise _refusal(source, who, f"{layer}.weight")


def _refusal(source: TensorSource, who: str, name: str) -> UnreadableWeights:
    return UnreadableWeights(f"{source.path} is quantised by {who} ({shown(name)}), which is not read here; {INSTEAD}")
