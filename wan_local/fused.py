"""What torch has as one kernel on a GPU, in some versions only."""

from __future__ import annotations

import torch

KNOWS_RMS_NORM = hasattr(torch.ops.aten, "_fused_rms_norm")


def has_rms_norm(device: torch.device) -> bool:
    """Whether RMSNorm is one kernel there; without it torch makes float32 copies of its input."""
    return device.type == "cuda" and KNOWS_RMS_NORM
