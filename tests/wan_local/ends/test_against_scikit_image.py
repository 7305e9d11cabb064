"""The measures against those of scikit-image, where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.wan_local.ends.test_measure import images
from wan_local import ends

REASON = "scikit-image is not installed; the same formulas are written out by hand in test_measure.py"
skimage_metrics = pytest.importorskip("skimage.metrics", reason=REASON)
skimage_color = pytest.importorskip("skimage.color", reason=REASON)


@pytest.mark.parametrize("size", [(17, 15), (48, 64)])
def test_psnr_ssim_and_colour_are_those_of_scikit_image(size: tuple[int, int]) -> None:
    a, b = images(*size)
    ours = ends.match(a, b)
    p, q = (image.permute(1, 2, 0).double().numpy() for image in (a, b))
    psnr = skimage_metrics.peak_signal_noise_ratio(p, q, data_range=1.0)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    _, each = skimage_metrics.structural_similarity(p, q, channel_axis=2, full=True, **options)
    ssim = each[5:-5, 5:-5].mean()  # windows inside the image alone
    colour = skimage_color.deltaE_cie76(skimage_color.rgb2lab(p), skimage_color.rgb2lab(q)).mean()
    print(f"PSNR {ours.psnr - psnr:.1e}, SSIM {ours.ssim - ssim:.1e}, dE76 {ours.colour - colour:.1e} apart")
    assert ours.psnr == pytest.approx(psnr, abs=1e-4)
    assert ours.ssim == pytest.approx(ssim, abs=1e-6)
    assert ours.colour == pytest.approx(colour, rel=1e-3)  # the white of D65 is rounded elsewhere


def test_lab_of_every_kind_of_colour() -> None:
    axis = torch.linspace(0, 1, 9)
    colours = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).flatten(2)  # [3, 9, 81]
    lab = skimage_color.rgb2lab(colours.permute(1, 2, 0).double().numpy())
    lengths = np.linalg.norm(lab, axis=-1).mean()
    assert ends.colour_difference(colours, torch.zeros_like(colours)) == pytest.approx(lengths, rel=1e-3)
