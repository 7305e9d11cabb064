"""A model whose runs calculate less than everything."""

from __future__ import annotations

from typing import Any

from ..wan_local.approximations import PRESETS, SKIPS, approximations_of, named
from ..wan_local.approximations.options import KERNELS, MAX_NAG, MAX_SPARSE, MAX_THRESHOLD, MOST_IN_A_ROW, MOST_REUSE
from . import host, widgets
from .host import io
from .sockets.model import Model, WanModel

OF_PRESET, AS_PRESET = "preset", -1.0  # what stands for the preset's own value
MODELS_OWN = "the loader's"


class WanFLF2VSpeed(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VSpeed",
            display_name="Wan FLF2V Speed",
            category=widgets.ROOT,
            description="Saves time by calculating less exactly, at a price that was measured. The sampler and the "
            "saved video say what was done.",
            inputs=[
                Model.Input("model", tooltip="From a loader, or any node behind one; of Wan2.2 behind Experts."),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="balanced",
                    tooltip="exact calculates everything. balanced skips every second step of the middle, fast two of "
                    "three. On the bundled model, 50 steps: balanced 66 forwards of 100, 76 dB to the exact clip, "
                    "ends 0.00 dB lower; fast 54 forwards of 100, 67 dB to the exact clip, ends 0.00 dB lower.",
                ),
                *_skipping(),
                *_guiding(),
                *_attending(),
            ],
            outputs=[Model.Output("model", display_name="model")],
        )

    @classmethod
    def execute(
        cls,
        model: WanModel,
        preset: str,
        skip: str = OF_PRESET,
        skip_in_a_row: int = 0,
        skip_threshold: float = 0.0,
        guidance_reuse: int = 0,
        guidance_highest: float = 1.0,
        guidance_lowest: float = 0.0,
        cfg_zero: bool = False,
        nag: float = 0.0,
        sparse: float = AS_PRESET,
        attention: str = MODELS_OWN,
    ) -> io.NodeOutput:
        chosen = approximations_of(
            preset,
            skip=None if skip == OF_PRESET else skip,
            skip_in_a_row=skip_in_a_row or None,
            skip_threshold=skip_threshold or None,
            guidance_reuse=guidance_reuse or None,
            guidance_highest=guidance_highest,
            guidance_lowest=guidance_lowest,
            cfg_zero=cfg_zero,
            nag=nag,
            sparse=None if sparse == AS_PRESET else sparse,
            attention="" if attention == MODELS_OWN else attention,
        )
        host.show_text(named(chosen))
        return io.NodeOutput(model.with_approximations(chosen))


def _skipping() -> list[Any]:
    """Steps without a forward."""
    return [
        io.Combo.Input(
            "skip",
            options=[OF_PRESET, *SKIPS],
            default=OF_PRESET,
            optional=True,
            tooltip="Steps of the middle without a forward: by a list, by easycache while the latents move little, "
            "by magcache's curve. Never the first fifth, nor below sigma 0.65. On the bundled model easycache 36 "
            "forwards of 100, 47 dB; magcache 52, 64 dB.",
        ),
        io.Int.Input(
            "skip_in_a_row",
            default=0,
            min=0,
            max=MOST_IN_A_ROW,
            optional=True,
            tooltip="Of list and magcache: most steps skipped one after the other. 0 takes the preset's, or "
            "what is usual: 1 and 2.",
        ),
        io.Float.Input(
            "skip_threshold",
            default=0.0,
            min=0.0,
            max=MAX_THRESHOLD,
            step=0.01,
            optional=True,
            tooltip="Of easycache and magcache: error up to which they go on skipping. 0 takes what is usual: "
            "0.2 and 0.12.",
        ),
    ]


def _guiding() -> list[Any]:
    """Less of guidance, or another kind of it."""
    return [
        io.Int.Input(
            "guidance_reuse",
            default=0,
            min=0,
            max=MOST_REUSE,
            optional=True,
            tooltip="Ask the model under the negative prompt in every n-th step of the middle only; not with skip. "
            "1 is every step, 0 the preset's. With 2: Price on the bundled model, 50 steps: 82 forwards of 100, 67 "
            "dB to the exact clip, ends 0.01 dB lower.",
        ),
        io.Float.Input(
            "guidance_highest",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip="No guidance while there is more noise than this sigma: one forward a step. With 0.99: Price on "
            "the bundled model, 50 steps: 93 forwards of 100, 65 dB to the exact clip, ends -0.01 dB lower.",
        ),
        io.Float.Input(
            "guidance_lowest",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip="No guidance while there is less noise than this sigma: one forward a step. With 0.65: Price on "
            "the bundled model, 50 steps: 95 forwards of 100, 47 dB to the exact clip, ends -0.09 dB lower.",
        ),
        io.Boolean.Input(
            "cfg_zero",
            default=False,
            optional=True,
            tooltip="CFG-Zero*: the negative prompt is scaled to fit before it is taken away, and the first "
            "twenty-fifth of the steps does nothing. Price on the bundled model, 50 steps: 96 forwards of 100, 65 "
            "dB to the exact clip, ends 0.00 dB lower.",
        ),
        io.Float.Input(
            "nag",
            default=0.0,
            min=0.0,
            max=MAX_NAG,
            step=0.1,
            optional=True,
            tooltip="The negative prompt at guidance 1, inside the attention to the text. 11 was published "
            "for Wan, 0 is none. Price: slower forwards; ends 0.06 dB lower than without.",
        ),
    ]


def _attending() -> list[Any]:
    """Attention that is not exact."""
    return [
        io.Float.Input(
            "sparse",
            default=AS_PRESET,
            min=AS_PRESET,
            max=MAX_SPARSE,
            step=0.1,
            optional=True,
            tooltip="Sparse attention of clips from 12,288 tokens on, in all steps but the first fifth: tau, "
            "how many deviations above the mean a block must score to be read in full, such as 1. Given images "
            "stay exact. Needs comfy-kitchen and an NVIDIA GPU from Ampere on. 0 is none, -1 the preset's. "
            "Its price on Wan was not measured.",
        ),
        io.Combo.Input(
            "attention",
            options=[MODELS_OWN, *KERNELS],
            default=MODELS_OWN,
            optional=True,
            tooltip="8-bit attention in the place of what the loader was told: SageAttention, or "
            "comfy-kitchen's int8 attention. Either must be installed, and needs an NVIDIA GPU. Its price on "
            "Wan was not measured.",
        ),
    ]
