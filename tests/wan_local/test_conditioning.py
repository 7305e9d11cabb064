"""The image condition: which frames are known, in which channels, and that their latents are exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_local.conditioning import conditions, known_clip, known_mask
from wan_local.config import VAEConfig
from wan_local.errors import InputError, NumericError
from wan_local.keyframes import both_ends, placed
from wan_local.memory import FittingVAE
from wan_local.shapes import Grid
from wan_local.vae import WanVAE

# One row a channel, one column a latent frame. F = 5 and 33 in full; longer ones by their number of zeros between.
KNOWN_5 = [[1, 0], [1, 0], [1, 0], [1, 1]]
KNOWN_33 = [
    [1, 0, 0, 0, 0, 0, 0, 0, 0],
    [1, 0, 0, 0, 0, 0, 0, 0, 0],
    [1, 0, 0, 0, 0, 0, 0, 0, 0],
    [1, 0, 0, 0, 0, 0, 0, 0, 1],
]
TABLES = {
    1: [[1], [1], [1], [1]],
    5: KNOWN_5,
    33: KNOWN_33,
    81: [[1] + [0] * 20] * 3 + [[1] + [0] * 19 + [1]],
    121: [[1] + [0] * 30] * 3 + [[1] + [0] * 29 + [1]],
}


def official_mask(frames: int, height: int, width: int) -> torch.Tensor:
    """The official lines, with their 81 replaced by the number of frames."""
    mask = torch.ones(1, frames, height, width)
    mask[:, 1:-1] = 0
    mask = torch.concat([torch.repeat_interleave(mask[:, 0:1], repeats=4, dim=1), mask[:, 1:]], dim=1)
    return mask.view(1, mask.shape[1] // 4, 4, height, width).transpose(1, 2)


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    torch.manual_seed(0)
    return WanVAE(VAEConfig(dim=4, num_res_blocks=1)).eval()


def first_last(vae: WanVAE, first: torch.Tensor, last: torch.Tensor, grid: Grid, **how: Any) -> torch.Tensor:
    return conditions(FittingVAE(vae), placed(both_ends(first, last), grid.frames), grid, **how).each


def noise(height: int, width: int, seed: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("frames", "table"), TABLES.items())
def test_mask_equals_the_written_out_table(frames: int, table: list[list[int]]) -> None:
    mask = known_mask(Grid(frames=frames, height=32, width=48))
    assert mask.shape == (1, 4, len(table[0]), 4, 6)
    assert mask.dtype == torch.float32
    for y, x in ((0, 0), (3, 5), (1, 4)):
        assert mask[0, :, :, y, x].tolist() == table


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(1, 5), st.integers(1, 5))
def test_mask_of_any_legal_size_is_the_official_one(n: int, rows: int, columns: int) -> None:
    grid = Grid(frames=4 * n + 1, height=16 * rows, width=16 * columns)
    mask = known_mask(grid)
    written_out = [[1.0 if t == 0 or (t == n and channel == 3) else 0.0 for t in range(n + 1)] for channel in range(4)]
    assert mask[0, :, :, 0, 0].tolist() == written_out
    if n:
        assert torch.equal(mask, official_mask(grid.frames, 2 * rows, 2 * columns))


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_condition_of_any_legal_size_has_a_latent_for_each_mask_cell(n: int, rows: int, columns: int) -> None:
    torch.manual_seed(0)
    vae = WanVAE(VAEConfig(dim=2, num_res_blocks=1)).eval()
    grid = Grid(frames=4 * n + 1, height=16 * rows, width=16 * columns)
    condition = first_last(vae, noise(20, 30, 1), noise(9, 7, 2), grid)
    assert condition.shape == (1, 20, n + 1, 2 * rows, 2 * columns)
    assert torch.equal(condition[:, :4], known_mask(grid))
    assert vae.decode(vae.denormalise(condition[:, 4:])).shape[2] == grid.frames  # F in, F out


def test_unknown_frames_are_mid_grey() -> None:
    first, last = noise(32, 48, 1), noise(32, 48, 2)
    clip = known_clip({0: first, -1: last}, Grid(frames=9, height=32, width=48))
    assert clip.shape == (1, 3, 9, 32, 48)
    assert torch.equal(clip[0, :, 0], first * 2 - 1)
    assert torch.equal(clip[0, :, -1], last * 2 - 1)
    assert clip[:, :, 1:-1].abs().max() == 0  # 0 of -1..1


def test_any_frame_can_be_known() -> None:
    grid, middle = Grid(frames=9, height=32, width=48), torch.ones(3, 32, 48)
    clip = known_clip({4: middle}, grid)
    assert torch.equal(clip[0, :, 4], middle)
    assert clip.abs().sum() == middle.sum()


def test_condition_equals_the_official_steps(vae: WanVAE) -> None:
    """Mask first, then the mean of the latents of the whole clip, normalised."""
    first, last = noise(40, 56, 1), noise(40, 56, 2)
    clip = torch.zeros(1, 3, 17, 48, 64)
    for index, image in ((0, first), (-1, last)):
        signed = image.clone().sub_(0.5).div_(0.5)
        clip[0, :, index] = torch.nn.functional.interpolate(signed[None], size=(48, 64), mode="bicubic")[0]
    with torch.no_grad():
        raw = vae.encode(clip)
    mean, std = (torch.tensor(values).view(1, 16, 1, 1, 1)
                 for values in (vae.config.latents_mean, vae.config.latents_std))  # fmt: skip
    expected = torch.cat([official_mask(17, 6, 8), (raw - mean) / std], dim=1)
    ours = first_last(vae, first, last, Grid(frames=17, height=48, width=64), fit="stretch")
    error = ((ours - expected).norm() / expected.norm()).item()
    print(f"condition against the official steps written out: relative error {error:.1e}")
    assert error <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_vae_encodes_in_float32(vae: WanVAE, dtype: torch.dtype) -> None:
    first, last = noise(32, 32, 1), noise(32, 32, 2)
    grid = Grid(frames=9, height=32, width=32)
    half = WanVAE(vae.config).eval()
    half.load_state_dict(vae.state_dict())
    half = half.to(dtype)
    same_weights = WanVAE(vae.config).eval()
    same_weights.load_state_dict(half.state_dict())  # raised: the same values in float32
    condition = first_last(half, first, last, grid)
    assert condition.dtype == torch.float32
    assert torch.equal(condition, first_last(same_weights, first, last, grid))
    assert all(parameter.dtype == dtype for parameter in half.parameters())  # left as it was
    with torch.no_grad():
        worse = half.normalise(half.encode(known_clip({0: first, -1: last}, grid).to(dtype))).float()
    error = ((worse - condition[:, 4:]).norm() / condition[:, 4:].norm()).item()
    print(f"what an encode in {dtype} would have cost: relative error {error:.1e}")
    assert error > 1e-4


def test_swapped_images_give_another_condition(vae: WanVAE) -> None:
    first, last = noise(32, 32, 1), noise(32, 32, 2)
    grid = Grid(frames=9, height=32, width=32)
    there, back = first_last(vae, first, last, grid), first_last(vae, last, first, grid)
    assert torch.equal(there[:, :4], back[:, :4])
    assert not torch.allclose(there[:, 4:, 0], back[:, 4:, 0], atol=1e-3)
    assert not torch.allclose(there[:, 4:, -1], back[:, 4:, -1], atol=1e-3)


def test_last_image_of_another_size_is_resized_not_only_cut() -> None:
    """The official code computes the ratio and then only crops: an image twice as large shows a quarter of itself."""
    ramp = torch.linspace(0, 1, 48).expand(3, 32, 48)
    large = torch.linspace(0, 1, 96).expand(3, 64, 96)
    clip = known_clip({0: ramp, -1: large}, Grid(frames=5, height=32, width=48))
    assert (clip[:, :, 0] - clip[:, :, -1]).abs().max() < 0.02  # the same image
    quarter = large[:, 16:48, 24:72] * 2 - 1
    assert (clip[0, :, -1] - quarter).abs().max() > 0.4


def test_one_frame_has_no_room_for_two_images(vae: WanVAE) -> None:
    with pytest.raises(InputError, match="2 images are given and length=1 has room for 1"):
        first_last(vae, noise(16, 16, 1), noise(16, 16, 2), Grid(frames=1, height=16, width=16))


def test_broken_vae_is_named_before_sampling() -> None:
    broken = WanVAE(VAEConfig(dim=2, num_res_blocks=1)).eval()
    torch.nn.init.constant_(broken.conv1.weight, float("nan"))
    with pytest.raises(NumericError, match="VAE encoded the images to NaN"):
        first_last(broken, noise(16, 16, 1), noise(16, 16, 2), Grid(frames=5, height=16, width=16))
