"""The published steps, for core's own models in core's SamplerCustomAdvanced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..wan_local.progress import Progress
from ..wan_local.sampling import denoise, make_sampler, sampler_on
from ..wan_local.sampling.schedule import TRAIN_TIMESTEPS
from . import host, widgets
from .host import io


class WanFLF2VSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VSchedule",
            display_name="Wan FLF2V Schedule",
            category=widgets.ROOT,
            description="Gives core's SamplerCustomAdvanced the noise levels and the sampler that Wan was published "
            "with, for any core model of Wan.",
            inputs=[*widgets.steps(), widgets.sampler()],
            outputs=[
                io.Sampler.Output("sampler", display_name="sampler"),
                io.Sigmas.Output("sigmas", display_name="sigmas"),
            ],
        )

    @classmethod
    def execute(cls, steps: int, shift: float, sampler: str) -> io.NodeOutput:
        sigmas = make_sampler(sampler, steps, shift).sigmas
        return io.NodeOutput(host.sampler(walk(sampler)), torch.tensor(sigmas, dtype=torch.float32))


def walk(name: str) -> Callable[..., Tensor]:
    """One of our samplers as a function of the host's kind.

    The host asks its models with ``1000 * sigma`` as it is, where the published samplers cut it to a whole number; all
    else is theirs.
    """

    def sample(
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], None] | None = None,
        disable: object = None,
    ) -> Tensor:
        levels: Sequence[float] = sigmas.tolist()
        before: list[Tensor] = []

        def velocity(latents: Tensor, timestep: float) -> Tensor:
            before[:] = [latents]
            sigma = timestep / TRAIN_TIMESTEPS
            clean = model(latents, latents.new_full((len(latents),), sigma), **(extra_args or {}))
            return (latents - clean) / sigma

        def tell(progress: Progress) -> None:
            if callback is not None:
                at = progress.done - 1
                callback({"i": at, "x": before[0], "denoised": progress.x0, "sigma": levels[at]})

        return denoise(velocity, x, sampler_on(name, levels), tell) if len(levels) > 1 else x

    return sample
