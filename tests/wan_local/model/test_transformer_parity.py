"""Ours against diffusers' WanTransformer3DModel on the same weights, float32."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed, WanTransformerBlock

from wan_local.attention import choose
from wan_local.config import TransformerConfig
from wan_local.model.blocks import Block, Context
from wan_local.model.rope import rope_table

BOUND = 1e-5
# latent frames of 1, 5, 9, 17, 33 and 81 video frames; landscape, portrait and square
SIZES = [(1, 4, 6), (2, 6, 4), (3, 4, 6), (5, 8, 4), (9, 4, 4), (21, 2, 4)]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", ["flf", "i2v", "t2v"])
def test_velocity_equals_diffusers(lab, kind, batch):
    ours, theirs = lab.pair(lab.tiny(kind))
    for size in SIZES:
        given = lab.inputs(ours.config, batch=batch, size=size)
        with torch.no_grad():
            got, expected = lab.ask(ours, given), lab.ask_theirs(theirs, given)
        largest, l2 = lab.errors(got, expected)
        print(f"parity {kind} batch {batch} latents {size}: max {largest:.1e} L2 {l2:.1e}")
        assert got.shape == (batch, 16, *size)
        assert largest <= BOUND
        assert l2 <= BOUND


@pytest.mark.parametrize("kind", ["flf", "i2v", "t2v"])
def test_velocity_equals_untouched_diffusers_where_its_sinusoid_is_exact(lab, kind):
    """At small timesteps float32 angles are good enough; at 999 diffusers' own error shows and is bounded."""
    ours, theirs = lab.pair(lab.tiny(kind), exact_time=False)
    for timestep, bound in ((0.0, BOUND), (1.0, BOUND), (999.0, 1e-4)):
        given = lab.inputs(ours.config, size=(3, 4, 6))
        given.timestep = torch.tensor([timestep])
        with torch.no_grad():
            largest, l2 = lab.errors(lab.ask(ours, given), lab.ask_theirs(theirs, given))
        print(f"parity {kind} untouched diffusers timestep {timestep}: max {largest:.1e} L2 {l2:.1e}")
        assert max(largest, l2) <= bound


@pytest.mark.parametrize("patch_size", [(1, 2, 2), (2, 2, 4)])
def test_velocity_equals_diffusers_at_head_width_128_and_another_patch(lab, patch_size):
    sizes = {"dim": 256, "num_heads": 2, "num_layers": 2, "patch_size": patch_size}
    ours, theirs = lab.pair(lab.tiny("flf", **sizes))
    given = lab.inputs(ours.config, batch=2, size=(4, 8, 12))
    with torch.no_grad():
        largest, l2 = lab.errors(lab.ask(ours, given), lab.ask_theirs(theirs, given))
    print(f"parity head width 128 patch {patch_size}: max {largest:.1e} L2 {l2:.1e}")
    assert max(largest, l2) <= BOUND


def test_one_block_at_the_real_width_equals_diffusers(lab):
    """5120 wide, 40 heads, 13824 inside: 404 million weights, shared between the two and not copied."""
    config = TransformerConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=1)
    with torch.device("meta"):
        theirs = WanTransformerBlock(5120, 13824, 40, cross_attn_norm=True, added_kv_proj_dim=5120)
        ours = Block(config, torch.nn)
    theirs = lab.sharpen(theirs.to_empty(device="cpu")).eval()
    weights = {lab.official_block_name(name): value for name, value in theirs.state_dict().items()}
    ours.load_state_dict(weights, assign=True)
    grid = (2, 2, 3)
    x, time = 3 * torch.randn(1, 12, 5120), torch.randn(1, 6, 5120)
    text, image = torch.randn(1, 512, 5120), torch.randn(1, 10, 5120)
    context = Context(
        time=time,
        text=text,
        image=image,
        rope=rope_table(grid, 128, x.device),
        dtype=torch.float32,
        attend=choose("sdpa"),
    )
    with torch.no_grad():
        rope = WanRotaryPosEmbed(128, (1, 2, 2), 1024)(torch.empty(1, 1, 2, 4, 6))
        expected = theirs(x, torch.cat((image, text), 1), time, rope)
        got = ours(x.clone(), context)
        update = lab.errors(got - x, expected - x)
    largest, l2 = lab.errors(got, expected)
    print(f"parity one block 5120 x 40 x 13824: max {largest:.1e} L2 {l2:.1e}, update {update[1]:.1e}")
    assert max(largest, l2, *update) <= BOUND


def test_every_weight_changes_the_velocity(lab):
    """A parity test on weights that do not matter would prove nothing: nudge each, see the output move."""
    model = lab.build(lab.tiny("flf", num_layers=1))
    given = lab.inputs(model.config, text_rows=9)
    with torch.no_grad():
        before = lab.ask(model, given)
        # A constant added to every key leaves a softmax as it was, were it not for the norm behind it.
        for name, parameter in model.named_parameters():
            kept = parameter.clone()
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
            moved = lab.errors(lab.ask(model, given), before)[1]
            parameter.copy_(kept)
            assert moved > 1e-4, f"{name} moves the velocity by {moved:.1e} only"
