"""Convolutions that torch keeps from oneDNN go there all the same, and only those."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from wan_local.vae import onednn


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what oneDNN was given directly."""
    shapes: list[tuple[int, ...]] = []
    own = torch.mkldnn_convolution
    monkeypatch.setattr(torch, "mkldnn_convolution", lambda x, *rest: shapes.append(tuple(x.shape)) or own(x, *rest))
    return shapes


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@torch.no_grad()
def test_a_large_frame_of_few_channels_goes_to_onednn_in_its_memory(asked: list[tuple[int, ...]]) -> None:
    conv = nn.Conv3d(3, 8, 3, padding=(0, 1, 1))
    x = torch.randn(1, 3, 6, 24, 16).contiguous(memory_format=torch.channels_last_3d)
    found = onednn.convolve(conv, x)
    assert asked == [tuple(x.shape)]
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(found, conv(x), atol=1e-5)


class Host(nn.Conv3d):
    """Of another class than torch's own, as a host's layers are."""


@pytest.mark.parametrize(
    ("kind", "shape", "dtype"),
    [
        (nn.Conv3d, (1, 3, 3, 8, 8), torch.float32),  # too small
        (nn.Conv3d, (1, 3, 90, 80, 4), torch.float32),  # torch gives it to oneDNN itself
        (Host, (1, 3, 6, 24, 16), torch.float32),
        (nn.Conv3d, (2, 3, 6, 24, 16), torch.float32),  # and this
        (nn.Conv3d, (1, 3, 6, 24, 16), torch.bfloat16),
    ],
)
def test_others_go_their_own_way(kind: Any, shape: tuple[int, ...], dtype: torch.dtype, asked: list[Any]) -> None:
    conv, x = kind(3, 8, 3, padding=(0, 1, 1)).to(dtype), torch.randn(shape).to(dtype)
    with torch.no_grad():
        onednn.convolve(conv, x)
    assert asked == []


def test_where_gradients_are_wanted_and_under_autocast_the_layer_is_called(asked: list[Any]) -> None:
    conv, x = nn.Conv3d(3, 8, 3, padding=(0, 1, 1)), torch.randn(1, 3, 6, 24, 16)
    onednn.convolve(conv, x).sum().backward()
    assert conv.weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert onednn.convolve(conv, x).dtype == torch.bfloat16
    assert asked == []
