"""Rotary embedding: how channels are split, in what precision, and where it is applied."""

from __future__ import annotations

import pytest
import torch

from wan_local.attention import choose
from wan_local.model.blocks import Context
from wan_local.model.rope import apply_rope, axis_pairs, rope_table


def test_head_width_128_is_split_44_42_42():
    assert tuple(2 * pairs for pairs in axis_pairs(128)) == (44, 42, 42)


@pytest.mark.parametrize("head_dim", [8, 32, 64, 96, 128])
def test_time_takes_what_thirds_leave_over(head_dim):
    t, h, w = axis_pairs(head_dim)
    assert t + h + w == head_dim // 2
    assert h == w == head_dim // 6
    assert t - h in (0, 1, 2)


def test_each_channel_turns_with_its_own_axis():
    """Move one token along one axis: that axis' channels change, and only those."""
    table = rope_table((3, 3, 3), 128, torch.device("cpu"))[:, 0]
    turned = {axis: table[step] != table[0] for axis, step in {"time": 9, "height": 3, "width": 1}.items()}
    assert [int(where.sum()) for where in turned.values()] == [22, 21, 21]
    assert turned["time"][:22].all()
    assert turned["height"][22:43].all()
    assert turned["width"][43:].all()


def test_table_is_built_in_float64(lab):
    """At position 159 a float32 angle is off by up to 8e-6, a bfloat16 one by 0.5; ours by a rounding."""
    grid = (2, 3, 160)
    table = rope_table(grid, 128, torch.device("cpu"))[:, 0]
    angle = lab.angles(grid, 128)
    error = (table - torch.polar(torch.ones_like(angle), angle)).abs().max().item()
    print(f"rope table against float64: {error:.1e}")
    assert table.dtype == torch.complex64
    assert error < 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_turning_is_done_in_float32(lab, dtype):
    grid = (2, 3, 5)
    x = torch.randn(2, 30, 4, 32).to(dtype)
    got = apply_rope(x, rope_table(grid, 32, x.device))
    assert got.dtype == torch.float32
    assert lab.errors(got, lab.rotate(x.double(), lab.angles(grid, 32)))[0] < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_what_is_turned_is_only_overwritten_where_it_may_be(dtype):
    x, table = torch.randn(2, 30, 4, 32).to(dtype), rope_table((2, 3, 5), 32, torch.device("cpu"))
    before = x.clone()
    got = apply_rope(x, table)
    assert torch.equal(x, before)
    assert torch.equal(apply_rope(x, table, in_place=True), got)


def test_rope_comes_after_the_norm_over_the_full_width(lab):
    """Queries and keys that reach the kernel, against float64 by hand; wrong orders must be far off."""
    model = lab.build(lab.tiny("flf", num_layers=1))
    seen = []

    def spy(q, k, v):
        seen.append((q, k))
        return choose("sdpa")(q, k, v)

    model.attend = spy
    attention = model.blocks[0].self_attn
    entering = []
    attention.q.register_forward_pre_hook(lambda module, args: entering.append(args[0]))
    grid = (2, 2, 3)
    with torch.no_grad():
        lab.ask(model, lab.inputs(model.config, batch=2, size=(2, 4, 6), text_rows=5))
    turn = lab.angles(grid, model.config.head_dim)
    for part, got in zip("qk", seen[0], strict=True):
        weight = {name: value.double() for name, value in attention.state_dict().items()}
        x = entering[0].double() @ weight[f"{part}.weight"].T + weight[f"{part}.bias"]  # [B, L, D]
        gain = weight[f"norm_{part}.weight"]

        def normed(value):
            return value / (value.square().mean(-1, keepdim=True) + 1e-6).sqrt()

        def heads(value):
            return value.unflatten(-1, (3, -1))

        right = lab.rotate(heads(normed(x) * gain), turn)  # noqa: B023
        per_head = lab.rotate(normed(heads(x)) * heads(gain), turn)
        rope_first = heads(normed(lab.rotate(heads(x), turn).flatten(2)) * gain)
        assert lab.errors(got, right)[0] < 1e-5
        assert lab.errors(got, per_head)[1] > 1e-2
        assert lab.errors(got, rope_first)[1] > 1e-2


def test_cross_attention_is_not_rotated(lab):
    """Video tokens read text and images without positions: the queries do not depend on the table."""
    model = lab.build(lab.tiny("flf", num_layers=1))
    x, cross = torch.randn(1, 12, 96), model.blocks[0].cross_attn

    def ask(grid):
        context = Context(
            time=torch.zeros(1, 6, 96),
            text=torch.ones(1, 5, 96).cumsum(1),
            image=torch.ones(1, 4, 96).cumsum(1),
            rope=rope_table(grid, 32, x.device),
            dtype=torch.float32,
            attend=choose("sdpa"),
        )
        return cross.mix(x, context)

    with torch.no_grad():
        assert torch.equal(ask((2, 2, 3)), ask((1, 3, 4)))
