"""Tokens of chosen frames in front: an order that nothing but the order depends on."""

from __future__ import annotations

import pytest
import torch

from wan_local.attention import Sparse
from wan_local.model import sequence
from wan_local.model.token_order import TokenOrder


def test_frames_come_to_the_front_and_go_back() -> None:
    order = TokenOrder((5, 2, 3), [4, 0])
    rows = torch.arange(30).view(1, 30, 1)
    frames = order.put(rows, dim=1).view(5, 6)[:, 0] // 6
    assert frames.tolist() == [0, 4, 1, 2, 3]
    assert order.front == 12
    assert torch.equal(order.undo(order.put(rows, dim=1), dim=1), rows)
    assert torch.equal(order.undo(order.put(rows[0], dim=0), dim=0), rows[0])


@pytest.mark.parametrize("first", [(), (0,), (0, 1, 2), range(5)])
def test_an_order_that_is_there_already_copies_nothing(first) -> None:
    rows = torch.arange(30).view(1, 30, 1)
    order = TokenOrder((5, 2, 3), first)
    assert order.put(rows, dim=1) is rows
    assert order.undo(rows, dim=1) is rows
    assert order.front == 6 * len(first)


@pytest.mark.parametrize("given", [(0, 3), (2,), (1, 3)])
def test_the_order_changes_no_velocity(lab, monkeypatch: pytest.MonkeyPatch, given) -> None:
    """All of the model on moved tokens, its attention dense; without the moved rotations it must be far off."""
    monkeypatch.setattr("wan_local.model.transformer.SparseAttention", lambda exact, tau, front: exact)
    model = lab.build(lab.tiny("flf", num_layers=2))
    asked = lab.inputs(model.config, size=(4, 4, 6), text_rows=5)
    sparse, inputs = Sparse(tau=1.0, min_tokens=0, given=given), vars(asked).values()
    with torch.no_grad():
        dense = model(*inputs)
        assert lab.errors(model(*inputs, sparse=sparse), dense)[1] < 1e-6

        class Unturned(sequence.Whole):
            """Rotations stay where they were."""

            def shard(self, rows, dim):
                return rows if dim else TokenOrder((4, 2, 3), given).undo(rows, dim=0)

        assert lab.errors(model(*inputs, Unturned(), sparse=sparse), dense)[1] > 1e-2
