"""Other ways of guidance: CFG-Zero*, reuse, an interval, and normalized attention guidance."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.guiders import ClassifierFreeZeroStarGuidance
from torch import Tensor

from wan_local.approximations.cfg_zero import combine_scaled, steps_at_rest
from wan_local.approximations.guidance_reuse import GuidanceReuse
from wan_local.config import TransformerConfig
from wan_local.model import WanTransformer
from wan_local.model.nag import ALPHA, TAU, Nag, away_from

CONFIG = TransformerConfig(
    dim=24, ffn_dim=32, num_heads=2, num_layers=2, text_dim=12, freq_dim=16, image_dim=16, image_tokens=10, text_len=8
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_cfg_zero_is_that_of_diffusers() -> None:
    cond, uncond = random(2, 4, 3, 2, 2), random(2, 4, 3, 2, 2, seed=1)
    guider = ClassifierFreeZeroStarGuidance(guidance_scale=5.5, zero_init_steps=0)
    guider.set_state(step=5, num_inference_steps=50, timestep=torch.tensor(900))
    given = guider.forward(cond, uncond)
    expected = given[0] if isinstance(given, tuple) else given.pred  # a plain tuple before diffusers 0.36
    assert torch.allclose(combine_scaled(cond, uncond, 5.5), expected, atol=1e-5)
    assert torch.allclose(combine_scaled(cond, 0.5 * cond, 5.5), cond, atol=1e-5), "only the length of uncond differs"
    assert [steps_at_rest(steps) for steps in (4, 20, 40, 50)] == [0, 1, 2, 2]


def test_reuse_takes_away_what_was_taken_away_last() -> None:
    asked: list[int] = []

    def ask(count: int) -> list[Tensor]:
        asked.append(count)
        return [torch.tensor(10.0 + len(asked)), torch.tensor(4.0)][:count]

    reuse = GuidanceReuse(3)
    found = [reuse.sides(ask, 2, may) for may in (True, True, True, True, True, False, True)]
    assert asked == [2, 1, 1, 2, 1, 2, 1]
    assert [float(cond - uncond) for cond, uncond in found] == [7.0, 7.0, 7.0, 10.0, 10.0, 12.0, 12.0]
    reuse.sides(ask, 1, True)  # no guidance here: what was taken away before is too old
    reuse.sides(ask, 2, True)
    assert asked[-2:] == [1, 2]


def test_nag_moves_away_and_keeps_the_length_in_bounds() -> None:
    z, other = random(1, 3, 8), random(1, 3, 8, seed=1)
    assert torch.allclose(away_from(z, z, 11.0), z, atol=1e-6)
    moved = 2.0 * z - other
    short = away_from(z, other, 1.0 + 1e-3)
    assert torch.allclose(short, z, atol=1e-2)
    length, new = z.abs().sum(-1), moved.abs().sum(-1)
    assert (new < TAU * length).all(), "this case is not held back"
    assert torch.allclose(away_from(z, other, 2.0), ALPHA * moved + (1 - ALPHA) * z, atol=1e-6)
    far = (away_from(z, other, 1000.0) - (1 - ALPHA) * z) / ALPHA
    assert torch.allclose(far.abs().sum(-1), TAU * length, rtol=1e-4)


@pytest.fixture(scope="module")
def model() -> WanTransformer:
    torch.manual_seed(0)
    model = WanTransformer(CONFIG).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def test_nag_is_inside_the_attention_to_the_text(model: WanTransformer) -> None:
    latents, time = random(1, 36, 3, 4, 4), torch.tensor([700.0])
    text, other, image = random(1, 8, 12, seed=1), random(1, 8, 12, seed=2), random(1, 10, 16, seed=3)
    plain = model(latents, time, text, image)
    assert torch.allclose(model(latents, time, text, image, nag=Nag(text=text, scale=11.0)), plain, atol=1e-5)
    nag = Nag(text=other, scale=11.0)
    moved = model(latents, time, text, image, nag=nag)
    assert not torch.allclose(moved, plain, atol=1e-2)


@torch.no_grad()
def test_nag_is_what_the_output_layer_of_that_attention_gets(model: WanTransformer) -> None:
    """In a model without images, where nothing else is added."""
    plain = WanTransformer(replace(CONFIG, image_dim=0, image_tokens=0)).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    text, other = random(1, 8, 12, seed=1), random(1, 8, 12, seed=2)
    got: list[Tensor] = []
    plain.blocks[0].cross_attn.o.register_forward_pre_hook(lambda _, inputs: got.append(inputs[0].clone()))
    for prompt, nag in ((text, None), (other, None), (text, Nag(text=other, scale=11.0))):
        plain(random(1, 36, 3, 4, 4), torch.tensor([700.0]), prompt, None, nag=nag)
    assert torch.allclose(got[2], away_from(got[0], got[1], 11.0), atol=1e-5)
