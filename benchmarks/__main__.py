"""``python -m benchmarks``: ours beside diffusers. ``python -m benchmarks gpu``: what a GPU does with our sizes."""

from __future__ import annotations

import sys

if sys.argv[1:2] == ["gpu"]:
    from .gpu.run import main as gpu

    sys.exit(gpu(sys.argv[2:]))

from .beside_diffusers import main  # needs diffusers, which a GPU's machine may not have

main()
