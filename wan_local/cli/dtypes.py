"""Names of dtypes as options take them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_vae_dtype(group: argparse._ActionsContainer) -> None:
    group.add_argument("--vae-dtype", choices=DTYPES, default="auto",
                       help="of decoding; auto: bfloat16 on a GPU that calculates in it, else float32. Images are "
                            "always encoded in float32")  # fmt: skip


def dtype_of(name: str) -> torch.dtype | None:
    """The dtype, or None for auto."""
    import torch

    return None if name == "auto" else getattr(torch, name)
