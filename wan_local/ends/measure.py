"""How well one image matches another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 11  # pixels across the SSIM window
WINDOW_SIGMA = 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # of a range of 1
# Linear sRGB to CIE XYZ, and its white (D65, 2 degrees). IEC 61966-2-1.
XYZ_FROM_RGB = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
WHITE = (0.9505, 1.0, 1.089)


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """How well one frame matches one image.

    Attributes:
        psnr: dB over all pixels and channels; infinite where they are equal.
        ssim: structural similarity, -1..1; see :func:`ssim`.
        colour: mean CIE76 colour difference (Delta E in Lab); about 2.3 is just noticeable.
    """

    psnr: float
    ssim: float
    colour: float

    def __str__(self) -> str:
        return f"{self.psnr:.1f} dB, SSIM {self.ssim:.3f}, dE76 {self.colour:.1f}"


def match(image: Tensor, reference: Tensor) -> Match:
    """Both ``[3, H, W]`` 0..1, of one size."""
    image, reference = image.cpu().float(), reference.cpu().float()
    return Match(psnr=psnr(image, reference), ssim=ssim(image, reference), colour=colour_difference(image, reference))


def psnr(image: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of any two tensors of one shape, 0..1."""
    error = (image.double() - reference.double()).square().mean().item()
    return -10.0 * math.log10(error) if error > 0 else math.inf


def ssim(image: Tensor, reference: Tensor) -> float:
    """Mean structural similarity of two images ``[3, H, W]`` 0..1.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity": an 11 x 11 Gaussian
    window of sigma 1.5, K1 = 0.01, K2 = 0.03, weighted (biased) variances, only windows that lie whole inside the
    image, each channel by itself. An image smaller than the window gets the largest odd window that fits.
    """
    size = min(WINDOW, *image.shape[1:])
    size -= 1 - size % 2
    at = torch.arange(size, dtype=torch.float64) - size // 2
    bell = torch.exp(-at.square() / (2 * WINDOW_SIGMA**2))
    bell = bell / bell.sum()

    def blur(x: Tensor) -> Tensor:  # [3, H, W] -> [3, H - 10, W - 10]
        x = F.conv2d(x[:, None], bell.view(1, 1, -1, 1))
        return F.conv2d(x, bell.view(1, 1, 1, -1))[:, 0]

    a, b = image.double(), reference.double()
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a.square(), blur(b * b) - mean_b.square()
    covariance = blur(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + SSIM_C1) / (mean_a.square() + mean_b.square() + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (var_a + var_b + SSIM_C2)
    return (likeness * structure).mean().item()


def colour_difference(image: Tensor, reference: Tensor) -> float:
    """Mean CIE76 Delta E over all pixels of two images ``[3, H, W]`` 0..1 (sRGB)."""
    return torch.linalg.vector_norm(_lab(image) - _lab(reference), dim=0).mean().item()


def _lab(image: Tensor) -> Tensor:
    """sRGB ``[3, H, W]`` 0..1 to CIE L*a*b* (L 0..100), D65. IEC 61966-2-1 and CIE 15."""
    rgb = image.double()
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055).pow(2.4))
    xyz = torch.einsum("xc,chw->xhw", torch.tensor(XYZ_FROM_RGB, dtype=torch.float64), linear)
    ratio = xyz / torch.tensor(WHITE, dtype=torch.float64).view(3, 1, 1)
    knee = 6 / 29
    x, y, z = torch.where(ratio > knee**3, ratio.clamp(min=0).pow(1 / 3), ratio / (3 * knee**2) + 4 / 29)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])
