"""What is put around a clip and under a division: zeros and a small number that hardly ever show."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wan_local.config import VAEConfig
from wan_local.vae import WanVAE
from wan_local.vae.blocks import Downsample
from wan_local.vae.causal_conv import causal_conv
from wan_local.vae.norm import ChannelNorm, rms_norm, unit_norm
from wan_local.vae.stream import Stream


class HostConv3d(nn.Conv3d):
    """Of another class than torch's own, as a host's layers are."""


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e-14, 1e-13, 1e-12, 1e-11, 1.0])
def test_short_vectors_are_normed_as_the_official_code_does(scale: float) -> None:
    """``F.normalize(x, dim=1) * sqrt(C) * gamma``: flat black decodes through exact zeros."""
    torch.manual_seed(0)
    norm = ChannelNorm(6, 3)
    nn.init.normal_(norm.gamma)
    x = torch.randn(1, 6, 2, 3, 3) * scale
    expected = F.normalize(x, dim=1) * 6**0.5 * norm.gamma
    assert torch.allclose(norm(x), expected, rtol=1e-5, atol=0)
    assert torch.isfinite(norm(x)).all()


@pytest.mark.parametrize("kind", [nn.Conv3d, HostConv3d])
@pytest.mark.parametrize("chunks", [(1, 1, 1, 1), (1, 4, 4), (2, 3), (9,), (4, 1, 1)])
@torch.no_grad()
def test_zeros_lie_before_a_clip_however_it_is_cut(kind: type[nn.Conv3d], chunks: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv = kind(2, 3, 3, padding=(0, 1, 1))
    x = torch.randn(1, 2, sum(chunks), 4, 5)
    expected = F.conv3d(F.pad(x, (1, 1, 1, 1, 2, 0)), conv.weight, conv.bias)
    stream = Stream()
    streamed = torch.cat([causal_conv(conv, part, stream) for part in x.split(list(chunks), dim=2)], dim=2)
    assert torch.allclose(streamed, expected, atol=1e-5)
    assert torch.allclose(causal_conv(conv, x, None), expected, atol=1e-5)


@torch.no_grad()
def test_zeros_lie_right_and_below_a_frame_that_is_halved() -> None:
    torch.manual_seed(0)
    layer = Downsample(3, False, nn)
    x = torch.randn(1, 3, 2, 6, 8)
    wide = torch.zeros(1, 3, 2, 7, 9)
    wide[..., :6, :8] = x
    expected = torch.stack([layer.resample["1"](frame) for frame in wide.unbind(2)], dim=2)
    assert torch.allclose(layer(x, None), expected, atol=1e-6)


@pytest.mark.parametrize("operations", [nn, type("Host", (), {"Conv2d": nn.Conv2d, "Conv3d": HostConv3d})])
@torch.no_grad()
def test_nothing_becomes_nan(operations: object) -> None:
    """Padding meets every frame and every edge: a single NaN in it would be everywhere."""
    torch.manual_seed(0)
    vae = WanVAE(VAEConfig(dim=4, num_res_blocks=1), operations=operations)
    video = torch.zeros(1, 3, 13, 16, 32)
    latents = vae.encode(video)
    assert torch.isfinite(latents).all()
    assert torch.isfinite(vae.decode(latents)).all()
    assert torch.isfinite(vae.encode_moments(video)[0]).all()
    assert torch.isfinite(vae.decode_whole(latents)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_norm_in_one_kernel_equals_the_steps(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, gamma = torch.randn(4, 5, 96, dtype=torch.float64) * 30, torch.rand(96, dtype=torch.float64)
    x[0, 0] = 0.0  # black: the small number under the root is 0 in float16
    exact = F.normalize(x, dim=-1) * 96**0.5 * gamma
    fused = hasattr(torch.ops.aten, "_fused_rms_norm")  # the one kernel is only used where there is one
    for norm in (rms_norm, unit_norm) if fused else (unit_norm,):
        with torch.no_grad():
            found = norm(x.to(dtype), gamma.to(dtype)).double()
        error = (found - exact).abs().max() / exact.abs().max()
        print(f"{norm.__name__} {dtype}: relative error {error:.1e}")
        assert error <= 3 * torch.finfo(dtype).eps
        assert torch.equal(found[0, 0], torch.zeros(96, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_and_autocast_stay_close_to_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    vae = WanVAE(VAEConfig(dim=8))
    latents = torch.randn(1, 16, 3, 4, 4)
    expected = vae.decode(latents)
    with torch.autocast("cpu", dtype):
        cast = vae.decode(latents)
    half = vae.to(dtype).decode(latents.to(dtype))
    assert half.dtype == dtype
    for found in (cast, half):
        error = (found.float() - expected).abs().max() / expected.abs().max()
        print(f"decode in {dtype}: relative error {error:.1e}")
        assert error <= 12 * torch.finfo(dtype).eps
