"""Long clips, keyframes and chains as a person asks for them, made with whatever models are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from tests.wan_local.test_generate import make_pipeline
from wan_local.chain import Chain, segments_of
from wan_local.config import TransformerConfig
from wan_local.denoiser import Denoiser
from wan_local.keyframes import Keyframe
from wan_local.longer import Longer
from wan_local.settings import Settings

WAYS = {
    "a keyframe": Longer(),
    "RIFLEx": Longer(way="riflex"),
    "windows": Longer(way="windows", window=9, overlap=4),
}
LENGTH = 25  # 7 latent frames, one more than a turn of these heads' fastest pair: RIFLEx acts; of 3 tokens each


def image(seed: int) -> Tensor:
    return torch.rand(3, 16, 48, generator=torch.Generator().manual_seed(seed))


def made(denoisers: Sequence[Denoiser], config: TransformerConfig, guidance: float = 4.0) -> dict[str, Tensor]:
    """Frames ``[F, H, W, 3]`` of a clip with an image in the middle in every way, and of a chain in windows."""
    pipeline = make_pipeline(**asdict(config))
    pipeline.denoisers = tuple(denoisers)
    middle = Keyframe(images=image(3)[None], frame=12, strength=0.9, low_noise_strength=0.4)
    found = {}
    for way, longer in WAYS.items():
        settings = Settings(length=LENGTH, steps=2, seed=7, guidance=guidance, shift=5.0, longer=longer)
        sampled = pipeline.generate(image(1), image(2), "a disc", settings, keyframes=[middle])
        found[way] = pipeline.decode(sampled)
    settings = Settings(length=13, steps=2, seed=7, guidance=guidance, shift=5.0, longer=WAYS["windows"])
    chain = Chain(pipeline, segments_of([image(1), image(2), image(3)], ["a disc", "a square"]), settings)
    found["a chain"] = torch.cat(list(chain.decode_stream(chain.sample())))
    return found


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Largest difference of a value of 0..1, by what was made."""
    return {what: (each - expected[what]).abs().max().item() for what, each in found.items()}


def between(found: dict[str, Tensor]) -> list[float]:
    """How far the clip is from the one without its way, of each way that is one."""
    return list(
        worst({way: found[way] for way in ("RIFLEx", "windows")}, dict.fromkeys(WAYS, found["a keyframe"])).values()
    )
