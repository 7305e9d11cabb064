"""Writes ``adapters/``: LoRAs as peft, diffusers and LyCORIS write them, and the weights those tools merge them into.

    pip install torch==2.13.0 diffusers==0.42.1 peft==0.21.2 lycoris-lora==4.1.3
    python tests/golden/make_adapters.py

``base.safetensors`` has the weights of a transformer of one narrow block in official names. Beside each adapter
``NAME/`` lies ``NAME.merged.safetensors``: every parameter that differs from the base, in official names.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import WanPipeline, WanTransformer3DModel
from lycoris import LycorisNetwork, create_lycoris
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.golden.adapter_model import CONFIG  # noqa: E402
from wan_local.model import WanTransformer  # noqa: E402
from wan_local.weights.names import transformer_to_diffusers  # noqa: E402

PLACE = Path(__file__).with_name("adapters")
LAYERS = ["to_q", "ffn.net.0.proj", "ffn.net.2"]
LINEAR, CONV = ("self_attn.q", "cross_attn.q", "ffn.0", "ffn.2"), ("patch_embedding",)
PEFT: dict[str, Any] = {
    "peft_plain": LoraConfig(r=2, lora_alpha=3, target_modules=LAYERS),
    "peft_rslora": LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=LAYERS),
    "peft_patterns": LoraConfig(
        r=4, lora_alpha=8, target_modules=LAYERS, rank_pattern={"ffn.net.2": 2},
        alpha_pattern={"attn1.to_q": 16, "^blocks.0.ffn.net.2": 3, r"blocks\.\d+\.attn[2-9]\..*": 5},
    ),
    "peft_bias": LoraConfig(r=2, lora_alpha=3, target_modules=LAYERS, lora_bias=True),
    "peft_all_biases": LoraConfig(r=2, lora_alpha=2, target_modules=LAYERS, bias="all"),
    "peft_modules_to_save": LoraConfig(r=2, lora_alpha=2, target_modules=LAYERS, modules_to_save=["proj_out"]),
    "peft_dora": LoraConfig(r=2, lora_alpha=3, target_modules=LAYERS, use_dora=True),
    "peft_loha": LoHaConfig(r=2, alpha=3, target_modules=LAYERS),
    "peft_lokr": LoKrConfig(r=2, alpha=3, target_modules=LAYERS, decompose_factor=2),
    "peft_lokr_both": LoKrConfig(r=1, alpha=3, target_modules=LAYERS, decompose_both=True),
    "peft_lokr_whole": LoKrConfig(r=16, alpha=3, target_modules=LAYERS, rank_pattern={"ffn.net.2": 12}),
}  # fmt: skip
LYCORIS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "lycoris_lora": (LINEAR, {"algo": "lora"}),
    "lycoris_loha": (LINEAR, {"algo": "loha"}),
    "lycoris_lokr": (LINEAR, {"algo": "lokr", "factor": 2}),
    "lycoris_lokr_both": (LINEAR, {"algo": "lokr", "linear_dim": 1, "decompose_both": True}),
    "lycoris_lokr_whole": (LINEAR, {"algo": "lokr", "full_matrix": True, "linear_dim": 100000}),
    "lycoris_glora": (LINEAR, {"algo": "glora"}),
    "lycoris_dora": (LINEAR, {"algo": "lora", "dora_wd": True, "wd_on_output": True}),
    "lycoris_dora_of_inputs": (LINEAR, {"algo": "lora", "dora_wd": True, "wd_on_output": False}),
    "lycoris_doha": (LINEAR, {"algo": "loha", "dora_wd": True}),
    "lycoris_dokr": (LINEAR, {"algo": "lokr", "factor": 2, "dora_wd": True, "wd_on_output": False}),
    "lycoris_full": (LINEAR, {"algo": "full"}),
    "lycoris_conv": (CONV, {"algo": "lora"}),
    "lycoris_conv_tucker": (CONV, {"algo": "lora", "use_tucker": True}),
    "lycoris_conv_loha_tucker": (CONV, {"algo": "loha", "use_tucker": True}),
    "lycoris_conv_lokr_tucker": (CONV, {"algo": "lokr", "use_tucker": True}),
    "lycoris_conv_dora": (CONV, {"algo": "lora", "dora_wd": True, "wd_on_output": True}),
}  # fmt: skip
FROZEN = ("scalar", "alpha")


def official() -> WanTransformer:
    torch.manual_seed(0)
    model = WanTransformer(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.requires_grad_(False)


def in_diffusers(state: dict[str, torch.Tensor]) -> WanTransformer3DModel:
    model = WanTransformer3DModel(
        num_attention_heads=CONFIG.num_heads, attention_head_dim=CONFIG.dim // CONFIG.num_heads, in_channels=36,
        out_channels=16, text_dim=CONFIG.text_dim, freq_dim=CONFIG.freq_dim, ffn_dim=CONFIG.ffn_dim,
        num_layers=CONFIG.num_layers, image_dim=CONFIG.image_dim, added_kv_proj_dim=CONFIG.dim,
        pos_embed_seq_len=CONFIG.image_tokens,
    )  # fmt: skip
    model.load_state_dict({transformer_to_diffusers(name) or name: value.clone() for name, value in state.items()})
    return model


def shake(parameters: Any) -> None:
    """As if trained: away from where an adapter starts, which is no change at all."""
    torch.manual_seed(1)
    for name, value in parameters:
        if not name.endswith(FROZEN):
            small = ("magnitude", "dora_scale", ".bias", "proj_out")
            value.data = value.data + torch.randn_like(value) * (0.1 if any(map(name.__contains__, small)) else 0.4)


def write(name: str, base: dict[str, torch.Tensor], merged: dict[str, torch.Tensor]) -> None:
    changed = {key: value.contiguous() for key, value in merged.items() if not torch.equal(value, base[key])}
    assert changed, name
    save_file(changed, PLACE / f"{name}.merged.safetensors")


def by_peft(name: str, config: Any, base: dict[str, torch.Tensor], folder: Path) -> None:
    model = get_peft_model(in_diffusers(base), config)
    shake((key, value) for key, value in model.named_parameters() if value.requires_grad)
    if name == "peft_plain":  # as somebody saves it who does not know of save_pretrained, with another adapter's name
        tensors = {key: value for key, value in model.state_dict().items() if "lora_" in key}
        renamed = {key.replace(".default.", ".speed."): value.contiguous() for key, value in tensors.items()}
        (PLACE / "peft_named").mkdir()
        save_file(renamed, PLACE / "peft_named" / "adapter_model.safetensors")
        config.save_pretrained(PLACE / "peft_named")
        WanPipeline.save_lora_weights(
            PLACE / "diffusers_lora",
            transformer_lora_layers={
                key.removeprefix("base_model.model."): value for key, value in get_peft_model_state_dict(model).items()
            },
            transformer_lora_adapter_metadata={"r": config.r, "lora_alpha": config.lora_alpha},
        )
    model.save_pretrained(folder)
    merged = model.merge_and_unload().state_dict()
    back = {key: merged[transformer_to_diffusers(key) or key] for key in base}
    for written in (name, *(["peft_named", "diffusers_lora"] if name == "peft_plain" else [])):
        write(written, base, back)


def by_lycoris(name: str, base: dict[str, torch.Tensor], folder: Path) -> None:
    layers, how = LYCORIS[name]
    options = {"linear_dim": 2, "linear_alpha": 3, "conv_dim": 2, "conv_alpha": 3, "factor": -1} | how
    model = official()
    LycorisNetwork.apply_preset({
        "enable_conv": True, "target_module": [], "target_name": [f"*{layer}" for layer in layers], "use_fnmatch": True,
    })  # fmt: skip
    network = create_lycoris(model, 1.0, **options)
    assert network.loras, name
    network.apply_to()
    shake(network.named_parameters())
    folder.mkdir()
    network.save_weights(str(folder / "lycoris.safetensors"), torch.float32, {})
    network.eval()
    merged = dict(base)
    for path, layer in model.named_modules():
        if path.endswith(layers):
            weight, bias = acts_as(layer, base[f"{path}.weight"].shape)
            merged |= {f"{path}.weight": weight, f"{path}.bias": bias}
    write(name, base, merged)


@torch.no_grad()
def acts_as(layer: Any, shape: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight and bias that a layer calculates with, found from what it makes of single inputs: LyCORIS 4.1.3 scales
    LoHa and LoKr once when it calculates, as it trains them, and twice when it merges."""
    inputs = torch.eye(shape[1:].numel()).view(-1, *shape[1:])
    bias = layer(torch.zeros_like(inputs[:1])).flatten()
    return (layer(inputs).flatten(1) - bias).t().reshape(shape), bias


def main() -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    base = official().state_dict()
    save_file(base, PLACE / "base.safetensors")
    for name, config in PEFT.items():
        by_peft(name, config, base, PLACE / name)
    for name in LYCORIS:
        by_lycoris(name, base, PLACE / name)
    for readme in PLACE.glob("*/README.md"):
        readme.unlink()


if __name__ == "__main__":
    main()
