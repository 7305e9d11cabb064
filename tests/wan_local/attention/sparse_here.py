"""Whether this machine has the kernel of sparse attention, which calculates on a CPU too."""

from __future__ import annotations

import pytest
import torch

from wan_local.attention import sparse

HAS_SPARSE = sparse.kernel(torch.device("cpu"))[0] is not None
needs_sparse = pytest.mark.skipif(not HAS_SPARSE, reason="needs comfy-kitchen's sol_attn")
