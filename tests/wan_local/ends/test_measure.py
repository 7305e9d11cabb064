"""The ends report against scikit-image, and against what the numbers must mean."""

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


def test_figures_are_those_of_scikit_image() -> None:
    color, metrics = (pytest.importorskip(f"skimage.{name}") for name in ("color", "metrics"))
    a, b = images(40, 30)
    p, q = a.double().numpy(), b.double().numpy()
    published = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}  # Wang et al. 2004
    wanted = metrics.structural_similarity(p, q, data_range=1.0, channel_axis=0, **published)
    assert ends.ssim(a, b) == pytest.approx(wanted, abs=1e-9)
    assert ends.psnr(a, b) == pytest.approx(metrics.peak_signal_noise_ratio(p, q, data_range=1.0), abs=1e-9)
    labs = [color.rgb2lab(image, channel_axis=0) for image in (p, q)]  # of a matrix with two digits more
    assert ends.colour_difference(a, b) == pytest.approx(color.deltaE_cie76(*labs, channel_axis=0).mean(), abs=2e-3)


def test_lab_of_every_kind_of_colour() -> None:
    color = pytest.importorskip("skimage.color")
    axis = torch.linspace(0, 1, 9)
    colours = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).flatten(2)  # [3, 9, 81]
    lab = color.rgb2lab(colours.permute(1, 2, 0).double().numpy())
    lengths = np.linalg.norm(lab, axis=-1).mean()
    assert ends.colour_difference(colours, torch.zeros_like(colours)) == pytest.approx(lengths, rel=1e-3)


def test_ssim_of_the_same_and_of_the_opposite() -> None:
    a, _ = images()
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
    even = ends.report(fade(), {0: a, 8: b})
    assert even.jitter == pytest.approx(0, abs=1e-4)
    assert even.jump == pytest.approx(1, abs=1e-3)
    assert even.first.psnr > 100
    assert even.last.psnr > 100

    flash = fade()
    flash[5] = 1.0
    uneven = ends.report(flash, {0: a, 8: b})
    assert uneven.jitter > 1
    assert uneven.jump > 3
    assert uneven.jump_at in (5, 6)

    still = ends.report(a.permute(1, 2, 0).expand(5, -1, -1, -1), {0: a, 4: a})
    assert (still.jitter, still.jump) == (0.0, 1.0)


def test_ends_are_told_apart() -> None:
    a, b = images()
    right, swapped = ends.report(fade(), {0: a, 8: b}), ends.report(fade(), {0: b, 8: a})
    assert right.first.psnr > swapped.first.psnr + 20
    assert right.last.ssim > swapped.last.ssim


def test_report_is_one_line_with_all_figures() -> None:
    a, b = images()
    line = str(ends.report(fade(), {0: a, 8: b}))
    assert "\n" not in line
    for word in ("first", "last", "dB", "SSIM", "dE76", "jitter", "jump"):
        assert word in line


def test_inputs_of_another_size_are_fitted() -> None:
    frames = torch.full((5, 32, 32, 3), 0.5)
    report = ends.report(frames, {0: torch.full((3, 100, 70), 0.5), 4: torch.full((3, 9, 9), 0.5)})
    assert report.first.psnr > 100
    assert report.last.psnr > 100
    with pytest.raises(InputError, match="at least one frame"):
        ends.report(frames[:0], {})
