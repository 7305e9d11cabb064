"""Wan2.2's two experts on the same socket: beside ``model.py``, for one transformer."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

from ...wan_local.approximations import named
from ...wan_local.denoiser import Denoiser, pair_of
from ...wan_local.errors import InputError
from ...wan_local.lora import Lora
from ...wan_local.model import WanTransformer
from ...wan_local.parallel.setup import Setup
from ...wan_local.shapes import Grid
from ...wan_local.weights.experts import TOLD_BY, same_weights, timestep_of
from .. import host
from .model import WanModel
from .model_speed import Approximated


class ExpertsModel(Approximated):
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
        if same_weights(*(model.parameter(TOLD_BY) for model in (high, low))):
            raise InputError("high_noise and low_noise hold the same weights; connect one file of each")
        if high.approximations != low.approximations:
            raise InputError(
                f"high_noise runs {named(high.approximations)} and low_noise {named(low.approximations)}; connect Wan "
                "FLF2V Speed behind Wan FLF2V Experts, where it is for both"
            )
        self.high, self.low, self.boundary, self.low_guidance = high, low, boundary, low_guidance
        self.approximations = high.approximations
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
    def named(self) -> str | None:
        """As of one model, for both and what is between them."""
        both = self.high.named, self.low.named
        return None if None in both else f"{both} {self.boundary} {self.low_guidance}"

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
        both = (each.with_approximations(self.approximations) for each in (self.high, self.low))  # which take room
        return pair_of(*(each.transformer_for(grid, batch) for each in both), self.boundary, self.low_guidance)

    def with_lora(self, lora: Lora, strength: float) -> ExpertsModel:
        """The same with a LoRA on both."""
        changed = copy.copy(self)
        changed.high, changed.low = (each.with_lora(lora, strength) for each in (self.high, self.low))
        return changed

    def __repr__(self) -> str:
        return f"<two experts, the high-noise one from timestep {timestep_of(self.boundary):g} on, each {self.high!r}>"
