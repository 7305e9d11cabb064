"""The Wan-VAE against diffusers' on shared random weights, and the properties that make streaming safe."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan

from wan_local.config import WAN_VAE, VAEConfig
from wan_local.errors import InputError
from wan_local.vae import WanVAE

sys.path.append(str(Path(__file__).parent))  # the oracle lies beside this file
from vae_names import to_official

BOUND = 1e-5
SIZES = [(1, 1, 48, 64), (1, 5, 64, 48), (2, 9, 32, 48), (1, 13, 48, 32), (2, 17, 32, 32), (1, 33, 32, 48)]


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.fixture(scope="module")
def pair() -> tuple[WanVAE, AutoencoderKLWan]:
    torch.manual_seed(3)
    theirs = AutoencoderKLWan(base_dim=8).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            # Sharp enough that a wrong frame, tap or scale shows; diffusers' own start hides attention (zero).
            parameter.copy_(torch.rand_like(parameter) + 0.5 if "gamma" in name else parameter * 2)
            if parameter.ndim == 1:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    ours = WanVAE(VAEConfig(dim=8)).eval()
    ours.load_state_dict(to_official(theirs.state_dict()))
    return ours, theirs


@pytest.mark.parametrize(("batch", "frames", "height", "width"), SIZES)
@torch.no_grad()
def test_encode_equals_diffusers(pair, batch, frames, height, width):
    ours, theirs = pair
    video = torch.rand(batch, 3, frames, height, width) * 2 - 1
    expected = theirs.encode(video).latent_dist.mean
    error = relative_error(ours.encode(video), expected)
    print(f"VAE encode {batch}x{frames}x{height}x{width}: relative error {error:.2e}")
    assert error <= BOUND


@pytest.mark.parametrize(("batch", "frames", "height", "width"), SIZES)
@torch.no_grad()
def test_decode_equals_diffusers(pair, batch, frames, height, width):
    ours, theirs = pair
    latents = torch.randn(batch, 16, (frames - 1) // 4 + 1, height // 8, width // 8)
    expected = theirs.decode(latents).sample
    assert expected.shape == (batch, 3, frames, height, width)
    error = relative_error(ours.decode(latents), expected)
    print(f"VAE decode {batch}x{frames}x{height}x{width}: relative error {error:.2e}")
    assert error <= BOUND


@torch.no_grad()
def test_released_sizes_have_the_official_names_and_shapes():
    with torch.device("meta"):
        ours, theirs = WanVAE(WAN_VAE), AutoencoderKLWan()
    expected = {name: tuple(p.shape) for name, p in to_official(theirs.state_dict()).items()}
    assert {name: tuple(p.shape) for name, p in ours.state_dict().items()} == expected
    assert list(WAN_VAE.latents_mean) == theirs.config.latents_mean
    assert list(WAN_VAE.latents_std) == theirs.config.latents_std


@torch.no_grad()
def test_streamed_equals_whole(pair):
    ours, _ = pair
    latents = torch.randn(1, 16, 6, 4, 6)
    chunks = list(ours.decode_stream(latents))
    assert [chunk.shape[2] for chunk in chunks] == [1, 4, 4, 4, 4, 4]
    assert torch.equal(torch.cat(chunks, dim=2), ours.decode(latents))
    whole = ours.decode_whole(latents).clamp(-1, 1)
    error = relative_error(torch.cat(chunks, dim=2), whole)
    video = torch.rand(1, 3, 21, 32, 48) * 2 - 1
    encode_error = relative_error(ours.encode(video), ours.encode_moments(video)[0])
    print(f"streamed against one pass: decode {error:.2e}, encode {encode_error:.2e}")
    assert max(error, encode_error) <= BOUND


@pytest.mark.parametrize("pace", [2, 3])
@torch.no_grad()
def test_several_latents_at_once_give_the_same_frames(pair, pace):
    """Up to rounding, for kernels of other lengths add in another order; what comes is cut as ever."""
    ours, _ = pair
    latents = torch.randn(2, 16, 6, 4, 6)
    one, several = (list(ours.decode_stream(latents, at_once)) for at_once in (1, pace))
    assert [chunk.shape for chunk in several] == [chunk.shape for chunk in one]
    error = relative_error(torch.cat(several, dim=2), torch.cat(one, dim=2))
    print(f"{pace} latents at once against one: relative error {error:.2e}")
    assert error <= BOUND


@torch.no_grad()
def test_no_frame_depends_on_a_later_one(pair):
    ours, _ = pair
    video = torch.rand(1, 3, 13, 32, 32) * 2 - 1
    full = ours.encode(video)
    for frames in (1, 5, 9):
        part = ours.encode(video[:, :, :frames])
        assert relative_error(part, full[:, :, : part.shape[2]]) <= 1e-6
    latents = torch.randn(1, 16, 4, 4, 4)
    changed = latents.clone()
    changed[:, :, 3] += 1.0
    before, after = ours.decode(latents), ours.decode(changed)
    assert torch.equal(before[:, :, :9], after[:, :, :9])
    assert not torch.allclose(before[:, :, 9:], after[:, :, 9:])


@torch.no_grad()
def test_history_reaches_across_every_chunk(pair):
    """A stream that forgets a frame shows as a change of light some frames after a cut."""
    ours, _ = pair
    video = torch.rand(1, 3, 17, 32, 32) * 2 - 1
    changed = video.clone()
    changed[:, :, 4] += 0.5  # the frame before a cut
    difference = (ours.encode(video) - ours.encode(changed)).abs().amax((0, 1, 3, 4))
    assert difference[0] == 0
    assert (difference[1:] > 1e-4).all()


@torch.no_grad()
def test_two_clips_in_turn_do_not_share_history(pair):
    ours, _ = pair
    latents, other = torch.randn(1, 16, 3, 4, 4), torch.randn(1, 16, 3, 4, 4)
    expected = ours.decode(latents)
    first, second = ours.decode_stream(latents), ours.decode_stream(other)
    mixed = []
    for _ in range(3):
        mixed.append(next(first))
        next(second)
    assert torch.equal(torch.cat(mixed, dim=2), expected)


@torch.no_grad()
def test_host_operations_get_the_same_result(pair):
    """Foreign layer classes take the general way through the first frame, torch's own the short one."""
    ours, _ = pair

    class Operations:
        class Conv2d(torch.nn.Conv2d):
            pass

        class Conv3d(torch.nn.Conv3d):
            pass

    other = WanVAE(VAEConfig(dim=8), operations=Operations).eval()
    other.load_state_dict(ours.state_dict())
    video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    latents = ours.encode(video)
    assert relative_error(other.encode(video), latents) <= BOUND
    assert relative_error(other.decode(latents), ours.decode(latents)) <= BOUND


def test_normalise_and_back():
    vae = WanVAE(VAEConfig(dim=8))
    latents = torch.randn(2, 16, 3, 4, 4)
    expected = AutoencoderKLWan(base_dim=8).config
    normalised = vae.normalise(latents)
    for channel in range(16):
        mean, std = expected.latents_mean[channel], expected.latents_std[channel]
        assert torch.allclose(normalised[:, channel], (latents[:, channel] - mean) / std, atol=1e-6)
    assert torch.allclose(vae.denormalise(normalised), latents, atol=1e-5)


def test_sizes_it_would_silently_cut_are_refused():
    vae = WanVAE(VAEConfig(dim=8))
    with pytest.raises(InputError, match="length=80 is not 4n\\+1; use 77 or 81"):
        vae.encode(torch.zeros(1, 3, 80, 16, 16))
    with pytest.raises(InputError, match="width=20 is not a multiple of 8"):
        vae.encode(torch.zeros(1, 3, 5, 16, 20))
    with pytest.raises(InputError, match="latents have shape"):
        vae.decode(torch.zeros(1, 4, 2, 4, 4))
