"""What packed files will take, from headers alone, against what they take once they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.wan_local.weights import packed_files as files
from wan_local.memory import stored
from wan_local.memory.storage import size_of, tensors_of
from wan_local.weights import load_transformer

WRITE = {
    "fp8 scaled": lambda p, s: files.write_kijai(p, s, torch.float8_e4m3fn, scaled=True),
    "comfy_quant": lambda p, s: files.write_comfy_quant(p, s, torch.float8_e4m3fn),
    "GGUF Q4_K": lambda p, s: files.write_gguf(p, s, "Q4_K"),
    **files.COMFY_WRITERS,
    "bf16": lambda p, s: files.write_plain(p, s, torch.bfloat16),
}


@pytest.mark.parametrize("unpack", [False, True])
@pytest.mark.parametrize("kind", WRITE)
def test_headers_tell_what_is_loaded(kind: str, unpack: bool, tmp_path: Path) -> None:
    path = WRITE[kind](tmp_path / "model.bin", files.original())
    found = stored.read(path, torch.bfloat16, unpack=unpack)
    assert found is not None
    config, weights, _ = found
    model = load_transformer(path, torch.bfloat16, unpack=unpack)
    loaded = size_of(tensors_of(model))
    print(f"{kind}, unpack={unpack}: {weights.transformer:,} bytes told, {loaded:,} loaded")
    assert weights.transformer == pytest.approx(loaded, rel=0.001)  # scales of fp8 are not counted
    assert [round(size / 1e3) for size in weights.blocks] == [
        round(size_of(tensors_of(block)) / 1e3) for block in model.blocks
    ]
    packed = kind != "bf16" and not unpack
    assert weights.unpacked == (config.dim * config.ffn_dim * 2 if packed else 0)
