"""A weight file back onto the GPU: as it is stored, and in another dtype."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from wan_local import weights

from .lab import GIB, Lab, kind

BLOCKS = 8


def measure(lab: Lab) -> None:
    model = lab.transformer(torch.float16, layers=2 if lab.toy else BLOCKS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, path)
        size = path.stat().st_size
        del model
        for dtype in (torch.float16, torch.bfloat16):
            lab.clear()
            seconds = lab.timed(partial(weights.load_transformer, path, dtype, lab.device), rounds=1, warm=0)
            lab.tell(
                f"a float16 file as {kind(dtype)}",
                size / seconds / GIB,
                "GB/s",
                seconds=seconds,
                expected={torch.float16: "7.5 on an H100, warm", torch.bfloat16: "3.6 before"}[dtype],
            )
