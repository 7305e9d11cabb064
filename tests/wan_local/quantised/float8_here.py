"""Whether this machine's torch can multiply fp8 on a CPU, which tests do in the place of a GPU's units."""

from __future__ import annotations

import pytest
import torch


def has_float8_products() -> bool:
    """Torch has them on a CPU from 2.6."""
    one = torch.ones(16, 16, dtype=torch.float8_e4m3fn)
    try:
        torch._scaled_mm(one, one.T, torch.ones(()), torch.ones(()), out_dtype=torch.bfloat16)
    except NotImplementedError:
        return False
    return True


needs_float8_products = pytest.mark.skipif(not has_float8_products(), reason="this torch has no fp8 products on a CPU")
