"""Names, shapes and number of parameters, against diffusers and against the official code's own table."""

from __future__ import annotations

import pytest
import torch

from wan_local.config import WAN_FLF2V_14B, TransformerConfig
from wan_local.model import WanTransformer


def official_table(dim, ffn_dim, layers, *, in_dim, image, positions) -> dict[str, tuple[int, ...]]:
    """Every parameter of the official WanModel, by rule. Source: the constructors of wan/modules/model.py."""
    table: dict[str, tuple[int, ...]] = {}

    def linear(name: str, wide_in: int, wide_out: int) -> None:
        table[f"{name}.weight"] = (wide_out, wide_in)
        table[f"{name}.bias"] = (wide_out,)

    def norm(name: str, width: int) -> None:
        table[f"{name}.weight"] = (width,)
        table[f"{name}.bias"] = (width,)

    table["patch_embedding.weight"] = (dim, in_dim, 1, 2, 2)
    table["patch_embedding.bias"] = (dim,)
    linear("text_embedding.0", 4096, dim)
    linear("text_embedding.2", dim, dim)
    linear("time_embedding.0", 256, dim)
    linear("time_embedding.2", dim, dim)
    linear("time_projection.1", dim, 6 * dim)
    for index in range(layers):
        block = f"blocks.{index}"
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                linear(f"{block}.{attention}.{part}", dim, dim)
            for part in "qk":
                table[f"{block}.{attention}.norm_{part}.weight"] = (dim,)
        if image:
            linear(f"{block}.cross_attn.k_img", dim, dim)
            linear(f"{block}.cross_attn.v_img", dim, dim)
            table[f"{block}.cross_attn.norm_k_img.weight"] = (dim,)
        norm(f"{block}.norm3", dim)
        linear(f"{block}.ffn.0", dim, ffn_dim)
        linear(f"{block}.ffn.2", ffn_dim, dim)
        table[f"{block}.modulation"] = (1, 6, dim)
    linear("head.head", dim, 64)
    table["head.modulation"] = (1, 2, dim)
    if image:
        norm("img_emb.proj.0", 1280)
        linear("img_emb.proj.1", 1280, 1280)
        linear("img_emb.proj.3", 1280, dim)
        norm("img_emb.proj.4", dim)
    if positions:
        table["img_emb.emb_pos"] = (1, 514, 1280)
    return table


def on_meta(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = WanTransformer(config)
    parameters = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert parameters.keys() == model.state_dict().keys(), "buffers in the state dict"
    return parameters


def count(table: dict[str, tuple[int, ...]]) -> int:
    return sum(torch.Size(shape).numel() for shape in table.values())


B14 = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40}
NO_IMAGE = {"in_dim": 16, "image_dim": 0, "image_tokens": 0}
B1 = {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30}
# The counts are those of the official class, built once on the meta device.
RELEASED = {
    "FLF2V-14B": (WAN_FLF2V_14B, 36, True, True, 16_395_536_704),
    "I2V-14B": (TransformerConfig(**B14, image_tokens=0), 36, True, False, 16_394_878_784),
    "T2V-14B": (
        TransformerConfig(**B14, **NO_IMAGE),
        16,
        False,
        False,
        14_288_491_584,
    ),
    "T2V-1.3B": (
        TransformerConfig(**B1, **NO_IMAGE),
        16,
        False,
        False,
        1_418_996_800,
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes_have_the_official_parameters(name):
    config, in_dim, image, positions, number = RELEASED[name]
    ours = on_meta(config)
    expected = official_table(
        config.dim, config.ffn_dim, config.num_layers, in_dim=in_dim, image=image, positions=positions
    )
    print(f"{name}: {len(ours)} parameter tensors, {count(ours):,} values")
    assert ours == expected
    assert count(ours) == number


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes_have_diffusers_parameters_under_official_names(lab, name):
    config = RELEASED[name][0]
    with torch.device("meta"):
        theirs = lab.theirs_like(config)
    assert {lab.official_name(key): tuple(value.shape) for key, value in theirs.named_parameters()} == on_meta(config)


def test_the_14b_runs_on_the_meta_device_at_full_size():
    """Shapes of a real 1280x720x81 forward: nothing is hard-coded, nothing is allocated."""
    with torch.device("meta"):
        model = WanTransformer(TransformerConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=2))
        velocity = model(
            torch.empty(1, 36, 21, 90, 160),
            torch.empty(1),
            torch.empty(1, 512, 4096),
            torch.empty(1, 514, 1280),
        )
    assert velocity.shape == (1, 16, 21, 90, 160)
    assert velocity.dtype == torch.float32


def test_a_model_built_on_meta_and_filled_by_assignment_is_the_same_model(lab):
    built = lab.build(lab.tiny("flf"))
    with torch.device("meta"):
        filled = WanTransformer(built.config)
    filled.load_state_dict(built.state_dict(), strict=True, assign=True)
    given = lab.inputs(built.config, text_rows=5)
    with torch.no_grad():
        assert torch.equal(lab.ask(filled.eval(), given), lab.ask(built, given))
