"""The shares of kernels that ``make bench`` tells: named as torch names its kernels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from benchmarks import shares


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        ("products", lambda x: x @ x),
        ("attention", lambda x: functional.scaled_dot_product_attention(*(x.view(1, 4, 256, 256),) * 3)),
        ("convolutions", lambda x: functional.conv2d(x.view(1, 4, 512, 128), torch.ones(64, 4, 5, 5))),
        ("rest", lambda x: x.sin().exp().cos()),
    ],
)
def test_a_kernel_is_of_its_kind(kind: str, work: object) -> None:
    x = torch.ones(512, 512)
    assert callable(work)
    found = shares.shares(lambda: work(x), "cpu")
    print({name: f"{share:.2f}" for name, share in found.items()})
    assert max(found, key=lambda name: found[name]) == kind
    assert sum(found.values()) == pytest.approx(1)


def test_ratios_follow_from_the_rest_alone() -> None:
    ours = {"products": 0.6, "attention": 0.2, "convolutions": 0.0, "rest": 0.2}
    theirs = {"products": 0.4, "attention": 0.2, "convolutions": 0.0, "rest": 0.4}
    assert shares.ratios(ours, theirs) == pytest.approx((0.75, 0.6))
    assert shares.ratios(ours | {"products": 0.0, "convolutions": 0.6}, theirs) is None
