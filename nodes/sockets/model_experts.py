"""Wan2.2's two experts on the same socket: beside ``model.py``, for one transformer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ...wan_local.denoiser import Denoiser, pair_of
from ...wan_local.errors import InputError
from ...wan_local.lora import Lora
from ...wan_local.model import WanTransformer
from ...wan_local.parallel.setup import Setup
from ...wan_local.shapes import Grid
from .. import host
from .model import WanModel


class ExpertsModel:
    """The value on a ``WAN_FLF2V_MODEL`` wire behind Wan FLF2V Experts: each is loaded when its first step comes.

    Args:
        high, low: the two, for high and for low noise.
        boundary: share of the timesteps, 0..1, from which on ``high`` works.
        low_guidance: guidance scale of ``low``; None takes the sampler's.

    Raises:
        InputError: what is no pair of experts.
    """

    def __init__(self, high: Any, low: Any, boundary: float, low_guidance: float | None = None) -> None:
        for name, model in (("high_noise", high), ("low_noise", low)):
            if not isinstance(model, WanModel):
                raise InputError(f"{name} holds {model!r}; connect one expert, from Load Wan FLF2V Model")
            if not model.transformer.config.is_expert:
                kind = "has an image branch" if model.transformer.config.has_image_branch else "takes no images"
                raise InputError(
                    f"{name} holds a model that {kind}, which is no expert of Wan2.2; use a file of Wan2.2-I2V-A14B"
                )
        if high.transformer.config != low.transformer.config:
            raise InputError(f"high_noise is {high!r} and low_noise {low!r}; use both experts of one release")
        if high.transformer is low.transformer or _same(high.transformer, low.transformer):
            raise InputError("high_noise and low_noise hold the same weights; connect one file of each")
        self.high, self.low, self.boundary, self.low_guidance = high, low, boundary, low_guidance
        if (high.level, low.level) == ("low", "high"):
            host.notify(
                "the file names say that high_noise and low_noise are swapped, which gives a poor clip; they are used "
                "as connected"
            )

    def get_models(self) -> list[Any]:
        return [*self.high.get_models(), *self.low.get_models()]

    @property
    def transformer(self) -> WanTransformer:
        """One of the two, which have the same sizes."""
        return self.high.transformer

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Official parameter name to shape."""
        return self.high.shapes

    @property
    def device(self) -> torch.device:
        return self.high.device

    @property
    def level(self) -> str:
        """For messages: a LoRA behind it is on both."""
        return "both experts"

    @property
    def setup(self) -> Setup:
        """What both were made from, so that other GPUs can make them again.

        Raises:
            InputError: they were loaded with different options, and other GPUs take both alike.
        """
        high, low = self.high.setup, self.low.setup
        if high is None or low is None or replace(high, path="", loras=()) != replace(low, path="", loras=()):
            raise InputError("high_noise and low_noise were loaded with unlike choices; give both loaders the same")
        own = {"boundary": self.boundary, "low_guidance": self.low_guidance}
        return replace(high, low=low.path, low_loras=low.loras, **own)

    def denoisers(self, grid: Grid, batch: int = 1) -> list[Denoiser]:
        """What samples ``batch`` clips of ``grid``."""
        both = self.high.transformer_for(grid, batch), self.low.transformer_for(grid, batch)
        high, low = pair_of(*both, 1000.0 * self.boundary)
        low.guidance = self.low_guidance
        return [high, low]

    def with_lora(self, lora: Lora, strength: float) -> ExpertsModel:
        """The same with a LoRA on both."""
        both = self.high.with_lora(lora, strength), self.low.with_lora(lora, strength)
        return ExpertsModel(*both, self.boundary, self.low_guidance)

    def __repr__(self) -> str:
        return f"<two experts, the high-noise one from timestep {1000 * self.boundary:g} on, each {self.high!r}>"


def _same(high: WanTransformer, low: WanTransformer) -> bool:
    """Whether both hold the weights of one file; two that were trained differ in every parameter."""
    first, second = (each.get_parameter("blocks.0.modulation") for each in (high, low))
    return first.dtype == second.dtype and torch.equal(first.cpu(), second.cpu())
