"""Noise to latents, under two prompts and two images."""

from __future__ import annotations

import time
from typing import Any

from ..wan_local.approximations import NOTHING
from ..wan_local.denoiser import approximated_run, needs_negative, velocity_of
from ..wan_local.longer import OVERLAP, PLAIN, WINDOW, Longer
from ..wan_local.progress import Progress
from ..wan_local.sampling import denoise, initial_noise, lengthened, make_sampler
from ..wan_local.words import counted
from . import host, run_speed, widgets
from .host import io
from .progress import Reporter, ending
from .sockets.conditioning import latent_rgb, read
from .sockets.latent import clip_of, sampled
from .sockets.model import Model, WanModel


class WanFLF2VSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VSampler",
            display_name="Wan FLF2V Sampler",
            category=widgets.ROOT,
            description="Samples a clip between two images with Wan2.1's own flow-matching samplers.",
            inputs=[
                Model.Input("model", tooltip="From Load Wan FLF2V Model or Pipeline."),
                io.Conditioning.Input(
                    "positive", tooltip="From Wan FLF2V Conditioning or core's WanFirstLastFrameToVideo."
                ),
                io.Conditioning.Input("negative", tooltip="From the same node. Not used at guidance 1."),
                io.Latent.Input("latent", tooltip="From the same node. Gives the size; its content is not used."),
                *widgets.sampling(),
                *widgets.longer(),
            ],
            outputs=[io.Latent.Output("latent", display_name="latent")],
        )

    @classmethod
    @ending()
    def execute(
        cls,
        model: WanModel,
        positive: Any,
        negative: Any,
        latent: dict[str, Any],
        seed: int,
        steps: int,
        guidance: float,
        shift: float,
        sampler: str,
        longer: str = PLAIN,
        window: int = WINDOW,
        overlap: int = OVERLAP,
    ) -> io.NodeOutput:
        config, way = model.transformer.config, Longer(way=longer, window=window, overlap=overlap)
        size, batch = clip_of(latent, config)
        grid = way.grid(size)
        denoisers = model.denoisers(grid, batch)
        prompts = {"positive": positive, "negative": negative}
        if not needs_negative(denoisers, guidance, model.approximations):
            del prompts["negative"]
        conds = [read(given, name, config, grid.latent_shape).to(model.device) for name, given in prompts.items()]
        widgets.tell_of_mistaken_values(config, guidance, shift)
        began, report = time.perf_counter(), Reporter({"sample": 1.0}, model.device, latent_rgb(positive))
        report(Progress(stage="sample", done=0, total=steps))  # the first step may take long
        conds, noise = lengthened(way, conds, initial_noise(grid, config.out_dim, seed, batch), config, seed)
        solver = make_sampler(sampler, steps, shift)
        run = approximated_run(model.approximations, solver, denoisers)
        latents = denoise(
            velocity_of(denoisers, conds, guidance, approximated=run),
            noise.to(model.device),
            solver,
            report if run is None else run.telling(report),
        )
        about = NOTHING if run is None else run.told()
        text = (
            f"latent of {counted(grid.frames, 'frame')} of {grid.width}x{grid.height}, seed {seed}, "
            f"{counted(steps, 'step')} of {sampler}; sampled in {time.perf_counter() - began:.0f} s; {about}"
        )
        pace = run_speed.told(model, grid, guidance, report.step_seconds, about, batch)
        host.show_text("\n".join(filter(None, (text, pace))))
        return io.NodeOutput(sampled(host.denormalise_latents(latents).to(host.result_device()), about))
