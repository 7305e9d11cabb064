"""Wide convolutions with fewer multiplications: against torch's in float64, and only where they pay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from wan_local.vae import winograd
from wan_local.vae.causal_conv import causal_conv
from wan_local.vae.stream import Stream

WIDE = 128


def layer(in_dim: int = WIDE, out_dim: int = WIDE, **other: Any) -> nn.Conv3d:
    return nn.Conv3d(in_dim, out_dim, 3, padding=(0, 1, 1), **other)


def clip(*shape: int) -> torch.Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(
    ("in_dim", "out_dim", "shape", "bias"),
    [
        (WIDE, WIDE, (1, 3, 24, 24), True),  # one frame, one block
        (WIDE, 144, (1, 8, 26, 46), True),  # more frames and tiles than are worked on at once, blocks cut short
        (144, WIDE, (2, 4, 23, 17), False),  # odd sides, a batch
        (WIDE, WIDE, (1, 3, 2, 520), True),  # one row of tiles, wider than a block
        (WIDE, WIDE, (1, 4, 300, 1), True),
    ],
)
@torch.no_grad()
def test_what_comes_out_is_what_the_layer_says(
    in_dim: int, out_dim: int, shape: tuple[int, int, int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    conv, x = layer(in_dim, out_dim, bias=bias), clip(shape[0], in_dim, *shape[1:])
    found = winograd.convolve(conv, x, winograd.transformed(conv))
    exact = functional.conv3d(x.double(), conv.weight.double(), conv.bias.double() if bias else None, padding=(0, 1, 1))
    assert found.shape == exact.shape
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert (found - exact).abs().max() < 2e-6 * exact.abs().max()


@torch.no_grad()
def test_a_clip_in_chunks_is_the_clip_and_prepares_its_weights_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[nn.Module] = []
    own = winograd.transformed
    monkeypatch.setattr(winograd, "transformed", lambda conv: prepared.append(conv) or own(conv))
    torch.manual_seed(0)
    conv, x, stream = layer(), clip(1, WIDE, 9, 24, 24), Stream()
    chunks = [causal_conv(conv, part, stream) for part in (x[:, :, :1], *x[:, :, 1:].split(2, dim=2))]
    assert prepared == [conv]
    padded = functional.pad(x, (0, 0, 0, 0, 2, 0))
    assert torch.allclose(torch.cat(chunks, 2), conv(padded), atol=1e-5)
    assert torch.allclose(causal_conv(conv, x, None), conv(padded), atol=1e-5)


class Host(nn.Conv3d):
    """Of another class than torch's own, as a host's layers are."""


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (layer(64, WIDE), (1, 64, 4, 24, 24)),
        (layer(WIDE, 64), (1, WIDE, 4, 24, 24)),
        (layer(), (1, WIDE, 4, 16, 15)),  # too small
        (Host(WIDE, WIDE, 3, padding=(0, 1, 1)), (1, WIDE, 4, 24, 24)),
        (layer(dtype=torch.bfloat16), (1, WIDE, 4, 24, 24)),
        (nn.Conv3d(WIDE, WIDE, (3, 1, 1)), (1, WIDE, 4, 24, 24)),
        (nn.Conv3d(WIDE, WIDE, 3, padding=1), (1, WIDE, 4, 24, 24)),
    ],
)
@torch.no_grad()
def test_others_go_their_own_way(conv: nn.Module, shape: tuple[int, ...]) -> None:
    assert not winograd.pays(conv, torch.empty(shape, dtype=conv.weight.dtype))


def test_where_gradients_are_wanted_and_under_autocast_the_layer_is_called() -> None:
    conv, x = layer(), clip(1, WIDE, 4, 24, 24)
    assert not winograd.pays(conv, x)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert not winograd.pays(conv, x)
    with torch.no_grad():
        assert winograd.pays(conv, x)
