"""The bundled model as graphs of single nodes, and as the single files that core's loaders take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from comfy_server import PACK
from PIL import Image
from safetensors.torch import save_file

from tests.wan_local.weights import packed_files
from wan_local import weights

NANO = PACK / "weights" / "nano"
PROMPT = "a white circle moves over the top steadily"
SAMPLING = {"seed": 0, "steps": 3, "guidance": 2.0, "shift": 16.0, "sampler": "unipc"}
SIZE = {"width": 64, "height": 64, "length": 9}
FIRST, LAST, LOAD, MODEL, VAE, POSITIVE, NEGATIVE, COND, SAMPLER, DECODE, IMAGES, VIDEO = map(str, range(1, 13))

Graph = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def single_nodes() -> Graph:
    """The bundled workflow, out of single nodes; decoded frames go to SaveImage, nothing else is saved."""
    return {
        FIRST: node("LoadImage", image="nano_first.png"),
        LAST: node("LoadImage", image="nano_last.png"),
        LOAD: node("WanFLF2VLoadPipeline", folder="nano (bundled)", weight_dtype="default", attention="auto"),
        MODEL: node("WanFLF2VLoadModel", model_name="nano.safetensors", weight_dtype="default", attention="auto"),
        VAE: node("WanFLF2VLoadVAE", vae_name="nano_vae.safetensors", dtype="default"),
        POSITIVE: node("CLIPTextEncode", clip=[LOAD, 1], text=PROMPT),
        NEGATIVE: node("CLIPTextEncode", clip=[LOAD, 1], text=""),
        COND: node(
            "WanFLF2VConditioning", positive=[POSITIVE, 0], negative=[NEGATIVE, 0], vae=[VAE, 0],
            first_image=[FIRST, 0], last_image=[LAST, 0], clip_vision=[LOAD, 2], fit="crop", **SIZE,
        ),
        SAMPLER: node(
            "WanFLF2VSampler", model=[MODEL, 0], positive=[COND, 0], negative=[COND, 1], latent=[COND, 2], **SAMPLING
        ),
        DECODE: node("WanFLF2VDecode", vae=[VAE, 0], latent=[SAMPLER, 0], fps=8.0, tiling="auto"),
        IMAGES: node("SaveImage", images=[DECODE, 0], filename_prefix="nodes"),
    }  # fmt: skip


def small_image(name: str) -> Image.Image:
    """One of the demo's, the bundled model's at half their size: a clip takes an eighth of the time."""
    image = Image.open(PACK / "demo" / name).convert("RGB")
    return image.resize((SIZE["width"], SIZE["height"]), Image.Resampling.BOX) if name.startswith("nano") else image


def core_conditioning(graph: Graph) -> None:
    """Put core's WanFirstLastFrameToVideo in the place of ours."""
    for key, image in (("20", FIRST), ("21", LAST)):
        graph[key] = node("CLIPVisionEncode", clip_vision=[LOAD, 2], image=[image, 0], crop="none")
    graph[COND] = node(
        "WanFirstLastFrameToVideo", positive=[POSITIVE, 0], negative=[NEGATIVE, 0], vae=[VAE, 0],
        start_image=[FIRST, 0], end_image=[LAST, 0], clip_vision_start_image=["20", 0],
        clip_vision_end_image=["21", 0], batch_size=1, **SIZE,
    )  # fmt: skip


def write_single_files(models: Path) -> None:
    """The bundled model's parts as ComfyUI's single files, a LoRA for it, and files of other kinds."""
    transformer = weights.load_transformer(NANO)
    config = {"attention_head_dim": transformer.config.head_dim, "text_len": transformer.config.text_len}
    metadata = {"config": json.dumps(config)}
    state = transformer.state_dict()
    for folder in ("diffusion_models", "vae", "loras"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    save_file(
        {f"model.diffusion_model.{name}": value.contiguous() for name, value in state.items()},
        models / "diffusion_models" / "nano.safetensors", metadata,
    )  # fmt: skip
    exact = {name: value.float() for name, value in state.items()}
    packed = models / "diffusion_models" / "packed"
    packed.mkdir(exist_ok=True)
    packed_files.write_gguf(packed / "nano-Q8_0.gguf", exact, "Q8_0", config=metadata["config"])
    packed_files.write_comfy_scaled(packed / "nano_fp8.safetensors", exact, torch.float8_e4m3fn, metadata["config"])
    vae = {name: value.contiguous() for name, value in weights.load_vae(NANO).state_dict().items()}
    save_file(vae, models / "vae" / "nano_vae.safetensors")
    save_file(vae, models / "diffusion_models" / "in_truth_a_vae.safetensors")
    t2v = {name: value.contiguous() for name, value in state.items() if "img" not in name}
    t2v["patch_embedding.weight"] = t2v["patch_embedding.weight"][:, :16].contiguous()
    save_file(t2v, models / "diffusion_models" / "t2v.safetensors", metadata)
    i2v = {name: value.contiguous() for name, value in state.items() if name != "img_emb.emb_pos"}
    mark = {"model_type.Wan2_1-I2V-14B-720P": torch.ones(1)}
    save_file({**i2v, **mark}, models / "diffusion_models" / "i2v.safetensors", metadata)
    expert = {name: value.contiguous() for name, value in state.items() if "img" not in name}
    save_file(expert, models / "diffusion_models" / "expert.safetensors", metadata)
    save_file(expert, models / "diffusion_models" / "nano_high_noise.safetensors", metadata)
    torch.manual_seed(6)
    other = {name: value + 0.02 * value.std().nan_to_num() * torch.randn_like(value) for name, value in expert.items()}
    save_file(other, models / "diffusion_models" / "nano_low_noise.safetensors", metadata)
    cut = (models / "diffusion_models" / "nano.safetensors").read_bytes()[:-1000]
    (models / "diffusion_models" / "cut.safetensors").write_bytes(cut)
    torch.manual_seed(5)
    lora = {}
    for name, value in state.items():
        if name.endswith(("self_attn.v.weight", "ffn.0.weight")):
            stem = "diffusion_model." + name.removesuffix(".weight")
            lora[stem + ".lora_A.weight"] = torch.randn(4, value.shape[1]) * 0.1
            lora[stem + ".lora_B.weight"] = torch.randn(value.shape[0], 4) * 0.15
    save_file(lora, models / "loras" / "nano_lora.safetensors")
    save_file(lora, models / "loras" / "nano_high_noise_lora.safetensors")
    save_file({"lora_unet_down_blocks_0.lora_up.weight": torch.zeros(1, 1)}, models / "loras" / "other.safetensors")
