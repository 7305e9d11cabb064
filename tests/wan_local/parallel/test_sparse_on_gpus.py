"""Sparse attention on several GPUs: refused where they pass keys around; the same velocity elsewhere: test_split.py."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from tests.wan_local.parallel import split_cases as cases
from wan_local import attention
from wan_local.attention import sparse
from wan_local.errors import InputError
from wan_local.parallel.group_model import GroupTransformer, Setup, _fields
from wan_local.parallel.rank_model import _cond
from wan_local.ranks import Pool
from wan_local.ranks.messages import decode, encode


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


def test_what_this_machine_can_not_do_is_refused_before_anything_starts(setup: Setup, pool: Pool, monkeypatch) -> None:
    """Found by a rank, it would end a group that has its weights; other machines' ranks say what theirs can't."""
    monkeypatch.setattr(attention.sage, "why_not", lambda: "it is not installed")
    monkeypatch.setattr(sparse, "kernel", lambda device: (None, f"not on {device}"))
    model = GroupTransformer(setup, pool, before_run=lambda: pytest.fail("room was made"))
    narrow, wide = model.config, cases.WIDE
    chosen = cases.sparse_conds(0)
    kernel = [replace(cond, sparse=None, attention="sage") for cond in chosen]
    for config, conds, told in (
        (narrow, kernel, "attention='sage' can't be used here: it is not installed"),
        (narrow, chosen, "sparse=1 can't be used here: it is made for heads of width 128, and this model's are 24"),
        (wide, chosen, "sparse=1 can't be used here: not on cpu; set it to 0"),
    ):
        model.config = config
        for ask in (partial(model.guided_velocity, conds, 4.0), partial(model.sides, conds)):
            with pytest.raises(InputError, match=told):
                ask()
    model.setup = replace(setup, ray_address="10.0.0.1:6379")
    with pytest.raises(pytest.fail.Exception, match="room was made"):
        model.guided_velocity(chosen, 4.0)


def test_it_travels_to_the_ranks() -> None:
    cond = cases.sparse_conds(0, 4)[0]
    chosen = replace(cond.sparse, below=950.0)
    sent = encode(_fields(replace(cond, sparse=chosen)))
    assert _cond(decode(*sent)).sparse == chosen
    assert _cond(decode(*encode(_fields(cases.sparse_conds(0)[0])))).sparse.below == float("inf")
