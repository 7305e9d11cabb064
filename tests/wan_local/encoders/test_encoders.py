"""Encoders: what goes in, which embeddings come out, and the official files in transformers' classes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer

from tests import tiny
from wan_local.encoders import ImageEncoder, TextEncoder
from wan_local.encoders.text_clean import clean
from wan_local.weights import load_image_encoder, load_text_encoder


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> TextEncoder:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.write_tokenizer(folder)
    return TextEncoder(AutoTokenizer.from_pretrained(folder, local_files_only=True), tiny.text_encoder())


def test_rows_behind_the_prompt_are_zero_and_the_others_are_the_encoders(text):
    rows = text.encode(["ab", "abcdef"])
    assert rows.shape == (2, 12, tiny.TEXT_DIM)
    ids, mask = text.tokenize(["ab", "abcdef"])
    assert mask.sum(1).tolist() == [3, 7]  # the end token counts
    assert (rows[0, 3:] == 0).all()
    assert (rows[1, 7:] == 0).all()
    alone = text.model(input_ids=ids[:1, :3]).last_hidden_state  # no padding at all
    assert torch.allclose(rows[0, :3], alone[0], atol=1e-5)


def test_a_long_prompt_is_cut_and_still_ends(text):
    ids, mask = text.tokenize(["x" * 40])
    assert ids.shape == (1, 12)
    assert ids[0, -1] == 1
    assert mask.all()


def test_text_len_is_the_tokenizers_but_at_most_512(tmp_path):
    tiny.write_tokenizer(tmp_path, length=100_000)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert TextEncoder(tokenizer, tiny.text_encoder()).text_len == 512


@pytest.mark.parametrize(
    ("dirty", "tidy"),
    [
        ("  a \n\t b  ", "a b"),
        ("a &amp;amp; b", "a & b"),
        ("&lt;b&gt;", "<b>"),
        ("schÃ¶n", "schön"),
        ("猫  走", "猫 走"),
    ],
)
def test_prompts_are_tidied_as_published(dirty, tidy):
    assert clean(dirty) == tidy


def test_images_are_squashed_not_cropped_and_normalised(monkeypatch):
    encoder = ImageEncoder(tiny.image_encoder())
    image = torch.rand(3, 40, 90) * 2 - 1
    pixels = encoder.preprocess([image])
    square = F.interpolate(image[None], size=(28, 28), mode="bicubic", align_corners=False, antialias=False)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
    assert torch.allclose(pixels, ((square + 1) / 2 - mean) / std, atol=1e-6)


def test_rows_are_the_layer_before_the_last_in_order():
    model = tiny.image_encoder()
    encoder = ImageEncoder(model)
    first, last = torch.rand(3, 28, 28) * 2 - 1, torch.rand(3, 28, 28) * 2 - 1
    rows = encoder.encode([first, last])
    pixels = encoder.preprocess([first, last])
    expected = model(pixel_values=pixels, output_hidden_states=True).hidden_states
    assert len(expected) == 4  # embeddings and three layers
    assert torch.equal(rows, expected[2])
    assert not torch.allclose(rows, expected[3])
    swapped = encoder.encode([last, first])
    assert torch.allclose(rows.flip(0), swapped, atol=1e-6)


def test_official_umt5_file(tmp_path):
    """The official names, written by hand from its own class, give transformers' network back."""
    model = tiny.text_encoder()
    theirs = model.state_dict()
    official = {
        "token_embedding.weight": theirs["shared.weight"],
        "norm.weight": theirs["encoder.final_layer_norm.weight"],
    }
    for i in range(2):
        stem = f"encoder.block.{i}.layer"
        rows = {
            "norm1": f"{stem}.0.layer_norm", "attn.q": f"{stem}.0.SelfAttention.q",
            "attn.k": f"{stem}.0.SelfAttention.k", "attn.v": f"{stem}.0.SelfAttention.v",
            "attn.o": f"{stem}.0.SelfAttention.o",
            "pos_embedding.embedding": f"{stem}.0.SelfAttention.relative_attention_bias",
            "norm2": f"{stem}.1.layer_norm", "ffn.gate.0": f"{stem}.1.DenseReluDense.wi_0",
            "ffn.fc1": f"{stem}.1.DenseReluDense.wi_1", "ffn.fc2": f"{stem}.1.DenseReluDense.wo",
        }  # fmt: skip
        official |= {f"blocks.{i}.{ours}.weight": theirs[f"{name}.weight"] for ours, name in rows.items()}
    torch.save(official, tmp_path / "models_t5_umt5-xxl-enc-bf16.pth")
    tiny.write_tokenizer(tmp_path / "google" / "umt5-xxl")
    loaded = load_text_encoder(tmp_path)
    ids, mask = loaded.tokenize(["hello"])
    expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.allclose(loaded.model(input_ids=ids, attention_mask=mask).last_hidden_state, expected, atol=1e-6)


def test_official_clip_file(tmp_path):
    """The official vision tower keeps q, k and v in one matrix; in transformers' class it computes the same."""
    width, heads, layers, patch, side = 160, 2, 3, 14, 2  # the released head width of 80
    generator = torch.Generator().manual_seed(6)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.1

    official = {
        "visual.cls_embedding": random(1, 1, width), "visual.pos_embedding": random(1, side**2 + 1, width),
        "visual.patch_embedding.weight": random(width, 3, patch, patch), "visual.head": random(width, 8),
        "visual.pre_norm.weight": 1 + random(width), "visual.pre_norm.bias": random(width),
        "visual.post_norm.weight": random(width), "visual.post_norm.bias": random(width),
        "textual.head.0.weight": random(4, 4), "log_scale": random(1)[0],
    }  # fmt: skip
    for i in range(layers):
        sizes = {
            "norm1": (width,), "attn.to_qkv": (3 * width, width), "attn.proj": (width, width), "norm2": (width,),
            "mlp.0": (2 * width, width), "mlp.2": (width, 2 * width),
        }  # fmt: skip
        for name, shape in sizes.items():
            official[f"visual.transformer.{i}.{name}.weight"] = (1 if "norm" in name else 0) + random(*shape)
            official[f"visual.transformer.{i}.{name}.bias"] = random(shape[0])
    torch.save(official, tmp_path / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth")
    loaded = load_image_encoder(tmp_path)
    pixels = torch.randn(2, 3, side * patch, side * patch, generator=generator)
    ours = loaded.model(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
    expected = official_tower(official, pixels, heads, layers - 1)
    error = ((ours - expected).abs().max() / expected.abs().max()).item()
    print(f"official CLIP tower in transformers' class: relative error {error:.2e}")
    assert error <= 1e-5


def official_tower(w: dict[str, torch.Tensor], pixels: torch.Tensor, heads: int, layers: int) -> torch.Tensor:
    """The published tower up to the layer before the last, written out from its description."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"visual.{name}.weight"], w[f"visual.{name}.bias"], 1e-5)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ w[f"visual.{name}.weight"].T + w[f"visual.{name}.bias"]

    patch = w["visual.patch_embedding.weight"].shape[-1]
    x = F.conv2d(pixels, w["visual.patch_embedding.weight"], stride=patch).flatten(2).transpose(1, 2)
    x = torch.cat([w["visual.cls_embedding"].expand(len(x), -1, -1), x], dim=1) + w["visual.pos_embedding"]
    x = norm(x, "pre_norm")
    for i in range(layers):
        stem = f"transformer.{i}"
        q, k, v = linear(norm(x, f"{stem}.norm1"), f"{stem}.attn.to_qkv").chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        x = x + linear((weights @ v).transpose(1, 2).flatten(2), f"{stem}.attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"{stem}.norm2"), f"{stem}.mlp.0")), f"{stem}.mlp.2")
    return x
