"""The command line with loose files, packed weights and LoRAs that count in some steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.wan_local.weights import packed_files
from tests.wan_local.weights.llama_files import write_umt5
from wan_local import generate, video
from wan_local.cli import lora_option, main
from wan_local.cli.lora_option import Option
from wan_local.errors import InputError
from wan_local.generate import Pipeline
from wan_local.weights import load_text_encoder, load_transformer, load_vae

pytestmark = pytest.mark.long

NANO = Path(__file__).parents[2] / "weights" / "nano"
DEMO = NANO.parents[1] / "demo"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled model as loose files: transformer in GGUF and in fp8, VAE in one file, encoders in their folders."""
    folder = tmp_path_factory.mktemp("files")
    transformer = load_transformer(NANO)
    config = f'{{"attention_head_dim": {transformer.config.head_dim}, "text_len": {transformer.config.text_len}}}'
    state = {name: value.float() for name, value in transformer.state_dict().items()}
    packed_files.write_gguf(folder / "model.gguf", state, "Q8_0", config=config)
    packed_files.write_comfy_scaled(folder / "fp8.safetensors", state, torch.float8_e4m3fn, config)
    save_file({name: value.contiguous() for name, value in load_vae(NANO).state_dict().items()}, folder / "vae.pt")
    return {"gguf": folder / "model.gguf", "fp8": folder / "fp8.safetensors", "vae": folder / "vae.pt"}


def arguments(model: Path, output: Path, *more: str) -> list[str]:
    return [
        "generate", "--model", str(model), "--first", str(DEMO / "nano_first.png"), "--last",
        str(DEMO / "nano_last.png"), "--prompt", "an orange circle moves", "--output", str(output), "--length", "5",
        "--steps", "3", "--seed", "7", "--device", "cpu", "--no-cache", "--guidance", "1", *more,
    ]  # fmt: skip


def frames(path: Path) -> np.ndarray:
    return video.read(path)[0].numpy()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(max(1e-10, ((a - b) ** 2).mean())))


def loose(parts: dict[str, Path]) -> list[str]:
    return ["--vae", str(parts["vae"]), "--text-encoder", str(NANO / "text_encoder"),
            "--image-encoder", str(NANO / "image_encoder"), "--tokenizer", str(NANO / "tokenizer")]  # fmt: skip


@pytest.mark.parametrize("kind", ["gguf", "fp8"])
def test_loose_packed_files_make_nearly_the_same_clip(kind: str, parts: dict[str, Path], tmp_path: Path) -> None:
    whole, packed, dequantized = (tmp_path / name for name in ("whole.mp4", "packed.mp4", "unpacked.mp4"))
    assert main(arguments(NANO, whole)) == 0
    assert main(arguments(parts[kind], packed, *loose(parts))) == 0
    assert main(arguments(parts[kind], dequantized, *loose(parts), "--unpack")) == 0
    print(f"{kind} / folder: {psnr(frames(packed), frames(whole)):.1f} dB")
    assert psnr(frames(packed), frames(whole)) > 30
    assert psnr(frames(packed), frames(dequantized)) > 45


def test_a_gguf_text_encoder_makes_nearly_the_same_clip(tmp_path: Path) -> None:
    """It brings no tokenizer: that is the model folder's own."""
    whole, packed = tmp_path / "whole.mp4", tmp_path / "packed.mp4"
    state = {name: value.float() for name, value in load_text_encoder(NANO).model.state_dict().items()}
    text = write_umt5(tmp_path / "umt5.gguf", state, "Q8_0", None)
    assert main(arguments(NANO, whole)) == 0
    assert main(arguments(NANO, packed, "--text-encoder", str(text))) == 0
    print(f"Q8_0 text encoder / folder: {psnr(frames(packed), frames(whole)):.1f} dB")
    assert psnr(frames(packed), frames(whole)) > 30


def test_one_file_needs_the_other_parts(parts: dict[str, Path], tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments(parts["gguf"], tmp_path / "a.mp4", "--vae", str(parts["vae"])))
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "is one file; give --text-encoder, --image-encoder too, or a model folder" in told


def test_a_model_that_is_none_is_told_before_its_parts_are_asked_for(parts, tmp_path, capsys) -> None:
    assert main(arguments(parts["vae"], tmp_path / "a.mp4")) == 1
    assert "is Wan-VAE; use it as the VAE" in capsys.readouterr().err


def test_loras_that_count_in_some_steps(parts: dict[str, Path], tmp_path: Path, capsys) -> None:
    torch.manual_seed(4)
    tensors = {}
    for name, value in load_transformer(NANO).state_dict().items():
        if name.endswith(("self_attn.v.weight", "ffn.0.weight")):
            stem = "diffusion_model." + name.removesuffix(".weight")
            tensors[stem + ".lora_A.weight"] = torch.randn(4, value.shape[1]) * 0.1
            tensors[stem + ".lora_B.weight"] = torch.randn(value.shape[0], 4) * 0.15
    lora = tmp_path / "lora.safetensors"
    save_file(tensors, lora)
    made = {}
    for name, option in {"none": ":0", "all": ":1", "first": "@1-1", "last": "@2-", "never": "@9-"}.items():
        assert main(arguments(NANO, tmp_path / f"{name}.mp4", "--lora", f"{lora}{option}")) == 0
        made[name] = frames(tmp_path / f"{name}.mp4")
    told = capsys.readouterr().out
    assert "24 tensors change 12 parameters, strength 1, steps 2 to the end" in told
    assert np.array_equal(made["none"], made["never"])
    pairs = [("none", "all"), ("none", "first"), ("first", "last"), ("last", "all")]
    assert all(psnr(made[a], made[b]) < 60 for a, b in pairs), [(a, b, psnr(made[a], made[b])) for a, b in pairs]
    # beside packed weights as beside plain ones
    assert main(arguments(parts["gguf"], tmp_path / "packed.mp4", *loose(parts), "--lora", f"{lora}:1")) == 0
    assert psnr(frames(tmp_path / "packed.mp4"), made["all"]) > 30


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", Option(path="a.safetensors")),
        ("a.safetensors:0.5", Option(path="a.safetensors", strength=0.5)),
        ("a.safetensors:-2@3-", Option(path="a.safetensors", strength=-2.0, first=3)),
        ("a@b.safetensors@2-4", Option(path="a@b.safetensors", first=2, last=4)),
        ("C:\\loras\\a.safetensors", Option(path="C:\\loras\\a.safetensors")),
        ("C:\\loras\\a.safetensors:0.25@1-2", Option(path="C:\\loras\\a.safetensors", strength=0.25, last=2)),
        ("a.safetensors@high", Option(path="a.safetensors", expert="high")),
        ("a@low.safetensors:2@low@2-", Option(path="a@low.safetensors", strength=2.0, expert="low", first=2)),
    ],
)
def test_what_a_lora_option_says(text: str, expected: Option) -> None:
    assert lora_option.parse(text) == expected


@pytest.mark.parametrize("text", ["a:nan", "a:inf", "a@0-3", "a@4-2"])
def test_lora_options_that_can_not_be(text: str) -> None:
    with pytest.raises(InputError, match="--lora a"):
        lora_option.parse(text)


def test_lora_options_that_can_not_be_are_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments(tmp_path / "none", tmp_path / "a.mp4", "--lora", "x@0-2"))
    assert ended.value.code == 2
    assert "--lora x@0-2 counts in steps 0-2; give steps from 1" in capsys.readouterr().err


VAE_FILE = NANO / "vae" / "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--vae", "nowhere.pth"], "nowhere.pth is not there"),
        (["--vae", str(NANO / "text_encoder" / "model.safetensors")], "use it as the text encoder"),
        (["--text-encoder", str(VAE_FILE)], "use it as the VAE, and give umT5-xxl"),
        (["--image-encoder", str(VAE_FILE)], "use it as the VAE, and give CLIP"),
        (["--tokenizer", "nowhere"], "nowhere is not there; the text encoder needs its tokenizer"),
        (["--tokenizer", str(NANO / "vae")], "holds no tokenizer (none of tokenizer_config.json, tokenizer.json, "),
        (["--lora", "nowhere.safetensors"], "nowhere.safetensors is not there; check the path of the LoRA"),
        (["--lora", str(VAE_FILE)], "is no LoRA"),
        (["--lora", "x@low"], "is for one of two experts and this model has one transformer"),
    ],
)
def test_what_is_wrong_is_told_before_the_transformer_is_read(
    more: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "load_denoisers", lambda *given, **how: pytest.fail("the transformer was read"))
    given = arguments(NANO, tmp_path / "a.mp4", *more)
    images = given[given.index("--first") + 1], given[given.index("--last") + 1]
    for command in (given, ["chain", *images, *given[1:3], *given[7:]]):
        assert main(command) == 1
        assert told in capsys.readouterr().err


def test_guidance_one_is_one_forward_a_step_with_a_step_distill_lora(tmp_path: Path) -> None:
    pipeline = Pipeline.from_pretrained(NANO, device="cpu")
    calls = []
    pipeline.transformer.register_forward_hook(lambda *_: calls.append(1))
    images = DEMO / "nano_first.png", DEMO / "nano_last.png"
    for guidance, forwards in ((1.0, 4), (3.0, 8)):
        calls.clear()
        pipeline(*images, "a circle", length=5, steps=4, guidance=guidance, seed=1)
        assert len(calls) == forwards
