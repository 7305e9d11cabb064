"""Train the two experts of the nano pair, as Wan2.2 has them: one for high noise, one for low, no image branch.

Each began as some blocks of the nano transformer without their image branch and with the wider half of the
feed-forward network, goes on from where it is, and learns to say what the whole transformer says (Hinton et al. 2015,
"Distilling the Knowledge in a Neural Network") where that was trained for what is known, and the true velocity
everywhere else. An expert sees the noise levels that a sampler of shift 5 gives it, as often as that sampler does.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from wan_local.config import TransformerConfig
from wan_local.model import WanTransformer
from wan_local.settings import BOUNDARY
from wan_local.weights.experts import HIGH

from .batches import Batches
from .loop import Curve, Recipe, train

BLOCKS = 3
FFN = 448  # both experts in half precision are 11.8 MB then
KEPT = (0, 1, 2)  # blocks of the transformer an expert begins with; no other three are as near to all six
SHIFT = 5.0
RECIPE = Recipe(learning_rate=1e-3, warmup=30, weight_decay=0.01, average=0.995)


def expert_config(config: TransformerConfig) -> TransformerConfig:
    """Sizes of an expert of the pair to a transformer, which has seen no clip yet."""
    return replace(config, num_layers=BLOCKS, ffn_dim=FFN, image_dim=0, image_tokens=0, trained_frames=1)


@torch.no_grad()
def expert_of(transformer: WanTransformer) -> WanTransformer:
    """An expert that begins with the weights of ``transformer``."""
    expert = WanTransformer(expert_config(transformer.config), attend=transformer.attend)
    state = transformer.state_dict()
    for name, parameter in expert.named_parameters():
        stem, _, rest = name.partition(".")
        if stem == "blocks":
            place, _, rest = rest.partition(".")
            name = f"blocks.{KEPT[int(place)]}.{rest}"
            if rest.startswith("ffn."):
                parameter.copy_(_kept_units(state, name))
                continue
        parameter.copy_(state[name])
    return expert


def _kept_units(state: dict[str, Tensor], name: str) -> Tensor:
    """The units of a feed-forward network whose weights in and out are largest, in the shape of parameter ``name``."""
    network = name.split("ffn.")[0] + "ffn."
    size = state[network + "0.weight"].norm(dim=1) * state[network + "2.weight"].norm(dim=0)
    units = size.topk(FFN).indices.sort().values
    value = state[name]
    if name.endswith("2.weight"):
        return value[:, units]
    return value if name.endswith("2.bias") else value[units]


def train_expert(
    run: Path,
    level: str,
    expert: WanTransformer,
    transformer: WanTransformer,
    batches: Batches,
    curve: Curve,
    device: torch.device,
) -> None:
    """Train the expert for high or for low noise.

    Args:
        run: folder for its checkpoint and log.
        level: "high" or "low".
        expert: what it begins with, if there is no checkpoint.
        transformer: on ``device``; what it learns from.
        batches: of clips, with their text.
        curve: how long.
        device: of all of it.
    """
    transformer.requires_grad_(False)
    expert.to(device).requires_grad_(True)
    train(expert, PairLoss(expert, transformer, batches, level), RECIPE, run, curve, device)


class PairLoss:
    """What an expert learns from: see the top of this file."""

    def __init__(self, expert: nn.Module, teacher: nn.Module, batches: Batches, level: str) -> None:
        self._expert, self._teacher, self._batches = expert, teacher, batches
        start = BOUNDARY / (SHIFT - (SHIFT - 1) * BOUNDARY)  # where sigma is the boundary, before the shift
        self._range = (start, 1.0) if level == HIGH else (0.0, start)

    def __call__(self, step: int) -> tuple[Tensor, dict[str, float]]:
        batch = self._batches.draw(step)
        sigma = batch.levels(SHIFT, *self._range)
        noise = torch.randn_like(batch.latents)
        seen = batch.seen(noise, sigma)
        with torch.no_grad():
            taught = self._teacher(seen, 1000 * sigma, batch.text, batch.image).float()
            truth = noise - batch.latents
            target = torch.where(batch.bare.view(-1, 1, 1, 1, 1), taught, truth)
        errors = (self._expert(seen, 1000 * sigma, batch.text).float() - target).square().mean((1, 2, 3, 4))
        figures = {"taught": errors[batch.bare].mean().item(), "true": errors[~batch.bare].mean().item()}
        return errors.mean(), figures
