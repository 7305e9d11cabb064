"""Tensors that belong to no layer cost nothing; what marks another network is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, UMT5ForConditionalGeneration

from tests import tiny
from tests.wan_local.weights import packed_files as files
from wan_local.cli import main
from wan_local.errors import ParameterMismatch, WrongModel
from wan_local.notices import WanNotice, listening
from wan_local.weights import inspect, load_image_encoder, load_text_encoder, load_transformer, load_vae, names

State = dict[str, Tensor]
CHECKPOINT = "model.diffusion_model."
EXTRAS = {  # what real files carry, and what of it is named
    "Kijai's mark": {"model_type.Wan2_1-FLF2V-14B-720P": torch.ones(1)},
    "Kijai's mark, empty": {"model_type.Wan2_1-FLF2V-14B-720P": torch.zeros(0)},
    "a schedule": {"model_sampling.sigmas": torch.ones(3)},
    "a count": {"logit_scale": torch.zeros(1), "step": torch.zeros(1, dtype=torch.int64)},
    "a table inside a layer": {"blocks.0.self_attn.freqs": torch.ones(4)},
}


@pytest.fixture(scope="module")
def state() -> State:
    theirs = tiny.transformer().state_dict()
    return {str(names.transformer_to_official(name)): value.half() for name, value in theirs.items()}


def gguf_file(path: Path, tensors: State) -> Path:
    writer = gguf.GGUFWriter(path, arch="wan")
    writer.add_string("config", json.dumps({"attention_head_dim": tiny.HEAD_DIM}))
    for name, value in tensors.items():
        writer.add_tensor(name, value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def diffusers_folder(path: Path, tensors: State) -> Path:
    folder = tiny.write_pipeline(path) / "transformer"
    theirs = {names.transformer_to_diffusers(name) or name: value for name, value in tensors.items()}
    save_file(theirs, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    return path


def single(path: Path, tensors: State) -> Path:
    save_file(tensors, path, {"config": json.dumps({"attention_head_dim": tiny.HEAD_DIM})})
    return path


def pickled(path: Path, tensors: State) -> Path:
    torch.save({"state_dict": tensors, "epoch": 3}, path / "model.ckpt")
    return path / "model.ckpt"


LAYOUTS: dict[str, Callable[[Path, State], Path]] = {
    "single file": lambda folder, tensors: single(folder / "a.safetensors", tensors),
    "GGUF": lambda folder, tensors: gguf_file(folder / "a.gguf", tensors),
    "diffusers folder": diffusers_folder,
    "official folder": tiny.write_official,
}


def loaded(load: Callable[[Path], object], path: Path) -> str:
    """What was told while it was loaded."""
    told: list[str] = []
    with listening(told.append):
        assert load(path)
    assert all(text.isprintable() for text in told)
    return "\n".join(told)


@pytest.mark.parametrize(("what", "layout"), [(what, layout) for what in EXTRAS for layout in LAYOUTS
                                              if not (layout == "GGUF" and what.endswith("empty"))])  # fmt: skip
def test_a_transformer_with_tensors_of_no_layer(what: str, layout: str, tmp_path: Path, state: State) -> None:
    extra = EXTRAS[what]
    path = LAYOUTS[layout](tmp_path, {**state, **extra})
    told = loaded(load_transformer, path)
    count = "1 tensor belongs" if len(extra) == 1 else f"{len(extra)} tensors belong"
    assert f"{count} to no layer of the model" in told
    assert all(name in told for name in extra)
    report = next((part for part in inspect(path).parts if "transformer" in part.kind), inspect(path))
    assert (set(report.unexpected), report.missing, report.error) == (set(extra), (), "")
    assert f"all present, {len(extra)} unexpected and not used" in str(report)


def test_a_file_without_any_is_silent(tmp_path: Path, state: State) -> None:
    assert loaded(load_transformer, single(tmp_path / "a.safetensors", state)) == ""


def test_without_a_listener_it_is_a_warning(tmp_path: Path, state: State) -> None:
    with pytest.warns(WanNotice, match="logit_scale"):
        load_transformer(single(tmp_path / "a.safetensors", {**state, "logit_scale": torch.zeros(1)}))


def test_kijais_fp8_file_with_its_mark(tmp_path: Path) -> None:
    path = files.write_kijai(tmp_path / "a.safetensors", files.original(), torch.float8_e4m3fn, scaled=True)
    plain = files.forward(load_transformer(path, dtype=torch.float32))
    save_file({**tiny.stored(path), **EXTRAS["Kijai's mark"]}, path)
    assert "model_type.Wan2_1-FLF2V-14B-720P" in loaded(load_transformer, path)
    with listening(lambda text: None):
        marked = files.forward(load_transformer(path, dtype=torch.float32))
    assert files.relative_error(marked, plain) < 1e-5


def test_a_checkpoint_of_a_trainer(tmp_path: Path) -> None:
    vae = load_vae(tiny.write_pipeline(tmp_path / "model"))
    assert loaded(load_vae, pickled(tmp_path, vae.state_dict())) == ""


def test_every_part_of_a_whole_checkpoint_is_found_in_it(tmp_path: Path, state: State) -> None:
    """As ComfyUI saves one: a prefix for each part."""
    folder = tiny.write_pipeline(tmp_path / "model")
    vae = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    vae = {str(names.vae_to_official(name, 4)): value for name, value in vae.items()}
    text = load_file(folder / "text_encoder" / "model.safetensors")
    image = {name.removeprefix("vision_model."): v for name, v in tiny.image_encoder().state_dict().items()}
    path = single(
        tmp_path / "all.safetensors",
        {CHECKPOINT + name: value for name, value in state.items()}
        | {"vae." + name: value for name, value in vae.items()}
        | {"text_encoders.umt5xxl.transformer." + name: value for name, value in text.items()}
        | {"text_encoders.spiece_model": torch.zeros(9, dtype=torch.uint8)}
        | {"conditioner.embedders.0.model.vision_model." + name: value for name, value in image.items()},
    )
    assert "tensors belong to no layer of the model" in loaded(load_transformer, path)
    assert torch.equal(quiet(load_vae, path).encoder.conv1.weight, vae["encoder.conv1.weight"].float())
    found = quiet(lambda p: load_text_encoder(p, tokenizer=folder / "tokenizer"), path)
    assert torch.equal(found.model.shared.weight, text["shared.weight"])
    assert quiet(load_image_encoder, path)
    assert inspect(path).kind == "FLF2V transformer"


def test_a_mark_of_one_part_of_a_checkpoint_is_not_about_another(tmp_path: Path, state: State) -> None:
    """The text encoder in scaled fp8, and the transformer's fp8 numbers stand for themselves."""
    folder, prefix, e4m3 = (
        tiny.write_pipeline(tmp_path / "model"),
        "text_encoders.umt5xxl.transformer.",
        torch.float8_e4m3fn,
    )
    text = load_file(folder / "text_encoder" / "model.safetensors")
    matrices = {name: value for name, value in text.items() if name.endswith("SelfAttention.q.weight")}
    text |= {name: value.to(e4m3) for name, value in matrices.items()}
    text |= {name.replace(".weight", ".scale_weight"): torch.ones(1) for name in matrices}
    path = single(
        tmp_path / "all.safetensors",
        {CHECKPOINT + name: value.to(e4m3) if "ffn" in name else value for name, value in state.items()}
        | {prefix + name: value for name, value in text.items()}
        | {f"{prefix}scaled_fp8": torch.zeros(2, dtype=e4m3)},  # of two elements: products in the full dtype
    )

    def packed(model: torch.nn.Module) -> list[bool]:
        packings = (getattr(layer, "packing", None) for layer in model.modules())
        return [packing.wide_products for packing in packings if packing]

    assert set(packed(quiet(load_transformer, path))) == {False}
    encoder = quiet(lambda p: load_text_encoder(p, tokenizer=folder / "tokenizer"), path)
    assert packed(encoder.model) == [True] * len(matrices)


def quiet(load, path):
    with listening(lambda text: None):
        return load(path)


@pytest.mark.parametrize("layout", ["diffusers", "official"])
def test_a_vae_with_tensors_of_no_layer(layout: str, tmp_path: Path) -> None:
    folder = tiny.write_pipeline(tmp_path / "model") / "vae"
    file = folder / "diffusion_pytorch_model.safetensors"
    tensors = {**tiny.stored(file), "loss.logvar": torch.zeros(1)}
    if layout == "official":
        tensors = {names.vae_to_official(name, 4) or name: value for name, value in tensors.items()}
        folder = file = tmp_path / "vae.safetensors"
    save_file(tensors, file)
    assert "1 tensor belongs to no layer of the model and is not used (loss.logvar)" in loaded(load_vae, folder)
    assert inspect(folder).unexpected == ("loss.logvar",)


def test_a_whole_umt5_gives_its_encoder(tmp_path: Path) -> None:
    """Saved by transformers, with the decoder and the head that nobody needs here."""
    folder = tiny.write_pipeline(tmp_path / "model")
    plain = load_text_encoder(folder).encode(["a disc"])
    encoder = tiny.text_encoder()
    config = {**encoder.config.to_dict(), "is_encoder_decoder": True}
    whole = UMT5ForConditionalGeneration(type(encoder.config)(**config))
    whole.encoder.load_state_dict(encoder.encoder.state_dict())
    whole.half().save_pretrained(folder / "text_encoder")
    told = loaded(load_text_encoder, folder)
    assert "decoder.block.0" in told
    assert torch.equal(quiet(load_text_encoder, folder).encode(["a disc"]), plain)


@pytest.mark.parametrize("layout", ["folder", "single file"])
def test_a_whole_clip_gives_its_vision_tower(layout: str, tmp_path: Path) -> None:
    """Saved by transformers, with the text tower and ``logit_scale``."""
    folder = tiny.write_pipeline(tmp_path / "model") / "image_encoder"
    eyes = tiny.image_encoder()
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "vocab_size": 20, "max_position_embeddings": 8}  # fmt: skip
    whole = CLIPModel(CLIPConfig(text_config=text, vision_config=eyes.config.to_dict(), projection_dim=tiny.IMAGE_DIM))
    tower = {name.removeprefix("vision_model."): value for name, value in eyes.state_dict().items()}
    whole.vision_model.load_state_dict(tower, strict=False)
    (folder / "model.safetensors").unlink()
    whole.save_pretrained(folder)
    path = folder.parent if layout == "folder" else folder / "model.safetensors"
    told = loaded(load_image_encoder, path)
    assert "logit_scale" in told
    image = [torch.rand(3, 30, 20) * 2 - 1]
    if layout == "folder":  # a file does not say how many heads a toy has
        rows = quiet(load_image_encoder, path).encode(image)
        expected = eyes(pixel_values=quiet(load_image_encoder, path).preprocess(image), output_hidden_states=True)
        assert torch.allclose(rows, expected.hidden_states[-2], atol=1e-6)


VARIANTS = {
    "vace_blocks.0.after_proj.weight": "a Wan VACE transformer",
    "control_adapter.conv.weight": "a Wan Fun-Camera transformer",
    "ref_conv.weight": "a Wan Fun-Control transformer",
    "casual_audio_encoder.encoder.final_linear.weight": "a Wan2.2 S2V transformer",
    "face_adapter.fuser_blocks.0.k_norm.weight": "a Wan2.2 Animate transformer",
    "audio_proj.audio_proj_glob_1.layer.bias": "a Wan transformer driven by sound",
    "blocks.0.audio_cross_attn.q_linear.weight": "a Wan transformer driven by sound",
    "patch_embedding_pose.weight": "a Wan SCAIL transformer",
}


@pytest.mark.parametrize("prefix", ["", CHECKPOINT])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_of_wan_is_named(name: str, prefix: str, tmp_path: Path, state: State) -> None:
    tensors = {prefix + known: value for known, value in {**state, name: torch.zeros(4)}.items()}
    path = single(tmp_path / "a.safetensors", tensors)
    with pytest.raises(WrongModel, match=VARIANTS[name] + r".*; give Wan2.1 FLF2V weights .* of Comfy-Org/"):
        load_transformer(path)
    assert inspect(path).kind.startswith(VARIANTS[name])


def test_layers_inside_layers_are_another_network(tmp_path: Path, state: State) -> None:
    more = {f"blocks.{i}.ip_adapter.to_k.weight": torch.zeros(4, 4) for i in range(2)}
    path = single(tmp_path / "a.safetensors", {**state, **more})
    with pytest.raises(WrongModel, match=r"variant .* not known here: its layers hold parameters .* \(blocks.0.ip"):
        load_transformer(path)
    assert "ip_adapter" in inspect(path).error
    assert "none unexpected" not in str(inspect(path))


def test_inspect_names_a_file_that_is_wrong_once(
    tmp_path: Path, state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    path = single(tmp_path / "a.safetensors", {**state, "blocks.0.self_attn.gate.weight": torch.zeros(4, 4)})
    assert main(["inspect", str(path)]) == 1
    assert capsys.readouterr().err.count(str(path)) == 1


def test_blocks_behind_a_gap_are_an_error(tmp_path: Path, state: State) -> None:
    """A shard is missing: the blocks before the gap alone would be a model, and a wrong one."""
    moved = {name.replace("blocks.1.", "blocks.2."): value for name, value in state.items()}
    with pytest.raises(ParameterMismatch, match=r"of layers behind a gap; .* download it again"):
        load_transformer(single(tmp_path / "a.safetensors", moved))


def test_nobody_is_told_to_use_an_unmodified_file(tmp_path: Path, state: State) -> None:
    del state["head.modulation"]
    path = single(tmp_path / "a.safetensors", state)
    with pytest.raises(ParameterMismatch) as error:
        load_transformer(path)
    assert "unmodified" not in str(error.value)
