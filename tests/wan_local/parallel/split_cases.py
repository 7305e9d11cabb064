"""The model, the inputs and the cases that the split is tried on; imported by the tests and by every rank."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor

from wan_local.attention import Sparse
from wan_local.config import TransformerConfig
from wan_local.model import WanTransformer
from wan_local.parallel.fsdp import works_on_cpu
from wan_local.quantised import layers
from wan_local.sampling import Cond, denoise, make_sampler, model_velocity

CONFIG = TransformerConfig(
    dim=96, ffn_dim=128, num_heads=4, num_layers=2, text_dim=32, freq_dim=32, text_len=8, image_dim=20, image_tokens=10,
)  # fmt: skip
WIDE = replace(CONFIG, dim=256, num_heads=2)  # heads as wide as sparse attention needs them
NARROW = replace(CONFIG, dim=48, ffn_dim=64)  # a CPU is slow at products of fp8
LONG = (5, 10, 26)  # 325 tokens: 6 blocks of 64, and an odd number
GRIDS = {"48 tokens": (3, 8, 8), "45 tokens": (3, 6, 10), "3 tokens": (1, 2, 6)}  # two do not divide by 2 or 4
GUIDANCE, STEPS = 4.0, 2
SPLITS: dict[int, list[dict[str, Any]]] = {
    2: [{"cfg": 2}, {"ulysses": 2}, {"ring": 2}],
    4: [{"cfg": 2, "ulysses": 2}, {"ulysses": 4}, {"ring": 4}, {"ulysses": 2, "ring": 2}, {"cfg": 2, "ring": 2}],
}
SHARDED = (False, True) if works_on_cpu() else (False,)  # ways of the weights that this torch has on a CPU
YUNCHANG: dict[int, list[dict[str, Any]]] = {2: [{"ulysses": 2}, {"ring": 2}], 4: [{"ulysses": 2, "ring": 2}]}
COMPILED = 2  # ranks that compile their blocks too: compiling takes seconds
MUTATIONS = ("rope of another rank", "padding attended to", "head shards swapped", "exchange left out")


def name(split: dict[str, Any], grid: str, fsdp: bool, backend: str = "own") -> str:
    parts = [f"{key} {value}" for key, value in split.items()]
    return f"{' x '.join(parts)}, {grid}{', fsdp' if fsdp else ''}{', ' + backend if backend != 'own' else ''}"


def write_model(path: Path, config: TransformerConfig = CONFIG) -> None:
    save_file(weights(config), path, {"config": stated(config)})


def stated(config: TransformerConfig) -> str:
    """What the shapes of weights don't say, as the file says it."""
    return json.dumps({"attention_head_dim": config.head_dim, "text_len": config.text_len})


def weights(config: TransformerConfig = CONFIG) -> dict[str, Tensor]:
    """With sharp attention: with plain small numbers a wrong rotation changes nothing that a test would see."""
    torch.manual_seed(0)
    state = WanTransformer(config).state_dict()
    for key, value in state.items():
        if "norm" in key and key.endswith("weight"):
            value.normal_(1, 0.05)
        else:
            value.normal_(0, 0.3 if key.endswith((".q.weight", ".k.weight", ".o.weight")) else 0.1)
    return state


def inputs(grid: tuple[int, int, int]) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "noise": noise(1, 16, *grid), "condition": noise(1, 20, *grid),
        "texts": [noise(1, CONFIG.text_len, CONFIG.text_dim) for _ in range(2)],
        "image": noise(1, CONFIG.image_tokens, CONFIG.image_dim),
    }  # fmt: skip


def trajectory(velocity: Any, noise: Tensor) -> Tensor:
    """Guided steps of the official sampler."""
    with torch.no_grad():
        return denoise(velocity, noise, make_sampler("unipc", STEPS, 5.0))


def alone(model: WanTransformer, given: dict[str, Any]) -> Tensor:
    """On one GPU."""
    return trajectory(model_velocity(model, conds(given), GUIDANCE), given["noise"])


def float8_products() -> Any:
    """While it lasts, fp8 products are calculated here too, where there are no units for them."""
    return mock.patch.object(layers, "has_float8_units", return_value=True)


def spread(given: dict[str, Any]) -> dict[str, Any]:
    """Noise that is larger at one end of the clip, so that a GPU's share of it says little about the rest."""
    width = given["noise"].shape[-2]
    return given | {"noise": given["noise"] * torch.linspace(0.3, 3.0, width)[:, None]}


def sparse_conds(*frames: int) -> list[Cond]:
    """Of a long clip whose images are at these latent frames, under sparse attention."""
    given = inputs(LONG)
    given["condition"][:, :4] = 0
    given["condition"][:, :4, list(frames)] = 1
    return [replace(cond, sparse=Sparse(tau=1.0, min_tokens=0)) for cond in conds(given)]


def conds(given: dict[str, Any]) -> list[Cond]:
    return [Cond(condition=given["condition"], text=text, image=given["image"]) for text in given["texts"]]
