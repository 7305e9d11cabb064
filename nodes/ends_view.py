"""What the editor shows of a clip's ends: figures, and pairs of a given image and the frame that stands for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..wan_local import ends
from ..wan_local.errors import WanError
from ..wan_local.images import fit_image
from ..wan_local.settings import Fit
from . import host

KEY = "wan_flf2v_ends"  # of a node's ``ui``
MOST = 8  # pairs; each is two images on disk


def entry(frames: Tensor, images: Mapping[int, Tensor], fit: Fit, report: ends.Report) -> dict[str, Any]:
    """One clip's, for the list at :data:`KEY`.

    Args:
        frames: ``[F, H, W, 3]`` 0..1, as the node gives them.
        images: frame, from 0, to the image ``[3, H0, W0]`` that was given for it.
        fit: how images of another size were fitted.
        report: of these frames and images.
    """
    height, width = frames.shape[1:3]
    shown = list(report.matches)[:MOST]
    pairs = [
        {
            "frame": at,
            "image": host.temporary_image(fit_image(images[at], width, height, fit).movedim(0, -1)),
            "shown": host.temporary_image(frames[at]),
        }
        for at in shown
    ]
    return {**_finite(report.as_json()), "pairs": pairs}


def of_clip(
    frames: Tensor, images: Mapping[int, Tensor], fit: Fit, report: ends.Report | None = None
) -> list[dict[str, Any]]:
    """The same of frames that may not be measured yet; none where it can't be, since the clip itself is made."""
    try:
        return [entry(frames, images, fit, report or ends.report(frames, images, fit))]
    except (OSError, WanError) as error:
        host.log.warning("the ends of the clip are not shown: %s", error)
        return []


def _finite(value: Any) -> Any:
    """Without NaN, which a page can't read."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
