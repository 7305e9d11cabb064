"""Sparse attention on several GPUs: the same velocity where they share heads, refused where they pass keys around."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.wan_local.parallel import split_cases as cases
from tests.wan_local.parallel.conftest import has_sparse_attention
from wan_local.errors import InputError
from wan_local.parallel.group_model import GroupTransformer, Setup, _fields
from wan_local.parallel.rank_model import _cond
from wan_local.ranks import Pool
from wan_local.ranks.messages import decode, encode

BOUND = 1e-5


@pytest.mark.long
@pytest.mark.skipif(not has_sparse_attention(), reason="needs comfy-kitchen's sol_attn")
def test_tokens_move_before_they_are_shared_out(told) -> None:
    """A clip of an odd number of tokens, so that one GPU has a twin of the last, which is in front of the others."""
    print(f"sparse on 2 GPUs: {told[2]['sparse']:.1e}; dense {told[2]['dense']:.1e}")
    assert told[2]["sparse"] <= BOUND
    assert told[2]["dense"] > 100 * BOUND


def test_a_ring_refuses_it_before_anything_starts(setup: Setup, pool: Pool, monkeypatch) -> None:
    monkeypatch.setattr(GroupTransformer, "start", lambda self: pytest.fail("ranks were started"))
    model = GroupTransformer(replace(setup, ring=2, cfg=1), pool)
    told = r"sparse=1 can't be used with cfg 1 x ulysses 1 x ring 2: .*; set it to 0"
    for ask in (lambda: model.guided_velocity(cases.sparse_conds(0), 4.0), lambda: model.sides(cases.sparse_conds(0))):
        with pytest.raises(InputError, match=told):
            ask()


def test_a_ring_refuses_an_8_bit_kernel_of_a_run(setup: Setup, pool: Pool, monkeypatch) -> None:
    monkeypatch.setattr(GroupTransformer, "start", lambda self: pytest.fail("ranks were started"))
    conds = [replace(cond, sparse=None, attention="sage") for cond in cases.sparse_conds(0)]
    with pytest.raises(InputError, match=r"attention='sage' can't be used with cfg 1 x ulysses 1 x ring 2"):
        GroupTransformer(replace(setup, ring=2, cfg=1), pool).guided_velocity(conds, 4.0)


def test_it_travels_to_the_ranks() -> None:
    cond = cases.sparse_conds(0, 4)[0]
    chosen = replace(cond.sparse, below=950.0)
    sent = encode(_fields(replace(cond, sparse=chosen)))
    assert _cond(decode(*sent)).sparse == chosen
    assert _cond(decode(*encode(_fields(cases.sparse_conds(0)[0])))).sparse.below == float("inf")
