"""Peak memory of a streamed decode, in a process of its own: ``python -m benchmarks.decode_memory FRAMES``.

Prints the peak of the process in bytes and what it was before the decode; what it decodes is dropped at once, as a
video writer would.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from wan_local.config import VAEConfig
from wan_local.shapes import Grid
from wan_local.vae import WanVAE

CONFIG = VAEConfig(dim=32)
HEIGHT, WIDTH = 256, 256


@torch.inference_mode()
def main() -> None:
    grid = Grid(frames=int(sys.argv[1]), height=HEIGHT, width=WIDTH)
    torch.manual_seed(0)
    vae = WanVAE(CONFIG).eval()
    latents = torch.randn(1, CONFIG.z_dim, *grid.latent_shape)
    before = peak()
    for chunk in vae.decode_stream(latents):
        del chunk
    print(peak(), before)


def peak() -> int:
    """Largest resident size of this process so far, bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would start at the peak of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
