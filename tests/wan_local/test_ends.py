"""The ends report against computations written out here, and against what the numbers must mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wan_local import ends
from wan_local.errors import InputError


def images(height: int = 17, width: int = 15) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(3, height, width, generator=generator)
    return a, (a + 0.1 * torch.randn(a.shape, generator=generator)).clamp(0, 1)


def ssim_by_hand(a: np.ndarray, b: np.ndarray) -> float:
    """The paper's formula, one window at a time. [3, H, W]"""
    axis = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    weight = np.outer(axis, axis) / np.outer(axis, axis).sum()
    values = []
    for channel in range(3):
        for y in range(a.shape[1] - 10):
            for x in range(a.shape[2] - 10):
                p, q = (image[channel, y : y + 11, x : x + 11] for image in (a, b))
                mp, mq = (weight * p).sum(), (weight * q).sum()
                vp, vq = (weight * (p - mp) ** 2).sum(), (weight * (q - mq) ** 2).sum()
                cov = (weight * (p - mp) * (q - mq)).sum()
                c1, c2 = 0.0001, 0.0009
                values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


def test_ssim_equals_the_formula_written_out() -> None:
    a, b = images()
    ours, theirs = ends.ssim(a, b), ssim_by_hand(a.double().numpy(), b.double().numpy())
    print(f"SSIM {ours:.6f}, by hand {theirs:.6f}, difference {abs(ours - theirs):.1e}")
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert ends.ssim(a, a) == pytest.approx(1.0)
    assert ends.ssim(a, 1 - a) < 0


@pytest.mark.parametrize("size", [(1, 1), (1, 20), (10, 4)])
def test_ssim_of_images_smaller_than_its_window(size: tuple[int, int]) -> None:
    assert ends.ssim(torch.full((3, *size), 0.3), torch.full((3, *size), 0.3)) == pytest.approx(1.0)


def test_psnr_of_a_known_error() -> None:
    a = torch.zeros(3, 8, 8)
    assert ends.psnr(a + 0.1, a) == pytest.approx(20.0, abs=1e-4)
    assert ends.psnr(a, a) == math.inf


# sRGB to Lab under D65, from published tables of the sRGB primaries.
LAB = {
    (255, 0, 0): (53.24, 80.09, 67.20),
    (0, 255, 0): (87.74, -86.18, 83.18),
    (0, 0, 255): (32.30, 79.19, -107.86),
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (128, 128, 128): (53.59, 0.0, 0.0),
}


@pytest.mark.parametrize(("rgb", "lab"), LAB.items())
def test_colour_difference_to_black_is_the_length_in_lab(rgb: tuple[int, ...], lab: tuple[float, ...]) -> None:
    colour = (torch.tensor(rgb) / 255).view(3, 1, 1).expand(3, 4, 4)
    assert ends.colour_difference(colour, torch.zeros(3, 4, 4)) == pytest.approx(math.hypot(*lab), abs=0.05)


def fade(frames: int = 9) -> torch.Tensor:
    a, b = images()
    steps = torch.linspace(0, 1, frames).view(-1, 1, 1, 1)
    return (a * (1 - steps) + b * steps).permute(0, 2, 3, 1)


def test_even_motion_has_no_jitter_and_a_flash_has() -> None:
    a, b = images()
    even = ends.report(fade(), a, b)
    assert even.jitter == pytest.approx(0, abs=1e-4)
    assert even.jump == pytest.approx(1, abs=1e-3)
    assert even.first.psnr > 100
    assert even.last.psnr > 100

    flash = fade()
    flash[5] = 1.0
    uneven = ends.report(flash, a, b)
    assert uneven.jitter > 1
    assert uneven.jump > 3
    assert uneven.jump_at in (5, 6)

    still = ends.report(a.permute(1, 2, 0).expand(5, -1, -1, -1), a, a)
    assert (still.jitter, still.jump) == (0.0, 1.0)


def test_ends_are_told_apart() -> None:
    a, b = images()
    right, swapped = ends.report(fade(), a, b), ends.report(fade(), b, a)
    assert right.first.psnr > swapped.first.psnr + 20
    assert right.last.ssim > swapped.last.ssim


def test_report_is_one_line_with_all_figures() -> None:
    a, b = images()
    line = str(ends.report(fade(), a, b))
    assert "\n" not in line
    for word in ("first", "last", "dB", "SSIM", "dE76", "jitter", "jump"):
        assert word in line


def test_inputs_of_another_size_are_fitted() -> None:
    frames = torch.full((5, 32, 32, 3), 0.5)
    report = ends.report(frames, torch.full((3, 100, 70), 0.5), torch.full((3, 9, 9), 0.5))
    assert report.first.psnr > 100
    assert report.last.psnr > 100
    with pytest.raises(InputError, match="at least 2 frames"):
        ends.report(frames[:1], frames[0], frames[0])
