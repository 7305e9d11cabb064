"""Sparse attention on several GPUs: refused where they pass keys around; the same velocity elsewhere: test_split.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.wan_local.parallel import split_cases as cases
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


def test_it_travels_to_the_ranks() -> None:
    cond = cases.sparse_conds(0, 4)[0]
    chosen = replace(cond.sparse, below=950.0)
    sent = encode(_fields(replace(cond, sparse=chosen)))
    assert _cond(decode(*sent)).sparse == chosen
    assert _cond(decode(*encode(_fields(cases.sparse_conds(0)[0])))).sparse.below == float("inf")
