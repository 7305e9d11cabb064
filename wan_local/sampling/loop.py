"""The sampling loop: ask for a velocity, take a step, tell how far it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import NumericError
from ..progress import OnProgress, Progress, ignore
from .guidance import Velocity
from .samplers.base import Sampler


def denoise(
    velocity: Velocity,
    noise: Tensor,
    sampler: Sampler,
    on_progress: OnProgress = ignore,
    before_step: Callable[[int], None] | None = None,
) -> Tensor:
    """Walk from noise to clean latents.

    Args:
        velocity: what each step asks, see :func:`wan_local.denoiser.velocity_of`.
        noise: ``[B, C, T, h, w]`` float32.
        sampler: a fresh one, or one whose run has ended.
        on_progress: called after every step with the clean estimate at that step; may raise to stop the run.
        before_step: called with the number of every step, from 0, before the model is asked.

    Returns:
        latents in model space, ``[B, C, T, h, w]`` float32.

    Raises:
        NumericError: the model gave NaN or infinity, naming the step.
    """
    latents = noise.float()
    for i, timestep in enumerate(sampler.timesteps):
        if before_step is not None:
            before_step(i)
        v = velocity(latents, timestep).float()
        if not torch.isfinite(v).all():
            raise NumericError(
                f"step {i + 1} of {sampler.num_steps}: the model gave NaN or infinity at timestep {timestep:g}; "
                "try another dtype or attention, or download its weights again"
            )
        x0 = latents - sampler.sigmas[i] * v
        latents = sampler.step(latents, v, i)
        on_progress(Progress(stage="sample", done=i + 1, total=sampler.num_steps, x0=x0))
    return latents
