"""Upsampling by four small kernels gives what repeated pixels and the large one give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wan_local.vae.enlarge import convolve_enlarged


class HostConv2d(nn.Conv2d):
    """Of another class than torch's own, as a host's layers are."""


@pytest.mark.parametrize("kind", [nn.Conv2d, HostConv2d])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 12, 1, 5, 7), (2, 12, 3, 1, 4), (1, 12, 2, 2, 6, 3)])
@torch.no_grad()
def test_equal_to_nearest_neighbours_and_the_convolution(
    shape: tuple[int, ...], dtype: torch.dtype, kind: type[nn.Conv2d]
) -> None:
    torch.manual_seed(0)
    conv = kind(12, 6, 3, padding=1).to(dtype)
    x = torch.randn(shape).to(dtype)
    images = x.double().movedim(1, -3).flatten(0, -4)
    weight, bias = conv.weight.double(), conv.bias.double()
    expected = F.conv2d(F.interpolate(images, scale_factor=2.0, mode="nearest-exact"), weight, bias, padding=1)
    found = convolve_enlarged(conv, x)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last) or kind is HostConv2d
    error = (found.double() - expected).abs().max() / expected.abs().max()
    print(f"{kind.__name__} {dtype}: relative error {error:.1e}")
    assert error <= (4e-7 if dtype == torch.float32 else torch.finfo(dtype).eps)


def test_gradients_reach_weights_and_pixels() -> None:
    torch.manual_seed(0)
    gradients = []
    for kind in (nn.Conv2d, HostConv2d):
        conv = kind(4, 2, 3, padding=1)
        conv.load_state_dict({"weight": torch.linspace(-1, 1, 72).view(2, 4, 3, 3), "bias": torch.ones(2)})
        x = torch.linspace(-2, 2, 96).view(1, 4, 2, 3, 4).requires_grad_()
        convolve_enlarged(conv, x).square().sum().backward()
        gradients.append((x.grad, conv.weight.grad, conv.bias.grad))
    for found, expected in zip(*gradients, strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-3)
