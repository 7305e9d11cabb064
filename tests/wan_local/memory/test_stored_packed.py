"""What packed files will take, from headers alone, against what they take once they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import UMT5Config, UMT5EncoderModel

from tests import tiny
from tests.wan_local.weights import packed_files as files
from tests.wan_local.weights.llama_files import write_umt5
from wan_local.memory import stored
from wan_local.memory.storage import size_of, tensors_of
from wan_local.weights import load_text_encoder, load_transformer

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
    assert weights.dequantized == (config.dim * config.ffn_dim * 2 if packed else 0)


def test_parts_that_are_named_are_those_that_are_planned(tmp_path: Path) -> None:
    model = files.write_plain(tmp_path / "model.safetensors", files.original(), torch.bfloat16)
    sizes = {"vocab_size": 300, "d_model": 256, "d_kv": 64, "d_ff": 512, "num_layers": 2, "num_heads": 4}
    encoder = UMT5EncoderModel(UMT5Config(feed_forward_proj="gated-gelu", is_encoder_decoder=False, **sizes))
    text = write_umt5(tmp_path / "t5.gguf", encoder.state_dict(), "Q8_0", None)
    tiny.write_tokenizer(tmp_path / "tokenizer")
    released, named = (stored.read(model, torch.bfloat16, parts=parts) for parts in (None, {"text_encoder": text}))
    assert released is not None
    assert named is not None
    assert released[1].text_encoder == stored.RELEASED_TEXT_ENCODER * 2
    loaded = size_of(tensors_of(load_text_encoder(text, torch.bfloat16).model))
    print(f"text encoder: {named[1].text_encoder:,} bytes told, {loaded:,} loaded")
    assert named[1].text_encoder == pytest.approx(loaded, rel=0.01)  # norms are loaded in half of what is stored
    assert named[1].vae == released[1].vae
