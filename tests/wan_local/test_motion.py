"""The motion amplitude: the published formula, between each two images, with their colours kept."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.wan_local.test_generate import FIRST, LAST, QUICK, make_pipeline
from wan_local.conditioning import conditions
from wan_local.config import VAEConfig
from wan_local.errors import InputError
from wan_local.keyframes import Keyframe, both_ends, placed
from wan_local.memory import FittingVAE
from wan_local.motion import amplified
from wan_local.notices import listening
from wan_local.settings import Settings
from wan_local.shapes import Grid
from wan_local.vae import WanVAE

LATENTS = torch.randn(1, 16, 5, 16, 24, generator=torch.Generator().manual_seed(0))


def published(latents: torch.Tensor, amplitude: float) -> torch.Tensor:
    """PainterFLF2V's steps one by one, a latent frame and a channel at a time."""
    total = latents.shape[2]
    result = latents.clone()
    for t in range(total):
        share = t / (total - 1)
        difference = latents[0, :, t] - ((1 - share) * latents[0, :, 0] + share * latents[0, :, -1])
        for channel in range(latents.shape[1]):
            blocks = difference[channel].unfold(0, 8, 8).unfold(1, 8, 8).mean((-2, -1))
            coarse = F.interpolate(blocks[None, None], size=difference.shape[-2:], mode="bilinear")[0, 0]
            result[0, channel, t] += 4 * (amplitude - 1) * (difference[channel] - coarse)
    return result


def test_between_first_and_last_it_is_the_published_formula() -> None:
    found = amplified(LATENTS, {0, 4}, 1.3)
    assert torch.allclose(found, published(LATENTS, 1.3), atol=1e-5)
    assert torch.equal(found[:, :, [0, 4]], LATENTS[:, :, [0, 4]])
    assert not torch.allclose(found, LATENTS, atol=0.1)
    assert torch.equal(amplified(LATENTS, {0, 4}, 1.0), LATENTS)


def test_it_does_not_matter_whether_latents_are_normalised() -> None:
    mean, std = torch.randn(1, 16, 1, 1, 1), torch.rand(1, 16, 1, 1, 1) + 0.5
    assert torch.allclose(
        amplified(LATENTS * std + mean, {0, 4}, 1.3), amplified(LATENTS, {0, 4}, 1.3) * std + mean, atol=1e-4
    )


def test_each_pair_of_images_by_itself_and_nothing_outside() -> None:
    found = amplified(LATENTS, {1, 3}, 1.5)
    assert torch.equal(found[:, :, [0, 1, 3, 4]], LATENTS[:, :, [0, 1, 3, 4]])
    assert torch.allclose(found[:, :, 1:4], published(LATENTS[:, :, 1:4], 1.5), atol=1e-5)


def test_colours_stay() -> None:
    """Latents without structure, as those of plain colours, are left alone."""
    flat = torch.randn(1, 16, 5, 1, 1).expand(1, 16, 5, 16, 24)
    assert torch.allclose(amplified(flat, {0, 4}, 2.0), flat, atol=1e-5)


def test_the_condition_has_it_and_the_mask_stays() -> None:
    torch.manual_seed(0)
    vae = FittingVAE(WanVAE(VAEConfig(dim=4, num_res_blocks=1)).eval())
    grid = Grid(frames=17, height=32, width=48)
    given = placed([*both_ends(FIRST, LAST), Keyframe(images=FIRST[None], frame=8)], 17)
    off, on = (conditions(vae, given, grid, motion=motion).each for motion in (1.0, 1.4))
    assert torch.equal(on[:, :4], off[:, :4])
    assert torch.equal(on[:, 4:], amplified(off[:, 4:], {0, 2, 4}, 1.4))
    told: list[str] = []
    with listening(told.append):
        alone = placed(both_ends(FIRST, None), 17)
        assert torch.equal(conditions(vae, alone, grid, motion=1.4).each, conditions(vae, alone, grid).each)
        unseen = placed([*both_ends(FIRST, None), Keyframe(images=LAST[None], frame=-1, strength=0.0)], 17)
        assert torch.equal(conditions(vae, unseen, grid, motion=1.4).each, conditions(vae, alone, grid).each)
    assert told == ["motion=1.4 acts between two images, and one is given; it changes nothing"] * 2


def test_a_pipeline_uses_it_and_a_value_outside_is_refused() -> None:
    pipeline = make_pipeline()
    quick = {**QUICK, "length": 9, "steps": 1, "guidance": 1.0}
    off, one, on = (
        pipeline.generate(FIRST, LAST, "a disc", Settings(**quick, **more)).latents
        for more in ({}, {"motion": 1.0}, {"motion": 1.3})
    )
    assert torch.equal(off, one)
    assert not torch.allclose(off, on, atol=1e-4)
    for value in (0.9, 2.5, float("nan")):
        with pytest.raises(InputError, match=r"motion=.* can't be used; give a number from 1 to 2"):
            Settings(motion=value)
