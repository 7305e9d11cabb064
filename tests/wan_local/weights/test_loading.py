"""Every layout of the same weights gives the same network; everything else gives one clear line."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import load_file, save_file

from tests import tiny
from wan_local.config import WAN_FLF2V_14B
from wan_local.errors import ParameterMismatch, UnreadableWeights, WrongModel
from wan_local.model import WanTransformer
from wan_local.vae import WanVAE
from wan_local.weights import inspect, load_image_encoder, load_text_encoder, load_transformer, load_vae, names


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """The toy transformer under official names."""
    theirs = tiny.transformer().state_dict()
    return {str(names.transformer_to_official(name)): value for name, value in theirs.items()}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    return tiny.write_pipeline(tmp_path_factory.mktemp("pipeline"), torch.float32)


def forward(model: WanTransformer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    latents = torch.randn(1, 36, 2, 4, 4, generator=generator)
    text = torch.randn(1, 6, tiny.TEXT_DIM, generator=generator)
    image = torch.randn(1, tiny.ROWS, tiny.IMAGE_DIM, generator=generator)
    return model(latents, torch.tensor([700.0]), text, image)


# -- names ----------------------------------------------------------------------------------------------------


def test_transformer_names_of_the_released_model_and_back():
    with torch.device("meta"):
        theirs = WanTransformer3DModel(
            in_channels=36, image_dim=1280, added_kv_proj_dim=5120, pos_embed_seq_len=514
        ).state_dict()
        ours = WanTransformer(WAN_FLF2V_14B).state_dict()
    mapped = {names.transformer_to_official(name): tuple(value.shape) for name, value in theirs.items()}
    assert mapped == {name: tuple(value.shape) for name, value in ours.items()}
    assert all(names.transformer_to_diffusers(str(names.transformer_to_official(name))) == name for name in theirs)
    assert names.transformer_to_official("blocks.0.attn3.to_q.weight") is None


def test_vae_names_of_the_released_model_and_back():
    with torch.device("meta"):
        theirs, ours = AutoencoderKLWan().state_dict(), WanVAE().state_dict()
    mapped = {names.vae_to_official(name, 4): tuple(value.shape) for name, value in theirs.items()}
    assert mapped == {name: tuple(value.shape) for name, value in ours.items()}
    assert all(names.vae_to_diffusers(str(names.vae_to_official(name, 4)), 4) == name for name in theirs)


# -- layouts --------------------------------------------------------------------------------------------------


def test_every_layout_of_the_transformer_gives_the_same_network(tmp_path, state, pipeline):
    paths = {
        "diffusers pipeline": pipeline,
        "diffusers folder": pipeline / "transformer",
        "official folder": tiny.write_official(tmp_path / "official", state),
        "single file": tiny.write_single(tmp_path / "any.name", state, torch.float32),
        "prefixed": tiny.write_single(tmp_path / "b.safetensors", state, torch.float32, "model.diffusion_model."),
    }
    expected = None
    for name, path in paths.items():
        model = load_transformer(path)
        assert model.config.head_dim == tiny.HEAD_DIM, name
        assert model.config.image_tokens == tiny.ROWS, name
        out = forward(model)
        expected = out if expected is None else expected
        assert torch.equal(out, expected), name
        report = inspect(path)
        report = next((part for part in report.parts if "transformer" in part.kind), report)
        assert (report.kind, report.missing, report.unexpected) == ("FLF2V transformer", (), ()), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_single_files_keep_or_change_their_dtype(tmp_path, state, dtype):
    path = tiny.write_single(tmp_path / "half.safetensors", state, dtype)
    assert {value.dtype for value in load_transformer(path).state_dict().values()} == {dtype}
    raised = load_transformer(path, dtype=torch.float32)
    for name, value in raised.state_dict().items():
        assert torch.equal(value, state[name].to(dtype).float())


def test_vae_layouts_and_its_precision(tmp_path, pipeline):
    first = load_vae(pipeline)
    torch.save(first.state_dict(), tmp_path / "Wan2.1_VAE.pth")
    single = tmp_path / "wan_2.1_vae.safetensors"
    save_file({name: value.half() for name, value in first.state_dict().items()}, single)
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    for path in (tmp_path, tmp_path / "Wan2.1_VAE.pth", pipeline / "vae"):
        assert torch.equal(load_vae(path).encode(video), first.encode(video))
    assert {value.dtype for value in load_vae(single).state_dict().values()} == {torch.float32}
    assert first.config.latents_mean[0] == pytest.approx(-0.7571)


def test_image_to_video_weights_load_and_text_to_video_weights_do_not(tmp_path):
    tiny.transformer(kind="I2V").save_pretrained(tmp_path / "i2v")
    assert load_transformer(tmp_path / "i2v").config.image_tokens == 0
    tiny.transformer(kind="T2V").save_pretrained(tmp_path / "t2v")
    with pytest.raises(WrongModel, match="t2v is a T2V transformer: 16 .*; give Wan2.1 FLF2V weights \\(36 "):
        load_transformer(tmp_path / "t2v")


def test_operations_and_attention_reach_the_network(pipeline):
    class Operations(torch.nn.Module):
        class Linear(torch.nn.Linear):
            pass

        LayerNorm, RMSNorm = torch.nn.LayerNorm, torch.nn.RMSNorm
        Conv2d, Conv3d = torch.nn.Conv2d, torch.nn.Conv3d

    model = load_transformer(pipeline, operations=Operations)
    assert type(model.blocks[0].ffn[0]) is Operations.Linear
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in model.parameters())


# -- bad files ------------------------------------------------------------------------------------------------


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_missing_path_is_named(tmp_path):
    with pytest.raises(UnreadableWeights, match="nowhere.safetensors is not there; check the path"):
        load_transformer(tmp_path / "nowhere.safetensors")
    with pytest.raises(UnreadableWeights, match="holds no transformer in a layout known here"):
        load_transformer(tmp_path)


@pytest.mark.parametrize("content", [b"hello", b"\x01" * 64, os.urandom(64)], ids=["text", "ones", "noise"])
def test_not_a_safetensors_file(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UnreadableWeights, match="is not a safetensors file \\(it starts with") as error:
        load_transformer(path)
    assert f"{len(content)} bytes long" in one_line(error)


@pytest.mark.parametrize("keep", [0.3, 0.999])
def test_cut_short_says_which_bytes_are_missing(tmp_path, state, keep):
    path = tiny.write_single(tmp_path / "cut.safetensors", state, torch.float16)
    whole = path.read_bytes()
    there = int(len(whole) * keep)
    path.write_bytes(whole[:there])
    with pytest.raises(UnreadableWeights, match="cut short") as error:
        load_transformer(path)
    assert f"bytes {there:,} to {len(whole) - 1:,} are missing ({len(whole) - there:,} in all)" in one_line(error)


def test_cut_in_the_header(tmp_path, state):
    path = tiny.write_single(tmp_path / "cut.safetensors", state, torch.float16)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnreadableWeights, match="its header needs"):
        load_transformer(path)


def test_header_that_claims_terabytes(tmp_path):
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", 2**43) + b'{"a":1}' * 10)
    with pytest.raises(UnreadableWeights, match="is not a safetensors file"):
        load_transformer(path)


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":',
        b'{"a":[1]}     ',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,-4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":["x",4]}}',
    ],
)
def test_broken_header(tmp_path, header):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\x00" * 16)
    with pytest.raises(UnreadableWeights) as error:
        load_transformer(path)
    assert "broken header" in one_line(error)


def test_other_models_are_named(tmp_path, pipeline):
    flux = tmp_path / "flux.safetensors"
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(2, 2)}, flux)
    with pytest.raises(WrongModel, match="is a Flux or HunyuanVideo transformer; give Wan2.1 FLF2V weights"):
        load_transformer(flux)
    other = tmp_path / "other.safetensors"
    save_file({"some.weight": torch.zeros(2)}, other)
    with pytest.raises(WrongModel, match="not a model known here \\(it has 1 tensor: some.weight"):
        load_transformer(other)
    single = tmp_path / "vae.safetensors"
    save_file(load_file(pipeline / "vae" / "diffusion_pytorch_model.safetensors"), single)
    with pytest.raises(WrongModel, match="is Wan-VAE; use it as the VAE"):
        load_transformer(single)
    with pytest.raises(WrongModel, match="use it as the transformer"):
        load_vae(tiny.write_single(tmp_path / "t.safetensors", load_transformer(pipeline).state_dict(), torch.float16))


def test_missing_unexpected_and_misshapen_are_counted_and_named(tmp_path, state):
    broken = dict(state)
    for name in [name for name in state if name.startswith("blocks.1.cross_attn.")][:5]:
        del broken[name]
    broken["blocks.0.self_attn.extra"] = torch.zeros(1)
    broken["blocks.0.ffn.2.bias"] = torch.zeros(7)
    with pytest.raises(ParameterMismatch) as error:
        load_transformer(tiny.write_single(tmp_path / "broken.safetensors", broken, torch.float16))
    text = one_line(error)
    assert "5 missing (blocks.1.cross_attn." in text
    assert ", ...)" in text
    assert "1 unexpected (blocks.0.self_attn.extra)" in text
    assert f"1 misshapen (blocks.0.ffn.2.bias is [7], not [{tiny.WIDTH}])" in text
    assert len(error.value.missing) == 5
    report = inspect(tmp_path / "broken.safetensors")
    assert (len(report.missing), len(report.unexpected), len(report.misshapen)) == (5, 1, 1)


def test_a_parameter_the_size_is_told_from(tmp_path, state):
    broken = {name: value for name, value in state.items() if name != "time_embedding.0.weight"}
    with pytest.raises(ParameterMismatch, match="lacks time_embedding.0.weight"):
        load_transformer(tiny.write_single(tmp_path / "broken.safetensors", broken, torch.float16))


def test_weights_quantised_in_an_unknown_way_are_refused_by_name(tmp_path, state):
    whole = tmp_path / "int8.safetensors"
    small = {name: value.to(torch.int8) if value.ndim == 2 else value for name, value in state.items()}
    save_file({name: value.contiguous() for name, value in small.items()}, whole)
    with pytest.raises(UnreadableWeights, match="is quantised in a way not known here .*I8\\); use the fp8, GGUF"):
        load_transformer(whole)


def test_missing_shard_and_index_that_points_elsewhere(tmp_path, state):
    folder = tiny.write_official(tmp_path / "official", state)
    (folder / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    with pytest.raises(UnreadableWeights, match="lacks 1 of 3 shards \\(diffusion_pytorch_model-00002-of-00003"):
        load_transformer(folder)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(UnreadableWeights, match="which is not a file beside it"):
        load_transformer(folder)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "executed"
    torch.save({"conv1.weight": Payload(marker)}, tmp_path / "vae.pth")
    with pytest.raises(UnreadableWeights, match="could run code") as error:
        load_vae(tmp_path / "vae.pth")
    one_line(error)
    assert not marker.exists()
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": Payload(marker)}))
    with pytest.raises(UnreadableWeights):
        load_vae(tmp_path / "plain.pth")
    assert not marker.exists()


# -- encoders and reports -------------------------------------------------------------------------------------


def test_encoders_from_a_pipeline_folder(pipeline):
    text = load_text_encoder(pipeline, dtype=torch.float32)
    assert text.text_len == 12
    assert text.encode(["a b"]).shape == (1, 12, tiny.TEXT_DIM)
    image = load_image_encoder(pipeline, dtype=torch.float32)
    assert image.encode([torch.zeros(3, 20, 30)] * 2).shape == (2, 5, tiny.IMAGE_DIM)
    with pytest.raises(UnreadableWeights, match="holds no text encoder"):
        load_text_encoder(pipeline / "vae")


def test_missing_tokenizer_is_named(tmp_path):
    tiny.text_encoder().save_pretrained(tmp_path / "text_encoder")
    with pytest.raises(UnreadableWeights, match="tokenizer is not there; the text encoder needs its tokenizer"):
        load_text_encoder(tmp_path)


def test_report_of_the_released_configuration(tmp_path):
    """What ``inspect`` prints for 14B: exact parameter count, memory by dtype; from a header alone."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in WanTransformer(WAN_FLF2V_14B).state_dict().items()}
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(torch.Size(shape).numel())
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path = tmp_path / "wan2.1_flf2v_720p_14B_bf16.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)  # sparse: takes no room
    report = inspect(path)
    print(report)
    assert report.kind == "FLF2V transformer"
    assert report.parameters == 16_395_536_704
    assert report.memory == {
        "as stored": 32_791_073_408,
        "fp32": 65_582_146_816,
        "bf16": 32_791_073_408,
        "fp16": 32_791_073_408,
        "fp8": 16_395_536_704,
    }
    assert (report.sizes["width"], report.sizes["blocks"], report.sizes["heads"]) == (5120, 40, 40)
    assert (report.missing, report.unexpected, report.misshapen) == ((), (), ())
    assert "32.79 GB" in str(report)


def test_report_of_a_pipeline_folder(pipeline):
    report = inspect(pipeline)
    assert len(report.parts) == 4
    assert json.loads(json.dumps(report.to_dict()))["parts"][0]["kind"] == "FLF2V transformer"
    assert [part.kind for part in report.parts] == [
        "FLF2V transformer",
        "Wan-VAE",
        "a T5 text encoder in transformers' layout",
        "a CLIP image encoder in transformers' layout",
    ]


@pytest.mark.parametrize(("part", "load"), [("text_encoder", load_text_encoder), ("image_encoder", load_image_encoder)])
def test_an_encoder_folder_that_lacks_a_weight_or_is_cut_short(tmp_path, part, load):
    """transformers alone would fill the gap with random values."""
    folder = tiny.write_pipeline(tmp_path, torch.float32)
    path = folder / part / "model.safetensors"
    tensors = tiny.stored(path)
    name = next(name for name in tensors if name.endswith(("SelfAttention.q.weight", "q_proj.weight")))
    save_file({key: value for key, value in tensors.items() if key != name}, path, {"format": "pt"})
    with pytest.raises(ParameterMismatch, match="1 missing") as error:
        load(folder)
    assert len(error.value.missing) == 1
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnreadableWeights, match="cut short"):
        load(folder)
