"""Both encoders go the way of the other parts: every tensor accounted for, another model named for what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version
from safetensors.torch import save_file
from transformers import CLIPVisionModelWithProjection, UMT5EncoderModel

from tests import tiny
from wan_local.errors import ParameterMismatch, UnreadableWeights, WeightsError, WrongModel
from wan_local.notices import WanNotice
from wan_local.weights import load_image_encoder, load_text_encoder, load_transformer

OLD = Version(transformers.__version__) < Version("4.56")
DTYPE = "torch_dtype" if OLD else "dtype"
LOADERS = {"text_encoder": load_text_encoder, "image_encoder": load_image_encoder}


@pytest.fixture
def folder(tmp_path) -> Path:
    return tiny.write_pipeline(tmp_path / "model", torch.float32)


def change(folder: Path, part: str, **tensors: torch.Tensor) -> None:
    path = folder / part / "model.safetensors"
    save_file({**tiny.stored(path), **tensors}, path, {"format": "pt"})


@pytest.mark.parametrize("part", LOADERS)
def test_extra_tensors_are_counted_and_named(folder, part):
    extra = {f"lm_head.{i}": torch.zeros(2) for i in range(5)}
    change(folder, part, **extra)
    with pytest.warns(WanNotice, match=r"5 tensors belong to no layer .* \(lm_head\.0, .*\.2, \.\.\.\)"):
        LOADERS[part](folder)


def test_harmless_extras_of_the_text_encoder(folder):
    """Older files list the tied embedding under both its names."""
    shared = tiny.stored(folder / "text_encoder" / "model.safetensors")["shared.weight"]
    change(folder, "text_encoder", **{"encoder.embed_tokens.weight": shared.clone()})
    model = load_text_encoder(folder).model
    assert torch.equal(model.shared.weight, shared)
    assert model.encoder.embed_tokens.weight is model.shared.weight


def test_harmless_extras_of_the_image_encoder_and_both_spellings(folder):
    image = [torch.rand(3, 30, 20) * 2 - 1]
    plain = load_image_encoder(folder).encode(image)
    place = folder / "image_encoder"
    tensors = tiny.stored(place / "model.safetensors")
    older = {"vision_model." + name.removeprefix("vision_model."): value for name, value in tensors.items()}
    older["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    older["visual_projection.weight"] = torch.zeros(3, tiny.IMAGE_DIM)
    save_file(older, place / "model.safetensors", {"format": "pt"})
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"architectures": ["CLIPVisionModelWithProjection"]}))
    assert torch.equal(load_image_encoder(folder).encode(image), plain)


def test_a_saved_tower_with_projection(tmp_path):
    config = tiny.image_encoder().config
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "image_encoder")
    assert load_image_encoder(tmp_path).encode([torch.zeros(3, 20, 20)]).shape == (1, 5, tiny.IMAGE_DIM)


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_the_text_encoder_keeps_the_precision_transformers_keeps(tmp_path, stored, dtype):
    """transformers holds ``wo`` in float32 where the rest is float16, which it overflows; our loader does the same."""
    if OLD and (dtype or stored) is torch.bfloat16:
        pytest.skip("this transformers keeps it so beside bfloat16 too, whose range it does not exceed")
    folder = tiny.write_pipeline(tmp_path, stored)
    ours = load_text_encoder(folder, dtype=dtype).model.state_dict()
    theirs = UMT5EncoderModel.from_pretrained(folder / "text_encoder", **{DTYPE: dtype or "auto"}).state_dict()
    assert {name: value.dtype for name, value in ours.items()} == {name: value.dtype for name, value in theirs.items()}
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_nothing_stays_on_the_meta_device(folder):
    for load in LOADERS.values():
        model = load(folder).model
        assert not any(value.is_meta for value in (*model.parameters(), *model.buffers()))
        assert not any(value.requires_grad for value in model.parameters())
        assert not model.training


def official_umt5(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    rows = {
        "norm1": (8,), "attn.q": (8, 8), "attn.k": (8, 8), "attn.v": (8, 8), "attn.o": (8, 8), "norm2": (8,),
        "pos_embedding.embedding": (32, 2), "ffn.gate.0": (12, 8), "ffn.fc1": (12, 8), "ffn.fc2": (8, 12),
    }  # fmt: skip
    state = {"token_embedding.weight": torch.randn(300, 8), "norm.weight": torch.ones(8)}
    return {**state, **{f"blocks.0.{name}.weight": torch.randn(*shape) for name, shape in rows.items()}, **more}


def write_official_umt5(folder: Path, state: dict[str, torch.Tensor], dtype: torch.dtype) -> Path:
    path = folder / "models_t5_umt5-xxl-enc-bf16.pth"
    torch.save({name: value.to(dtype) for name, value in state.items()}, path)
    tiny.write_tokenizer(folder / "google" / "umt5-xxl")
    return path


def test_official_umt5_is_tied_and_keeps_wo_in_float32(tmp_path):
    write_official_umt5(tmp_path, official_umt5(), torch.bfloat16)
    model = load_text_encoder(tmp_path, dtype=torch.float16).model
    assert model.encoder.embed_tokens.weight is model.shared.weight
    wide = {name for name, value in model.state_dict().items() if value.dtype == torch.float32}
    assert wide == {"encoder.block.0.layer.1.DenseReluDense.wo.weight"}
    assert load_text_encoder(tmp_path).model.state_dict()[wide.pop()].dtype == torch.bfloat16


def test_official_umt5_counts_extras_and_a_stray_block(tmp_path):
    write_official_umt5(tmp_path, official_umt5(**{"blocks.20000.norm1.weight": torch.ones(8)}), torch.float32)
    with pytest.raises(ParameterMismatch, match=r"1 unexpected \(encoder.block.20000"):
        load_text_encoder(tmp_path)


@pytest.mark.parametrize("part", LOADERS)
def test_another_model_is_named_for_what_it_is(folder, tmp_path, part):
    flux = tmp_path / "flux.safetensors"
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(2, 2, dtype=torch.int8)}, flux)
    with pytest.raises(WrongModel, match="is a Flux or HunyuanVideo transformer; give"):
        LOADERS[part](flux)
    transformer = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(WrongModel, match="is an FLF2V transformer; use it as the transformer"):
        LOADERS[part](transformer)
    other = next(name for name in LOADERS if name != part)
    with pytest.raises(WrongModel, match=f"encoder.*; use it as the {other.replace('_', ' ')}"):
        LOADERS[part](folder / other / "model.safetensors")


def test_the_official_image_encoder_is_not_taken_for_the_text_encoder(tmp_path):
    names = ("textual.token_embedding.weight", "visual.patch_embedding.weight")
    state = {name: torch.zeros(4, 4) for name in names}
    torch.save(state, tmp_path / "clip.pth")
    for load in (load_text_encoder, load_transformer):
        with pytest.raises(WrongModel, match="is the image encoder of the official release"):
            load(tmp_path / "clip.pth")


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [("text_encoder", "num_layers", 3), ("text_encoder", "num_layers", 10**9), ("text_encoder", "num_heads", 0),
     ("text_encoder", "d_ff", 10**18), ("text_encoder", "vocab_size", "many"),
     ("image_encoder", "num_hidden_layers", 2), ("image_encoder", "num_attention_heads", 0),
     ("image_encoder", "num_attention_heads", 5),
     ("image_encoder", "hidden_act", "nonsense"), ("image_encoder", "image_size", 2**40),
     ("image_encoder", "patch_size", 0)],
)  # fmt: skip
def test_a_config_that_contradicts_the_weights(folder, part, key, value):
    path = folder / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(WeightsError) as error:
        LOADERS[part](folder)
    assert str(folder / part) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_broken_tokenizer_is_one_line(folder):
    (folder / "tokenizer" / "tokenizer.json").write_text('{"version": 5}')
    with pytest.raises(UnreadableWeights, match="tokenizer is not a tokenizer") as error:
        load_text_encoder(folder)
    assert "\n" not in str(error.value)


def test_an_encoder_folder_without_weights(folder):
    (folder / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(UnreadableWeights, match="text_encoder has a config.json but no .safetensors file"):
        load_text_encoder(folder)


def test_position_ids_go_where_the_weights_go(folder):
    model = load_image_encoder(folder, device="meta").model
    assert {value.device.type for value in (*model.parameters(), *model.buffers())} == {"meta"}


def test_official_position_ids_too(tmp_path):
    """The device is the one that must not be the default: an index on another device than its table fails."""
    shapes = {"norm1": (80,), "attn.to_qkv": (240, 80), "attn.proj": (80, 80), "norm2": (80,), "mlp.0": (9, 80)}
    state = {f"transformer.0.{name}.weight": torch.ones(shape) for name, shape in shapes.items()}
    state |= {f"transformer.0.{name}.bias": torch.ones(shape[0]) for name, shape in shapes.items()}
    state |= {"transformer.0.mlp.2.weight": torch.ones(80, 9), "transformer.0.mlp.2.bias": torch.ones(80)}
    state |= {f"{name}.{kind}": torch.ones(80) for name in ("pre_norm", "post_norm") for kind in ("weight", "bias")}
    state |= {"cls_embedding": torch.ones(1, 1, 80), "pos_embedding": torch.ones(1, 5, 80)}
    state["patch_embedding.weight"] = torch.ones(80, 3, 14, 14)
    torch.save({f"visual.{name}": value for name, value in state.items()}, tmp_path / "clip.pth")
    model = load_image_encoder(tmp_path, device="meta").model
    assert {value.device.type for value in (*model.parameters(), *model.buffers())} == {"meta"}
