"""Text and image encoders as single files, in the layouts that ComfyUI and Kijai repackage them in."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from tests import tiny
from wan_local.errors import ParameterMismatch, UnreadableWeights, WrongModel
from wan_local.notices import listening
from wan_local.weights import load_image_encoder, load_text_encoder

E4M3 = torch.float8_e4m3fn
TEXTS = ["a red disc moves right", "a blue square turns and grows while it moves to the left"]


@pytest.fixture(scope="module")
def sentences() -> bytes:
    """A sentencepiece model of the kind umT5's is: unigrams, pad 0, end 1, unknown 2."""
    found = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20), model_writer=found, vocab_size=28, model_type="unigram", pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    return found.getvalue()


def bytes_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def umt5_state() -> dict[str, Tensor]:
    state = tiny.text_encoder().state_dict()
    return {name: value.clone() for name, value in state.items() if name != "encoder.embed_tokens.weight"}


def is_matrix(name: str, value: Tensor) -> bool:
    return value.ndim == 2 and name.startswith("encoder.block") and "relative_attention_bias" not in name


def scaled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """ComfyUI's umt5_xxl_fp8_e4m3fn_scaled: matrices of the blocks, the rest float16."""
    tensors = {"scaled_fp8": torch.zeros(2, dtype=E4M3)}
    for name, value in state.items():
        if is_matrix(name, value):
            scale = value.abs().max() / 448
            tensors |= {name: (value / scale).to(E4M3), name.replace(".weight", ".scale_weight"): scale.reshape(1)}
        else:
            tensors[name] = value.half()
    return tensors


def rows(encoder, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return encoder.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.float()


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


IDS = torch.tensor([[5, 9, 30, 41, 7, 1]])


@pytest.mark.parametrize(("layout", "bound"), [("fp16", 0.02), ("bf16", 0.1), ("fp8", 0.6), ("fp8 scaled", 0.45)])
def test_text_encoder_in_one_file(tmp_path: Path, sentences: bytes, layout: str, bound: float) -> None:
    state = umt5_state()
    truth = tiny.text_encoder()
    if layout == "fp8 scaled":
        tensors = scaled(state)
    else:
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp8": E4M3}[layout]
        tensors = {name: value.to(dtype) for name, value in state.items()}
    path = tmp_path / "encoder.safetensors"
    save_file(tensors | {"spiece_model": bytes_tensor(sentences)}, path)
    loaded = load_text_encoder(path, dtype=torch.float32)
    with torch.no_grad():
        expected = truth(input_ids=IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state
    error = relative_error(rows(loaded, IDS), expected)
    print(f"umT5 {layout}: {error:.1e}")
    assert error <= bound
    packed = [layer for layer in loaded.model.modules() if getattr(layer, "packing", None)]
    # q k v o wi_0 wi_1 wo, twice; of the unscaled file the table of words too
    assert len(packed) == {"fp8": 15, "fp8 scaled": 14}.get(layout, 0)
    assert all(layer.weight.itemsize == 1 for layer in packed)
    assert loaded.encode(TEXTS).shape == (2, 512, tiny.TEXT_DIM)


def test_packed_numbers_of_a_text_encoder(tmp_path: Path, sentences: bytes) -> None:
    """The same as transformers' own class on the numbers the file stands for."""
    tensors = scaled(umt5_state())
    save_file(tensors | {"spiece_model": bytes_tensor(sentences)}, tmp_path / "encoder.safetensors")
    truth = tiny.text_encoder()
    for name, value in truth.state_dict().items():
        stored = tensors["shared.weight" if "embed_tokens" in name else name].float()
        value.copy_(stored * tensors.get(name.replace(".weight", ".scale_weight"), torch.ones(1)))
    loaded = load_text_encoder(tmp_path / "encoder.safetensors", dtype=torch.float32)
    with torch.no_grad():
        expected = truth(input_ids=IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state
    assert relative_error(rows(loaded, IDS), expected) < 1e-6


def test_packed_text_encoder_runs_in_bfloat16(tmp_path: Path, sentences: bytes) -> None:
    save_file(scaled(umt5_state()) | {"spiece_model": bytes_tensor(sentences)}, tmp_path / "encoder.safetensors")
    for asked in (None, torch.float16, torch.bfloat16):
        loaded = load_text_encoder(tmp_path / "encoder.safetensors", dtype=asked)
        assert loaded.encode(TEXTS).dtype == torch.bfloat16


@pytest.mark.parametrize(("prefix", "inner"), [("", ""), ("text_encoders.", "umt5xxl.transformer.")])
def test_tokens_of_a_file_are_those_of_its_sentencepiece_model(
    prefix: str, inner: str, tmp_path: Path, sentences: bytes
) -> None:
    """A text encoder's own file, and a whole checkpoint of ComfyUI."""
    words = {f"{prefix}spiece_model": bytes_tensor(sentences)}
    tensors = {f"{prefix}{inner}{name}": value for name, value in umt5_state().items()}
    save_file(tensors | words, tmp_path / "encoder.safetensors")
    with listening(pytest.fail):  # of a tensor that is not used
        loaded = load_text_encoder(tmp_path / "encoder.safetensors")
    ids, mask = loaded.tokenize([TEXTS[0], TEXTS[1] * 100])
    pieces = sentencepiece.SentencePieceProcessor(model_proto=sentences).encode(TEXTS[0])
    assert ids[0, : len(pieces) + 1].tolist() == [*pieces, 1]
    assert mask.sum(1).tolist() == [len(pieces) + 1, 512]
    assert not ids[0, len(pieces) + 1 :].any()
    assert ids[1, -1] == 1


def test_a_tokenizer_beside_the_file_or_named(tmp_path: Path) -> None:
    """Kijai's files carry none."""
    save_file(umt5_state(), tmp_path / "encoder.safetensors")
    with pytest.raises(UnreadableWeights, match="umt5-xxl is not there; the text encoder needs its tokenizer"):
        load_text_encoder(tmp_path / "encoder.safetensors")
    tiny.write_tokenizer(tmp_path / "elsewhere")
    assert load_text_encoder(tmp_path / "encoder.safetensors", tokenizer=tmp_path / "elsewhere").text_len == 12
    tiny.write_tokenizer(tmp_path / "google" / "umt5-xxl")
    assert load_text_encoder(tmp_path / "encoder.safetensors").text_len == 12


def test_a_broken_tokenizer_in_the_file(tmp_path: Path) -> None:
    save_file(umt5_state() | {"spiece_model": bytes_tensor(b"nonsense" * 9)}, tmp_path / "encoder.safetensors")
    with pytest.raises(UnreadableWeights, match="carries a broken tokenizer"):
        load_text_encoder(tmp_path / "encoder.safetensors")


@pytest.fixture(scope="module")
def tower() -> CLIPVisionModel:
    torch.manual_seed(4)
    config = CLIPVisionConfig(
        hidden_size=160, intermediate_size=320, num_hidden_layers=3, num_attention_heads=2, image_size=28,
        patch_size=14, hidden_act="gelu", projection_dim=160,
    )  # fmt: skip
    return CLIPVisionModel(config).eval()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, E4M3])
def test_clip_vision_h(tmp_path: Path, tower: CLIPVisionModel, dtype: torch.dtype) -> None:
    """ComfyUI's clip_vision_h: transformers' names below vision_model, with the projection."""
    state = {name.removeprefix("vision_model."): value for name, value in tower.state_dict().items()}
    tensors = {f"vision_model.{name}": value.to(dtype) for name, value in state.items() if "position_ids" not in name}
    tensors["visual_projection.weight"] = torch.randn(8, 160).to(dtype)
    tensors["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(tensors, tmp_path / "clip_vision_h.safetensors")
    loaded = load_image_encoder(tmp_path / "clip_vision_h.safetensors", dtype=torch.float32)
    biases = {name: value.float() for name, value in tensors.items() if name.endswith("bias")}
    save_file(tensors | biases, tmp_path / "mixed.safetensors")
    mixed = load_image_encoder(tmp_path / "mixed.safetensors")
    images = [torch.rand(3, 40, 60) * 2 - 1, torch.rand(3, 30, 30) * 2 - 1]
    with torch.no_grad():
        pixels = loaded.preprocess(images)
        expected = tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
    error = relative_error(loaded.encode(images), expected)
    print(f"clip_vision_h {dtype}: {error:.1e}")
    assert error <= {torch.float16: 0.001, torch.bfloat16: 0.01, E4M3: 0.1}[dtype]
    assert relative_error(mixed.encode(images).float(), expected) <= 0.1


def test_encoder_files_of_other_models(tmp_path: Path, tower: CLIPVisionModel) -> None:
    save_file(umt5_state(), tmp_path / "text.safetensors")
    with pytest.raises(WrongModel, match="is a T5 text encoder .*; use it as the text encoder"):
        load_image_encoder(tmp_path / "text.safetensors")
    state = {name.removeprefix("vision_model."): value.clone() for name, value in tower.state_dict().items()}
    save_file({f"vision_model.{name}": value for name, value in state.items()}, tmp_path / "image.safetensors")
    with pytest.raises(WrongModel, match="is a CLIP image encoder"):
        load_text_encoder(tmp_path / "image.safetensors")
    del state["encoder.layers.1.mlp.fc1.weight"]
    save_file({f"vision_model.{name}": value for name, value in state.items()}, tmp_path / "lacking.safetensors")
    with pytest.raises(ParameterMismatch, match="1 missing"):
        load_image_encoder(tmp_path / "lacking.safetensors")
